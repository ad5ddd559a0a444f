/** The visitor's key: kept where that is possible, so that whoever comes back goes on under it. */

import { keepKey, keptKey, PATIENCE_MS_MAX } from '../shared/key-store.ts';
import { Identity } from './identity.ts';

/**
 * The key of this visitor to a site: the kept one, or a new one. A store that is slow is waited for.
 *
 * @param lasts whether the frame's storage outlives the page; where it does not, nothing is kept in it.
 * @throws where the browser has no Ed25519.
 */
export async function visitIdentity(site: string, lasts: boolean): Promise<Identity> {
  if (!lasts) return Identity.generate();
  const began = performance.now();
  const leftMs = (): number => Math.max(0, began + PATIENCE_MS_MAX - performance.now());
  const found = await keptKey(site, leftMs());
  if (found) return Identity.kept(found.publicKey, found.privateKey);
  const identity = await Identity.generate();
  const { publicKey, privateKey } = identity;
  const kept = await keepKey(site, { publicKey, privateKey }, leftMs());
  return kept ? Identity.kept(kept.publicKey, kept.privateKey) : identity;
}
