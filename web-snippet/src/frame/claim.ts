/** What the keys of this browser let their visitor do with what they have earned: collect it by a link, or give it to the site. */

import { Identity, toHex } from '../hub/identity.ts';
import { keptKeys, noteEarned } from '../shared/key-store.ts';

/** A link that was lost is of no use for longer; the coordinator takes no later end than 15 minutes. */
export const LINK_MS = 14 * 60 * 1000;
/** A coordinator that takes longer is not waited for. */
const ANSWER_MS_MAX = 4_000;

/** What nobody has collected yet, pending or not, in nano-USD. */
export interface Uncollected {
  readonly live: number;
  /** Play money. */
  readonly test: number;
}

/** What came of a gift. */
export type Given = 'taken' | 'refused' | 'unheard';

/** Bytes as base64url. */
function base64url(text: string): string {
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

function post(path: string, body: object): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  const signal = AbortSignal.timeout(ANSWER_MS_MAX);
  return fetch(path, { method: 'POST', headers, body: JSON.stringify(body), credentials: 'omit', signal });
}

export class Earned {
  readonly #site: string;
  readonly #origin: string;
  /** Keys under which something was earned, those of before first. */
  #identities: readonly Identity[] = [];
  /** What the coordinator's clock is ahead of this device's, which may be wrong by hours; it judges when a statement ends. */
  #aheadMs: number | undefined;

  constructor(site: string, origin: string) {
    this.#site = site;
    this.#origin = origin;
  }

  /**
   * Notes that the present key has earned.
   *
   * @returns whether it is kept.
   */
  async note(): Promise<boolean> {
    await noteEarned(this.#site);
    return this.load();
  }

  /** @returns whether there is something to collect, of this visit or of those before. */
  async load(): Promise<boolean> {
    const kept = await keptKeys(this.#site);
    this.#identities = kept.filter(({ hasEarned }) => hasEarned).map(({ publicKey, privateKey }) => Identity.kept(publicKey, privateKey));
    return this.isThere;
  }

  get isThere(): boolean {
    return this.#identities.length > 0;
  }

  /** Whoever opens it within its time may collect, under each of the keys; a second one may not. */
  async link(): Promise<string | undefined> {
    const [identity] = this.#identities;
    if (!identity) return undefined;
    // Without the coordinator the link is of no use, and is tried by the device's clock all the same.
    if (this.#aheadMs === undefined) await this.#challenge(identity.publicKey).catch(() => undefined);
    const claims = await Promise.all(this.#identities.map((identity) => this.#sign(identity, { purpose: 'claim' })));
    return `${this.#origin}/earn#claim=${base64url(JSON.stringify(claims))}`;
  }

  /** What a visitor who leaves for good would leave behind; `undefined` where the coordinator does not tell. */
  async uncollected(): Promise<Uncollected | undefined> {
    try {
      const each = await Promise.all((await this.#all()).map((identity) => this.#ask(identity)));
      return each.reduce((sum, { live, test }) => ({ live: sum.live + live, test: sum.test + test }), { live: 0, test: 0 });
    } catch {
      return undefined;
    }
  }

  /**
   * Gives to the site what no wallet and no account collects, also what is confirmed only later.
   *
   * @returns what came of it: unless the coordinator has taken it the keys must stay.
   */
  async give(): Promise<Given> {
    try {
      const answers = await Promise.all((await this.#all()).map((identity) => this.#giveOf(identity)));
      if (answers.every((status) => status === 201 || status === 409)) return 'taken';
      return answers.includes(422) ? 'refused' : 'unheard';
    } catch {
      return 'unheard';
    }
  }

  /** The status of the answer. A conflict: somebody collects for the key, or it has done nothing. */
  async #giveOf(identity: Identity): Promise<number> {
    // Asked each time: a clock may have been set since.
    await this.#challenge(identity.publicKey);
    const { status } = await post('/v1/contributors/gifts', await this.#sign(identity, { purpose: 'give', site: this.#site }));
    return status;
  }

  /** All keys: of the last results nobody may have said yet whether they were accepted. */
  async #all(): Promise<Identity[]> {
    return (await keptKeys(this.#site)).map(({ publicKey, privateKey }) => Identity.kept(publicKey, privateKey));
  }

  async #sign(identity: Identity, said: object): Promise<{ statement: string; signature: string }> {
    const nonce = toHex(crypto.getRandomValues(new Uint8Array(16)));
    const statement = { ...said, coordinator: this.#origin, from: identity.publicKey, expires_ms: Date.now() + (this.#aheadMs ?? 0) + LINK_MS, nonce };
    const { text, signature } = await identity.signText(JSON.stringify(statement));
    return { statement: text, signature };
  }

  /** @returns what a key signs to show that it is there; what the time is comes with it. */
  async #challenge(key: string): Promise<string> {
    const answer = await post('/v1/contributors/challenge', { key });
    const { nonce, now_ms: now } = (await answer.json()) as { readonly nonce: string; readonly now_ms: unknown };
    if (typeof now === 'number') this.#aheadMs = now - Date.now();
    return nonce;
  }

  /** What one key has that is nobody else's yet. */
  async #ask(identity: Identity): Promise<Uncollected> {
    const key = identity.publicKey;
    const nonce = await this.#challenge(key);
    const { signature } = await identity.signText(`raven contributor 1\n${this.#origin}\n${key}\n${nonce}`);
    const headers = { authorization: `Raven-Key ${key}.${nonce}.${signature}` };
    const signal = AbortSignal.timeout(ANSWER_MS_MAX);
    const answer = await fetch(`/v1/contributors/${key}`, { headers, credentials: 'omit', signal });
    if (!answer.ok) throw new Error(`${answer.status}`);
    return readUncollected(await answer.json());
  }
}

/** Reads what the coordinator says of a key. @throws where it is nothing that this build knows. */
export function readUncollected(answer: unknown): Uncollected {
  const { wallet, given, accounts, earnings } = answer as {
    readonly wallet: unknown;
    readonly given: unknown;
    readonly accounts: readonly { readonly book: string }[];
    readonly earnings: Readonly<Record<string, { readonly available_nano_usd: number; readonly pending_nano_usd: number }>>;
  };
  const of = (book: 'live' | 'test'): number => {
    if (wallet !== null || given !== null || accounts.some((link) => link.book === book)) return 0;
    const { available_nano_usd: available = 0, pending_nano_usd: pending = 0 } = earnings[book] ?? {};
    return Math.max(0, Number(available)) + Math.max(0, Number(pending));
  };
  return { live: of('live'), test: of('test') };
}
