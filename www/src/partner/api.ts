/** The routes of a key's sites. What is missing in an answer is zero or empty, never a crash. */

import { fields, Keyed, list, number, text, type Fields } from '../parts/refusal.ts';
import { pageOf, readLines, type Lines } from '../parts/statement.tsx';
import { readWithdrawals, tillAt, type Till, type Withdrawals } from '../parts/till.ts';

const texts = (value: unknown): readonly string[] => list(value).filter((each) => typeof each === 'string');

export class Api extends Keyed {
  /** Revoked ones too, behind the others: what they have earned is still their owner's. */
  async sites(): Promise<readonly SiteName[]> {
    return list((await this.ask('GET', '/v1/sites?revoked=true')).sites).map((site) => {
      const from = fields(site);
      return { id: text(from.id), name: text(from.name), state: text(from.state) };
    });
  }

  async site(id: string): Promise<Site> {
    return readSite(await this.ask('GET', `/v1/sites/${id}`));
  }

  async change(id: string, change: unknown): Promise<Site> {
    return readSite(await this.ask('PATCH', `/v1/sites/${id}`, change));
  }

  async earnings(id: string, from: string, to: string): Promise<Earnings> {
    return readEarnings(await this.ask('GET', `/v1/sites/${id}/earnings?from=${from}&to=${to}`));
  }

  async prove(id: string): Promise<Proof> {
    return readProof(await this.ask('POST', `/v1/sites/${id}/prove`, {}));
  }

  async verify(id: string): Promise<readonly Look[]> {
    const { pages } = await this.ask('POST', `/v1/sites/${id}/verify`, {});
    return list(pages).map((page) => {
      const from = fields(page);
      const result = text(from.result);
      return { url: text(from.url), result, detail: text(from.detail) || text(from.found), isGood: result === 'live' };
    });
  }

  async money(id: string): Promise<Money> {
    const [account, withdrawals] = await Promise.all([this.ask('GET', `/v1/sites/${id}/account`), this.ask('GET', `/v1/sites/${id}/withdrawals`)]);
    return { ...readMoney(account), ...readWithdrawals(withdrawals) };
  }

  till(id: string): Till {
    return tillAt(this, `/v1/sites/${id}/withdrawals`);
  }

  async statement(id: string, before: number | undefined): Promise<Lines> {
    return readLines(await this.ask('GET', `/v1/sites/${id}/account/statement${pageOf(before)}`));
  }

  async receipt(id: string, number: number): Promise<Blob> {
    return (await this.send('GET', `/v1/sites/${id}/account/receipts/${number}`)).blob();
  }

  /** Makes what a site has earned its owner's account's. */
  async spend(id: string, nanoUsd: number, reference: string): Promise<void> {
    await this.ask('POST', `/v1/sites/${id}/spend`, { nano_usd: nanoUsd, reference });
  }

  async estimate(spec: unknown): Promise<Estimate> {
    const from = await this.ask('POST', '/v1/estimate', spec);
    return { visitors: number(from.visitors), calculations: number(from.calculations), siteNanoUsd: number(from.site_nano_usd) };
  }
}

export interface SiteName {
  readonly id: string;
  readonly name: string;
  readonly state: string;
}

export interface Origin {
  readonly origin: string;
  /** `proven`, `unproven`, `lapsed` or `test`. */
  readonly state: string;
  readonly earns: boolean;
  readonly by: string;
  readonly fileUrl: string;
}

export interface Day {
  readonly day: string;
  readonly views: number;
  readonly blocked: number;
  /** Cards that came into view; `undefined` where that is not counted. */
  readonly shown: number | undefined;
  readonly yes: number;
  readonly worked: number;
  /** Calculations by what they came to for the site. */
  readonly work: ReadonlyArray<readonly [outcome: string, results: number, flops: number]>;
}

export interface Site extends SiteName {
  readonly siteKey: string;
  readonly paused: boolean;
  readonly refused: readonly string[];
  /** The only kinds of jobs, where they are listed; `null` where all but the refused ones are. `undefined` where there is no such list. */
  readonly allowed: readonly string[] | null | undefined;
  readonly categories: readonly string[];
  readonly origins: readonly Origin[];
  readonly contributors: number;
  readonly snippet: string;
  readonly pinned: string;
  readonly days: readonly Day[];
  readonly caps: { readonly sessions: number; readonly newKeys: number; readonly sharePercent: number };
}

function readSite(from: Fields): Site {
  const caps = fields(from.caps);
  return {
    id: text(from.id),
    name: text(from.name),
    state: text(from.state),
    siteKey: text(from.site_key),
    paused: from.paused === true,
    refused: texts(from.refused_categories),
    allowed: from.allowed_categories === null ? null : Array.isArray(from.allowed_categories) ? texts(from.allowed_categories) : undefined,
    categories: texts(from.categories),
    origins: list(from.origins).map(readOrigin),
    contributors: number(from.contributors_online),
    snippet: text(from.snippet),
    pinned: text(from.snippet_pinned),
    days: list(from.days).map(readDay),
    caps: {
      sessions: number(caps.sessions_per_network_max),
      newKeys: number(caps.new_keys_per_network_hour_max),
      sharePercent: number(caps.network_share_percent),
    },
  };
}

function readOrigin(value: unknown): Origin {
  const from = fields(value);
  return {
    origin: text(from.origin),
    state: text(from.state),
    earns: from.earns === true,
    by: text(from.by),
    fileUrl: text(from.file_url),
  };
}

function readDay(value: unknown): Day {
  const from = fields(value);
  const work = Object.entries(fields(from.work)).map(([outcome, each]) => {
    const { results, flops } = fields(each);
    return [outcome, number(results), number(flops)] as const;
  });
  return {
    day: text(from.day),
    views: number(from.views),
    blocked: number(from.blocked),
    shown: typeof from.shown === 'number' ? from.shown : undefined,
    yes: number(from.yes),
    worked: number(from.worked),
    work,
  };
}

export interface Earnings {
  readonly isPlayMoney: boolean;
  readonly days: ReadonlyArray<{ readonly day: string; readonly available: number; readonly pending: number }>;
}

function readEarnings(from: Fields): Earnings {
  return {
    isPlayMoney: text(from.book) === 'test',
    days: list(from.days).map((value) => {
      const day = fields(value);
      return { day: text(day.day), available: number(day.available_nano_usd), pending: number(day.pending_nano_usd) };
    }),
  };
}

/** What a site has, in the book of its owner's key. Nano-USD. */
export interface Money extends Withdrawals {
  readonly available: number;
  readonly held: number;
  readonly pending: number;
  readonly isPlayMoney: boolean;
  /** What it has earned in the other book, out of the key's reach. */
  readonly elsewhere: number;
}

function readMoney(from: Fields): Omit<Money, keyof Withdrawals> {
  const balance = fields(from.balance);
  const elsewhere = fields(fields(from.elsewhere).balance);
  return {
    available: number(balance.available_nano_usd),
    held: number(balance.held_nano_usd),
    pending: number(balance.pending_nano_usd),
    isPlayMoney: text(from.book) === 'test',
    elsewhere: number(elsewhere.available_nano_usd) + number(elsewhere.pending_nano_usd),
  };
}

/** One place that was looked at. */
export interface Look {
  readonly url: string;
  readonly result: string;
  readonly detail: string;
  readonly isGood: boolean;
}

export interface Proof {
  readonly fileText: string;
  readonly dnsText: string;
  readonly looks: readonly Look[];
}

function readProof(from: Fields): Proof {
  const looks = list(from.origins).flatMap((value) => {
    const { looked } = fields(value);
    const { file_url: fileUrl, file, dns_name: dnsName, dns } = fields(looked);
    const places = [[text(fileUrl), fields(file)], [text(dnsName), fields(dns)]] as const;
    return places
      .filter(([url, found]) => url !== '' && text(found.result) !== 'not_asked')
      .map(([url, found]) => ({ url, result: text(found.result), detail: text(found.detail), isGood: text(found.result) === 'key' }));
  });
  return { fileText: text(from.file_text), dnsText: text(from.dns_text), looks };
}

export interface Estimate {
  readonly visitors: number;
  readonly calculations: number;
  readonly siteNanoUsd: number;
}
