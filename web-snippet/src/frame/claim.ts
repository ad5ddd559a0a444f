/** The link by which a visitor keeps what this browser has earned: the frame's storage may be erased. */

import { Identity, toHex } from '../hub/identity.ts';
import { keptKey } from '../shared/key-store.ts';

/** A link that was lost is of no use for longer; the coordinator takes no later end than 15 minutes. */
const LINK_MS = 14 * 60 * 1000;

/** Bytes as base64url. */
function base64url(text: string): string {
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

export class Earned {
  #identity: Identity | undefined;

  /** Takes the key along for as long as this page is open, so that the link can be had after a stop too. */
  async note(site: string): Promise<void> {
    if (this.#identity) return;
    const kept = await keptKey(site, Date.now());
    if (kept) this.#identity = Identity.kept(kept.publicKey, kept.privateKey);
  }

  get isThere(): boolean {
    return this.#identity !== undefined;
  }

  /** Whoever opens it within its time may collect; a second one may not. */
  async link(origin: string, now: number): Promise<string | undefined> {
    const identity = this.#identity;
    if (!identity) return undefined;
    const nonce = toHex(crypto.getRandomValues(new Uint8Array(16)));
    const claim = { purpose: 'claim', coordinator: origin, from: identity.publicKey, expires_ms: now + LINK_MS, nonce };
    const { text, signature } = await identity.signText(JSON.stringify(claim));
    return `${origin}/earn#claim=${base64url(JSON.stringify({ statement: text, signature }))}`;
  }
}
