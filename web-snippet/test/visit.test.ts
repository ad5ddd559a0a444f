import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { visitIdentity } from '../src/hub/visit.ts';
import { channelName } from '../src/shared/hub-port.ts';
import { forgetKeys, keepKey, keptKey, keptKeys, noteEarned, PATIENCE_MS_MAX, retireKey } from '../src/shared/key-store.ts';
import { FakeIndexedDb, stub } from './fakes.ts';

let database: FakeIndexedDb;
let restore: () => void;
beforeEach(() => {
  database = new FakeIndexedDb();
  restore = stub({ indexedDB: database });
});
afterEach(() => restore());

const kept = (): string[] => [...database.databases.keys()];

test('a visit keeps its key, and each site of one host has its own', async () => {
  const first = await visitIdentity('pk_test_a', true);
  assert.ok(first.isKept);
  assert.equal((await visitIdentity('pk_test_a', true)).publicKey, first.publicKey);
  assert.notEqual((await visitIdentity('pk_test_b', true)).publicKey, first.publicKey);
  assert.deepEqual(kept(), ['raven pk_test_a', 'raven pk_test_b']);
  await forgetKeys('pk_test_b');
  assert.deepEqual(kept(), ['raven pk_test_a'], 'the other site forgets nothing');
  assert.notEqual(channelName('pk_test_a'), channelName('pk_test_b'));
});

test('a key is kept for as long as the browser keeps it, also one of a build that gave it a day', async () => {
  await keepKey('pk_test_a', { publicKey: 'ab', privateKey: {} as CryptoKey, until: 1_000 } as Parameters<typeof keepKey>[1]);
  assert.equal((await keptKey('pk_test_a'))?.publicKey, 'ab');
  assert.equal((await visitIdentity('pk_test_a', true)).publicKey, 'ab');
});

test('a key that gets no more work is set aside where it has earned', async () => {
  const put = (publicKey: string) => keepKey('pk_test_a', { publicKey, privateKey: {} as CryptoKey });
  const keys = async (): Promise<string[]> => (await keptKeys('pk_test_a')).map(({ publicKey }) => publicKey);
  await put('idle');
  await retireKey('pk_test_a');
  assert.deepEqual(await keys(), [], 'nobody can collect anything under it');
  for (let number = 0; number < 20; number += 1) {
    await put(`key ${number}`);
    await noteEarned('pk_test_a');
    await retireKey('pk_test_a');
  }
  await put('last');
  assert.equal(await keptKey('pk_test_a').then((kept) => kept?.publicKey), 'last');
  assert.deepEqual(await keys(), [...Array.from({ length: 15 }, (_, at) => `key ${at + 5}`), 'last']);
});

test('where storage ends with the page nothing is kept, and nothing is promised', async () => {
  const identity = await visitIdentity('pk_test_a', false);
  assert.deepEqual([identity.isKept, database.uses], [false, 0]);
});

test('where there is no database a visit has a key all the same', async () => {
  restore();
  const identity = await visitIdentity('pk_test_a', true);
  assert.match(identity.publicKey, /^[0-9a-f]{64}$/);
  assert.equal(identity.isKept, false, 'nobody will come back with it');
  await forgetKeys('pk_test_a');
});

test('a store that is slow to answer is waited for: the visitor keeps what it earns', async () => {
  database.delayMs = 700;
  const first = await visitIdentity('pk_test_a', true);
  assert.ok(first.isKept);
  const again = await visitIdentity('pk_test_a', true);
  assert.deepEqual([again.isKept, again.publicKey], [true, first.publicKey]);
});

test('a store that never answers is given up, after a while', async () => {
  database.delayMs = Infinity;
  const began = performance.now();
  const identity = await visitIdentity('pk_test_a', true);
  const tookMs = performance.now() - began;
  assert.equal(identity.isKept, false);
  assert.ok(tookMs >= PATIENCE_MS_MAX - 50 && tookMs < PATIENCE_MS_MAX + 1_500, `${tookMs} ms`);
});

test('two tabs that begin at once have one key', async () => {
  const [one, other] = await Promise.all([visitIdentity('pk_test_a', true), visitIdentity('pk_test_a', true)]);
  assert.ok(one.isKept && other.isKept);
  assert.equal(one.publicKey, other.publicKey);
});
