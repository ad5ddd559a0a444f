/** What would be computed now, as the coordinator tells the card before anybody agrees. */

import { REQUESTER_CHARACTERS_MAX } from '../wire/limits.ts';
import { isView, readCategories, type About, type JobCategory } from '../wire/message.ts';

/** So many kinds of work are named on the card, which has room for few. Whoever agrees signs all that it was told. */
export const NAMED_MAX = 2;
/** The card does not wait: until there is an answer, and where there is none, it says when it will tell. */
const ANSWER_MS_MAX = 3_000;

export interface Queue {
  /** Kinds of jobs that the site takes. */
  readonly categories: readonly JobCategory[];
  /** For whom there is work of what kind; some of it, all of which is shown. */
  readonly work: readonly About[];
  /** How much more there is. */
  readonly more: number;
  /** The name of what a card shows that shows this. */
  readonly view: string;
}

function readWork(value: unknown): About | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { category, requester } = value as Record<string, unknown>;
  const [known] = readCategories([category]);
  const isName = typeof requester === 'string' && requester.length <= REQUESTER_CHARACTERS_MAX;
  return known && isName ? { category: known, requester } : undefined;
}

/** Reads the answer; `undefined` where it is none, or says what the card would not show: its name would be of something else. */
export function readQueue(answer: unknown): Queue | undefined {
  if (typeof answer !== 'object' || answer === null) return undefined;
  const { categories, work, more, view } = answer as Record<string, unknown>;
  if (!Array.isArray(work) || work.length > NAMED_MAX || !Number.isSafeInteger(more) || Number(more) < 0) return undefined;
  if (!isView(view) || !Array.isArray(categories)) return undefined;
  const offered = readCategories(categories);
  const named = work.map(readWork).filter((each) => each !== undefined);
  if (offered.length !== categories.length || named.length !== work.length) return undefined;
  return { categories: offered, work: named, more: Number(more), view };
}

export async function fetchQueue(site: string): Promise<Queue | undefined> {
  try {
    const signal = AbortSignal.timeout(ANSWER_MS_MAX);
    const answer = await fetch(`/embed/now?site=${encodeURIComponent(site)}`, { credentials: 'omit', signal });
    return answer.ok ? readQueue(await answer.json()) : undefined;
  } catch {
    return undefined;
  }
}

/** Tells the coordinator that the card came into view: its site sees how many did. Nobody waits for it. */
export function tellShown(ticket: string): void {
  try {
    void fetch('/embed/shown', { method: 'POST', body: ticket, credentials: 'omit', keepalive: true }).catch(() => undefined);
  } catch {
    // One that is not counted is of no harm.
  }
}
