// "Stop" ends the computing before a person can doubt it.
import assert from 'node:assert/strict';
import { after, afterEach, before, it } from 'node:test';
import { uploadDigits, uploadNoise } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { computedMs, workerThreads } from './lib/threads.mjs';
import { World, until } from './lib/world.mjs';

const STOP_MS_MAX = 100;
/** A thread that computed less than this since the last look was not at work. */
const IDLE_MS = 0.5;
/** How long threads are watched after the click. */
const WATCH_MS = 1_500;
/** What the hub may compute once the kernels have stopped: its goodbye, and the end of its thread. */
const GOODBYE_MS_MAX = 50;
const SHARE = 50;

let world;
before(async () => {
  world = await World.start('stop');
});
afterEach(() => world.clear());
after(() => world?.stop());

/** Small operations, and ones that take a while each. */
const JOBS = {
  'a small network': async () => digitsJob((await uploadDigits(world.coordinator)).id, { epochs: 1000, name: 'small' }),
  // As the demo trains it: its longest operation takes some ten milliseconds, and is not broken off.
  'a convolutional network': async () => ({
    ...digitsJob((await uploadNoise(world.coordinator, 4096)).id, { epochs: 100, batch: 256, microBatch: 64, name: 'images' }),
    model: {
      layers: [
        { type: 'conv2d', filters: 16, kernel: 5, padding: 'same', activation: 'relu' }, { type: 'max_pool2d', size: 2 },
        { type: 'conv2d', filters: 32, kernel: 5, padding: 'same', activation: 'relu' }, { type: 'max_pool2d', size: 2 },
        { type: 'flatten' }, { type: 'dense', units: 128, activation: 'relu' }, { type: 'dense', units: 10 },
      ],
      loss: 'cross_entropy',
    },
  }),
};

/** Presses Stop; resolves to when it was clicked, by the frame's clock, and to what the threads computed around it. */
async function pressStop(visitor, threads) {
  const button = visitor.card.locator('#raven-stop');
  await button.evaluate((stop) => {
    stop.addEventListener('click', (event) => {
      if (event.isTrusted) document.documentElement.dataset.clickedAt = performance.timeOrigin + event.timeStamp;
    });
  });
  const spent = new Map(threads.map((thread) => [thread, computedMs(thread)]));
  const bursts = [];
  let isOver = false;
  const watching = (async () => {
    while (!isOver) {
      for (const [thread, before] of spent) {
        const now = computedMs(thread);
        if (now === undefined) spent.delete(thread);
        else if (now - before > IDLE_MS) {
          bursts.push({ thread, ms: now - before, at: performance.timeOrigin + performance.now() });
          spent.set(thread, now);
        }
      }
      await new Promise((done) => setTimeout(done, 2));
    }
  })();
  await button.click();
  const clickedAt = Number(await visitor.card.locator('html').getAttribute('data-clicked-at'));
  await new Promise((done) => setTimeout(done, WATCH_MS));
  isOver = true;
  await watching;
  return { bursts: bursts.map((burst) => ({ ...burst, at: burst.at - clickedAt })), left: [...spent.keys()] };
}

for (const [name, post] of Object.entries(JOBS)) {
  it(`ends the work on ${name} within ${STOP_MS_MAX} ms`, async (t) => {
    await world.coordinator.json('POST', '/v1/jobs', await post());
    const visitor = await world.visitor();
    await visitor.accept(SHARE);
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
    if (workerThreads().length === 0) {
      t.skip('this system does not tell what a thread computes');
      return;
    }
    const [hub, ...kernels] = workerThreads();
    assert.ok(kernels.length > 0, 'a kernel at work');
    const { bursts, left } = await pressStop(visitor, [hub, ...kernels]);
    const before = bursts.filter(({ thread, at }) => thread !== hub && at <= 0);
    assert.ok(before.length > 0, 'the kernels were at work until the click');
    const tookMs = Math.max(0, ...bursts.filter(({ thread }) => thread !== hub).map(({ at }) => at));
    const goodbyeMs = bursts.filter(({ thread, at }) => thread === hub && at > STOP_MS_MAX).reduce((sum, { ms }) => sum + ms, 0);
    t.diagnostic(`${kernels.length} kernels, the last computing ${tookMs.toFixed(1)} ms after the click; then ${goodbyeMs.toFixed(1)} ms of goodbye`);
    assert.ok(tookMs <= STOP_MS_MAX, `computing went on for ${tookMs} ms`);
    assert.ok(goodbyeMs <= GOODBYE_MS_MAX, `the hub went on for ${goodbyeMs} ms`);
    assert.deepEqual(left, [], 'no thread is left');
    await visitor.until(({ phase }) => phase === 'stopped', 'stopped', 2000);
    await until(() => visitor.page.workers().length === 0, 'every worker gone', 2000);
    await visitor.close();
  });
}
