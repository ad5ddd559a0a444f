/** Money that goes out: what was asked for and how far it is. The same for sites and for contributors. */

import { randomHex } from './hex.ts';
import { fields, list, number, text, type Fields, type Keyed } from './refusal.ts';

export interface Withdrawal {
  readonly id: string;
  readonly nanoUsd: number;
  readonly address: string;
  readonly state: string;
  readonly requested: string;
  readonly expires: string;
  readonly note: string;
  /** `usd` or `tokens`. */
  readonly pay: string;
  readonly microTokens: number | undefined;
}

export interface Withdrawals {
  readonly withdrawals: readonly Withdrawal[];
  /** Nano-USD that the operator pays out at least. */
  readonly least: number;
}

/** What is asked for. */
export interface Wish {
  readonly nanoUsd: number;
  /** Where it goes; `undefined` where the coordinator knows. */
  readonly address: string | undefined;
  readonly pay: 'usd' | 'tokens';
  readonly reference: string;
}

/** Whose money it is, by what may be done with it. */
export interface Till {
  /** Answers the state of what is known by the wish's reference. */
  readonly withdraw: (wish: Wish) => Promise<string>;
  readonly cancel: (id: string) => Promise<void>;
}

function readWithdrawal(value: unknown): Withdrawal {
  const from = fields(value);
  return {
    id: text(from.id),
    nanoUsd: number(from.nano_usd),
    address: text(from.address),
    state: text(from.state),
    requested: text(from.requested_at),
    expires: text(from.expires_at),
    note: text(from.note),
    pay: text(from.pay) || 'usd',
    microTokens: typeof from.micro_tokens === 'number' ? from.micro_tokens : undefined,
  };
}

export function readWithdrawals(body: Fields): Withdrawals {
  return { withdrawals: list(body.withdrawals).map(readWithdrawal), least: number(body.least_nano_usd) };
}

/** The form in which a wish is sent. */
export function wished({ nanoUsd, address, pay, reference }: Wish): object {
  return { nano_usd: nanoUsd, reference, pay, ...(address === undefined ? {} : { address }) };
}

/** Of what an API key's account may withdraw. */
export const tillAt = (api: Keyed, path: string): Till => ({
  withdraw: async (wish) => text((await api.ask('POST', path, wished(wish))).state),
  cancel: async (id) => {
    await api.ask('DELETE', `${path}/${id}`);
  },
});

/**
 * What a movement of money is known by. The same wish has the same one until it went well, so that who presses again
 * because no answer came moves nothing twice.
 */
export class References {
  #last: { readonly wish: string; readonly reference: string } | undefined;

  of(...wish: readonly unknown[]): string {
    const text = JSON.stringify(wish);
    if (this.#last?.wish !== text) this.#last = { wish: text, reference: randomHex(16) };
    return this.#last.reference;
  }

  done(): void {
    this.#last = undefined;
  }
}

/** States in which the money is back where it came from. */
const GIVEN_BACK: ReadonlySet<string> = new Set(['refused', 'cancelled', 'expired']);

/**
 * Asks for money to go out. What was asked for under the same reference, by a request whose answer never came, and was
 * given back since, is asked for anew.
 *
 * @returns its state.
 */
export async function withdraw(till: Till, references: References, wish: Omit<Wish, 'reference'>, ...of: readonly unknown[]): Promise<string> {
  const ask = (): Promise<string> => till.withdraw({ ...wish, reference: references.of(wish, ...of) });
  let state = await ask();
  if (GIVEN_BACK.has(state)) {
    references.done();
    state = await ask();
  }
  references.done();
  return state;
}

/** A state's tone, name, and what it means. */
export const STATES: Readonly<Record<string, readonly [tone: string, name: string, note: string]>> = {
  pending: ['wait', 'Held', 'waits for the operator'],
  paying: ['wait', 'Begun', 'the operator is paying it'],
  approved: ['good', 'Approved', 'paid'],
  refused: ['bad', 'Refused', 'the money is yours again'],
  cancelled: ['quiet', 'Cancelled', 'the money is yours again'],
  expired: ['quiet', 'Expired', 'nobody began to pay it; the money is yours again'],
};
