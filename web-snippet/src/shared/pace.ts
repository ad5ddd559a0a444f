/** How a share of the machine becomes workers and a duty cycle. */

import { WORKERS_MAX } from '../wire/limits.ts';

/** Smallest share that can be chosen: 5 %. */
export const SHARE_MIN = 0.05;

export interface Pace {
  /** Duty cycle over all cores, in [SHARE_MIN, 1]. */
  readonly share: number;
  /** Workers that compute at once. */
  readonly workers: number;
  /** Part of the time that each worker computes, in (0, 1]. */
  readonly duty: number;
}

/**
 * The fewest workers that can give `share` of `cores`, each computing for the
 * same part of the time.
 */
export function paceFor(share: number, cores: number): Pace {
  const bounded = Math.min(1, Math.max(SHARE_MIN, Number.isFinite(share) ? share : SHARE_MIN));
  const whole = Math.max(1, Math.floor(cores));
  // Without the epsilon 0.07 × 100 would ask for eight workers instead of seven.
  const workers = Math.min(WORKERS_MAX, Math.max(1, Math.ceil(bounded * whole - 1e-9)));
  return { share: bounded, workers, duty: Math.min(1, (bounded * whole) / workers) };
}
