/** The routes of an account's sub-accounts: their money, their keys, and their end. */

import { fields, list, number, text, type Fields, type Keyed } from '../parts/refusal.ts';
import { readKeys, readMade, wishOf, type Keys, type MadeKey, type NewKey } from './api.ts';

/** Nano-USD, of the same book as its parent's. */
export interface SubAccount {
  readonly account: string;
  readonly isPlayMoney: boolean;
  readonly name: string;
  /** What its parent knows it by. */
  readonly externalId: string;
  readonly created: string;
  /** When it was closed, for good. */
  readonly closed: string;
  readonly available: number;
  readonly held: number;
  readonly pending: number;
}

export interface Page {
  readonly accounts: readonly SubAccount[];
  /** The account behind which there may be more. */
  readonly after: string;
  /** How many may be open at a time; 0 where the coordinator does not tell. */
  readonly most: number;
}

/** A sub-account that was just made. */
export interface Made extends MadeKey {
  readonly account: string;
}

export type Direction = 'fund' | 'take_back';

export interface Movement {
  readonly nanoUsd: number;
  readonly direction: Direction;
  readonly reference: string;
}

/** What a movement came to. */
export interface Moved {
  readonly account: SubAccount;
  /** What its parent has to spend now. */
  readonly left: number;
}

function readSubAccount(value: unknown): SubAccount {
  const from = fields(value);
  const balance = fields(from.balance);
  return {
    account: text(from.account),
    isPlayMoney: text(from.book) === 'test',
    name: text(from.name),
    externalId: text(from.external_id),
    created: text(from.created_at),
    closed: text(from.closed_at),
    available: number(balance.available_nano_usd),
    held: number(balance.held_nano_usd),
    pending: number(balance.pending_nano_usd),
  };
}

export function readPage(body: Fields): Page {
  return { accounts: list(body.accounts).map(readSubAccount), after: text(body.next_after), most: number(body.open_max) };
}

const PATH = '/v1/accounts';

export class SubAccounts {
  constructor(private readonly api: Keyed) {}

  /** Oldest first; those behind one, where it is named. */
  async page(after = ''): Promise<Page> {
    return readPage(await this.api.ask('GET', PATH + (after === '' ? '' : `?after=${encodeURIComponent(after)}`)));
  }

  async one(account: string): Promise<SubAccount> {
    return readSubAccount(await this.api.ask('GET', `${PATH}/${account}`));
  }

  async make(name: string, externalId: string): Promise<Made> {
    const known = externalId === '' ? {} : { external_id: externalId };
    const body = await this.api.ask('POST', PATH, { name, ...known });
    return { account: text(body.account), ...readMade(body) };
  }

  async move(account: string, { nanoUsd, direction, reference }: Movement): Promise<Moved> {
    const body = await this.api.ask('POST', `${PATH}/${account}/transfer`, { nano_usd: nanoUsd, direction, reference });
    return { account: readSubAccount(body.account), left: number(fields(body.balance).available_nano_usd) };
  }

  async keys(account: string): Promise<Keys> {
    return readKeys(await this.api.ask('GET', `${PATH}/${account}/keys`));
  }

  async makeKey(account: string, wish: NewKey): Promise<MadeKey> {
    return readMade(await this.api.ask('POST', `${PATH}/${account}/keys`, wishOf(wish)));
  }

  async revokeKey(account: string, id: string): Promise<void> {
    await this.api.ask('DELETE', `${PATH}/${account}/keys/${id}`);
  }

  async close(account: string): Promise<void> {
    await this.api.ask('DELETE', `${PATH}/${account}`);
  }

  /** What the parent has to spend, and whether it is play money. */
  async own(): Promise<{ readonly available: number; readonly isPlayMoney: boolean }> {
    const body = await this.api.ask('GET', '/v1/account');
    return { available: number(fields(body.balance).available_nano_usd), isPlayMoney: text(body.book) === 'test' };
  }
}
