/** What the coordinator wrote into the frame's page. */

export interface PageConfig {
  readonly ticket: string;
  readonly site: string;
  readonly textVersion: string;
}

export function readConfig(page: Document): PageConfig {
  const meta = (name: string): string =>
    page.querySelector<HTMLMetaElement>(`meta[name="raven-${name}"]`)?.content ?? '';
  return { ticket: meta('ticket'), site: meta('site'), textVersion: meta('consent-text') };
}
