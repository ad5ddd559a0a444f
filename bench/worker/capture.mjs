// Takes the frames of one training task from a real coordinator, as a contributor without a
// browser would see them, so that the benchmark runs what visitors run.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { uploadNoise } from '../../tests/e2e/lib/data.mjs';
import { contribute } from '../../tests/e2e/lib/native.mjs';
import { BATCH, CASES } from './cases.js';

const TASK_MS_MAX = 60_000;

/** Bytes of the tensors of a frame's body, by name. */
const tensorBytes = (frame) =>
  Object.fromEntries(Object.entries(frame.tensors).map(([name, { data }]) => [name, data.length]));

function job(dataset, name) {
  return {
    name: `bench-${name}`, dataset, listed: false, seed: 7, numerics: 'strict', placement: 'replica',
    model: { layers: CASES[name].layers, loss: 'cross_entropy' },
    optimizer: { kind: 'sgd' },
    training: { epochs: 1, batch: BATCH, micro_batch: BATCH, schedule: { kind: 'constant', learning_rate: 0.01 } },
  };
}

/**
 * Writes the frames of one task of a case to `folder` and resolves to its sizes:
 * `{images, flops, graph, weights, task, shards}` in bytes, as sent.
 */
export async function capture(coordinator, name, folder) {
  const dataset = await uploadNoise(coordinator, BATCH * 16);
  const posted = await coordinator.json('POST', '/v1/jobs', job(dataset.id, name));
  const seen = { graphs: new Map(), blobs: new Map() };
  let timer;
  let onTask;
  const arrived = new Promise((done, fail) => {
    onTask = done;
    timer = setTimeout(() => fail(new Error(`no task within ${TASK_MS_MAX} ms`)), TASK_MS_MAX);
  });
  const session = await contribute(coordinator, {
    onFrame: (frame, bytes) => {
      const { header } = frame;
      if (header.type === 'graph') seen.graphs.set(header.id, bytes);
      if (header.type === 'blob') seen.blobs.set(header.id, bytes);
      if (header.type === 'task') onTask({ frame, bytes });
    },
  });
  const task = await arrived.finally(() => clearTimeout(timer));
  const { spec } = task.frame.header;
  const shards = await Promise.all((spec.shards ?? []).map(({ blob }) => session.fetchBlob(blob)));
  session.send({ type: 'goodbye', reason: 'stopped' });
  session.close();
  await coordinator.api('POST', `/v1/jobs/${posted.id}/cancel`);

  const blobs = [...new Set(spec.bindings.filter(({ from }) => from === 'blob').map(({ blob }) => blob))];
  const missing = blobs.filter((id) => !seen.blobs.has(id));
  if (missing.length > 0) throw new Error(`the task names blobs that were not sent: ${missing}`);
  const write = (part, bytes) => {
    writeFileSync(join(folder, `${name}-${part}`), bytes);
    return `${name}-${part}`;
  };
  const graph = seen.graphs.get(spec.program.graph);
  const weights = blobs.map((id) => seen.blobs.get(id));
  const files = {
    before: [write('graph', graph), ...shards.map((bytes, i) => write(`shard-${i}`, bytes))],
    weights: weights.map((bytes, i) => write(`weights-${i}`, bytes)),
    task: write('task', task.bytes),
  };
  writeFileSync(join(folder, `${name}.json`), JSON.stringify(files));
  const sum = (frames) => frames.reduce((total, bytes) => total + bytes.length, 0);
  return {
    images: images(task.frame),
    flops: task.frame.header.flops,
    graph: graph.length,
    weights: sum(weights),
    task: task.bytes.length,
    shards: sum(shards),
    attachments: tensorBytes(task.frame),
  };
}

/** Rows that the task really reads: -1 is padding. */
function images(frame) {
  const { data } = frame.tensors.rows;
  let count = 0;
  for (let at = 0; at < data.length; at += 4) if (data.readInt32LE(at) >= 0) count += 1;
  return count;
}
