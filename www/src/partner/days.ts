/** Days, as the API writes them and as people read them. */

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
