import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameStore, readExactly, ShardFetcher } from '../src/hub/blobs.ts';
import { Identity } from '../src/hub/identity.ts';
import { hasSimd } from '../src/hub/kernel-files.ts';
import { encodeFrame } from '../src/wire/frame.ts';
import { body, CONFIG, connected, type FakeSocket, fromHex, GRAPH, LEASE, NOW_MS, ready, setUp, settle, until, welcome, type World } from './hub-world.ts';

test('hello, welcome, consent, ready: the receipt is signed by the hello’s key', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await ready(world);
  const [hello, consent] = socket.sent;
  assert.deepEqual(
    { ...hello, session_key: undefined, traffic_bytes_left: undefined },
    {
      type: 'hello',
      protocol: 4,
      keeps: 'visit',
      numeric: { class: 'cpu', kernel: 'ef'.repeat(32) },
      device: { class: 'desktop', cores: 2, memory_bytes: 512 << 20, flops_per_s: 7e9 },
      share: 0.5,
      workers: 1,
      ticket: 'ticket-1',
      session_key: undefined,
      traffic_bytes_left: undefined,
    },
  );
  // The kernel has been moved already, and some is kept back.
  assert.equal(hello?.traffic_bytes_left, 25_000_000 - 300_000 - (32 << 10));
  const receipt = String(consent?.receipt);
  const { time_ms, ...said } = JSON.parse(receipt);
  assert.ok(time_ms >= NOW_MS && time_ms < NOW_MS + 5_000, 'on the coordinator’s clock');
  assert.deepEqual(said, {
    text_version: 'text-1',
    site: 'pk_test_x',
    view: CONFIG.view,
    share: 0.5,
    keeps: 'visit',
    nonce: 'nonce-0',
    session_key: hello?.session_key,
  });
  const key = await crypto.subtle.importKey('raw', fromHex(hello?.session_key), { name: 'Ed25519' }, true, ['verify']);
  const message = new TextEncoder().encode(receipt);
  assert.ok(await crypto.subtle.verify({ name: 'Ed25519' }, key, fromHex(consent?.signature), message));
  assert.deepEqual(world.last(), { name: 'idle' });
  world.controller.handle({ kind: 'stop' });
});

test('hello and receipts say whose the earnings are: a key that is not kept, or a choice, leaves them to the site', async () => {
  const kept = async (): Promise<Identity> => {
    const { publicKey, privateKey } = await Identity.generate();
    return Identity.kept(publicKey, privateKey);
  };
  const cases = [
    { identity: kept, earnings: 'mine', said: [undefined, undefined], earner: 'visitor' },
    { identity: kept, earnings: 'site', said: [undefined, 'site'], earner: 'site' },
    { identity: () => Identity.generate(), earnings: 'mine', said: ['visit', undefined], earner: 'site' },
  ] as const;
  for (const { identity, earnings, said, earner } of cases) {
    const world = setUp({ identity });
    world.controller.handle({ kind: 'start', config: { ...CONFIG, earnings } });
    const [hello, consent] = (await ready(world)).sent;
    const receipt = JSON.parse(String(consent?.receipt));
    assert.deepEqual([hello?.keeps, hello?.earnings], said);
    assert.deepEqual([receipt.keeps, receipt.earnings], said);
    assert.equal(world.statuses.at(-1)?.earner, earner);
    world.controller.handle({ kind: 'stop' });
  }
});

test('keys cannot be exported and differ from page to page', async () => {
  const [one, two] = [await Identity.generate(), await Identity.generate()];
  assert.match(one.publicKey, /^[0-9a-f]{64}$/);
  assert.notEqual(one.publicKey, two.publicKey);
  assert.ok(hasSimd());
});

test('another consent text is never signed', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await connected(world);
  socket.say(welcome('n', 'text-2'));
  await settle(5);
  assert.deepEqual(socket.types(), ['hello', 'goodbye']);
  assert.deepEqual(world.last(), { name: 'failed', failure: 'text_changed', detail: '' });
  assert.ok(world.workers.every((worker) => worker.isTerminated));
});

test('messages out of turn, texts and broken frames end the session', async () => {
  const deeds: Array<[(socket: FakeSocket) => void, number]> = [
    [(socket) => socket.say({ type: 'ready', grant: 'g' }), 4004],
    [(socket) => socket.say({ type: 'project', lease: LEASE, key: '0x0000000000000001', probes: 32 }), 4004],
    [(socket) => socket.say({ type: 'reveal', lease: LEASE }), 4004],
    [(socket) => socket.receive('text'), 4003],
    [(socket) => socket.receive(new ArrayBuffer(3)), 4003],
    [(socket) => socket.say({ type: 'nonsense' }), 4003],
  ];
  for (const [deed, code] of deeds) {
    const world = setUp();
    world.controller.handle({ kind: 'start', config: CONFIG });
    const socket = await connected(world);
    deed(socket);
    assert.equal(socket.closedWith, code);
    assert.equal(socket.types().at(-1), 'goodbye');
    world.controller.handle({ kind: 'stop' });
  }
});

test('a lost connection is made again, with the same key and a new receipt', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const first = await ready(world);
  first.say({ type: 'graph', id: GRAPH, graph: {} });
  first.lose();
  assert.deepEqual(world.last(), { name: 'waiting', full: false });
  const second = await ready(world, 1);
  assert.equal(second.sent[0]?.session_key, first.sent[0]?.session_key);
  assert.notEqual(second.sent[1]?.signature, first.sent[1]?.signature);
  assert.match(String(second.sent[1]?.receipt), /nonce-1/);
  assert.equal(world.workers.length, 1, 'the worker is kept');
  world.controller.handle({ kind: 'stop' });
  assert.equal(second.closedWith, 4000);
});

test('an old ticket is renewed once', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const first = await connected(world);
  first.say({ type: 'goodbye', reason: 'bad_ticket', detail: 'expired' });
  const second = await connected(world, 1);
  assert.equal(second.sent[0]?.ticket, 'ticket-2');
  assert.deepEqual(world.renewals, [`${CONFIG.frameUrl} ${CONFIG.ticket}`]);
  second.lose(4006);
  assert.deepEqual(world.last(), { name: 'failed', failure: 'bad_ticket', detail: '' });
});

test('incompatible ends it, a full coordinator is waited for', async () => {
  const incompatible = setUp();
  incompatible.controller.handle({ kind: 'start', config: CONFIG });
  (await connected(incompatible)).say({ type: 'goodbye', reason: 'incompatible', detail: 'kernel' });
  assert.deepEqual(incompatible.last(), { name: 'failed', failure: 'incompatible', detail: 'kernel' });

  const full = setUp();
  full.controller.handle({ kind: 'start', config: CONFIG });
  (await connected(full)).say({ type: 'goodbye', reason: 'full', detail: '' });
  assert.deepEqual(full.last(), { name: 'waiting', full: true });
  full.controller.handle({ kind: 'stop' });
  assert.deepEqual(full.last(), { name: 'stopped' });
});

test('a coordinator that refuses us again and again is left alone', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  for (let at = 0; at < 3; at += 1) {
    await until(() => world.sockets.length > at || at > 2);
    (await connected(world, at)).lose(4003);
    if (at < 2) assert.equal(world.last()?.name, 'waiting');
    // The second wait is a second long.
    if (at === 1) await settle(600);
  }
  assert.equal(world.last()?.name, 'failed');
});

test('a pause says so first, hands tasks back, and a resume goes on', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await ready(world);
  const spec = { shards: [] };
  socket.say({ type: 'task', lease: LEASE, flops: 1, spec });
  assert.deepEqual(world.last(), { name: 'working' });
  world.controller.handle({ kind: 'pause', detail: 'hidden' });
  assert.deepEqual(world.last(), { name: 'paused' });
  assert.deepEqual(socket.sent.at(-1), { type: 'pause', detail: 'hidden' });
  assert.deepEqual(world.workers[0]?.got.at(-1), { kind: 'abort' });
  const refusal = encodeFrame({ type: 'refuse', lease: LEASE, reason: 'stopping', detail: '' });
  world.workers[0]?.onmessage?.({ kind: 'answer', lease: LEASE, outcome: 'refuse', frame: refusal.buffer });
  assert.deepEqual(socket.types().slice(-2), ['pause', 'refuse']);
  world.controller.handle({ kind: 'resume' });
  assert.equal(socket.types().at(-1), 'resume');
  assert.deepEqual(world.last(), { name: 'idle' });
  world.controller.handle({ kind: 'stop' });
});

test('phases are told at once, counts a few times a second, idleness after a while', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await ready(world);
  const [worker] = world.workers;
  assert.ok(worker);
  const before = world.statuses.length;
  for (let at = 0; at < 40; at += 1) {
    const lease = `lease_${at.toString(16).padStart(32, '0')}`;
    socket.say({ type: 'task', lease, flops: 1, spec: {} });
    worker.onmessage?.({ kind: 'answer', lease, outcome: 'commit', frame: encodeFrame({ type: 'commit', lease }).buffer });
    await settle(10);
  }
  const told = world.statuses.slice(before);
  assert.ok(told.every((status) => status.phase.name === 'working'), 'no flicker');
  assert.ok(told.length >= 2 && told.length <= 6, `${told.length} messages for 40 tasks`);
  await until(() => world.statuses.at(-1)?.tasks === 40);
  assert.deepEqual(world.last(), { name: 'working' });
  await settle(1_000);
  await until(() => world.last()?.name === 'idle');
  world.controller.handle({ kind: 'stop' });
});

test('a connection that is lost while paused is made when work resumes', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await ready(world);
  world.controller.handle({ kind: 'pause', detail: 'hidden' });
  socket.lose();
  await settle(700);
  assert.equal(world.sockets.length, 1);
  world.controller.handle({ kind: 'resume' });
  await until(() => world.sockets.length === 2);
  world.controller.handle({ kind: 'stop' });
});

test('a pause before the start opens no connection', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  world.controller.handle({ kind: 'pause', detail: 'battery' });
  await settle(20);
  assert.equal(world.sockets.length, 0);
  assert.deepEqual(world.last(), { name: 'paused' });
  world.controller.handle({ kind: 'resume' });
  await until(() => world.sockets.length === 1);
  world.controller.handle({ kind: 'stop' });
});

test('the slider is told to workers and coordinator', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await ready(world);
  world.controller.handle({ kind: 'share', share: 0.25 });
  assert.deepEqual(world.workers[0]?.got.at(-1), { kind: 'duty', duty: 0.5 });
  await until(() => socket.types().includes('pace'));
  assert.deepEqual(socket.sent.at(-1), { type: 'pace', share: 0.25, workers: 1 });
  world.controller.handle({ kind: 'share', share: 1 });
  assert.equal(world.workers.length, 2);
  world.controller.handle({ kind: 'stop' });
});

test('a key that is held down tells the coordinator the last share, three times a second at most', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await ready(world);
  // Keys repeat about thirty times a second.
  for (let step = 0; step < 30; step += 1) {
    world.controller.handle({ kind: 'share', share: 0.45 - step * 0.01 });
    await settle(33);
  }
  await settle(350);
  const paces = socket.sent.filter((header) => header.type === 'pace');
  assert.ok(paces.length >= 3 && paces.length <= 6, `${paces.length} messages in a second`);
  assert.ok(Math.abs(Number(paces.at(-1)?.share) - 0.16) < 1e-9, 'the last share is told');
  world.controller.handle({ kind: 'stop' });
});

test('a higher share is signed anew, a lower one is not', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: { ...CONFIG, share: 0.2 } });
  const socket = await ready(world);
  const paces = (): Array<Record<string, unknown>> => socket.sent.filter((header) => header.type === 'pace');
  const told = async (share: number): Promise<Record<string, unknown>> => {
    world.controller.handle({ kind: 'share', share });
    await until(() => paces().at(-1)?.share === share);
    return paces().at(-1) ?? {};
  };
  const key = await crypto.subtle.importKey('raw', fromHex(socket.sent[0]?.session_key), { name: 'Ed25519' }, true, ['verify']);
  for (const [share, counter] of [[0.5, 1], [0.9, 2]] as const) {
    const { receipt, signature, workers } = await told(share);
    assert.equal(workers, Math.ceil(share * 2));
    const { counter: found, share: agreed, nonce } = JSON.parse(String(receipt));
    assert.deepEqual([found, agreed, nonce], [counter, share, 'nonce-0']);
    const message = new TextEncoder().encode(String(receipt));
    assert.ok(await crypto.subtle.verify({ name: 'Ed25519' }, key, fromHex(signature), message));
  }
  assert.equal((await told(0.3)).receipt, undefined);
  assert.equal(JSON.parse(String((await told(0.5)).receipt)).counter, 3);
  world.controller.handle({ kind: 'stop' });
});

test('a share that is lowered while a higher one is signed stays low', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: { ...CONFIG, share: 0.2 } });
  const socket = await ready(world);
  await settle(310);
  world.controller.handle({ kind: 'share', share: 1 });
  world.controller.handle({ kind: 'share', share: 0.1 });
  await settle(700);
  const paces = socket.sent.filter((header) => header.type === 'pace');
  assert.equal(paces.at(-1)?.share, 0.1);
  world.controller.handle({ kind: 'stop' });
});

test('a stop ends workers before it says goodbye', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await ready(world);
  const order: string[] = [];
  const [worker] = world.workers;
  assert.ok(worker);
  const terminate = worker.terminate.bind(worker);
  worker.terminate = () => {
    order.push('terminate');
    terminate();
  };
  const send = socket.send.bind(socket);
  socket.send = (data) => {
    order.push('send');
    send(data);
  };
  world.controller.handle({ kind: 'stop' });
  assert.deepEqual(order, ['terminate', 'send']);
  assert.deepEqual(socket.sent.at(-1), { type: 'goodbye', reason: 'stopped' });
  assert.equal(socket.closedWith, 4000);
});

test('a kernel that cannot be loaded is said', async () => {
  const world = setUp({ loadKernel: () => Promise.reject(new Error('status 404')) });
  world.controller.handle({ kind: 'start', config: CONFIG });
  await until(() => world.last()?.name === 'failed');
  assert.deepEqual(world.last(), { name: 'failed', failure: 'kernel_load', detail: 'status 404' });
});

test('a body must have exactly the stated length', async () => {
  assert.deepEqual([...new Uint8Array(await readExactly(body([1, 2], [3]), 3))], [1, 2, 3]);
  await assert.rejects(readExactly(body([1, 2], [3]), 2), /longer than/);
  await assert.rejects(readExactly(body([1]), 2), /1 bytes, 2 stated/);
});

const free = { reserve: () => true, settle: () => undefined };

test('shards are fetched with the grant, once for all who wait', async () => {
  const requests: string[] = [];
  const fetcher = new ShardFetcher('http://c', async (input, init) => {
    requests.push(`${String(input)} ${new Headers(init?.headers).get('authorization')}`);
    return new Response(body([1, 2, 3, 4]));
  }, free);
  const [one, two] = await Promise.all([fetcher.get('s', 4, 'g'), fetcher.get('s', 4, 'g')]);
  assert.deepEqual(requests, ['http://c/v1/blobs/s Bearer g']);
  assert.notEqual(one, two, 'each has its own, to hand it on');
  assert.deepEqual(new Uint8Array(one), new Uint8Array(two));
  await fetcher.get('s', 4, 'g');
  assert.equal(requests.length, 2, 'nothing is kept here');
});

test('a refused or oversized shard is an error', async () => {
  const fetcher = new ShardFetcher('http://c', async () => new Response('no', { status: 403 }), free);
  await assert.rejects(fetcher.get('s', 4, 'g'), /answered 403/);
  await assert.rejects(fetcher.get('s', 2 ** 40, 'g'), /exceeds the limit/);
});

test('the store gives up its oldest frames rather than grow', () => {
  const store = new FrameStore(100);
  for (const id of ['a', 'b', 'c']) store.put(id, new ArrayBuffer(40));
  assert.deepEqual(store.ids(), ['b', 'c']);
  assert.equal(store.bytes, 80);
  store.put('b', new ArrayBuffer(10));
  assert.equal(store.bytes, 50);
  store.drop('zzz');
  store.clear();
  assert.equal(store.bytes, 0);
});

test('paused from the start: nothing is downloaded or measured before it resumes', async () => {
  let loads = 0;
  const world = setUp({
    loadKernel: async () => {
      loads += 1;
      return { kernel: 'ef'.repeat(32), glueUrl: 'http://c/k.js', module: {} as WebAssembly.Module, bytes: 300_000 };
    },
  });
  world.controller.handle({ kind: 'start', config: CONFIG, paused: 'battery' });
  await until(() => world.last()?.name === 'paused');
  await settle(50);
  assert.deepEqual([loads, world.workers.length, world.sockets.length], [0, 0, 0]);
  world.controller.handle({ kind: 'resume' });
  await ready(world);
  assert.equal(loads, 1);
  world.controller.handle({ kind: 'stop' });
});

test('paused while the kernel is loaded: nothing is measured before it resumes', async () => {
  let loaded = (): void => undefined;
  const files = { kernel: 'ef'.repeat(32), glueUrl: 'http://c/k.js', module: {} as WebAssembly.Module, bytes: 300_000 };
  let loads = 0;
  const world = setUp({
    loadKernel: () => {
      loads += 1;
      return new Promise((resolve) => (loaded = () => resolve(files)));
    },
  });
  world.controller.handle({ kind: 'start', config: CONFIG });
  await until(() => loads === 1);
  world.controller.handle({ kind: 'pause', detail: 'hidden' });
  loaded();
  await settle(50);
  assert.equal(world.workers.length, 0);
  world.controller.handle({ kind: 'resume' });
  await until(() => loads === 2);
  loaded();
  await ready(world);
  world.controller.handle({ kind: 'stop' });
});

test('what became of results is counted, and told without haste', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await ready(world);
  const say = (...outcomes: string[]): void =>
    socket.say({ type: 'outcomes', results: outcomes.map((outcome) => ({ lease: LEASE, outcome })) });
  assert.equal(world.statuses.at(-1)?.results, undefined);
  say('accepted', 'accepted', 'not_needed', 'late', 'withdrawn');
  // What is undone was accepted before, and stays paid.
  say('undone');
  await until(() => world.statuses.at(-1)?.results?.accepted === 2);
  assert.deepEqual(world.statuses.at(-1)?.results, { accepted: 2, notNeeded: 1, late: 1, withdrawn: 1, wrong: 0 });
  socket.say({ type: 'goodbye', reason: 'excluded', detail: 'a lie' });
  assert.deepEqual(world.last(), { name: 'failed', failure: 'excluded', detail: 'a lie' });
  assert.equal(world.statuses.at(-1)?.results?.wrong, 1, 'the goodbye is all that is heard of it');
});

test('for whom it computes is told while it computes', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await ready(world);
  const about = { requester: 'Amber Heron', category: 'vision' };
  socket.say({ type: 'about', ...about });
  assert.equal(world.statuses.at(-1)?.about, undefined, 'nothing is computed yet');
  socket.say({ type: 'task', lease: LEASE, flops: 1, spec: {} });
  assert.deepEqual(world.statuses.at(-1)?.about, about);
  world.controller.handle({ kind: 'pause', detail: 'hidden' });
  assert.equal(world.last()?.name, 'paused');
  world.controller.handle({ kind: 'stop' });
});

test('nobody is told of idleness before there is a connection', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  await connected(world);
  assert.ok(!world.statuses.some(({ phase }) => phase.name === 'idle'), JSON.stringify(world.statuses.map(({ phase }) => phase)));
  world.controller.handle({ kind: 'stop' });
});

test('a work token is asked for with the grant of an open session, and counted', async () => {
  const asked: unknown[] = [];
  let answer = (): Promise<Response> => Promise.resolve(Response.json({ token: 'wt1.ab.cd' }));
  const answers: unknown[] = [];
  const fetch = (url: unknown, init?: RequestInit): Promise<Response> => {
    asked.push([url, init?.method, new Headers(init?.headers).get('authorization')]);
    return answer();
  };
  const world: World = setUp({
    fetch: fetch as typeof globalThis.fetch,
    post: (message) => {
      if (message.kind === 'work_token') answers.push(message.answer);
      if (message.kind === 'status') world.statuses.push(message);
    },
  });
  const ask = async (): Promise<unknown> => {
    const before = answers.length;
    world.controller.handle({ kind: 'work_token' });
    await until(() => answers.length > before);
    return answers.at(-1);
  };
  assert.deepEqual(await ask(), { refusal: 'not_lending' });
  world.controller.handle({ kind: 'start', config: { ...CONFIG, bytesMax: 2_000_000 } });
  await ready(world);
  const bytes = world.controller.bytes;
  assert.deepEqual(await ask(), { token: 'wt1.ab.cd' });
  assert.deepEqual(asked, [['http://c/v1/work-tokens', 'POST', 'Bearer grant-1']]);
  assert.ok(world.controller.bytes >= bytes + 4_096);
  for (const bad of [() => Promise.resolve(new Response('', { status: 409 })), () => Promise.resolve(new Response('{')), () => Promise.reject(new Error('offline'))]) {
    answer = bad;
    assert.deepEqual(await ask(), { refusal: 'refused' });
  }
  world.controller.handle({ kind: 'stop' });
  assert.deepEqual(await ask(), { refusal: 'not_lending' });
});

test('what is refused is in the receipt; more of it is told, less is signed', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: { ...CONFIG, refuses: ['finance'] } });
  const socket = await ready(world);
  const receiptOf = (header: Record<string, unknown> | undefined) => JSON.parse(String(header?.receipt ?? '{}'));
  assert.deepEqual(receiptOf(socket.sent[1]).refuses, ['finance']);
  const paces = (): Array<Record<string, unknown>> => socket.sent.filter((header) => header.type === 'pace');
  world.controller.handle({ kind: 'refuses', refuses: ['vision', 'finance'] });
  await until(() => paces().length === 1);
  assert.deepEqual(paces()[0], { type: 'pace', share: 0.5, workers: 1, refuses: ['vision', 'finance'] });
  await settle(10);
  world.controller.handle({ kind: 'refuses', refuses: ['vision'] });
  await until(() => paces().length === 2);
  assert.deepEqual(paces()[1]?.refuses, ['vision']);
  const { refuses, counter, time_ms } = receiptOf(paces()[1]);
  assert.deepEqual([refuses, counter], [['vision'], 1]);
  assert.ok(time_ms > receiptOf(socket.sent[1]).time_ms, 'it was signed later');
  world.controller.handle({ kind: 'refuses', refuses: [] });
  await until(() => paces().length === 3);
  assert.ok(!('refuses' in (paces()[2] ?? {})) && receiptOf(paces()[2]).counter === 2);
  world.controller.handle({ kind: 'stop' });
});

test('whoever agreed to a card of long ago is not lent for: the card is to be read again', async () => {
  const world = setUp();
  world.controller.handle({ kind: 'start', config: CONFIG });
  const socket = await ready(world);
  socket.say({ type: 'goodbye', reason: 'stale_view', detail: 'receipt.view: too long ago' });
  assert.deepEqual(world.last(), { name: 'failed', failure: 'text_changed', detail: 'receipt.view: too long ago' });
});
