import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import type { ControllerHost } from '../src/hub/controller.ts';
import type { HubConfig } from '../src/shared/hub-port.ts';
import type { FromKernel } from '../src/shared/kernel-port.ts';
import { encodeFrame } from '../src/wire/frame.ts';
import {
  body, CONFIG, type FakeSocket, FakeWorker, GPU_KERNEL, GRAPH, LEASE, ready, setUp, settle, until, type World,
} from './hub-world.ts';

const ALLOWED: HubConfig = { ...CONFIG, gpu: 'hardware', gpuAllowed: true };
const OTHER_LEASE = `lease_${'2'.repeat(32)}`;

const gpuStatus = (world: World): string | undefined => world.statuses.at(-1)?.gpu;
const goodbye = { type: 'goodbye', reason: 'stopped' };

/** A hub with a session of the processor, and one of the GPU where that comes to it. */
async function start(config: HubConfig = ALLOWED, overrides: Partial<ControllerHost> = {}, gpuSays?: FromKernel) {
  const world = setUp(overrides, gpuSays);
  world.controller.handle({ kind: 'start', config });
  return { world, cpu: await ready(world) };
}

async function startBoth(config: HubConfig = ALLOWED, overrides: Partial<ControllerHost> = {}) {
  const { world, cpu } = await start(config, overrides);
  const gpu = await ready(world, 1);
  const [worker] = world.gpuWorkers;
  assert.ok(worker);
  return { world, cpu, gpu, worker };
}

/** That the processor still works, and the GPU does not. */
function assertCpuGoesOn(world: World, cpu: FakeSocket): void {
  assert.equal(gpuStatus(world), 'none');
  assert.equal(cpu.closedWith, undefined);
  assert.ok(world.gpuWorkers.every((worker) => worker.isTerminated), 'its worker is ended');
  cpu.say({ type: 'task', lease: LEASE, flops: 1, spec: {} });
  assert.equal(world.workers[0]?.got.at(-1)?.kind, 'task');
  assert.deepEqual(world.last(), { name: 'working' });
  world.controller.handle({ kind: 'stop' });
}

test('the GPU has a session of its own, with the same key, once the processor’s is ready', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: ALLOWED });
  await until(() => world.sockets.length === 1);
  await settle(30);
  assert.deepEqual([world.gpuWorkers.length, gpuStatus(world)], [0, 'starting'], 'the processor comes first');
  const cpu = await ready(world);
  const gpu = await ready(world, 1);
  assert.equal(gpuStatus(world), 'on');
  const hello = gpu.sent[0];
  assert.deepEqual(hello?.numeric, { class: 'gpu', kernel: GPU_KERNEL });
  assert.deepEqual(hello?.device, { class: 'desktop', cores: 2, memory_bytes: 512 << 20, flops_per_s: 90e9 });
  assert.deepEqual([hello?.share, hello?.workers, hello?.ticket], [0.5, 1, 'ticket-1']);
  assert.equal(hello?.session_key, cpu.sent[0]?.session_key);
  // The second hello knows of what both modules and the first session have moved.
  const [before, after] = [Number(cpu.sent[0]?.traffic_bytes_left), Number(hello?.traffic_bytes_left)];
  assert.ok(after < before - 250_000 && after > before - 253_000, `${before} and then ${after} bytes left`);
  world.controller.handle({ kind: 'stop' });
});

test('where it is not offered or not allowed nothing is fetched and nothing said of it', async () => {
  let loads = 0;
  const loadGpu = (): Promise<never> => ((loads += 1), Promise.reject(new Error('not wanted')));
  for (const config of [{ ...ALLOWED, gpu: 'no' as const }, { ...ALLOWED, gpuAllowed: false }]) {
    const { world } = await start(config, { loadGpu });
    await settle(30);
    assert.deepEqual([world.sockets.length, loads, gpuStatus(world)], [1, 0, 'off']);
    world.controller.handle({ kind: 'stop' });
  }
});

test('nothing is fetched where there is no adapter to use', async () => {
  const asked: boolean[] = [];
  let loads = 0;
  const loadGpu = (): Promise<never> => ((loads += 1), Promise.reject(new Error('not wanted')));
  for (const [gpu, hasGpu] of [
    ['hardware', async (software: boolean) => (asked.push(software), false)],
    ['any', async (software: boolean) => (asked.push(software), false)],
    ['hardware', () => Promise.reject(new Error('the driver is gone'))],
  ] as const) {
    const { world, cpu } = await start({ ...ALLOWED, gpu }, { loadGpu, hasGpu });
    await until(() => gpuStatus(world) === 'none');
    assert.equal(loads, 0);
    assertCpuGoesOn(world, cpu);
  }
  assert.deepEqual(asked, [false, true], 'a software adapter will do for tests only');
});

test('the GPU is held against all cores, whatever the share', async () => {
  // One of eight cores is lent, and an eighth of the GPU.
  for (const [flopsPerS, status] of [[7e9 * 8, 'none'], [7e9 * 8 + 1, 'on']] as const) {
    const { world } = await start({ ...ALLOWED, share: 0.125, cores: 8 }, {}, { kind: 'ready', flopsPerS });
    if (status === 'on') await ready(world, 1);
    await until(() => gpuStatus(world) === status);
    world.controller.handle({ kind: 'stop' });
  }
});

test('every receipt says whether the GPU is allowed at that moment', async () => {
  const { world, cpu, gpu } = await startBoth({ ...ALLOWED, share: 0.2 });
  const receipts = (socket: FakeSocket): Array<Record<string, unknown>> =>
    socket.sent.flatMap(({ receipt }) => (receipt === undefined ? [] : [JSON.parse(String(receipt))]));
  assert.deepEqual(Object.keys(receipts(cpu)[0] ?? {}), ['text_version', 'site', 'view', 'share', 'gpu', 'time_ms', 'keeps', 'nonce', 'session_key']);
  world.controller.handle({ kind: 'share', share: 0.5 });
  await until(() => receipts(cpu).length === 2 && receipts(gpu).length === 2);
  for (const receipt of [...receipts(cpu), ...receipts(gpu)]) assert.equal(receipt.gpu, true);
  assert.deepEqual(receipts(gpu).map(({ share }) => share), [0.2, 0.5]);
  assert.deepEqual(world.gpuWorkers[0]?.got.at(-1), { kind: 'duty', duty: 0.5 });
  world.controller.handle({ kind: 'gpu', allowed: false });
  await settle(310);
  world.controller.handle({ kind: 'share', share: 0.9 });
  await until(() => receipts(cpu).length === 3);
  assert.ok(!('gpu' in (receipts(cpu)[2] ?? {})));
  world.controller.handle({ kind: 'stop' });
});

test('a GPU that is slower than the processor, that did not compute, or that cannot be opened is not used', async () => {
  const said: FromKernel[] = [
    // Two workers of 7 Gflop/s each are at work at this share.
    { kind: 'ready', flopsPerS: 14e9 },
    { kind: 'ready', flopsPerS: 0 },
    { kind: 'broken', detail: 'adapter: none' },
  ];
  for (const message of said) {
    const { world, cpu } = await start({ ...ALLOWED, share: 1 }, {}, message);
    await until(() => gpuStatus(world) === 'none');
    assert.deepEqual([world.sockets.length, world.gpuWorkers.length], [1, 1]);
    world.controller.handle({ kind: 'gpu', allowed: false });
    assert.equal(gpuStatus(world), 'off');
    world.controller.handle({ kind: 'gpu', allowed: true });
    await settle(20);
    assert.equal(world.gpuWorkers.length, 1, 'nor tried again');
    assertCpuGoesOn(world, cpu);
  }
});

test('tests take a slow one too, and a software adapter, but none that does not compute', async () => {
  for (const flopsPerS of [1e6, 0]) {
    const { world, cpu } = await start({ ...ALLOWED, gpu: 'any' }, {}, { kind: 'ready', flopsPerS });
    if (flopsPerS > 0) await ready(world, 1);
    else await until(() => gpuStatus(world) === 'none');
    assert.deepEqual([gpuStatus(world), world.gpuWorkers[0]?.software], [flopsPerS > 0 ? 'on' : 'none', true]);
    assert.equal(cpu.closedWith, undefined);
    world.controller.handle({ kind: 'stop' });
  }
});

test('a module that cannot be had, and one that there is no room for, leave the processor at work', async () => {
  const missing = await start(ALLOWED, { loadGpu: () => Promise.reject(new Error('404')) });
  await until(() => gpuStatus(missing.world) === 'none');
  assertCpuGoesOn(missing.world, missing.cpu);

  let loads = 0;
  const scarce = await start({ ...ALLOWED, bytesMax: 1_050_000 }, { loadGpu: () => ((loads += 1), Promise.reject(new Error('no'))) });
  await until(() => gpuStatus(scarce.world) === 'none');
  assert.equal(loads, 0);
  assertCpuGoesOn(scarce.world, scarce.cpu);
});

test('a driver that does not answer is given up', async () => {
  let isOpening = false;
  const spawnGpu = (): FakeWorker => {
    mock.timers.enable({ apis: ['setTimeout'] });
    isOpening = true;
    return new FakeWorker();
  };
  const { world, cpu } = await start(ALLOWED, { spawnGpu });
  await until(() => isOpening);
  mock.timers.tick(19_999);
  assert.equal(gpuStatus(world), 'starting');
  mock.timers.tick(1);
  mock.timers.reset();
  assertCpuGoesOn(world, cpu);
});

test('a device that is lost in mid-task: the lease goes back, then no goodbye, and the processor goes on', async () => {
  const { world, cpu, gpu, worker } = await startBoth();
  gpu.say({ type: 'task', lease: LEASE, flops: 1, spec: {} });
  worker.onmessage?.({ kind: 'answer', lease: LEASE, outcome: 'commit', frame: encodeFrame({ type: 'commit', lease: LEASE }).buffer });
  gpu.say({ type: 'task', lease: OTHER_LEASE, flops: 1, spec: {} });
  const refusal = encodeFrame({ type: 'refuse', lease: OTHER_LEASE, reason: 'failed', detail: 'the device was lost' });
  worker.onmessage?.({ kind: 'answer', lease: OTHER_LEASE, outcome: 'refuse', frame: refusal.buffer });
  worker.onmessage?.({ kind: 'broken', detail: 'unknown' });
  assert.deepEqual(gpu.sent.slice(-2).map(({ type, lease, reason }) => [type, lease, reason]), [
    ['refuse', OTHER_LEASE, 'failed'],
    // What was not revealed yet is gone with the worker.
    ['refuse', LEASE, 'failed'],
  ]);
  // The visitor has stopped nothing.
  assert.equal(gpu.closedWith, 1000);
  await until(() => world.statuses.at(-1)?.tasks === 1);
  await settle(700);
  assert.deepEqual([world.sockets.length, world.gpuWorkers.length], [2, 1], 'neither connected nor opened again');
  assertCpuGoesOn(world, cpu);
});

test('whatever the coordinator says to the GPU’s session, the processor’s goes on', async () => {
  for (const reason of ['incompatible', 'no_consent', 'traffic_cap', 'excluded']) {
    const { world, cpu, gpu } = await startBoth();
    gpu.say({ type: 'goodbye', reason, detail: '' });
    assertCpuGoesOn(world, cpu);
  }
  const { world, cpu, gpu } = await startBoth();
  for (let at = 1; at < 4; at += 1) {
    await until(() => world.sockets.length > at);
    (world.sockets[at] ?? gpu).lose(4003);
    if (at < 3) assert.equal(gpuStatus(world), 'starting');
    if (at === 2) await settle(600);
  }
  assertCpuGoesOn(world, cpu);
});

test('a lost connection of the GPU is made again, and the worker is kept', async () => {
  const { world, cpu, gpu } = await startBoth();
  gpu.lose();
  assert.equal(gpuStatus(world), 'starting');
  assert.deepEqual(world.last(), { name: 'idle' });
  const second = await ready(world, 2);
  assert.deepEqual(second.sent[0]?.numeric, { class: 'gpu', kernel: GPU_KERNEL });
  assert.deepEqual([gpuStatus(world), world.gpuWorkers.length, cpu.closedWith], ['on', 1, undefined]);
  world.controller.handle({ kind: 'stop' });
});

test('an old ticket is renewed once for both; where the new one is not good either, the GPU’s part ends', async () => {
  const { world, cpu, gpu } = await startBoth();
  for (const socket of [cpu, gpu]) socket.say({ type: 'goodbye', reason: 'bad_ticket', detail: 'expired' });
  await until(() => world.sockets.length === 4);
  assert.equal(world.renewals.length, 1);
  const renewed = [await ready(world, 2), await ready(world, 3)];
  assert.deepEqual(renewed.map(({ sent }) => sent[0]?.ticket), ['ticket-2', 'ticket-2']);
  renewed[1]?.lose();
  const again = await ready(world, 4);
  again.say({ type: 'goodbye', reason: 'bad_ticket', detail: '' });
  await until(() => world.sockets.length === 6);
  world.sockets[5]?.open();
  world.sockets[5]?.say({ type: 'goodbye', reason: 'bad_ticket', detail: '' });
  assertCpuGoesOn(world, renewed[0] as FakeSocket);
});

test('a pause reaches both at once, and a resume too', async () => {
  const { world, cpu, gpu, worker } = await startBoth();
  cpu.say({ type: 'task', lease: LEASE, flops: 1, spec: {} });
  gpu.say({ type: 'task', lease: OTHER_LEASE, flops: 1, spec: {} });
  world.controller.handle({ kind: 'pause', detail: 'hidden' });
  for (const [socket, port] of [[cpu, world.workers[0]], [gpu, worker]] as const) {
    assert.deepEqual(socket.sent.at(-1), { type: 'pause', detail: 'hidden' });
    assert.deepEqual(port?.got.at(-1), { kind: 'abort' });
  }
  assert.deepEqual(world.last(), { name: 'paused' });
  world.controller.sleep();
  // Another tab has a connection: the visitor has taken nothing back.
  for (const socket of [cpu, gpu]) assert.deepEqual([socket.types().includes('goodbye'), socket.closedWith], [false, 1000]);
  world.controller.handle({ kind: 'resume' });
  await until(() => world.sockets.length === 4);
  assert.deepEqual([world.workers.length, world.gpuWorkers.length], [1, 1]);
  world.controller.handle({ kind: 'stop' });
});

test('paused while its module is loaded, the GPU is opened when work resumes', async () => {
  let loaded = (): void => undefined;
  const files = { kernel: GPU_KERNEL, glueUrl: 'http://c/g.js', module: {} as WebAssembly.Module, bytes: 250_000 };
  let loads = 0;
  const { world } = await start(ALLOWED, {
    loadGpu: () => ((loads += 1), new Promise((resolve) => (loaded = () => resolve(files)))),
  });
  assert.equal(loads, 1);
  world.controller.handle({ kind: 'pause', detail: 'hidden' });
  loaded();
  await settle(20);
  assert.equal(world.gpuWorkers.length, 0);
  world.controller.handle({ kind: 'resume' });
  await ready(world, 1);
  assert.deepEqual([loads, gpuStatus(world)], [1, 'on']);
  world.controller.handle({ kind: 'stop' });
});

test('a tick that is taken back ends session and worker at once, and a new one starts them', async () => {
  const shard = body([1, 2, 3, 4]);
  let aborted = false;
  const { world, cpu, gpu, worker } = await startBoth(ALLOWED, {
    fetch: (_input, init) =>
      new Promise((resolve) => {
        init?.signal?.addEventListener('abort', () => (aborted = true));
        setTimeout(() => resolve(new Response(shard)), 500);
      }),
  });
  gpu.say({ type: 'task', lease: LEASE, flops: 1, spec: { shards: [{ blob: GRAPH, bytes: 4 }] } });
  worker.onmessage?.({ kind: 'need', lease: LEASE, ids: [GRAPH] });
  await settle();
  world.controller.handle({ kind: 'gpu', allowed: false });
  assert.deepEqual([worker.isTerminated, aborted, gpuStatus(world)], [true, true, 'off']);
  assert.deepEqual(gpu.sent.at(-1), goodbye);
  assert.equal(cpu.closedWith, undefined);
  world.controller.handle({ kind: 'gpu', allowed: true });
  await ready(world, 2);
  assert.deepEqual([world.gpuWorkers.length, gpuStatus(world)], [2, 'on']);
  world.controller.handle({ kind: 'stop' });
});

test('a stop ends both workers before either goodbye is said', async () => {
  const { world, cpu, gpu, worker } = await startBoth();
  const order: string[] = [];
  const note = (name: string, what: { terminate(): void } | { send(data: never): void }, method: string): void => {
    const target = what as unknown as Record<string, (data?: unknown) => void>;
    const before = target[method]?.bind(what);
    target[method] = (data) => (order.push(name), before?.(data));
  };
  for (const port of [world.workers[0] as FakeWorker, worker]) note('end', port, 'terminate');
  for (const socket of [cpu, gpu]) note('goodbye', socket, 'send');
  world.controller.handle({ kind: 'stop' });
  assert.deepEqual(order, ['end', 'end', 'goodbye', 'goodbye']);
  assert.deepEqual(world.last(), { name: 'stopped' });
  assert.ok(!world.statuses.slice(0, -1).some(({ phase }) => phase.name === 'stopped'), 'it is said once');
});

test('tasks of both are one count, and either is work', async () => {
  const { world, cpu, gpu, worker } = await startBoth();
  gpu.say({ type: 'task', lease: OTHER_LEASE, flops: 1, spec: {} });
  assert.deepEqual(world.last(), { name: 'working' });
  cpu.say({ type: 'task', lease: LEASE, flops: 1, spec: {} });
  const commit = (lease: string): FromKernel => ({ kind: 'answer', lease, outcome: 'commit', frame: encodeFrame({ type: 'commit', lease }).buffer });
  worker.onmessage?.(commit(OTHER_LEASE));
  world.workers[0]?.onmessage?.(commit(LEASE));
  await until(() => world.statuses.at(-1)?.tasks === 2);
  world.controller.handle({ kind: 'gpu', allowed: false });
  assert.equal(world.statuses.at(-1)?.tasks, 2, 'what is done stays done');
  world.controller.handle({ kind: 'stop' });
});

test('both share the cap: bytes of either count, and what does not fit into the rest ends the GPU’s part first', async () => {
  const { world, cpu, gpu, worker } = await startBoth({ ...ALLOWED, bytesMax: 3_000_000 });
  const before = world.controller.bytes;
  cpu.receive(encodeFrame({ type: 'blob', id: 'ab'.repeat(32), padding: 'x'.repeat(300_000) }).buffer);
  gpu.receive(encodeFrame({ type: 'blob', id: 'ab'.repeat(32), padding: 'x'.repeat(300_000) }).buffer);
  const moved = world.controller.bytes - before;
  assert.ok(moved > 600_000 && moved < 601_000, `${moved} bytes`);
  gpu.say({ type: 'task', lease: LEASE, flops: 1, spec: {} });
  worker.onmessage?.({ kind: 'answer', lease: LEASE, outcome: 'commit', frame: encodeFrame({ type: 'commit', lease: LEASE }).buffer });
  worker.onmessage?.({ kind: 'answer', lease: LEASE, outcome: 'result', frame: new ArrayBuffer(2 << 20) });
  assert.deepEqual([gpu.types().at(-1), gpu.closedWith], ['commit', 1000], 'the payload is not sent');
  assertCpuGoesOn(world, cpu);
});

test('a cap that stops the GPU’s session ends the visit where the processor has nothing to go on with', async () => {
  const { world, cpu, gpu } = await startBoth({ ...ALLOWED, bytesMax: 1_500_000 });
  cpu.receive(encodeFrame({ type: 'blob', id: 'ab'.repeat(32), padding: 'x'.repeat(500_000) }).buffer);
  cpu.lose();
  gpu.say({ type: 'goodbye', reason: 'traffic_cap', detail: '' });
  assert.equal((world.last() as { failure?: string }).failure, 'traffic_cap');
});

test('a shard that both want is fetched once, and stays wanted when one of them ends', async () => {
  const requests: Array<{ readonly aborted: () => boolean; readonly answer: () => void }> = [];
  const { world, cpu, gpu, worker } = await startBoth(ALLOWED, {
    fetch: (_input, init) =>
      new Promise((resolve) =>
        requests.push({ aborted: () => init?.signal?.aborted === true, answer: () => resolve(new Response(new Uint8Array(4))) }),
      ),
  });
  const spec = { shards: [{ blob: GRAPH, bytes: 4 }] };
  gpu.say({ type: 'task', lease: OTHER_LEASE, flops: 1, spec });
  worker.onmessage?.({ kind: 'need', lease: OTHER_LEASE, ids: [GRAPH] });
  cpu.say({ type: 'task', lease: LEASE, flops: 1, spec });
  world.workers[0]?.onmessage?.({ kind: 'need', lease: LEASE, ids: [GRAPH] });
  await settle();
  world.controller.handle({ kind: 'gpu', allowed: false });
  assert.deepEqual(requests.map(({ aborted }) => aborted()), [false]);
  requests[0]?.answer();
  await until(() => world.workers[0]?.got.some(({ kind }) => kind === 'supply') === true);
  world.controller.handle({ kind: 'stop' });
});

test('a worker that does not hear an abort is not replaced', async () => {
  const { world, cpu, gpu, worker } = await startBoth();
  gpu.say({ type: 'task', lease: LEASE, flops: 1, spec: {} });
  mock.timers.enable({ apis: ['setTimeout'] });
  world.controller.handle({ kind: 'pause', detail: 'hidden' });
  mock.timers.tick(2_000);
  mock.timers.reset();
  assert.deepEqual(gpu.types().slice(-2), ['pause', 'refuse']);
  assert.equal(gpu.closedWith, 1000);
  assert.deepEqual([worker.isTerminated, world.gpuWorkers.length], [true, 1]);
  world.controller.handle({ kind: 'resume' });
  assertCpuGoesOn(world, cpu);
});

test('with the processor switched off the GPU works alone, and its receipt says so', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: { ...ALLOWED, cpuAllowed: false } });
  const gpu = await ready(world);
  assert.deepEqual([world.workers.length, world.sockets.length, gpuStatus(world)], [0, 1, 'on'], 'nothing of the processor');
  const receipt = JSON.parse(String(gpu.sent[1]?.receipt));
  assert.deepEqual([receipt.cpu, receipt.gpu], [false, true]);
  assert.deepEqual(gpu.sent[0]?.numeric, { class: 'gpu', kernel: GPU_KERNEL });
  // Switched on again it joins, with a receipt of its own.
  world.controller.handle({ kind: 'cpu', allowed: true });
  const cpu = await ready(world, 1);
  assert.equal(JSON.parse(String(cpu.sent[1]?.receipt)).cpu, undefined);
  assert.equal(gpu.closedWith, undefined);
  world.controller.handle({ kind: 'stop' });
});

test('the processor switched off: goodbye at once, and the GPU goes on', async () => {
  const { world, cpu, gpu } = await startBoth();
  cpu.say({ type: 'task', lease: LEASE, flops: 1, spec: {} });
  world.controller.handle({ kind: 'cpu', allowed: false });
  assert.deepEqual(cpu.sent.at(-1), goodbye);
  assert.ok(world.workers.every((worker) => worker.isTerminated), 'nothing computes before goodbye is said');
  assert.equal(gpu.closedWith, undefined);
  world.controller.handle({ kind: 'cpu', allowed: true });
  await ready(world, 2);
  world.controller.handle({ kind: 'stop' });
});

test('a GPU that is alone and of no use leaves nothing to do', async () => {
  const world = setUp({ hasGpu: async () => false });
  world.controller.handle({ kind: 'start', config: { ...ALLOWED, cpuAllowed: false } });
  await until(() => gpuStatus(world) === 'none');
  assert.deepEqual(world.last(), { name: 'idle' });
  assert.equal(world.workers.length, 0);
  world.controller.handle({ kind: 'stop' });
});
