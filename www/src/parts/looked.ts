/** What the coordinator says of something that changes without this page: asked for again and again, while somebody looks. */

import { useEffect, useState } from 'preact/hooks';
import { Refusal } from './refusal.ts';

/** The newest answer, why there was none the last time, and a way to ask at once. */
export function useLooked<T>(ask: () => Promise<T>, everyMs: number): [T | undefined, Refusal | undefined, () => void] {
  const [found, setFound] = useState<T>();
  const [refusal, setRefusal] = useState<Refusal>();
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let isGone = false;
    const look = async (): Promise<void> => {
      try {
        const answer = await ask();
        if (isGone) return;
        setFound(() => answer);
        setRefusal(undefined);
      } catch (error) {
        if (!isGone) setRefusal(error instanceof Refusal ? error : new Refusal(0, String(error), ''));
      }
    };
    if (!document.hidden) void look();
    const timer = setTimeout(() => setTurn(turn + 1), everyMs);
    return () => {
      isGone = true;
      clearTimeout(timer);
    };
  }, [turn]);
  return [found, refusal, () => setTurn((before) => before + 1)];
}
