// A share is a promise: the processor time of a visitor's workers is measured against it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, it } from 'node:test';
import { uploadNoise } from './lib/data.mjs';
import { firstRow } from './lib/store.mjs';
import { workerThreads } from './lib/threads.mjs';
import { World } from './lib/world.mjs';

const FULL = process.env.RAVEN_FULL === '1';
const SHARES = FULL ? [5, 10, 50, 100] : [5, 50];
const WATCH_MS = FULL ? 30_000 : 15_000;
/** How far what was computed may be from what was promised. */
const TOLERANCE = 0.1;
/** Until a new share is felt: tasks that were sized for the old one end, rests are slept out. */
const SETTLE_MS = 4_000;
/** How long a share's pay is looked at: many rounds, since pay comes with each. */
const PAY_MS = FULL ? 60_000 : 25_000;
const FLOPS_PER_CALCULATION = 50e6;

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
function work(dataset, name, { batch = 1024, ...terms } = {}) {
  return {
    ...terms, name, dataset, listed: false, seed: 3, numerics: 'strict', placement: 'replica',
    model: {
      layers: [
        { type: 'conv2d', filters: 16, kernel: 5, padding: 'same', activation: 'relu' }, { type: 'max_pool2d', size: 2 },
        { type: 'conv2d', filters: 32, kernel: 5, padding: 'same', activation: 'relu' }, { type: 'max_pool2d', size: 2 },
        { type: 'flatten' }, { type: 'dense', units: 10 },
      ],
      loss: 'cross_entropy',
    },
    optimizer: { kind: 'sgd' },
    training: { epochs: 1000, batch, micro_batch: 32, schedule: { kind: 'constant', learning_rate: 0.001 } },
  };
}

async function busyVisitor(share, terms) {
  const dataset = await uploadNoise(world.coordinator, 2048);
  // Two, so that one goes on while the other's round ends.
  for (const name of ['left', 'right']) await world.coordinator.json('POST', '/v1/jobs', work(dataset.id, name, terms));
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

/** What the workers' threads have spent so far, by thread. */
const spentByThread = () => new Map(workerThreads().map((thread) => [thread, spent(thread)]));

/** The same between two looks, all threads together. */
function spentBetween(before, after) {
  const both = { computed: 0, waited: 0 };
  for (const [thread, now] of after) {
    const then = before.get(thread) ?? { computed: 0, waited: 0 };
    both.computed += now.computed - then.computed;
    both.waited += now.waited - then.waited;
  }
  return both;
}

/** Credited flops, what they are worth in nano-USD, and what the books say that contributors have or will have. */
async function account() {
  const [flops, worth, earned] = await firstRow(world.coordinator, `
    SELECT (SELECT COALESCE(SUM(flops), 0) FROM credits), (SELECT COALESCE(SUM(flops * 1.0 * rate), 0) / 5e10 FROM credits),
      (SELECT COALESCE(SUM(posted + held_in), 0) FROM accounts WHERE name LIKE 'contributor:%')`);
  return { flops, worth, earned };
}

/** Waits for the next round to be paid, so that a time begins and ends with one. */
async function nextRound() {
  const { flops } = await account();
  for (let deadline = Date.now() + 30_000; Date.now() < deadline; await sleep(20)) {
    const now = await account();
    if (now.flops > flops) return { ...now, at: performance.now(), threads: spentByThread() };
  }
  throw new Error('no round was paid in 30 s');
}

/** What a share of the visitor's machine is paid and takes. */
async function paidAt(visitor, share, ms) {
  await visitor.share(share);
  await sleep(SETTLE_MS);
  const before = await nextRound();
  await sleep(ms);
  const after = await nextRound();
  const seconds = (after.at - before.at) / 1000;
  const { computed, waited } = spentBetween(before.threads, after.threads);
  return {
    flops: (after.flops - before.flops) / seconds, worth: after.worth - before.worth, earned: after.earned - before.earned,
    // Where other programs keep the processors busy, a worker that waits for one rests for that time as well.
    got: computed / (computed + waited), perCpuS: (after.flops - before.flops) / (computed / 1000),
  };
}

it('what is paid follows the share', async (t) => {
  // Rounds of one task each: pay comes with rounds, and they are short even at a share of 5 %.
  const visitor = await busyVisitor(100, { batch: 32, verification: 'none' });
  if (process.platform !== 'linux') {
    t.skip('this system does not tell what a thread computes');
    return;
  }
  // A device's speed is that of the job's own operations, by the processor time that they take: the test at start is a chain
  // of matrix products, which is faster than most jobs. At a small share the same operations are slower, since caches and
  // clocks have gone cold: the speed is taken at the share itself, and the one at full share is a bound.
  const full = await paidAt(visitor, 100, 8_000);
  const paid = [];
  for (const share of [5, 10]) {
    const seen = await paidAt(visitor, share, PAY_MS);
    const [calculations, wanted, bound] = [seen.flops, (seen.perCpuS * share) / 100, (full.perCpuS * share) / 100]
      .map((flops) => flops / FLOPS_PER_CALCULATION);
    t.diagnostic(`${share} %: ${calculations.toFixed(2)} calculations a second are paid; ${wanted.toFixed(2)} are the share of `
      + `${(seen.perCpuS / 1e9).toFixed(2)} Gflop/s, ${bound.toFixed(2)} of the ${(full.perCpuS / 1e9).toFixed(2)} at full share; the workers `
      + `had a processor for ${Math.round(seen.got * 100)} % of the time that they wanted one`);
    // Whole nano-USD are paid, the rest comes with a later round.
    assert.ok(Math.abs(seen.earned - seen.worth) <= 3, `${seen.earned} nano-USD were paid for work worth ${seen.worth}`);
    for (const most of [wanted, bound]) {
      assert.ok(calculations <= most * (1 + TOLERANCE), `${share} %: ${calculations} calculations a second, ${most} expected`);
    }
    assert.ok(calculations / seen.got >= wanted * (1 - TOLERANCE), `${share} %: ${calculations} calculations a second, ${wanted} expected`);
    paid.push({ calculations, got: seen.got });
  }
  // A visitor's workers keep their share by the clock: where others keep the processors busy, they compute less, and not to the
  // same degree at both times. On a machine with nothing else to do they have a processor whenever they want one.
  const tolerance = TOLERANCE + 1 - Math.min(...paid.map(({ got }) => got));
  const ratio = paid[1].calculations / paid[0].calculations;
  t.diagnostic(`10 % is paid ${ratio.toFixed(3)} times what 5 % is`);
  assert.ok(Math.abs(ratio / 2 - 1) <= tolerance, `10 % is paid ${ratio} times what 5 % is`);
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
