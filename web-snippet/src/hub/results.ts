/** What became of the visit's results, as the coordinator told. */

import type { Results } from '../shared/hub-port.ts';
import type { LeaseOutcome, ResultOutcome } from '../wire/message.ts';

/** Under which count an outcome goes; an `undone` result was counted when it was accepted, and stays paid. */
const COUNTS: Record<ResultOutcome, keyof Results | undefined> = {
  accepted: 'accepted',
  undone: undefined,
  not_needed: 'notNeeded',
  late: 'late',
  withdrawn: 'withdrawn',
  wrong: 'wrong',
  broken_commitment: 'wrong',
  void: 'wrong',
};

export class Tally {
  #counts: Results | undefined;

  /** Another object whenever something has changed; `undefined` before anything was told. */
  get counts(): Results | undefined {
    return this.#counts;
  }

  add(outcomes: readonly Pick<LeaseOutcome, 'outcome'>[]): void {
    const counts = { accepted: 0, notNeeded: 0, late: 0, withdrawn: 0, wrong: 0, ...this.#counts };
    for (const { outcome } of outcomes) {
      const count = COUNTS[outcome];
      if (count) counts[count] += 1;
    }
    this.#counts = counts;
  }
}
