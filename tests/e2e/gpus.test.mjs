// Two visitors with GPUs, for which Chromium's software adapter stands in, confirm each other's results:
// nobody's bits are those of the other.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob, finish } from './lib/jobs.mjs';
import { World, until } from './lib/world.mjs';

let world;
let digits;
before(async () => {
  world = await World.start('gpus', { gpu: true });
  digits = await uploadDigits(world.coordinator);
});
after(() => world?.stop());

const json = (path) => world.coordinator.json('GET', path);
const gpus = async () => (await json('/v1/nodes')).nodes.filter((node) => node.numeric === 'gpu');

describe('two visitors who allow the GPU', () => {
  it('confirm results of each other, and both are credited', async () => {
    for (const count of [1, 2]) {
      const visitor = await world.visitor();
      await visitor.accept(100, { gpu: true });
      await visitor.contributing();
      await until(async () => (await gpus()).length === count, `${count} sessions on GPUs`, 60_000);
    }
    const job = { ...digitsJob(digits.id, { epochs: 30 }), numerics: 'relaxed', verification: 'adaptive' };
    const { id } = await world.coordinator.json('POST', '/v1/jobs', job);
    // What a session has had accepted is known while it is open.
    let credited = 0;
    const looking = setInterval(async () => {
      const working = (await gpus().catch(() => [])).filter((node) => node.tasks_accepted > 0);
      credited = Math.max(credited, working.length);
    }, 200);
    const ended = await finish(world.coordinator, id);
    clearInterval(looking);
    assert.equal(credited, 2, 'both GPUs have had tasks accepted');
    assert.equal(ended.contributors, 2);
    const { executions, evidence } = await json(`/v1/jobs/${id}/proof`);
    const agreed = executions.find(({ proof }) => proof === 'agreed');
    assert.ok(agreed?.count >= 2, JSON.stringify(executions));
    assert.equal(evidence.length, 0, JSON.stringify(evidence));
  });
});
