/** The routes of an account: its money and its keys. */

import { add } from '../parts/passkey.ts';
import { fields, Keyed, list, number, text, type Fields } from '../parts/refusal.ts';
import { pageOf, readLines, type Lines } from '../parts/statement.tsx';
import { readWithdrawals, tillAt, type Till, type Withdrawals } from '../parts/till.ts';

/** Nano-USD. */
export interface Account {
  readonly name: string;
  readonly isPlayMoney: boolean;
  readonly available: number;
  readonly held: number;
  readonly pending: number;
}

export interface Key {
  readonly id: string;
  readonly name: string;
  readonly hint: string;
  readonly scopes: readonly string[];
  readonly created: string;
  readonly expires: string;
  readonly lastUsed: string;
  readonly revoked: string;
  /** The key that asked for it, and the passkey that gave it. */
  readonly madeBy: string;
  readonly passkey: string;
}

export interface Keys {
  readonly keys: readonly Key[];
  /** Since when there is a code of recovery. */
  readonly recoverySet: string;
  /** Until when the key holds that asks, and what it makes; nothing where it has no end. */
  readonly until: string;
}

export interface Passkey {
  readonly id: string;
  readonly name: string;
  /** Whether it may be on several devices. */
  readonly isSynced: boolean;
  readonly created: string;
  readonly lastUsed: string;
  /** The key that asked for it, and the passkey that agreed. */
  readonly addedBy: string;
  readonly confirmedBy: string;
}

function readPasskey(value: unknown): Passkey {
  const from = fields(value);
  return { id: text(from.id), name: text(from.name), isSynced: from.synced === true, created: text(from.created_at), lastUsed: text(from.last_used), addedBy: text(from.added_by), confirmedBy: text(from.confirmed_by) };
}

function readAccount(from: Fields): Account {
  const balance = fields(from.balance);
  return {
    name: text(from.account),
    isPlayMoney: text(from.book) === 'test',
    available: number(balance.available_nano_usd),
    held: number(balance.held_nano_usd),
    pending: number(balance.pending_nano_usd),
  };
}

export function readKey(value: unknown): Key {
  const from = fields(value);
  return {
    id: text(from.id),
    name: text(from.name),
    hint: text(from.hint),
    scopes: list(from.scopes).map(text),
    created: text(from.created_at),
    expires: text(from.expires_at),
    lastUsed: text(from.last_used),
    revoked: text(from.revoked_at),
    madeBy: text(from.made_by),
    passkey: text(from.passkey),
  };
}

export interface NewKey {
  readonly name: string;
  readonly scopes: readonly string[];
  /** The last day, or none. */
  readonly until: string;
  /** Until when the key holds that asks, where it has an end: none that it makes holds longer. */
  readonly most: string;
}

/** The form in which a key is asked for. */
export function wishOf({ name, scopes, until, most }: NewKey): object {
  const end = until === '' ? '' : `${until}T23:59:59Z`;
  const soonest = most !== '' && (end === '' || Date.parse(most) < Date.parse(end)) ? most : end;
  return { name, scopes, ...(soonest === '' ? {} : { expires_at: soonest }) };
}

/** A key that was just made. */
export interface MadeKey {
  /** Shown this once. */
  readonly key: string;
  /** Until when it holds; nothing where it has no end. */
  readonly expires: string;
}

export const readMade = (body: Fields): MadeKey => ({ key: text(body.key), expires: text(body.expires_at) });

export function readKeys(body: Fields): Keys {
  return { keys: list(body.keys).map(readKey), recoverySet: text(body.recovery_set_at), until: text(body.asked_until) };
}

const PASSKEYS = '/v1/account/passkeys';
const WITHDRAWALS = '/v1/account/withdrawals';

export class Api extends Keyed {
  /** What every key may ask; refused where it is none. */
  async open(): Promise<void> {
    // Without the scope for money a key is a key all the same.
    await this.ask('GET', '/v1/account').catch((error) => {
      if (error.status !== 403) throw error;
    });
  }

  async money(): Promise<Account & Withdrawals> {
    const [account, withdrawals] = await Promise.all([this.ask('GET', '/v1/account'), this.ask('GET', WITHDRAWALS)]);
    return { ...readAccount(account), ...readWithdrawals(withdrawals) };
  }

  get till(): Till {
    return tillAt(this, WITHDRAWALS);
  }

  async statement(before: number | undefined): Promise<Lines> {
    return readLines(await this.ask('GET', `/v1/account/statement${pageOf(before)}`));
  }

  async receipt(line: number): Promise<Blob> {
    return (await this.send('GET', `/v1/account/receipts/${line}`)).blob();
  }

  async keys(): Promise<Keys> {
    return readKeys(await this.ask('GET', '/v1/keys'));
  }

  async make(wish: NewKey): Promise<MadeKey> {
    return readMade(await this.ask('POST', '/v1/keys', wishOf(wish)));
  }

  async revoke(id: string): Promise<void> {
    await this.ask('DELETE', `/v1/keys/${id}`);
  }

  async recoveryCode(): Promise<string> {
    return text((await this.ask('POST', '/v1/account/recovery-code', {})).recovery_code);
  }

  async passkeys(): Promise<readonly Passkey[]> {
    return list((await this.ask('GET', PASSKEYS)).passkeys).map(readPasskey);
  }

  async addPasskey(name: string): Promise<void> {
    await add((method, path, body) => this.ask(method, path, body), `${PASSKEYS}/begin`, PASSKEYS, name);
  }

  async removePasskey(id: string): Promise<void> {
    await this.ask('DELETE', `${PASSKEYS}/${id}`);
  }
}
