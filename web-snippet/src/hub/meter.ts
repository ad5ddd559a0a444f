/** What the hub itself computes, so that it can be rested for: the share covers all that a visitor's machine does. */

import { WAKE_MS } from '../kernel-worker/pacer.ts';

export class Meter {
  readonly #now: () => number;
  #ms = 0;
  #isOn = false;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Runs `act` and counts its time, with what the browser spends around it; one within another counts once. */
  run(act: () => void): void {
    if (this.#isOn) {
      act();
      return;
    }
    const start = this.#now();
    this.#isOn = true;
    try {
      act();
    } finally {
      this.#isOn = false;
      this.#ms += this.#now() - start + WAKE_MS;
    }
  }

  /** Milliseconds since the last time that this was asked. */
  take(): number {
    const ms = this.#ms;
    this.#ms = 0;
    return ms;
  }
}
