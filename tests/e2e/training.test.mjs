// The product: the same job and seed give the same model, whoever computes it.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, afterEach, before, describe, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob, finish } from './lib/jobs.mjs';
import { World, until } from './lib/world.mjs';

const EPOCHS = 6;
/** Long enough that browsers can be opened and closed while it runs, on a quick machine too. */
const LONG_EPOCHS = 30;
const ACCURACY_MIN = 0.93;

let world;
let dataset;
const models = {};
before(async () => {
  world = await World.start('training');
  dataset = await uploadDigits(world.coordinator);
});
afterEach(() => world.clear());
after(() => world?.stop());

const post = (options) =>
  world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: EPOCHS, ...options }));

async function train(count, options = {}) {
  await world.contributors(count);
  const posted = await post({ name: `${count} contributors`, ...options });
  return finish(world.coordinator, posted.id);
}

describe('one job, one seed, one model', () => {
  for (const count of [1, 2, 4]) {
    it(`with ${count} contributor${count === 1 ? '' : 's'}`, async () => {
      const job = await train(count);
      assert.equal(job.epoch, EPOCHS);
      assert.ok(job.best.accuracy >= ACCURACY_MIN, `accuracy ${job.best.accuracy}`);
      models[count] = job.model_sha256;
      assert.match(job.model_sha256, /^[0-9a-f]{64}$/);
      assert.equal(job.model_sha256, models[1], `the model of ${count} differs from the model of one`);
      const file = Buffer.from(await (await world.coordinator.api('GET', `/v1/jobs/${job.id}/model`)).arrayBuffer());
      assert.equal(createHash('sha256').update(file).digest('hex'), job.model_sha256);
    });
  }

  it('with contributors killed and added in the middle', async () => {
    const calm = await train(2, { name: 'calm', epochs: LONG_EPOCHS });
    await world.clear();
    const crowd = await world.contributors(3);
    const posted = await post({ name: 'churn', epochs: LONG_EPOCHS });
    // By rounds, not by time, so that each change falls into the run on any machine.
    const changes = [
      [0.15, () => crowd.shift().close()],
      [0.3, async () => crowd.push(...(await world.contributors(1)))],
      [0.45, () => crowd.shift().close()],
      [0.6, () => crowd.shift().stop()],
      [0.75, async () => crowd.push(...(await world.contributors(1, 25)))],
    ];
    const done = [];
    const job = await finish(world.coordinator, posted.id, {
      onProgress: async ({ round, rounds, state }) => {
        if (state === 'completed' || changes.length === 0 || round < changes[0][0] * rounds) return;
        const [at, change] = changes.shift();
        await change();
        done.push(at);
      },
    });
    assert.equal(changes.length, 0, `the job ended after ${done.length} of the changes`);
    assert.equal(job.model_sha256, calm.model_sha256);
  });

  it('with the coordinator killed and started again in the middle', async () => {
    await world.contributors(2);
    const posted = await post({ name: 'power cut' });
    await until(async () => {
      const { round, rounds } = await world.coordinator.json('GET', `/v1/jobs/${posted.id}`);
      return round > rounds / 3;
    }, 'a third of the way', 60_000);
    await world.coordinator.crash();
    const job = await finish(world.coordinator, posted.id);
    assert.equal(job.model_sha256, models[1]);
  });

  it('but another seed gives another model', async () => {
    const job = await train(2, { seed: 8 });
    assert.notEqual(job.model_sha256, models[1]);
  });
});

describe('a job without contributors', () => {
  it('waits, and goes on when one comes', async () => {
    const posted = await post({ name: 'patience', epochs: 1 });
    await until(
      async () => (await world.coordinator.json('GET', `/v1/jobs/${posted.id}`)).state === 'waiting_for_contributors',
      'waiting', 10_000,
    );
    await world.contributors(1);
    const job = await finish(world.coordinator, posted.id);
    assert.equal(job.epoch, 1);
  });
});

describe('a job that calls for the operator', () => {
  it('ends without any visitor in the same model as with one', async () => {
    const posted = await post({ name: 'nobody there', fallback: 'operator', fallback_after_s: 1 });
    const job = await finish(world.coordinator, posted.id);
    assert.equal(job.cause, 'epochs_done');
    assert.equal(job.model_sha256, models[1]);
    assert.equal(job.contributors, 1, 'the operator is credited');
    assert.equal((await world.coordinator.json('GET', '/v1/stats')).contributors, 0, 'and is not among those online');
  });
});
