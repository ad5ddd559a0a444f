/** Why there is no frame, in words for the person who put the tag on the page. */

import type { Tag } from './tag.ts';

/** An answer to the question why that takes longer is not waited for. */
const ASK_MS_MAX = 5_000;

export const NO_KEY = 'the script tag has no ?site=pk_… key, so nothing is shown.';
export const INSECURE =
  'nothing is shown on this page: lending computing power needs https (or localhost), also for every page that this one is framed by.';

export function warn(text: string): void {
  console.warn(`raven: ${text}`);
}

/** What to say of a policy violation; `undefined` where it is not about the frame. */
export function readViolation(event: SecurityPolicyViolationEvent, origin: string): string | undefined {
  const isFrame = /^(frame|child|default)-src/.test(event.effectiveDirective);
  if (!isFrame || !event.blockedURI.startsWith(origin)) return undefined;
  return `the Content-Security-Policy of this page blocks the frame. Add ${origin} to its frame-src.`;
}

/** Asks the coordinator why the frame does not answer. */
export async function explain(tag: Tag): Promise<string> {
  const { origin, site } = tag;
  const page = location.origin;
  const asking = new AbortController();
  const timer = setTimeout(() => asking.abort(), ASK_MS_MAX);
  try {
    const response = await fetch(`${origin}/embed/check?site=${site}`, { credentials: 'omit', signal: asking.signal });
    const answer: { site?: unknown; origin?: unknown } = await response.json();
    if (answer.site === 'unknown') return `the site key ${site} is unknown to ${origin}, or was revoked.`;
    if (answer.origin === 'not_registered') return `${page} is not one of the origins that ${site} is registered for.`;
    return `the frame of ${origin} does not answer. An extension of the browser may block it, or a policy of this page: it needs frame-src ${origin}.`;
  } catch {
    return `the frame does not answer, and ${origin} can't be asked why: it can't be reached, or this page's connect-src leaves it out.`;
  } finally {
    clearTimeout(timer);
  }
}
