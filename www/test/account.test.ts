import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readKey, readKeys, readMade, wishOf, type Key, type Passkey } from '../src/account/api.ts';
import { isOver, origin, takenAlong } from '../src/account/keys.tsx';
import { readPage } from '../src/account/sub-accounts-api.ts';
import { below } from '../src/parts/tokens.tsx';

const wish = { name: 'x', scopes: ['jobs'], until: '', most: '' };
const endOf = (until: string, most: string) => (wishOf({ ...wish, until, most }) as { expires_at?: string }).expires_at;

test('a key holds as long as is wished, and no longer than the one that asks', () => {
  assert.equal(endOf('', ''), undefined);
  assert.equal(endOf('2026-11-30', ''), '2026-11-30T23:59:59Z');
  const most = '2026-11-30T18:00:00.123Z';
  assert.equal(endOf('', most), most);
  assert.equal(endOf('2026-11-30', most), most, 'today, which ends after the sign-in does');
  assert.equal(endOf('2026-11-29', most), '2026-11-29T23:59:59Z');
});

test('what a key is answered with says when it ends, and so does the list', () => {
  assert.deepEqual(readMade({ key: 'rk', expires_at: null }), { key: 'rk', expires: '' });
  assert.deepEqual(readMade({ key: 'rk', expires_at: 't' }), { key: 'rk', expires: 't' });
  const { keys, until } = readKeys({ keys: [{ id: 'a', made_by: 'b', passkey: null }], asked_until: 't' });
  assert.deepEqual([keys[0]?.madeBy, keys[0]?.passkey, until], ['b', '', 't']);
});

test('a key whose time is over is over, as one that was revoked is', () => {
  const now = Date.parse('2026-11-30T12:00:00Z');
  const over = (revoked: string, expires: string) => isOver({ revoked, expires }, now);
  assert.deepEqual([over('', ''), over('2026-11-29T00:00:00Z', ''), over('', '2026-11-30T12:00:00Z'), over('', '2026-11-30T12:00:01Z')], [false, true, true, false]);
});

test('with a key go the passkeys that it added alone, and what these confirmed', () => {
  const passkey = (id: string, addedBy: string, confirmedBy = ''): Passkey => ({ id, name: id, isSynced: false, created: '', lastUsed: '', addedBy, confirmedBy });
  const all = [passkey('d', 's2', 'c'), passkey('c', 's1', 'b'), passkey('b', 'k'), passkey('a', 'k', 'z'), passkey('y', 'other')];
  assert.deepEqual(takenAlong('k', all).map(({ id }) => id), ['b', 'c', 'd']);
  assert.deepEqual(takenAlong('s1', all), []);
});

test('a key says what it came of, as far as that is listed', () => {
  const [first, made, strange, given] = [{ id: 'a' }, { id: 'b', name: 'laptop', made_by: 'a' }, { id: 'c', made_by: 'z' }, { id: 'd', passkey: 'p' }].map(readKey) as [Key, Key, Key, Key];
  const said = (key: Key, passkeys?: readonly Passkey[]): string => origin(key, [first, made, strange, given], passkeys);
  assert.deepEqual([said(first), said(made), said(strange)], ['', '; made by the first key', '; made by a key that is not of this list']);
  assert.deepEqual([said(given), said(given, [])], ['; given by a passkey', '; given by the passkey that was removed']);
});

test('play money is never shown as tokens', () => {
  assert.deepEqual(below({ nanoUsd: 5_000_000, rate: 1_000_000, isPlayMoney: true }), ['play money']);
  assert.match(below({ nanoUsd: 5_000_000, rate: 1_000_000, isPlayMoney: false }).join(), /^5/);
  assert.deepEqual(below({ nanoUsd: 5_000_000, rate: 0, isPlayMoney: false, note: 'n' }), ['n']);
  const [test, live] = readPage({ accounts: [{ account: 'a', book: 'test' }, { account: 'b', book: 'live' }] }).accounts;
  assert.deepEqual([test?.isPlayMoney, live?.isPlayMoney], [true, false]);
});
