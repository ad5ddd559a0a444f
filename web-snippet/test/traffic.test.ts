import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ShardFetcher } from '../src/hub/blobs.ts';
import { Traffic } from '../src/hub/traffic.ts';
import { encodeFrame } from '../src/wire/frame.ts';
import { CONFIG, GRAPH, LEASE, ready, setUp, settle, until, type World } from './hub-world.ts';

const mebi = (count: number): ArrayBuffer => new ArrayBuffer(count << 20);

test('every byte is counted, both ways, the kernel and shards too', async () => {
  const shard = new Uint8Array(5_000);
  const world = setUp({ fetch: async () => new Response(shard) });
  world.controller.handle({ kind: 'start', config: { ...CONFIG, bytesUsed: 1_000 } });
  const socket = await ready(world);
  await until(() => world.statuses.at(-1)?.bytes !== undefined);
  const [worker] = world.workers;
  assert.ok(worker);
  const before = world.statuses.at(-1)?.bytes ?? 0;
  assert.ok(before > 301_000 && before < 303_000, `${before}`);
  socket.receive(encodeFrame({ type: 'blob', id: 'ab'.repeat(32), padding: 'x'.repeat(40_000) }).buffer);
  socket.say({ type: 'task', lease: LEASE, flops: 1, spec: { shards: [{ blob: GRAPH, bytes: 5_000 }] } });
  worker.onmessage?.({ kind: 'need', lease: LEASE, ids: [GRAPH] });
  await until(() => worker.got.some((message) => message.kind === 'supply'));
  worker.onmessage?.({ kind: 'answer', lease: LEASE, outcome: 'result', frame: encodeFrame({ type: 'result', lease: LEASE, padding: 'y'.repeat(20_000) }).buffer });
  await settle(300);
  const moved = (world.statuses.at(-1)?.bytes ?? 0) - before;
  assert.ok(moved > 65_000 && moved < 67_500, `${moved} bytes for 65,000 of content`);
  world.controller.handle({ kind: 'stop' });
});

test('what would pass the cap is neither fetched nor sent, and ends the work', async () => {
  let fetched = 0;
  const counting = { fetch: async () => ((fetched += 1), new Response(mebi(1))) };
  const config = { ...CONFIG, bytesMax: 1_200_000 };
  const shards = setUp(counting);
  shards.controller.handle({ kind: 'start', config });
  const socket = await ready(shards);
  socket.say({ type: 'task', lease: LEASE, flops: 1, spec: { shards: [{ blob: GRAPH, bytes: 1 << 20 }] } });
  shards.workers[0]?.onmessage?.({ kind: 'need', lease: LEASE, ids: [GRAPH] });
  await until(() => shards.last()?.name === 'failed');
  assert.equal(fetched, 0);
  assert.equal((shards.last() as { failure?: string }).failure, 'traffic_cap');
  assert.deepEqual([socket.types().includes('goodbye'), socket.closedWith], [false, 1000], 'the visitor has taken nothing back');
  assert.ok(shards.workers.every((worker) => worker.isTerminated));

  const results = setUp(counting);
  results.controller.handle({ kind: 'start', config });
  const other = await ready(results);
  other.say({ type: 'task', lease: LEASE, flops: 1, spec: {} });
  results.workers[0]?.onmessage?.({ kind: 'answer', lease: LEASE, outcome: 'commit', frame: encodeFrame({ type: 'commit', lease: LEASE }).buffer });
  results.workers[0]?.onmessage?.({ kind: 'answer', lease: LEASE, outcome: 'result', frame: mebi(1) });
  assert.equal(results.last()?.name, 'failed');
  assert.deepEqual([other.types().at(-1), other.closedWith], ['commit', 1000], 'the payload is not sent');
});

test('where little is left nothing is downloaded, and a coordinator that sees the cap ends the work', async () => {
  const over = setUp();
  over.controller.handle({ kind: 'start', config: { ...CONFIG, bytesUsed: 24_600_000 } });
  await until(() => over.last()?.name === 'failed');
  assert.deepEqual([over.sockets.length, over.workers.length], [0, 0]);

  const told = setUp();
  told.controller.handle({ kind: 'start', config: CONFIG });
  (await ready(told)).say({ type: 'goodbye', reason: 'traffic_cap', detail: '' });
  assert.equal((told.last() as { failure?: string }).failure, 'traffic_cap');
});

/** A fetch whose answers are the test's to give. */
function slowFetch() {
  const requests: Array<{ readonly url: string; readonly aborted: () => boolean; readonly answer: (response: Response) => void }> = [];
  const fetch = (input: unknown, init?: RequestInit): Promise<Response> =>
    new Promise((resolve, reject) => {
      const signal = init?.signal;
      signal?.addEventListener('abort', () => reject(new DOMException('', 'AbortError')));
      requests.push({ url: String(input), aborted: () => signal?.aborted === true, answer: resolve });
    });
  return { requests, fetch };
}

/** What a visit with `left` bytes lets a fetcher do. */
function allowance(left: number) {
  const told: string[] = [];
  const rest = { left, told };
  return Object.assign(rest, {
    reserve(bytes: number) {
      if (bytes > rest.left) return false;
      rest.left -= bytes;
      return true;
    },
    settle(reserved: number, moved: number) {
      told.push(`${moved} of ${reserved}`);
      rest.left += reserved - moved;
    },
  });
}

const EXCHANGE = 1 << 10;

test('of shards that are fetched at once only those start that fit beside each other', async () => {
  const { requests, fetch } = slowFetch();
  const visit = allowance(10_000);
  const fetcher = new ShardFetcher('http://c', fetch, visit);
  const first = fetcher.get('a', 6_000, 'g');
  await assert.rejects(fetcher.get('b', 6_000, 'g'), /more than the visit may still move/);
  assert.equal(requests.length, 1);
  assert.equal(visit.left, 10_000 - 6_000 - EXCHANGE, 'set aside before it comes');
  requests[0]?.answer(new Response(new Uint8Array(6_000)));
  await first;
  assert.deepEqual(visit.told, [`${6_000 + EXCHANGE} of ${6_000 + EXCHANGE}`]);
});

test('what was set aside is given back as far as nothing came', async () => {
  const visit = allowance(1e6);
  const answers = [new Response('no', { status: 404 }), new Response(new Uint8Array(10))];
  const fetcher = new ShardFetcher('http://c', async () => answers.shift() ?? Promise.reject(new Error('no network')), visit);
  await assert.rejects(fetcher.get('a', 5_000, 'g'), /404/);
  await assert.rejects(fetcher.get('b', 5_000, 'g'), /10 bytes, 5000 stated/);
  await assert.rejects(fetcher.get('c', 5_000, 'g'), /no network/);
  const all = 5_000 + EXCHANGE;
  assert.deepEqual(visit.told, [`${EXCHANGE} of ${all}`, `${all} of ${all}`, `${EXCHANGE} of ${all}`], 'of a broken body all is counted');
});

test('downloads can be ended, and asked for anew at once', async () => {
  const { requests, fetch } = slowFetch();
  const visit = allowance(1e6);
  const fetcher = new ShardFetcher('http://c', fetch, visit);
  const aborting = new AbortController();
  const ended = assert.rejects(fetcher.get('a', 5_000, 'g', aborting.signal), { name: 'AbortError' });
  aborting.abort();
  const again = fetcher.get('a', 4, 'g');
  await ended;
  assert.deepEqual(requests.map(({ aborted }) => aborted()), [true, false]);
  requests[1]?.answer(new Response(new Uint8Array(4)));
  assert.equal((await again).byteLength, 4);
});

/** A hub whose one task waits for a shard that is on its way. */
async function fetching(world: World, bytes: number): Promise<void> {
  const socket = await ready(world);
  socket.say({ type: 'task', lease: LEASE, flops: 1, spec: { shards: [{ blob: GRAPH, bytes }] } });
  world.workers[0]?.onmessage?.({ kind: 'need', lease: LEASE, ids: [GRAPH] });
}

test('a download is told before its first byte, and to the next session too', async () => {
  const { requests, fetch } = slowFetch();
  const toldAtFetch: number[] = [];
  const world: World = setUp({ fetch: (input, init) => (toldAtFetch.push(world.statuses.at(-1)?.bytes ?? 0), fetch(input, init)) });
  world.controller.handle({ kind: 'start', config: CONFIG });
  const shard = 1 << 20;
  await fetching(world, shard);
  assert.equal(requests.length, 1);
  assert.ok((toldAtFetch[0] ?? 0) > 300_000 + shard, `${toldAtFetch[0]} bytes were told`);
  world.sockets[0]?.lose();
  const second = await ready(world, 1);
  const left = Number(second.sent[0]?.traffic_bytes_left);
  assert.ok(left < CONFIG.bytesMax - 300_000 - shard, `${left} bytes left`);
  // The parts that were told are the whole.
  await settle(300);
  const sum = world.statuses.reduce((all, { moved }) => all + moved, 0);
  assert.equal(sum, world.statuses.at(-1)?.bytes);
  world.controller.handle({ kind: 'stop' });
  assert.ok(requests[0]?.aborted(), 'a stop ends it');
});

test('a pause ends downloads, and their tasks are handed back without blame', async () => {
  const { requests, fetch } = slowFetch();
  const world = setUp({ fetch });
  world.controller.handle({ kind: 'start', config: CONFIG });
  await fetching(world, 1 << 20);
  const before = world.controller.bytes;
  world.controller.handle({ kind: 'pause', detail: 'hidden' });
  await until(() => world.sockets[0]?.types().includes('refuse') === true);
  assert.ok(requests[0]?.aborted());
  assert.equal(world.sockets[0]?.sent.at(-1)?.reason, 'stopping');
  assert.ok(world.controller.bytes < before - (1 << 20) + 5_000, 'what did not come is given back');
  world.controller.handle({ kind: 'stop' });
});

test('a kernel that is on its way is counted', async () => {
  const world = setUp({ loadKernel: () => new Promise(() => undefined) });
  world.controller.handle({ kind: 'start', config: CONFIG });
  await until(() => (world.statuses.at(-1)?.bytes ?? 0) >= 400_000);
  world.controller.handle({ kind: 'stop' });
});

test('what other tabs add is added, before the start too, and is not told as this tab’s own', async () => {
  const world = setUp();
  world.controller.noteTraffic(2_000_000, 2_000_000);
  world.controller.handle({ kind: 'start', config: { ...CONFIG, bytesUsed: 1_000_000 } });
  assert.equal(world.controller.bytes, 3_000_000);
  await ready(world);
  const { bytes } = world.controller;
  // At a hand-over both tabs move bytes; neither knows yet what the other has added.
  world.controller.noteTraffic(700_000, 3_700_000);
  assert.equal(world.controller.bytes, bytes + 700_000);
  world.controller.noteTraffic(-100_000, 3_600_000);
  assert.equal(world.controller.bytes, bytes + 600_000);
  world.controller.noteTraffic(0, 9_000_000);
  assert.equal(world.controller.bytes, 9_000_000, 'another one heard of more');
  await settle(300);
  const own = world.statuses.reduce((all, { moved }) => all + moved, 0);
  assert.ok(own > 300_000 && own < 310_000, `${own} bytes of its own`);
  world.controller.handle({ kind: 'stop' });
});

test('two tabs that add to one visit come to one count, in whatever order they hear of it', () => {
  const [one, two] = [new Traffic(), new Traffic()];
  one.begin(0, 1e6);
  two.begin(0, 1e6);
  const letters: Array<() => void> = [];
  let moved = 0;
  for (let step = 1; step <= 20; step += 1) {
    const [from, to] = step % 3 === 0 ? [two, one] : [one, two];
    const bytes = step % 5 === 0 ? -step * 50 : step * 100;
    moved += bytes;
    from.spend(bytes);
    const total = from.used;
    letters.push(() => to.hear(bytes, total));
    // Some letters wait for each other.
    if (step % 4 === 0) letters.splice(0).forEach((deliver) => deliver());
  }
  letters.forEach((deliver) => deliver());
  for (const tab of [one, two]) assert.ok(tab.used >= moved && tab.used <= moved * 1.2, `${tab.used} for ${moved}`);
  assert.equal(one.own + two.own, moved);
});
