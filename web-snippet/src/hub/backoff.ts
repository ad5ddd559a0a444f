/** How long to wait before the next try: doubling, jittered, bounded. */

const FIRST_MS = 1_000;
/** A visitor who left the page open should not wait longer for work to resume. */
const LONGEST_MS = 60_000;
/** A coordinator that is full or going down is given time. */
const CROWDED_MS = 15_000;

export class Backoff {
  #failures = 0;
  readonly #random: () => number;

  /** @param random numbers in [0, 1), handed in so that tests can choose them. */
  constructor(random: () => number) {
    this.#random = random;
  }

  /**
   * Milliseconds until the next try; a part of it is random, so that a crowd spreads out.
   *
   * @param askedMs what the coordinator asked for: it is never called on before, unless that is unreasonable.
   */
  next(crowded: boolean, askedMs?: number): number {
    const asked = Math.min(LONGEST_MS, askedMs ?? 0);
    const first = crowded && askedMs === undefined ? CROWDED_MS : Math.max(FIRST_MS, asked);
    const whole = Math.min(LONGEST_MS, first * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    return Math.max(whole * 0.5, asked) + whole * 0.5 * this.#random();
  }

  /** After a session that lasted. */
  reset(): void {
    this.#failures = 0;
  }
}
