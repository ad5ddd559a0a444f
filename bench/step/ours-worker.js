// One contributor's kernel, in a worker as the embed holds it, without the pacing.
import init, { Kernel } from '/kernel/raven_kernel.js';

const MEMORY_BYTES = 512 * 1024 * 1024;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The header of a frame, as JSON. */
function header(frame) {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  return JSON.parse(decoder.decode(frame.subarray(16, 16 + view.getUint32(8, true))));
}

/** A frame without tensors. */
function message(value) {
  const text = encoder.encode(JSON.stringify(value));
  const frame = new Uint8Array((16 + text.length + 15) & ~15);
  frame.set(encoder.encode('RAVN'));
  const view = new DataView(frame.buffer);
  view.setUint16(4, 1, true);
  view.setUint32(8, text.length, true);
  frame.set(text, 16);
  return frame;
}

let kernel = null;
const tasks = {};

/** Runs a task to its result frame. */
function complete({ task, reveal }) {
  const refused = kernel.begin(task);
  if (refused) throw new Error(`begin: ${JSON.stringify(header(refused))}`);
  while (!kernel.step(Infinity));
  const commit = header(kernel.finish(0));
  const answer = header(kernel.accept(reveal));
  if (answer.type !== 'result') throw new Error(`reveal: ${JSON.stringify(answer)}`);
  return commit.digest;
}

/** Steps of one task: each with the update, weights carried along. */
function scan() {
  complete(tasks.scan);
  return tasks.scan.steps;
}

/** One batch of a round: new weights in, gradients out. The update is the coordinator's. */
function round() {
  kernel.accept(tasks.round.weights);
  complete(tasks.round);
  // The next round's weights are a new blob; dropping this one makes accepting it again real work.
  kernel.accept(tasks.round.forget);
  return 1;
}

/** From the module's bytes to the first op of the first task, in milliseconds. */
async function firstTask({ module, round: frames }) {
  const start = performance.now();
  await init({ module_or_path: module });
  const fresh = new Kernel(MEMORY_BYTES);
  fresh.accept(frames.graph);
  fresh.accept(frames.weights);
  const refused = fresh.begin(frames.task);
  if (refused) throw new Error(`begin: ${JSON.stringify(header(refused))}`);
  fresh.step(1);
  return performance.now() - start;
}

async function prepare({ scan: scanned, round: rounded, steps }) {
  await init({ module_or_path: '/kernel/raven_kernel.wasm' });
  kernel = new Kernel(MEMORY_BYTES);
  const reveal = (task) => message({ type: 'reveal', lease: header(task).lease });
  kernel.accept(scanned.graph);
  kernel.accept(rounded.graph);
  tasks.scan = { ...scanned, steps, reveal: reveal(scanned.task) };
  const forget = message({ type: 'drop', blobs: [header(rounded.weights).id], graphs: [] });
  tasks.round = { ...rounded, reveal: reveal(rounded.task), forget };
  round();
  return { digest: complete(tasks.scan) };
}

/** Steps per second of one kind of work, for at least `ms` milliseconds. */
function run({ kind, ms }) {
  const work = kind === 'scan' ? scan : round;
  const start = performance.now();
  let steps = 0;
  let elapsed = 0;
  while (elapsed < ms) {
    steps += work();
    elapsed = performance.now() - start;
  }
  return (steps * 1000) / elapsed;
}

onmessage = async ({ data }) => {
  try {
    const { call, argument } = data;
    postMessage({ value: await { prepare, run, firstTask }[call](argument) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
