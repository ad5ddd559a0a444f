/** The visit's key: kept where that is possible, so that the next page of the site goes on under it. */

import { keepKey, keptKey, PATIENCE_MS_MAX } from '../shared/key-store.ts';
import { Identity } from './identity.ts';

/** As long as a yes is remembered. */
const KEPT_MS = 24 * 60 * 60 * 1000;

/**
 * The key of this visit to a site: the kept one, or a new one. A store that is slow is waited for.
 *
 * @throws where the browser has no Ed25519.
 */
export async function visitIdentity(site: string): Promise<Identity> {
  const began = performance.now();
  const leftMs = (): number => Math.max(0, began + PATIENCE_MS_MAX - performance.now());
  const found = await keptKey(site, Date.now(), leftMs());
  if (found) return Identity.kept(found.publicKey, found.privateKey);
  const identity = await Identity.generate();
  const { publicKey, privateKey } = identity;
  const now = Date.now();
  const kept = await keepKey(site, { publicKey, privateKey, until: now + KEPT_MS }, now, leftMs());
  return kept ? Identity.kept(kept.publicKey, kept.privateKey) : identity;
}
