/** Keeps a duty cycle: after work comes the rest that the chosen share asks for. */

/** Rest shorter than this is saved up: timers are not more exact. */
const REST_MS_MIN = 4;
/** Longest single rest, so that a change of the share is felt soon. */
const REST_MS_MAX = 2_000;
/**
 * What a browser spends around each message and timer, before and after what a clock within can see. Measured
 * as the processor time of worker threads that is left over.
 */
export const WAKE_MS = 0.25;
/** Idle time beyond this earns no right to a burst of work. */
const CREDIT_MS_MAX = 50;

export class Pacer {
  #duty: number;
  /** Rest that is due; below zero where more was rested than due. */
  #owedMs = 0;

  constructor(duty: number) {
    this.#duty = clampDuty(duty);
  }

  /** Changes the duty; rest owed under the old one is scaled to the new. */
  setDuty(duty: number): void {
    const next = clampDuty(duty);
    const before = restPerWork(this.#duty);
    if (this.#owedMs > 0) this.#owedMs = before > 0 ? (this.#owedMs * restPerWork(next)) / before : 0;
    this.#duty = next;
  }

  worked(ms: number): void {
    this.#owedMs += ms * restPerWork(this.#duty);
  }

  /** Counts time that was not worked, whether slept on purpose or spent waiting for a task. */
  rested(ms: number): void {
    this.#owedMs = Math.max(-CREDIT_MS_MAX, this.#owedMs - ms);
  }

  /** Milliseconds to sleep now; 0 where no rest is due yet. */
  due(): number {
    return this.#owedMs < REST_MS_MIN ? 0 : Math.min(REST_MS_MAX, this.#owedMs);
  }
}

function clampDuty(duty: number): number {
  return Math.min(1, Math.max(0.01, duty));
}

/** Milliseconds of rest for one of work. */
function restPerWork(duty: number): number {
  return (1 - duty) / duty;
}
