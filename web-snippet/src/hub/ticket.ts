/** A fresh ticket: the frame's page is fetched again and its ticket read. */

const TICKET = /<meta name="raven-ticket" content="([A-Za-z0-9._~:=+/-]{1,512})"/;

/** The ticket in a frame's page. */
export function ticketIn(page: string): string | undefined {
  return TICKET.exec(page)?.[1];
}

/** `undefined` where the page or its ticket cannot be had, e.g. because the site was revoked. */
export async function renewTicket(frameUrl: string): Promise<string | undefined> {
  try {
    const response = await fetch(frameUrl, { credentials: 'omit', cache: 'no-store' });
    return response.ok ? ticketIn(await response.text()) : undefined;
  } catch {
    return undefined;
  }
}
