/** Words of the contributor page: days, and what became of results. */

import { percent, words } from '../format.ts';
import type { Book } from './api.ts';

export function day(days: number): string {
  return new Date(days * 86_400_000).toLocaleDateString('en-GB', { day: 'numeric', month: 'short', timeZone: 'UTC' });
}

/** In the order in which they are said: what happened, and what it means. */
export const OUTCOMES: ReadonlyArray<readonly [outcome: string, name: string, note: string]> = [
  ['accepted', 'Accepted', 'paid'],
  ['undone', 'Accepted, then computed again', 'paid; somebody else’s result was wrong'],
  ['not_needed', 'Not needed', 'others were faster'],
  ['late', 'Too late', 'the task had been given to somebody else'],
  ['withdrawn', 'No longer wanted', 'the round began again, or the job was over'],
  ['wrong', 'Refused', 'differs from the checked result'],
  ['broken_commitment', 'Refused', 'not what had been committed to'],
  ['void', 'Not counted', 'another result of the same device was wrong'],
];

/** The two kinds of money, which never meet. */
export const NAMES: Readonly<Record<Book, string>> = { live: 'Real money', test: 'Play money' };

const ENDS: Readonly<Record<string, string>> = {
  stopped: 'Stopped',
  draining: 'The coordinator went down',
  incompatible: 'The page was out of date',
  bad_frame: 'Sent what was not understood',
  out_of_turn: 'Sent what was not understood',
  no_consent: 'Agreed to nothing that counts',
  bad_ticket: 'The site did not take part any more',
  too_slow: 'Too slow to answer',
  full: 'There were too many',
  broken_commitment: 'A result was not what it had committed to',
  traffic_cap: 'The visit had moved its share of bytes',
  excluded: 'A result was wrong',
};

/** Why a session is over; where none was given it simply went. */
export const ended = (reason: string): string => ENDS[reason] ?? (reason === '' ? 'Left' : words(reason));

const KINDS: Readonly<Record<string, string>> = {
  consent: 'Agreed',
  raise: 'Raised',
  change: 'Changed',
  revoke: 'Stopped',
  end: 'Ended',
};

/** What a line of the chain says, e.g. `Raised to 50 % of the processor`. */
export function allocated(line: { readonly kind: string; readonly share: number; readonly cpu: boolean; readonly gpu: boolean }): string {
  const kind = KINDS[line.kind] ?? line.kind;
  if (!line.cpu && !line.gpu) return kind;
  return `${kind}: ${percent(line.share)} of the ${line.gpu ? 'GPU' : 'processor'}`;
}
