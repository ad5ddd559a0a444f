/** The link by which a visitor keeps what this browser has earned: the frame's storage may be erased. */

import { Identity, toHex } from '../hub/identity.ts';
import { keptKey } from '../shared/key-store.ts';

/** A link that was lost is of no use for longer; the coordinator takes no later end than 15 minutes. */
const LINK_MS = 14 * 60 * 1000;

/** Bytes as base64url. */
function base64url(text: string): string {
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/** A visitor who stops and agrees again on one page begins anew; of more keys than these the first are let go. */
const KEYS_MAX = 16;

export class Earned {
  /** By public key, in the order in which they have earned. */
  readonly #identities = new Map<string, Identity>();

  /**
   * Takes the present key along for as long as this page is open, so that the link can be had after a stop too,
   * and after a new yes, whose key is another one.
   *
   * @returns whether there is one.
   */
  async note(site: string): Promise<boolean> {
    const kept = await keptKey(site, Date.now());
    if (!kept) return false;
    this.#identities.set(kept.publicKey, Identity.kept(kept.publicKey, kept.privateKey));
    const [first] = this.#identities.keys();
    if (first !== undefined && this.#identities.size > KEYS_MAX) this.#identities.delete(first);
    return true;
  }

  get isThere(): boolean {
    return this.#identities.size > 0;
  }

  /** Whoever opens it within its time may collect, under each of the keys; a second one may not. */
  async link(origin: string, now: number): Promise<string | undefined> {
    if (!this.isThere) return undefined;
    const claims = await Promise.all(
      [...this.#identities.values()].map(async (identity) => {
        const nonce = toHex(crypto.getRandomValues(new Uint8Array(16)));
        const claim = { purpose: 'claim', coordinator: origin, from: identity.publicKey, expires_ms: now + LINK_MS, nonce };
        const { text, signature } = await identity.signText(JSON.stringify(claim));
        return { statement: text, signature };
      }),
    );
    return `${origin}/earn#claim=${base64url(JSON.stringify(claims))}`;
  }
}
