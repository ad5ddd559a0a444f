/** Asks the coordinator again and again, but not while nobody looks. */

import { useEffect, useState } from 'preact/hooks';
import { snapshot, type Snapshot } from './api.ts';

const EVERY_MS = 1_000;
/** After a failure, so that a coordinator that restarts is not hammered by every open page. */
const AFTER_FAILURE_MS = 4_000;
/** Seconds of activity that are drawn. */
export const ACTIVITY_S = 120;

export interface Live {
  /** The newest answer, kept when later questions fail. */
  readonly snapshot: Snapshot | undefined;
  readonly isConnected: boolean;
  /** Unix seconds and tasks per second, oldest first. */
  readonly activity: ReadonlyArray<readonly [time: number, tasksPerS: number]>;
}

const NOTHING: Live = { snapshot: undefined, isConnected: true, activity: [] };

export function useLive(): Live {
  const [live, setLive] = useState(NOTHING);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    // Hiding, showing and leaving the page each end the round of questions before.
    let round = 0;

    const ask = async (mine: number): Promise<void> => {
      let wait = EVERY_MS;
      try {
        const answer = await snapshot();
        if (mine !== round) return;
        const point = [Date.now() / 1000, answer.stats.tasksPerS] as const;
        setLive(({ activity }) => ({
          snapshot: answer,
          isConnected: true,
          activity: [...activity.filter(([time]) => time > point[0] - ACTIVITY_S), point],
        }));
      } catch {
        if (mine !== round) return;
        setLive((before) => ({ ...before, isConnected: false }));
        wait = AFTER_FAILURE_MS;
      }
      timer = setTimeout(() => void ask(mine), wait);
    };
    const onVisibility = (): void => {
      clearTimeout(timer);
      round += 1;
      if (!document.hidden) void ask(round);
    };

    onVisibility();
    document.addEventListener('visibilitychange', onVisibility);
    return () => {
      round += 1;
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', onVisibility);
    };
  }, []);
  return live;
}
