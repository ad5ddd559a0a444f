/** Times in the reader's zone. */

/** `29 Nov 2026, 08:30`. */
export function time(rfc3339: string): string {
  const at = new Date(rfc3339);
  return Number.isNaN(at.getTime()) ? '' : at.toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' });
}

export function date(rfc3339: string): string {
  const at = new Date(rfc3339);
  return Number.isNaN(at.getTime()) ? '' : at.toLocaleDateString('en-GB', { dateStyle: 'medium' });
}
