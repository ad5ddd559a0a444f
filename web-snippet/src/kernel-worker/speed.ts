/** Sizes steps by the speed seen so far, so that none blocks the worker for long. */

/** A worker looks at its messages and rests this often. */
const STEP_MS_TARGET = 12;
const STEP_FLOPS_MIN = 100_000;
/** What a step may hold before anything has been measured: 10 ms at 1 Gflop/s. */
const FLOPS_PER_S_GUESS = 1e9;
/** Weight of the newest step; small, because ops differ in speed. */
const NEWEST_WEIGHT = 0.2;

export class Speed {
  #flopsPerS: number;

  constructor(measured: number | undefined) {
    this.#flopsPerS = measured && Number.isFinite(measured) && measured > 0 ? measured : FLOPS_PER_S_GUESS;
  }

  /** Flop/s, as far as is known. */
  get flopsPerS(): number {
    return this.#flopsPerS;
  }

  /** Flops to ask of the next step. */
  stepFlops(): number {
    return Math.max(STEP_FLOPS_MIN, (this.#flopsPerS * STEP_MS_TARGET) / 1000);
  }

  observe(flops: number, ms: number): void {
    // Below half a millisecond the clock says more about itself than about the kernel.
    if (ms < 0.5 || flops <= 0) return;
    const seen = (flops * 1000) / ms;
    this.#flopsPerS += (seen - this.#flopsPerS) * NEWEST_WEIGHT;
  }
}
