/**
 * What the visitor answered on this site, kept in the site's own storage: a
 * word and, but for "never", the day. Nothing of it tells two visitors apart,
 * and nothing is kept before an answer.
 */

export type Remembered =
  | 'not_now'
  | 'never'
  /** The frame may remember a yes. */
  | 'yes'
  /** The page took the yes back, and the frame does not know yet. */
  | 'withdrawn';

const KEY = 'raven';
const DAY_MS = 86_400_000;
/** A "not now" keeps the question away for a week. A yes holds for a day in the frame, which may end within the next. */
const DAYS = { not_now: 7, yes: 2, withdrawn: 2 } as const;

export interface Memory {
  recall(): Remembered | undefined;
  remember(answer: Remembered): void;
  forget(): void;
}

export function createMemory(storage: () => Storage, now: () => number): Memory {
  // Where storage is denied, the answer holds for the life of the page.
  let kept = '';
  const use = (run: (storage: Storage) => void): void => {
    try {
      run(storage());
    } catch {
      // Even to ask for the storage throws where it is denied.
    }
  };
  const today = (): number => Math.floor(now() / DAY_MS);

  return {
    recall() {
      let text = kept;
      use((store) => (text = store.getItem(KEY) || kept));
      if (text === 'never') return 'never';
      const [, word, day] = /^(not_now|yes|withdrawn) (\d{1,8})$/.exec(text) || [];
      // What others wrote is left alone.
      if (!word) return undefined;
      const answer = word as keyof typeof DAYS;
      const age = today() - Number(day);
      if (age >= 0 && age < DAYS[answer]) return answer;
      // What has run out is not kept.
      this.forget();
      return undefined;
    },
    remember(answer) {
      kept = answer === 'never' ? answer : `${answer} ${today()}`;
      use((store) => store.setItem(KEY, kept));
    },
    forget() {
      kept = '';
      use((store) => store.removeItem(KEY));
    },
  };
}
