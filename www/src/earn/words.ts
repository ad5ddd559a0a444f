/** Words of the contributor page: money, times, and what became of results. */

import { percent } from '../format.ts';

/** Nano-USD as dollars with as many digits as are needed for something to be seen. */
export function usd(nanoUsd: number): string {
  const dollars = nanoUsd / 1e9;
  if (dollars === 0) return '$0';
  const digits = Math.abs(dollars) >= 1 ? 2 : Math.min(9, 2 - Math.floor(Math.log10(Math.abs(dollars))));
  return `$${dollars.toFixed(digits)}`;
}

/** The same for an axis, with a prefix where it is little: `131 n$`. */
export function usdShort(nanoUsd: number): string {
  if (nanoUsd <= 0) return '$0';
  if (nanoUsd >= 1e9) return usd(nanoUsd);
  const [size, prefix] = nanoUsd >= 1e6 ? [1e6, 'm'] : nanoUsd >= 1e3 ? [1e3, 'µ'] : [1, 'n'];
  return `${Number((nanoUsd / size).toPrecision(3))} ${prefix}$`;
}

/** `2026-11-29 08:30` in the reader's zone. */
export function time(rfc3339: string): string {
  const at = new Date(rfc3339);
  if (Number.isNaN(at.getTime())) return '';
  return at.toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' });
}

export function date(rfc3339: string): string {
  const at = new Date(rfc3339);
  return Number.isNaN(at.getTime()) ? '' : at.toLocaleDateString('en-GB', { dateStyle: 'medium' });
}

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
