// A visitor on a household's link contributes, and its page does not feel it. Prints what an image costs.
import assert from 'node:assert/strict';
import { after, afterEach, before, it } from 'node:test';
import { uploadNoise } from './lib/data.mjs';
import { World } from './lib/world.mjs';

/** 10 Mbit/s. */
const UPLINK_BYTES_PER_S = 1_250_000;
/** What the card offers. */
const SHARE = 20;
const WATCH_MS = 15_000;
const LONG_TASK_MS = 50;
/** Weights of the MLP in f32: what every task sends back. */
const WEIGHTS_BYTES = 4 * (784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10);
/** Of one image, forward and backward. */
const IMAGE_FLOPS = 6 * (784 * 256 + 256 * 128 + 128 * 10) - 2 * 784 * 256;

let world;
before(async () => {
  world = await World.start('uplink', { uplinkBytesPerS: UPLINK_BYTES_PER_S });
});
afterEach(() => world.clear());
after(() => world?.stop());

it(`a visitor at ${SHARE} % on 10 Mbit/s upwards keeps contributing, and its page stays responsive`, async (t) => {
  const dataset = await uploadNoise(world.coordinator, 8192);
  const batch = 2048;
  const { id } = await world.coordinator.json('POST', '/v1/jobs', {
    name: 'mlp', dataset: dataset.id, listed: false, seed: 3, numerics: 'strict', placement: 'replica',
    model: {
      layers: [
        { type: 'flatten' }, { type: 'dense', units: 256, activation: 'relu' },
        { type: 'dense', units: 128, activation: 'relu' }, { type: 'dense', units: 10 },
      ],
      loss: 'cross_entropy',
    },
    optimizer: { kind: 'sgd' },
    training: { epochs: 1000, batch, micro_batch: 128, schedule: { kind: 'constant', learning_rate: 0.001 } },
  });
  const visitor = await world.visitor({
    prepare: async (page) => {
      await page.addInitScript(() => {
        globalThis.longTasks = [];
        new PerformanceObserver((list) => globalThis.longTasks.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: 'longtask', buffered: true });
      });
    },
  });
  await visitor.accept(SHARE);
  await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 1, 'working', 60_000);
  const job = () => world.coordinator.json('GET', `/v1/jobs/${id}`);
  await visitor.page.evaluate(() => (globalThis.longTasks.length = 0));
  const [before, up, down, started] = [await job(), world.link.up, world.link.down, Date.now()];
  await visitor.page.waitForTimeout(WATCH_MS);
  const now = await job();
  const [rounds, seconds] = [now.round - before.round, (Date.now() - started) / 1000];
  const [sent, received] = [world.link.up - up, world.link.down - down];
  const images = rounds * batch;
  assert.ok(rounds >= 2, `${rounds} rounds in ${seconds} s`);
  const perImage = (bytes) => Math.round(bytes / images);
  const transferS = sent / UPLINK_BYTES_PER_S;
  t.diagnostic(`${images} images in ${seconds.toFixed(1)} s; ${perImage(sent)} bytes up and ${perImage(received)} down per image`);
  t.diagnostic(`compute/communication: ${Math.round((images * IMAGE_FLOPS) / (sent + received))} flop per byte; the line was busy for ${Math.round((100 * transferS) / seconds)} % of the time`);
  // A task is sized to the link: a result of nearly a megabyte serves for many images.
  assert.ok(sent <= rounds * WEIGHTS_BYTES * (batch / 128), 'not a result for each micro-batch');
  assert.ok(transferS <= seconds * 1.05, 'the line lets no more through');
  const long = (await visitor.page.evaluate(() => globalThis.longTasks)).filter((ms) => ms > LONG_TASK_MS);
  assert.ok(long.length <= 1, `long tasks of the page: ${long}`);
  await visitor.close();
});
