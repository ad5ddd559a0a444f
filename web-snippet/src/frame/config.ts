/** What the coordinator wrote into the frame's page. */

import type { GpuOffer } from '../shared/hub-port.ts';

/** Where the page does not say what a visit may move. */
const VISIT_MB = 25;
/** The same of days until earnings are the reserve's. */
const UNCLAIMED_DAYS = 180;

export interface PageConfig {
  readonly ticket: string;
  readonly site: string;
  /** Name of the site, for people. */
  readonly siteName: string;
  readonly textVersion: string;
  /** What the card shows in any case, as the coordinator names it. */
  readonly view: string;
  /** Bytes that a visit may move, both ways together. */
  readonly visitBytesMax: number;
  /** Days after which the reserve has what nobody has collected. */
  readonly unclaimedDays: number;
  readonly gpu: GpuOffer;
}

export function readConfig(page: Document): PageConfig {
  const meta = (name: string): string =>
    page.querySelector<HTMLMetaElement>(`meta[name="raven-${name}"]`)?.content ?? '';
  const gpu = meta('gpu');
  const megabytes = Number(meta('visit-mb'));
  const visitBytesMax = (megabytes > 0 ? megabytes : VISIT_MB) * 1e6;
  return {
    ticket: meta('ticket'),
    site: meta('site'),
    siteName: meta('site-name'),
    textVersion: meta('consent-text'),
    view: meta('view'),
    visitBytesMax,
    unclaimedDays: Number(meta('unclaimed-days')) || UNCLAIMED_DAYS,
    gpu: gpu === 'hardware' || gpu === 'any' ? gpu : 'no',
  };
}
