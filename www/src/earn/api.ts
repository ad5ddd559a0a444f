/** A contributor's own routes, read defensively: a missing number shows as zero, never as a crash. */

import { ask, fields, list as anyList, number, send, text, type Fields } from '../parts/refusal.ts';
import { pageOf, readLines, type Lines } from '../parts/statement.tsx';
import { readWithdrawals, wished, type Till, type Withdrawals } from '../parts/till.ts';
import type { Claim } from './claims.ts';
import type { Wallet } from './wallet.ts';

export interface Session {
  readonly session: string;
  readonly key: string;
  readonly device: string;
  readonly backend: string;
  readonly share: number;
  readonly opened: string;
  readonly closed: string | undefined;
  readonly reason: string;
}

export interface Allocation {
  readonly number: number;
  readonly at: string;
  readonly session: string;
  readonly kind: string;
  readonly share: number;
  readonly cpu: boolean;
  readonly gpu: boolean;
  readonly hash: string;
}

/** Nano-USD of one book. */
export interface Earnings {
  readonly available: number;
  readonly pending: number;
  /** When it goes to the reserve, if nobody comes for it. */
  readonly expires: string | undefined;
}

export interface Payout {
  readonly address: string;
  /** Nano-USD. */
  readonly threshold: number | undefined;
}

export const BOOKS = ['live', 'test'] as const;
export type Book = (typeof BOOKS)[number];
const bookOf = (value: unknown): Book => (value === 'live' ? 'live' : 'test');

export interface Own {
  readonly key: string;
  readonly linked: ReadonlyArray<{ readonly key: string; readonly at: string }>;
  readonly sessions: readonly Session[];
  readonly tasks: number;
  readonly calculations: number;
  /** Counts by outcome. */
  readonly results: ReadonlyMap<string, number>;
  readonly earnings: Readonly<Record<Book, Earnings>>;
  /** Days since 1970 and nano-USD, oldest first. */
  readonly earned: Readonly<Record<Book, ReadonlyArray<readonly [day: number, nanoUsd: number]>>>;
  readonly payout: Payout;
  readonly allocations: readonly Allocation[];
  readonly payouts: Withdrawals;
  /** Accounts to which all earnings of a book go; `undefined` where the coordinator knows of none such, nor of statements. */
  readonly links: readonly Link[] | undefined;
}

/** All earnings of a book, those to come too, go to an account. */
export interface Link {
  readonly book: Book;
  readonly account: string;
  readonly at: string;
}

const list = (value: unknown): readonly Fields[] => anyList(value).map(fields);

const post = (path: string, body: object): Promise<Fields> => ask(path, { method: 'POST', body });

async function challenge(wallet: Wallet): Promise<{ readonly nonce: string; readonly origin: string }> {
  const given = await post('/v1/contributors/challenge', { key: wallet.key });
  return { nonce: text(given.nonce), origin: text(given.origin) };
}

/** Shows that the wallet's key is here. Serves for one request. */
async function authorization(wallet: Wallet): Promise<string> {
  const { nonce, origin } = await challenge(wallet);
  const signature = await wallet.sign(`raven contributor 1\n${origin}\n${wallet.key}\n${nonce}`);
  return `Raven-Key ${wallet.key}.${nonce}.${signature}`;
}

function session(value: Fields): Session {
  return {
    session: text(value.session),
    key: text(value.key),
    device: text(value.device),
    backend: text(value.backend),
    share: number(value.share),
    opened: text(value.opened),
    closed: text(value.closed) || undefined,
    reason: text(value.reason),
  };
}

function allocation(value: Fields): Allocation {
  return {
    number: number(value.number),
    at: text(value.at),
    session: text(value.session),
    kind: text(value.kind),
    share: number(value.share_ppm) / 1e6,
    cpu: value.cpu === true,
    gpu: value.gpu === true,
    hash: text(value.hash),
  };
}

function earnings(value: unknown): Earnings {
  const { available_nano_usd, pending_nano_usd, expires } = fields(value);
  return { available: number(available_nano_usd), pending: number(pending_nano_usd), expires: text(expires) || undefined };
}

const DAY_MS = 86_400_000;

/** Reads what the coordinator answers of a key's own. */
export function readOwn(body: Fields, payouts: Fields = {}): Own {
  const books = fields(body.earnings);
  const work = fields(body.work);
  const payout = fields(body.payout);
  const earned = (book: Book) =>
    list(body.earned)
      .filter((one) => one.book === book)
      .map((one) => [Math.floor(Date.parse(text(one.day)) / DAY_MS) || 0, number(one.nano_usd)] as const);
  return {
    key: text(body.key),
    linked: list(body.linked).map(({ key, at }) => ({ key: text(key), at: text(at) })),
    sessions: list(body.sessions).map(session),
    tasks: number(work.tasks),
    calculations: number(work.calculations),
    results: new Map(Object.entries(fields(body.results)).map(([outcome, count]) => [outcome, number(count)])),
    earnings: { live: earnings(books.live), test: earnings(books.test) },
    earned: { live: earned('live'), test: earned('test') },
    payout: {
      address: text(payout.address),
      threshold: typeof payout.threshold_nano_usd === 'number' ? payout.threshold_nano_usd : undefined,
    },
    allocations: list(body.allocations).map(allocation),
    payouts: readWithdrawals(payouts),
    links: Array.isArray(body.accounts)
      ? list(body.accounts).map(({ book, account, at }) => ({ book: bookOf(book), account: text(account), at: text(at) }))
      : undefined,
  };
}

/** A request that the wallet's key has signed for. */
async function signed(wallet: Wallet, method: string, path: string, body?: object): Promise<Fields> {
  return ask(`/v1/contributors/${wallet.key}${path}`, { method, body, headers: { authorization: await authorization(wallet) } });
}

export async function own(wallet: Wallet): Promise<Own> {
  const [shown, payouts] = await Promise.all([signed(wallet, 'GET', ''), signed(wallet, 'GET', '/withdrawals')]);
  return readOwn(shown, payouts);
}

export async function setPayout(wallet: Wallet, { address, threshold }: Payout): Promise<void> {
  await signed(wallet, 'PUT', '/payout', { address: address === '' ? null : address, threshold_nano_usd: threshold ?? null });
}

export const till = (wallet: Wallet): Till => ({
  withdraw: async (wish) => text((await signed(wallet, 'POST', '/withdrawals', wished(wish))).state),
  cancel: async (id) => {
    await signed(wallet, 'DELETE', `/withdrawals/${id}`);
  },
});

/** An account on whose jobs earnings may be spent. */
export interface Account {
  readonly account: string;
  readonly book: Book;
}

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

export async function accountOf(key: string): Promise<Account> {
  const { account, book } = await ask('/v1/account', { headers: bearer(key) });
  return { account: text(account), book: bookOf(book) };
}

export async function statement(wallet: Wallet, book: Book, before: number | undefined): Promise<Lines> {
  return readLines(await signed(wallet, 'GET', `/statement${pageOf(before)}&book=${book}`));
}

export async function receipt(wallet: Wallet, book: Book, line: number): Promise<Blob> {
  const headers = { authorization: await authorization(wallet) };
  return (await send(`/v1/contributors/${wallet.key}/receipts/${line}?book=${book}`, { headers })).blob();
}

/** What the wallet says holds for so long, of an hour at most: the clock of this device may be wrong by half of one, either way. */
const STATEMENT_MS = 1_800_000;

/** Tells the coordinator, under an account's key, what the wallet's key says of its earnings. The nonce is that of one saying. */
async function say(wallet: Wallet, key: string, path: string, domain: string, what: object): Promise<void> {
  const { origin } = await challenge(wallet);
  const expires = new Date(Date.now() + STATEMENT_MS).toISOString();
  const statement = JSON.stringify({ coordinator: origin, contributor: wallet.key, ...what, expires_at: expires });
  const signature = await wallet.sign(`${domain}\n${statement}`);
  await ask(path, { method: 'POST', headers: bearer(key), body: { statement, signature } });
}

/** Makes a part of what the wallet has earned the account's. */
export function spend(wallet: Wallet, key: string, account: string, nanoUsd: number, nonce: string): Promise<void> {
  return say(wallet, key, '/v1/account/earnings', 'raven earnings 1', { account, nano_usd: nanoUsd, nonce });
}

/** Makes all of it the account's, and what is earned from now on. */
export function link(wallet: Wallet, key: string, account: string, nonce: string): Promise<void> {
  return say(wallet, key, '/v1/account/links', 'raven link 1', { account, nonce });
}

export async function unlink(wallet: Wallet, book: Book): Promise<void> {
  await signed(wallet, 'DELETE', `/links/${book}`);
}

export async function claim(wallet: Wallet, { statement, signature }: Claim): Promise<void> {
  const { nonce, origin } = await challenge(wallet);
  const walletSignature = await wallet.sign(`raven wallet 1\n${origin}\n${nonce}\n${statement}`);
  await post('/v1/contributors/claims', {
    statement, signature, wallet: wallet.key, nonce, wallet_signature: walletSignature,
  });
}
