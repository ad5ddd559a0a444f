/** A visitor's key and the receipts that it signs. */

import type { Receipt } from '../wire/message.ts';

export function toHex(bytes: Uint8Array): string {
  let hex = '';
  for (const byte of bytes) hex += byte.toString(16).padStart(2, '0');
  return hex;
}

export interface SignedReceipt {
  /** The exact text that was signed. */
  readonly receipt: string;
  /** Ed25519, in hex. */
  readonly signature: string;
}

/** A key pair that signs for a visitor of one site and cannot be exported. */
export class Identity {
  readonly publicKey: string;
  readonly #privateKey: CryptoKey;
  /** Whether it outlives the visit: only then somebody can come back for what it earns. */
  readonly isKept: boolean;

  private constructor(publicKey: string, privateKey: CryptoKey, isKept: boolean) {
    this.publicKey = publicKey;
    this.#privateKey = privateKey;
    this.isKept = isKept;
  }

  /** A key pair that was kept. */
  static kept(publicKey: string, privateKey: CryptoKey): Identity {
    return new Identity(publicKey, privateKey, true);
  }

  /** Cannot be exported, only kept as it is. */
  get privateKey(): CryptoKey {
    return this.#privateKey;
  }

  /** @throws where the browser has no Ed25519. */
  static async generate(): Promise<Identity> {
    const pair = (await crypto.subtle.generateKey({ name: 'Ed25519' }, false, ['sign', 'verify'])) as CryptoKeyPair;
    const raw = new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey));
    return new Identity(toHex(raw), pair.privateKey, false);
  }

  async sign(receipt: Receipt): Promise<SignedReceipt> {
    const { text, signature } = await this.signText(JSON.stringify(receipt));
    return { receipt: text, signature };
  }

  async signText(text: string): Promise<{ readonly text: string; readonly signature: string }> {
    const bytes = new TextEncoder().encode(text);
    const signature = await crypto.subtle.sign({ name: 'Ed25519' }, this.#privateKey, bytes);
    return { text, signature: toHex(new Uint8Array(signature)) };
  }
}
