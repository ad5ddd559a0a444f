// A share is a promise: the processor time of a visitor's workers is measured against it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, it } from 'node:test';
import { uploadNoise } from './lib/data.mjs';
import { workerThreads } from './lib/threads.mjs';
import { World } from './lib/world.mjs';

const FULL = process.env.RAVEN_FULL === '1';
const SHARES = FULL ? [5, 10, 50, 100] : [5, 50];
const WATCH_MS = FULL ? 30_000 : 15_000;
/** How far what was computed may be from what was promised. */
const TOLERANCE = 0.1;
/** Until a new share is felt: tasks that were sized for the old one end, rests are slept out. */
const SETTLE_MS = 4_000;

let world;
before(async () => {
  world = await World.start('pacing');
});
afterEach(() => world.clear());
after(() => world?.stop());

/** The machine that this runs on has a few cores for everything: a visitor with one leaves the rest to the coordinator. */
const oneCore = (page) => page.addInitScript(() => {
  Object.defineProperty(Navigator.prototype, 'hardwareConcurrency', { get: () => 1 });
});

/** A job with much to compute for each byte, so that nobody waits for the network. */
function work(dataset, name) {
  return {
    name, dataset, listed: false, seed: 3, numerics: 'strict', placement: 'replica',
    model: {
      layers: [
        { type: 'conv2d', filters: 16, kernel: 5, padding: 'same', activation: 'relu' }, { type: 'max_pool2d', size: 2 },
        { type: 'conv2d', filters: 32, kernel: 5, padding: 'same', activation: 'relu' }, { type: 'max_pool2d', size: 2 },
        { type: 'flatten' }, { type: 'dense', units: 10 },
      ],
      loss: 'cross_entropy',
    },
    optimizer: { kind: 'sgd' },
    training: { epochs: 1000, batch: 1024, micro_batch: 32, schedule: { kind: 'constant', learning_rate: 0.001 } },
  };
}

async function busyVisitor(share) {
  const dataset = await uploadNoise(world.coordinator, 2048);
  // Two, so that one goes on while the other's round ends.
  for (const name of ['left', 'right']) await world.coordinator.json('POST', '/v1/jobs', work(dataset.id, name));
  const visitor = await world.visitor({ prepare: oneCore });
  await visitor.accept(share);
  await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working', 60_000);
  return visitor;
}

/** Milliseconds that a thread has computed, and that it was ready to and had to wait. */
function spent(thread) {
  try {
    const [computed, waited] = readFileSync(`${thread}/schedstat`, 'latin1').split(' ').map((ns) => Number(ns) / 1e6);
    return { computed, waited };
  } catch {
    // It has ended meanwhile.
    return { computed: 0, waited: 0 };
  }
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

it(`shares of ${SHARES.join(', ')} % are kept within ${TOLERANCE * 100} % over ${WATCH_MS / 1000} s`, async (t) => {
  const visitor = await busyVisitor(SHARES[0]);
  // Where the system counts what threads compute, finding none is a failure of this test and no reason to skip it.
  if (process.platform !== 'linux') {
    t.skip('this system does not tell what a thread computes');
    return;
  }
  assert.ok(workerThreads().length > 0, 'the threads of the visitor are found');
  for (const share of SHARES) {
    await visitor.share(share);
    await sleep(SETTLE_MS);
    const start = Date.now();
    const before = new Map(workerThreads().map((thread) => [thread, spent(thread)]));
    await sleep(WATCH_MS);
    const promisedMs = ((Date.now() - start) * share) / 100;
    // The hub's thread counts as well: all that the visitor's machine does for this is within the share.
    const [none, both] = [{ computed: 0, waited: 0 }, { computed: 0, waited: 0 }];
    for (const thread of workerThreads()) {
      const [now, then] = [spent(thread), before.get(thread) ?? none];
      both.computed += now.computed - then.computed;
      both.waited += now.waited - then.waited;
    }
    t.diagnostic(`${share} %: ${Math.round(both.computed)} ms of processor time, ${Math.round(promisedMs)} promised, ${Math.round(both.waited)} waited for a processor`);
    assert.ok(both.computed <= promisedMs * (1 + TOLERANCE), `${share} %: ${both.computed} ms, ${promisedMs} promised`);
    // Where other programs keep the processors busy, work that waits for one takes as long as if it had it.
    const taken = both.computed + both.waited;
    assert.ok(taken >= promisedMs * (1 - TOLERANCE), `${share} %: ${taken} ms, ${promisedMs} promised`);
  }
});

it('nothing is sent after a stop', async () => {
  const visitor = await busyVisitor(100);
  await visitor.stop();
  await world.counts(0);
  const frames = async () => Number((await (await fetch(`${world.coordinator.origin}/metrics`)).text()).match(/^raven_frames_in\S* (\d+)/m)?.[1]);
  const before = await frames();
  assert.ok(before > 0, 'frames are counted');
  await sleep(1_500);
  assert.equal(await frames(), before);
  assert.equal(visitor.page.workers().length, 0);
});
