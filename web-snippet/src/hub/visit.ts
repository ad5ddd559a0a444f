/** The visit's key: kept where that is possible, so that the next page of the site goes on under it. */

import { keepKey, keptKey } from '../shared/key-store.ts';
import { Identity } from './identity.ts';

/** As long as a yes is remembered. */
const KEPT_MS = 24 * 60 * 60 * 1000;

/**
 * The key of this visit to a site: the kept one, or a new one.
 *
 * @throws where the browser has no Ed25519.
 */
export async function visitIdentity(site: string): Promise<Identity> {
  const kept = await keptKey(site, Date.now());
  if (kept) return Identity.kept(kept.publicKey, kept.privateKey);
  const identity = await Identity.generate();
  const { publicKey, privateKey } = identity;
  const isKept = await keepKey(site, { publicKey, privateKey, until: Date.now() + KEPT_MS });
  return isKept ? Identity.kept(publicKey, privateKey) : identity;
}
