/** Nano-USD for people, and days. */

const NANO = 1_000_000_000;

/** Two digits of a dollar where that says something, as many as are needed below. */
export function usd(nano: number): string {
  if (nano === 0) return '$0';
  const sign = nano < 0 ? '−' : '';
  const size = Math.abs(nano);
  if (size >= 10 * NANO) return `${sign}$${(size / NANO).toLocaleString('en', { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  const exact = (size / NANO).toFixed(9);
  return `${sign}$${exact.replace(/0+$/, '').replace(/\.$/, '')}`;
}

/** The same in the little room beside a chart. */
export function shortUsd(nano: number): string {
  const size = Math.abs(nano);
  if (size >= NANO) return `$${(nano / NANO).toFixed(2)}`;
  if (size >= 1e6) return `${(nano / 1e6).toFixed(1)} m$`;
  if (size >= 1e3) return `${(nano / 1e3).toFixed(1)} µ$`;
  return `${Math.round(nano)} n$`;
}

const DAY_MS = 86_400_000;

/** A day as the API writes it; `back` days before today. */
export function dayBack(back: number): string {
  return new Date(Date.now() - back * DAY_MS).toISOString().slice(0, 10);
}

/** Days since 1970. */
export function dayNumber(day: string): number {
  return Math.round(Date.parse(`${day}T00:00:00Z`) / DAY_MS);
}

export function dayText(number: number): string {
  return new Date(number * DAY_MS).toISOString().slice(5, 10);
}
