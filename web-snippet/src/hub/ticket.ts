/**
 * A fresh ticket: the frame's page is fetched again and its ticket read. The old one
 * goes with the request, since a worker's request does not name the visitor's page.
 */

const TICKET = /<meta name="raven-ticket" content="([A-Za-z0-9._~:=+/-]{1,512})"/;

/** The ticket in a frame's page. */
export function ticketIn(page: string): string | undefined {
  return TICKET.exec(page)?.[1];
}

/** `undefined` where the page or its ticket cannot be had, e.g. because the site or the page's origin was revoked. */
export async function renewTicket(frameUrl: string, old: string): Promise<string | undefined> {
  try {
    const headers: Record<string, string> = old === '' ? {} : { 'raven-ticket': old };
    const response = await fetch(frameUrl, { credentials: 'omit', cache: 'no-store', headers });
    return response.ok ? ticketIn(await response.text()) : undefined;
  } catch {
    return undefined;
  }
}
