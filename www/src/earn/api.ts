/** A contributor's own routes, read defensively: a missing number shows as zero, never as a crash. */

import type { Wallet } from './wallet.ts';

export interface Session {
  readonly session: string;
  readonly key: string;
  readonly device: string;
  readonly backend: string;
  readonly share: number;
  readonly opened: string;
  readonly closed: string | undefined;
  readonly reason: string;
}

export interface Allocation {
  readonly number: number;
  readonly at: string;
  readonly session: string;
  readonly kind: string;
  readonly share: number;
  readonly cpu: boolean;
  readonly gpu: boolean;
  readonly hash: string;
}

/** Nano-USD of one book. */
export interface Earnings {
  readonly available: number;
  readonly pending: number;
  /** When it goes to the reserve, if nobody comes for it. */
  readonly expires: string | undefined;
}

export interface Payout {
  readonly address: string;
  /** Nano-USD. */
  readonly threshold: number | undefined;
}

export const BOOKS = ['live', 'test'] as const;
export type Book = (typeof BOOKS)[number];

export interface Own {
  readonly key: string;
  readonly linked: ReadonlyArray<{ readonly key: string; readonly at: string }>;
  readonly sessions: readonly Session[];
  readonly tasks: number;
  readonly calculations: number;
  /** Counts by outcome. */
  readonly results: ReadonlyMap<string, number>;
  readonly earnings: Readonly<Record<Book, Earnings>>;
  /** Days since 1970 and nano-USD, oldest first. */
  readonly earned: Readonly<Record<Book, ReadonlyArray<readonly [day: number, nanoUsd: number]>>>;
  readonly payout: Payout;
  readonly allocations: readonly Allocation[];
}

/** What the coordinator says against a request, in its words. */
export class Refused extends Error {}

type Fields = Readonly<Record<string, unknown>>;

const fields = (value: unknown): Fields => (typeof value === 'object' && value !== null ? (value as Fields) : {});
const number = (value: unknown): number => (typeof value === 'number' && Number.isFinite(value) ? value : 0);
const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const list = (value: unknown): readonly Fields[] => (Array.isArray(value) ? value.map(fields) : []);

async function request(path: string, init: RequestInit): Promise<Fields> {
  const response = await fetch(path, init);
  const body = fields(await response.json().catch(() => undefined));
  if (!response.ok) throw new Refused(text(body.detail) || `${response.status} ${response.statusText}`);
  return body;
}

const post = (path: string, body: object): Promise<Fields> => {
  return request(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
};

async function challenge(wallet: Wallet): Promise<{ readonly nonce: string; readonly origin: string }> {
  const given = await post('/v1/contributors/challenge', { key: wallet.key });
  return { nonce: text(given.nonce), origin: text(given.origin) };
}

/** Shows that the wallet's key is here. Serves for one request. */
async function authorization(wallet: Wallet): Promise<string> {
  const { nonce, origin } = await challenge(wallet);
  const signature = await wallet.sign(`raven contributor 1\n${origin}\n${wallet.key}\n${nonce}`);
  return `Raven-Key ${wallet.key}.${nonce}.${signature}`;
}

function session(value: Fields): Session {
  return {
    session: text(value.session),
    key: text(value.key),
    device: text(value.device),
    backend: text(value.backend),
    share: number(value.share),
    opened: text(value.opened),
    closed: text(value.closed) || undefined,
    reason: text(value.reason),
  };
}

function allocation(value: Fields): Allocation {
  return {
    number: number(value.number),
    at: text(value.at),
    session: text(value.session),
    kind: text(value.kind),
    share: number(value.share_ppm) / 1e6,
    cpu: value.cpu === true,
    gpu: value.gpu === true,
    hash: text(value.hash),
  };
}

function earnings(value: unknown): Earnings {
  const { available_nano_usd, pending_nano_usd, expires } = fields(value);
  return { available: number(available_nano_usd), pending: number(pending_nano_usd), expires: text(expires) || undefined };
}

const DAY_MS = 86_400_000;

/** Reads what the coordinator answers of a key's own. */
export function readOwn(body: Fields): Own {
  const books = fields(body.earnings);
  const work = fields(body.work);
  const payout = fields(body.payout);
  const earned = (book: Book) =>
    list(body.earned)
      .filter((one) => one.book === book)
      .map((one) => [Math.floor(Date.parse(text(one.day)) / DAY_MS) || 0, number(one.nano_usd)] as const);
  return {
    key: text(body.key),
    linked: list(body.linked).map(({ key, at }) => ({ key: text(key), at: text(at) })),
    sessions: list(body.sessions).map(session),
    tasks: number(work.tasks),
    calculations: number(work.calculations),
    results: new Map(Object.entries(fields(body.results)).map(([outcome, count]) => [outcome, number(count)])),
    earnings: { live: earnings(books.live), test: earnings(books.test) },
    earned: { live: earned('live'), test: earned('test') },
    payout: {
      address: text(payout.address),
      threshold: typeof payout.threshold_nano_usd === 'number' ? payout.threshold_nano_usd : undefined,
    },
    allocations: list(body.allocations).map(allocation),
  };
}

export async function own(wallet: Wallet): Promise<Own> {
  const headers = { authorization: await authorization(wallet) };
  return readOwn(await request(`/v1/contributors/${wallet.key}`, { headers }));
}

export async function setPayout(wallet: Wallet, { address, threshold }: Payout): Promise<void> {
  const headers = { authorization: await authorization(wallet), 'content-type': 'application/json' };
  const body = JSON.stringify({ address: address === '' ? null : address, threshold_nano_usd: threshold ?? null });
  await request(`/v1/contributors/${wallet.key}/payout`, { method: 'PUT', headers, body });
}

/** A contributor's word that a wallet may collect for it. */
export interface Claim {
  readonly statement: string;
  readonly signature: string;
}

/** More claims than a link of the frame has. */
const CLAIMS_MAX = 32;

/** The claims of a link's fragment, one for each key that has earned; none where it is not whole. */
export function readClaims(hash: string): readonly Claim[] {
  const coded = /^#claim=([\w-]+)$/.exec(hash)?.[1];
  if (!coded) return [];
  try {
    const parsed: unknown = JSON.parse(atob(coded.replaceAll('-', '+').replaceAll('_', '/')));
    // A link of before is of one key.
    const claims = (Array.isArray(parsed) ? parsed : [parsed]).map(readClaim);
    return claims.length <= CLAIMS_MAX && claims.every((each) => each !== undefined) ? claims : [];
  } catch {
    return [];
  }
}

function readClaim(value: unknown): Claim | undefined {
  const { statement, signature } = fields(value);
  return typeof statement === 'string' && typeof signature === 'string' ? { statement, signature } : undefined;
}

export async function claim(wallet: Wallet, { statement, signature }: Claim): Promise<void> {
  const { nonce, origin } = await challenge(wallet);
  const walletSignature = await wallet.sign(`raven wallet 1\n${origin}\n${nonce}\n${statement}`);
  await post('/v1/contributors/claims', {
    statement, signature, wallet: wallet.key, nonce, wallet_signature: walletSignature,
  });
}
