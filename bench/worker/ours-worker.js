// One contributor's kernel, as the embed's own worker holds it, without the pacing.
//
// A step is everything that a contributor does for one batch: take the new weights
// (their content id is computed again), run forward and backward, digest the
// gradients, and write the result frame when it is asked for.
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
let weights = [];
let task = null;
let forget = null;
let reveal = null;

function step() {
  for (const frame of weights) kernel.accept(frame);
  const refused = kernel.begin(task);
  if (refused) throw new Error(`begin: ${JSON.stringify(header(refused))}`);
  while (!kernel.step(Infinity));
  const commit = header(kernel.finish(0));
  if (commit.type !== 'commit') throw new Error(`finish: ${JSON.stringify(commit)}`);
  const result = kernel.accept(reveal);
  const answer = header(result);
  if (answer.type !== 'result') throw new Error(`reveal: ${JSON.stringify(answer)}`);
  // The next round's weights are a new blob; dropping this one makes accepting it again real work.
  kernel.accept(forget);
  return { digest: commit.digest, bytes: result.length };
}

async function prepare(frames) {
  await init({ module_or_path: '/kernel/raven_kernel.wasm' });
  kernel = new Kernel(MEMORY_BYTES);
  weights = frames.weights;
  task = frames.task;
  for (const frame of frames.before) kernel.accept(frame);
  for (const frame of weights) kernel.accept(frame);
  const missing = kernel.missing(task);
  if (missing.length > 0) throw new Error(`the task names blobs that were not sent: ${missing}`);
  forget = message({ type: 'drop', blobs: weights.map((frame) => header(frame).id), graphs: [] });
  reveal = message({ type: 'reveal', lease: header(task).lease });
  const [first, second] = [step(), step()];
  if (first.digest !== second.digest) throw new Error('two runs of one task gave different digests');
  return first;
}

function run(ms) {
  const start = performance.now();
  let steps = 0;
  let elapsed = 0;
  while (elapsed < ms) {
    step();
    steps += 1;
    elapsed = performance.now() - start;
  }
  return (steps * 1000) / elapsed;
}

onmessage = async ({ data }) => {
  try {
    postMessage({ value: data.prepare ? await prepare(data.prepare) : run(data.run) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
