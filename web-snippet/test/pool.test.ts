import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { FrameStore } from '../src/hub/blobs.ts';
import { Pool, type PoolHost, type Port } from '../src/hub/pool.ts';
import type { FromKernel, ToKernel } from '../src/shared/kernel-port.ts';
import { paceFor } from '../src/shared/pace.ts';
import { decodeFrame, encodeFrame } from '../src/wire/frame.ts';
import { TO_CONTRIBUTOR } from '../src/wire/limits.ts';

class FakePort implements Port {
  onmessage: ((message: FromKernel) => void) | undefined;
  onerror: ((detail: string) => void) | undefined;
  readonly got: ToKernel[] = [];
  isTerminated = false;

  post(message: ToKernel): void {
    assert.ok(!this.isTerminated, `posted ${message.kind} to an ended worker`);
    this.got.push(message);
  }
  terminate(): void {
    this.isTerminated = true;
  }
  say(message: FromKernel): void {
    this.onmessage?.(message);
  }
  ready(): void {
    this.say({ kind: 'ready', flopsPerS: 5e9 });
  }
  answer(lease: string, outcome: 'commit' | 'projected' | 'refuse' | 'result', reason?: string): void {
    this.say({ kind: 'answer', lease, outcome, frame: encodeFrame({ type: outcome, lease, reason }).buffer });
  }
  kinds(): string[] {
    return this.got.map((message) => ('lease' in message ? `${message.kind} ${message.lease}` : message.kind));
  }
}

const HASH_W = 'aa'.repeat(32);
const HASH_S = 'bb'.repeat(32);

function setUp(share: number, cores: number, crashesMax?: number) {
  const ports: FakePort[] = [];
  const sent: string[] = [];
  const refused: string[] = [];
  const fetched: string[] = [];
  const events: string[] = [];
  const clock = { now: 0 };
  const network: { fail: boolean } = { fail: false };
  const host: PoolHost = {
    now: () => clock.now,
    spawn: () => {
      const port = new FakePort();
      ports.push(port);
      return port;
    },
    run: (act) => act(),
    ownMs: () => 3,
    send: (frame) => {
      const { type, lease } = decodeFrame(new Uint8Array(frame), TO_CONTRIBUTOR).header;
      sent.push(`${String(type)} ${String(lease)}`);
    },
    refuse: (lease, reason) => refused.push(`${lease} ${reason}`),
    shard: async (shard) => {
      fetched.push(shard.blob);
      if (network.fail) throw new Error('no network');
      return new ArrayBuffer(8);
    },
    measured: (flopsPerS) => events.push(`measured ${flopsPerS}`),
    changed: () => undefined,
    crashed: () => events.push('crashed'),
  };
  const store = new FrameStore();
  const pool = new Pool(host, store, paceFor(share, cores), crashesMax);
  return { pool, ports, sent, refused, fetched, events, clock, store, network };
}

const task = (lease: string) => ({
  lease,
  frame: new ArrayBuffer(16),
  shards: [{ blob: HASH_S, bytes: 8 }],
});
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

test('one worker measures first, then the others start', () => {
  const { ports, events } = setUp(1, 4);
  assert.equal(ports.length, 1);
  ports[0]?.ready();
  assert.equal(ports.length, 4);
  for (const port of ports.slice(1)) port.ready();
  assert.deepEqual(events, ['measured 5000000000']);
});

test('tasks go to free workers in order, and their answers to the coordinator', () => {
  const { pool, ports, sent } = setUp(1, 2);
  for (const lease of ['a', 'b', 'c']) pool.task(task(lease));
  ports[0]?.ready();
  ports[1]?.ready();
  assert.deepEqual(ports.map((port) => port.kinds()), [['task a'], ['task b']]);
  assert.ok(ports[0]?.got.every((message) => message.kind === 'task' && message.hubMs === 3), 'the hub is rested for');
  ports[1]?.answer('b', 'commit');
  assert.deepEqual(ports[1]?.kinds(), ['task b', 'task c']);
  pool.reveal('b', new ArrayBuffer(16));
  assert.deepEqual(ports[1]?.kinds().at(-1), 'reveal b');
  ports[1]?.answer('b', 'result');
  assert.deepEqual(sent, ['commit b', 'result b']);
  assert.equal(pool.committedTasks, 1);
});

test('a committed result may be projected any number of times, and then be revealed', () => {
  const { pool, ports, sent, refused } = setUp(1, 1);
  pool.task(task('a'));
  ports[0]?.ready();
  ports[0]?.answer('a', 'commit');
  for (const _ of [1, 2]) {
    pool.project('a', new ArrayBuffer(16));
    assert.deepEqual(ports[0]?.kinds().at(-1), 'project a');
    ports[0]?.answer('a', 'projected');
  }
  pool.reveal('a', new ArrayBuffer(16));
  ports[0]?.answer('a', 'result');
  pool.project('a', new ArrayBuffer(16));
  assert.deepEqual(sent, ['commit a', 'projected a', 'projected a', 'result a']);
  assert.deepEqual(refused, ['a missing']);
});

test('a reveal of nothing is refused', () => {
  const { pool, refused } = setUp(1, 1);
  pool.reveal('z', new ArrayBuffer(16));
  pool.project('y', new ArrayBuffer(16));
  assert.deepEqual(refused, ['z missing', 'y missing']);
});

test('blobs come from the store, shards over HTTP, and each kind is handed on', async () => {
  const { pool, ports, fetched, store } = setUp(1, 1);
  const [port] = ports;
  assert.ok(port);
  port.ready();
  pool.blob(HASH_W, new ArrayBuffer(4));
  pool.task(task('a'));
  port.say({ kind: 'need', lease: 'a', ids: [HASH_W, HASH_S] });
  await settle();
  const supplies = port.got.filter((message) => message.kind === 'supply').map(({ id, lent }) => `${id} ${lent}`);
  assert.deepEqual(supplies.sort(), [`${HASH_W} true`, `${HASH_S} false`].sort());
  assert.deepEqual(fetched, [HASH_S]);
  assert.equal(store.bytes, 4, 'the store keeps what it lends');
});

/** Frames that a worker was given. */
const supplied = (port: FakePort | undefined) => port?.got.flatMap((message) => (message.kind === 'supply' ? [message.frame] : []));

test('a blob goes from worker to worker and is never copied', async () => {
  const { pool, ports, store } = setUp(1, 3);
  ports[0]?.ready();
  ports.slice(1).forEach((port) => port.ready());
  const frame = new ArrayBuffer(4);
  pool.blob(HASH_W, frame);
  const leases = ['a', 'b', 'c'];
  for (const lease of leases) pool.task(task(lease));
  ports.forEach((port, at) => port.say({ kind: 'need', lease: leases[at] as string, ids: [HASH_W] }));
  await settle();
  assert.deepEqual(ports.map(supplied), [[frame], [], []], 'it is lent to one at a time');
  assert.equal(supplied(ports[0])?.[0], frame);
  // Who does not need it any more is passed over.
  pool.cancel('b', new ArrayBuffer(16));
  ports[0]?.say({ kind: 'returned', id: HASH_W, frame });
  await settle();
  assert.deepEqual(ports.map((port) => supplied(port)?.length), [1, 0, 1]);
  assert.equal(supplied(ports[2])?.[0], frame);
  // What the coordinator drops while it is lent is gone once it comes back.
  pool.drop([HASH_W], new ArrayBuffer(16));
  ports[2]?.say({ kind: 'returned', id: HASH_W, frame });
  assert.equal(store.bytes, 0);
  assert.equal(await store.lend(HASH_W), undefined);
});

test('a blob that is lost with a worker is missing, so that it is sent again', async () => {
  const { pool, ports, store, refused } = setUp(1, 2);
  ports[0]?.ready();
  ports[1]?.ready();
  pool.blob(HASH_W, new ArrayBuffer(4));
  for (const lease of ['a', 'b']) pool.task(task(lease));
  ports[0]?.say({ kind: 'need', lease: 'a', ids: [HASH_W] });
  ports[1]?.say({ kind: 'need', lease: 'b', ids: [HASH_W] });
  await settle();
  ports[0]?.onerror?.('a trap');
  await settle();
  assert.deepEqual(refused, ['a failed', 'b missing']);
  assert.equal(store.bytes, 0);
  const again = new ArrayBuffer(4);
  pool.blob(HASH_W, again);
  pool.task(task('c'));
  ports[1]?.say({ kind: 'need', lease: 'c', ids: [HASH_W] });
  await settle();
  assert.equal(supplied(ports[1])?.[0], again);
});

test('a shard that cannot be had costs the lease only', async () => {
  const { pool, ports, refused, network } = setUp(1, 1);
  const [port] = ports;
  assert.ok(port);
  port.ready();
  network.fail = true;
  pool.task(task('a'));
  pool.task(task('b'));
  port.say({ kind: 'need', lease: 'a', ids: [HASH_S] });
  await settle();
  assert.deepEqual(refused, ['a missing']);
  assert.deepEqual(port.kinds(), ['task a', 'forget a', 'task b']);
});

test('a blob that is neither sent nor a shard of the task is not asked of the network', async () => {
  const { pool, ports, refused, fetched } = setUp(1, 1);
  ports[0]?.ready();
  pool.task(task('a'));
  ports[0]?.say({ kind: 'need', lease: 'a', ids: [HASH_W] });
  await settle();
  assert.deepEqual(refused, ['a missing']);
  assert.deepEqual(fetched, []);
});

test('graphs reach every worker, those that start later too', () => {
  const { pool, ports } = setUp(1, 2);
  pool.graph(HASH_W, new ArrayBuffer(4));
  ports[0]?.ready();
  assert.deepEqual(ports.map((port) => port.kinds()), [['accept'], ['accept']]);
  pool.drop([HASH_W], new ArrayBuffer(4));
  assert.deepEqual(ports[1]?.kinds(), ['accept', 'accept']);
});

test('a pause hands everything back and takes nothing new', () => {
  const { pool, ports, sent, refused } = setUp(1, 1);
  const [port] = ports;
  assert.ok(port);
  port.ready();
  pool.task(task('a'));
  pool.task(task('b'));
  pool.pause();
  assert.deepEqual(refused, ['b stopping']);
  assert.deepEqual(port.kinds().at(-1), 'abort');
  port.answer('a', 'refuse');
  pool.task(task('c'));
  assert.deepEqual(sent, ['refuse a']);
  assert.deepEqual(refused, ['b stopping', 'c stopping']);
  pool.resume();
  pool.task(task('d'));
  assert.deepEqual(port.kinds().at(-1), 'task d');
});

test('a cancelled task frees its worker, and its late answer is dropped', () => {
  const { pool, ports, sent } = setUp(1, 1);
  const [port] = ports;
  assert.ok(port);
  port.ready();
  pool.task(task('a'));
  pool.task(task('b'));
  pool.task(task('c'));
  pool.cancel('b', new ArrayBuffer(16));
  pool.cancel('a', new ArrayBuffer(16));
  port.answer('a', 'commit');
  assert.deepEqual(sent, []);
  assert.deepEqual(port.kinds(), ['task a', 'cancel a', 'task c']);
  assert.equal(pool.committedTasks, 0);
});

test('a lower share ends workers, once their results are revealed', () => {
  const { pool, ports, sent } = setUp(1, 2);
  ports[0]?.ready();
  ports[1]?.ready();
  pool.task(task('a'));
  pool.task(task('b'));
  ports[0]?.answer('a', 'commit');
  pool.setPace(paceFor(0.5, 2));
  // The idle worker still owes a result, so it stays until that is revealed.
  assert.deepEqual(ports.map((port) => port.isTerminated), [false, false]);
  pool.reveal('a', new ArrayBuffer(16));
  ports[0]?.answer('a', 'result');
  assert.deepEqual(ports.map((port) => port.isTerminated), [true, false]);
  assert.deepEqual(sent, ['commit a', 'result a']);
  pool.setPace(paceFor(1, 2));
  assert.equal(ports.length, 3);
});

test('a crash costs its leases and the worker is replaced, but not for ever', () => {
  const { pool, ports, refused, events, clock } = setUp(1, 1);
  ports[0]?.ready();
  pool.task(task('a'));
  ports[0]?.say({ kind: 'broken', detail: 'unreachable' });
  assert.deepEqual(refused, ['a failed']);
  assert.equal(ports.length, 2);
  ports[1]?.onerror?.('gone');
  clock.now = 61_000;
  for (const at of [2, 3, 4]) ports[at]?.onerror?.('gone');
  assert.deepEqual(events.filter((event) => event === 'crashed'), [], 'the first two are long ago');
  ports[5]?.onerror?.('gone');
  assert.deepEqual(events.at(-1), 'crashed');
});

test('a task that no kernel here can run is refused with the worker’s reason', () => {
  const { pool, ports, refused } = setUp(1, 1);
  ports[0]?.ready();
  for (const lease of ['a', 'b', 'c']) pool.task(task(lease));
  ports[0]?.say({ kind: 'unable', lease: 'a', detail: '', reason: 'unsupported' });
  ports[0]?.say({ kind: 'unable', lease: 'b', detail: '' });
  pool.pause();
  ports[0]?.say({ kind: 'unable', lease: 'c', detail: '', reason: 'unsupported' });
  assert.deepEqual(refused, ['a unsupported', 'b failed', 'c stopping']);
});

test('where no crash is tolerated the first one is told, and nothing is started anew', () => {
  const { pool, ports, refused, events } = setUp(0.5, 1, 0);
  ports[0]?.ready();
  pool.task(task('a'));
  ports[0]?.onerror?.('gone');
  assert.deepEqual([refused, events.at(-1), ports.length], [['a failed'], 'crashed', 1]);
});

test('the end of a session clears leases, graphs and weights', () => {
  const { pool, ports, store, refused } = setUp(1, 1);
  const [port] = ports;
  assert.ok(port);
  port.ready();
  pool.graph(HASH_W, new ArrayBuffer(4));
  pool.task(task('a'));
  pool.task(task('b'));
  pool.endSession();
  assert.equal(store.bytes, 0);
  assert.deepEqual(refused, [], 'nobody is left to be told');
  assert.deepEqual(port.kinds(), ['accept', 'task a', 'cancel a', 'accept']);
  port.answer('a', 'commit');
  assert.equal(pool.committedTasks, 0);
  pool.task(task('c'));
  assert.deepEqual(port.kinds().at(-1), 'task c');
});

test('a stop ends every worker at once', () => {
  const { pool, ports } = setUp(1, 3);
  ports[0]?.ready();
  pool.task(task('a'));
  pool.stop();
  assert.deepEqual(ports.map((port) => port.isTerminated), [true, true, true]);
});

test('the queue is bounded', () => {
  const { pool, refused } = setUp(1, 1);
  for (let at = 0; at < 513; at += 1) pool.task(task(`t${at}`));
  assert.deepEqual(refused, ['t512 failed']);
});

test('a worker that does not hear an abort is ended and replaced', () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  const { pool, ports, refused } = setUp(1, 1);
  ports[0]?.ready();
  pool.task(task('a'));
  pool.pause();
  mock.timers.tick(1_999);
  assert.equal(ports.length, 1);
  mock.timers.tick(1);
  assert.equal(ports[0]?.isTerminated, true);
  assert.equal(ports.length, 2);
  assert.deepEqual(refused, ['a stopping']);
  mock.timers.reset();
});

test('a worker that hears it is kept', () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  const { pool, ports, refused } = setUp(1, 1);
  ports[0]?.ready();
  pool.task(task('a'));
  pool.pause();
  ports[0]?.answer('a', 'refuse', 'stopping');
  mock.timers.tick(10_000);
  assert.equal(ports.length, 1);
  assert.deepEqual(refused, []);
  mock.timers.reset();
});

test('a worker that lacks a graph is given the graphs again', () => {
  const { pool, ports, sent } = setUp(1, 1);
  const [port] = ports;
  assert.ok(port);
  port.ready();
  pool.graph(HASH_W, new ArrayBuffer(4));
  pool.task(task('a'));
  port.answer('a', 'refuse', 'missing');
  assert.deepEqual(port.kinds(), ['accept', 'task a', 'accept']);
  assert.deepEqual(sent, ['refuse a']);
});

test('a worker that is gone has its leases refused once, also where a blob fails later', async () => {
  const { pool, ports, refused, network } = setUp(1, 1);
  ports[0]?.ready();
  pool.task(task('a'));
  network.fail = true;
  // The shard's failure arrives after the crash.
  ports[0]?.say({ kind: 'need', lease: 'a', ids: [HASH_S] });
  ports[0]?.onerror?.('out of memory');
  await settle();
  assert.deepEqual(refused, ['a failed']);
  assert.ok(!ports[0]?.kinds().includes('forget a'));
});
