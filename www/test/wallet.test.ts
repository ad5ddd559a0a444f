import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { FakeIndexedDb, stub } from '../../web-snippet/test/fakes.ts';
import { Wallet } from '../src/earn/wallet.ts';

let restore: () => void;
beforeEach(() => {
  restore = stub({ indexedDB: new FakeIndexedDb() });
});
afterEach(() => restore());

test('two tabs that open at once have one wallet, and the next one has it too', async () => {
  const [one, other] = await Promise.all([Wallet.open(), Wallet.open()]);
  const next = await Wallet.open();
  assert.match(one.key, /^[0-9a-f]{64}$/);
  assert.deepEqual([other.key, next.key], [one.key, one.key]);
  const signatures = await Promise.all([one, other, next].map((wallet) => wallet.sign('x')));
  assert.equal(new Set(signatures).size, 1, 'and its key signs for all of them');
});
