// Placement `master`: the model stays with the coordinator, and no contributor gets to hold it.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, afterEach, before, describe, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob, finish } from './lib/jobs.mjs';
import { joinFromNode } from './lib/node-contributor.mjs';
import { World } from './lib/world.mjs';

const EPOCHS = 6;
const ACCURACY_MIN = 0.93;
const FRACTION_MAX = 0.5;
const CONTRIBUTORS = 3;

let world;
let dataset;
before(async () => {
  world = await World.start('placement');
  dataset = await uploadDigits(world.coordinator);
});
afterEach(() => world.clear());
after(() => world?.stop());

/**
 * The weights of a safetensors file as pairs of neighbours in a row: `pairs` leads from the 64 bits of
 * a pair to the positions of its two weights. One weight's 32 bits also turn up by chance among millions
 * of activations; a pair's do not. Biases, which start at zero, are left out.
 */
function readWeights(file) {
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes));
  const pairs = new Map();
  let count = 0;
  for (const [name, entry] of Object.entries(header)) {
    if (!name.endsWith('.weight')) continue;
    const begin = 8 + headerBytes + entry.data_offsets[0];
    const [rows, columns] = entry.shape;
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column + 1 < columns; column += 1) {
        const at = row * columns + column;
        pairs.set(file.readBigUInt64LE(begin + 4 * at), [count + at, count + at + 1]);
      }
    }
    count += rows * columns;
  }
  return { pairs, count };
}

/** Keeps every f32 tensor that a contributor was sent, the same bytes once. */
class Witness {
  tensors = new Map();

  see = (frame) => {
    for (const { dtype, data } of Object.values(frame.tensors)) {
      if (dtype === 'f32') this.tensors.set(createHash('sha256').update(data).digest('hex'), Buffer.from(data));
    }
  };

  /** Positions of the weights that are among what was sent. */
  seen({ pairs }) {
    const found = new Set();
    for (const data of this.tensors.values()) {
      for (let at = 0; at + 8 <= data.length; at += 4) {
        for (const position of pairs.get(data.readBigUInt64LE(at)) ?? []) found.add(position);
      }
    }
    return found;
  }
}

describe('placement master', () => {
  it('shows no contributor more than half of the weights', async (t) => {
    const witnesses = Array.from({ length: CONTRIBUTORS }, () => new Witness());
    const nodes = await Promise.all(witnesses.map(({ see }) => joinFromNode(world.coordinator, { seen: see })));
    // A rate too small to change any weight, so that the model's own bits tell what was
    // sent, however it was named.
    const job = digitsJob(dataset.id, { epochs: 2, placement: 'master', name: 'witness' });
    job.optimizer = { kind: 'sgd' };
    job.training.schedule.learning_rate = 1e-30;
    const posted = await world.coordinator.json('POST', '/v1/jobs', job);
    const done = await finish(world.coordinator, posted.id);
    for (const node of nodes) await node.leave();
    for (const { state } of nodes) {
      assert.equal(state.failure, null);
      assert.ok(state.tasks > 0, 'every contributor worked');
    }
    const file = Buffer.from(await (await world.coordinator.api('GET', `/v1/jobs/${done.id}/model`)).arrayBuffer());
    const weights = readWeights(file);
    const seen = witnesses.map((witness) => witness.seen(weights));
    const fractions = seen.map(({ size }) => size / weights.count);
    t.diagnostic(`of ${weights.count} weights seen: ${fractions.map((part) => part.toFixed(4)).join(', ')}`);
    for (const part of fractions) assert.ok(part <= FRACTION_MAX, `a contributor saw ${part} of the weights`);
    // Proof that the measurement sees weights at all.
    const together = new Set(seen.flatMap((positions) => [...positions]));
    assert.equal(together.size, weights.count, 'all of them together saw every weight');
  });

  it('trains as well as placement replica, whoever computes', async (t) => {
    const accuracies = {};
    const models = new Set();
    for (const [placement, count] of [['replica', 2], ['master', 3], ['master', 2]]) {
      const visitors = await world.contributors(count);
      const body = digitsJob(dataset.id, { epochs: EPOCHS, placement, name: `${placement} ${count}` });
      const posted = await world.coordinator.json('POST', '/v1/jobs', body);
      const job = await finish(world.coordinator, posted.id, { ms: 300_000 });
      for (const visitor of visitors) await visitor.close();
      accuracies[`${placement} ${count}`] = job.best.accuracy;
      if (placement === 'master') models.add(job.model_sha256);
    }
    t.diagnostic(JSON.stringify(accuracies));
    for (const accuracy of Object.values(accuracies)) assert.ok(accuracy >= ACCURACY_MIN, JSON.stringify(accuracies));
    assert.ok(Math.abs(accuracies['master 3'] - accuracies['replica 2']) <= 0.02, JSON.stringify(accuracies));
    assert.equal(models.size, 1, 'two and three contributors gave the same model');
  });
});
