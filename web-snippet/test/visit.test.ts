import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { visitIdentity } from '../src/hub/visit.ts';
import { channelName } from '../src/shared/hub-port.ts';
import { forgetKey, keepKey, keptKey, PATIENCE_MS_MAX } from '../src/shared/key-store.ts';
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
  const first = await visitIdentity('pk_test_a');
  assert.ok(first.isKept);
  assert.equal((await visitIdentity('pk_test_a')).publicKey, first.publicKey);
  assert.notEqual((await visitIdentity('pk_test_b')).publicKey, first.publicKey);
  assert.deepEqual(kept(), ['raven pk_test_a', 'raven pk_test_b']);
  await forgetKey('pk_test_b');
  assert.deepEqual(kept(), ['raven pk_test_a'], 'the other site forgets nothing');
  assert.notEqual(channelName('pk_test_a'), channelName('pk_test_b'));
});

test('a key is kept for a day, and then removed when it is found', async () => {
  await keepKey('pk_test_a', { publicKey: 'ab', privateKey: {} as CryptoKey, until: 1_000 }, 0);
  assert.equal((await keptKey('pk_test_a', 999))?.publicKey, 'ab');
  assert.equal(await keptKey('pk_test_a', 1_000), undefined);
  assert.deepEqual(kept(), []);
});

test('where there is no database a visit has a key all the same', async () => {
  restore();
  const identity = await visitIdentity('pk_test_a');
  assert.match(identity.publicKey, /^[0-9a-f]{64}$/);
  assert.equal(identity.isKept, false, 'nobody will come back with it');
  await forgetKey('pk_test_a');
});

test('a store that is slow to answer is waited for: the visitor keeps what it earns', async () => {
  database.delayMs = 700;
  const first = await visitIdentity('pk_test_a');
  assert.ok(first.isKept);
  const again = await visitIdentity('pk_test_a');
  assert.deepEqual([again.isKept, again.publicKey], [true, first.publicKey]);
});

test('a store that never answers is given up, after a while', async () => {
  database.delayMs = Infinity;
  const began = performance.now();
  const identity = await visitIdentity('pk_test_a');
  const tookMs = performance.now() - began;
  assert.equal(identity.isKept, false);
  assert.ok(tookMs >= PATIENCE_MS_MAX - 50 && tookMs < PATIENCE_MS_MAX + 1_500, `${tookMs} ms`);
});

test('two tabs that begin at once have one key', async () => {
  const [one, other] = await Promise.all([visitIdentity('pk_test_a'), visitIdentity('pk_test_a')]);
  assert.ok(one.isKept && other.isKept);
  assert.equal(one.publicKey, other.publicKey);
});
