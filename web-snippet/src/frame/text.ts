/** The frame's sentences, made from the words of one language. */

import type { Earner, FailureKind, GpuStatus, HubPhase, Results } from '../shared/hub-port.ts';
import { JOB_CATEGORIES, type About, type JobCategory } from '../wire/message.ts';
import type { Queue } from './queue.ts';
import type { Sight } from './gate.ts';
import type { Words } from './language.ts';
import type { PauseReason, View } from './state.ts';
import type { Messages } from './text/en.ts';

type Key = keyof Messages;

const PAUSES: Record<PauseReason, Key> = {
  hidden: 'pausedHidden',
  unseen: 'pausedUnseen',
  battery: 'pausedBattery',
  data_saver: 'pausedSaver',
};

const FAILURES: Record<FailureKind, Key> = {
  kernel_load: 'failedLoad',
  unsupported: 'failedUnsupported',
  incompatible: 'failedIncompatible',
  text_changed: 'failedTextChanged',
  no_consent: 'failedNoConsent',
  bad_ticket: 'failedTicket',
  traffic_cap: 'failedTraffic',
  excluded: 'failedExcluded',
  kernel_crash: 'failedCrash',
  rejected: 'failedRejected',
};

/** In the order in which they are said; others than the first only where there are any. */
const RESULTS: readonly (readonly [keyof Results, Key])[] = [
  ['accepted', 'accepted'],
  ['notNeeded', 'notNeeded'],
  ['late', 'late'],
  ['withdrawn', 'withdrawn'],
  ['wrong', 'wrong'],
];

const KINDS: Record<JobCategory, Key> = {
  vision: 'kindVision',
  language: 'kindLanguage',
  tabular: 'kindTabular',
  science: 'kindScience',
  finance: 'kindFinance',
  other: 'kindOther',
};

/** What keeps the visitor from agreeing, where they can do something about it. */
const SIGHTS: Record<Sight, Key | undefined> = {
  waiting: undefined,
  covered: 'covered',
  cramped: 'cramped',
  unread: 'unread',
  seen: undefined,
};

/** Splits a sentence at its `{places}`: plain parts and the names of places, in order. */
export function parts(sentence: string): readonly ({ readonly text: string } | { readonly place: string })[] {
  const pieces = sentence.split(/\{(\w+)\}/);
  return pieces.map((piece, index) => (index % 2 === 0 ? { text: piece } : { place: piece }));
}

export class Text {
  readonly #words: Words;
  readonly #percent: Intl.NumberFormat;
  readonly #count: Intl.NumberFormat;
  readonly #megabytes: Intl.NumberFormat;
  readonly #list: Intl.ListFormat;
  readonly #usd: Intl.NumberFormat;

  constructor(words: Words) {
    this.#words = words;
    const { language } = words;
    this.#percent = new Intl.NumberFormat(language, { style: 'percent' });
    this.#count = new Intl.NumberFormat(language);
    this.#list = new Intl.ListFormat(language, { type: 'conjunction' });
    // A visit earns millionths; the books end at a billionth.
    this.#usd = new Intl.NumberFormat(language, { style: 'currency', currency: 'USD', maximumFractionDigits: 9 });
    const unit = { style: 'unit', unit: 'megabyte', unitDisplay: 'short' } as const;
    this.#megabytes = new Intl.NumberFormat(language, { ...unit, maximumFractionDigits: 1 });
  }

  get language(): string {
    return this.#words.language;
  }

  /** A sentence as it is, its places unfilled. */
  raw(key: Key): string {
    return this.#words.messages[key];
  }

  fill(key: Key, values: Readonly<Record<string, string>> = {}): string {
    const pieces = parts(this.raw(key));
    return pieces.map((piece) => ('text' in piece ? piece.text : (values[piece.place] ?? ''))).join('');
  }

  /** `share` is a part of one. */
  percent(share: number): string {
    return this.#percent.format(share);
  }

  /** Bytes as megabytes of 10^6, as providers count them. */
  megabytes(bytes: number): string {
    return this.#megabytes.format(bytes / 1e6);
  }

  live(phase: HubPhase, pause: PauseReason | undefined, share: number): string {
    const zero = this.percent(0);
    switch (phase.name) {
      case 'loading':
      case 'connecting':
        return this.fill('starting');
      case 'idle':
        return this.fill('idle', { zero });
      case 'working':
        return this.fill('working', { share: this.percent(share) });
      case 'paused':
        return this.fill(pause ? PAUSES[pause] : 'paused', { zero });
      case 'elsewhere':
        return this.fill('elsewhere', { zero });
      case 'waiting':
        return this.fill(phase.full ? 'waitingFull' : 'waitingLost', { zero });
      case 'failed':
      case 'stopped':
        return this.fill('stopped');
    }
  }

  tasks(tasks: number): string {
    return this.fill('tasks', { count: this.#count.format(tasks) });
  }

  traffic(bytes: number, bytesMax: number): string {
    return this.fill('used', { used: this.megabytes(bytes), cap: this.megabytes(bytesMax) });
  }

  /** What became of the results, once anything was told of them. */
  results(results: Results | undefined): string {
    if (!results) return '';
    const said = RESULTS.filter(([count]) => count === 'accepted' || results[count] > 0);
    return said.map(([count, key]) => this.fill(key, { count: this.#count.format(results[count]) })).join(' · ');
  }

  /** Said where the visitor's tick has an effect at the moment, and where it will have none. */
  gpu(status: GpuStatus | undefined, phase: HubPhase): string {
    if (status === 'none') return this.fill('gpuNone');
    return status === 'on' && phase.name === 'working' ? this.fill('gpuOn') : '';
  }

  /** For whom and what is computed now, once a task has come. */
  about(about: About | undefined, phase: HubPhase): string {
    if (!about || phase.name !== 'working') return '';
    return this.fill('about', { whom: about.requester, what: this.fill(KINDS[about.category]) });
  }

  /** What would be computed now, before anybody agrees; where that is not known, when it will be told. */
  queue(queue: Queue | undefined): string {
    if (!queue) return this.fill('queueLater');
    const { work, more, categories } = queue;
    if (work.length === 0) {
      if (categories.length === 0) return this.fill('queueLater');
      // All of them are named by the switches below.
      if (categories.length === JOB_CATEGORIES.length) return this.fill('queueAny');
      const kinds = categories.map((category) => this.fill(KINDS[category]));
      return this.fill('queueNone', { what: this.#list.format(kinds) });
    }
    const named = work.map(({ requester, category }) => this.fill('queueFor', { whom: requester, what: this.fill(KINDS[category]) }));
    const others = more > 0 ? [this.fill('queueMore', { count: this.#count.format(more) })] : [];
    return this.fill('queueNow', { what: this.#list.format([...named, ...others]) });
  }

  /** Whose the earnings are, once that is known. */
  earner(earner: Earner | undefined, site: string): string {
    if (!earner) return '';
    return earner === 'visitor' ? this.fill('earnsYou') : this.fill('earnsSite', { site });
  }

  /** What a visitor who leaves for good is asked, and what is to be done once the link was opened. */
  leaving({ uncollected, isLinked }: Extract<View, { at: 'leaving' }>, site: string): string {
    if (isLinked) return this.fill('leaveLinked', { site });
    if (!uncollected) return this.fill('leaveUnknown', { site });
    const { live, test } = uncollected;
    const amount = this.#usd.format((live > 0 ? live : test) / 1e9);
    return this.fill('leave', { site, amount: live > 0 ? amount : `${amount} (${this.fill('playMoney')})` });
  }

  over(phase: HubPhase, tasks: number): string {
    if (phase.name === 'failed') return this.fill(FAILURES[phase.failure]);
    return tasks > 0 ? this.fill('thanks', { count: this.#count.format(tasks) }) : this.fill('stopped');
  }

  unavailable(reason: Extract<View, { at: 'unavailable' }>['reason']): string {
    return this.fill(reason === 'insecure' ? 'needsHttps' : 'notEmbedded');
  }

  sight(sight: Sight): string {
    const key = SIGHTS[sight];
    return key ? this.fill(key) : '';
  }
}
