// One contributor's GPU kernel. A task is everything from its frame to its commit.
import init, { GpuKernel } from '/gpu/raven_gpu.js';

const MEMORY_BYTES = 512 * 1024 * 1024;
const decoder = new TextDecoder();
let kernel = null;
let task = null;

/** The header of a frame, as JSON. */
function header(frame) {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  return JSON.parse(decoder.decode(frame.subarray(16, 16 + view.getUint32(8, true))));
}

async function once() {
  const refused = kernel.begin(task);
  if (refused) throw new Error(`begin: ${JSON.stringify(header(refused))}`);
  await kernel.settled();
  const answer = header(kernel.finish(0));
  if (answer.type !== 'commit') throw new Error(`finish: ${JSON.stringify(answer)}`);
}

async function prepare(frames) {
  await init({ module_or_path: '/gpu/raven_gpu.wasm' });
  kernel = await GpuKernel.open(MEMORY_BYTES, true);
  const measured = await kernel.measure();
  kernel.accept(frames.graph);
  task = frames.task;
  const start = performance.now();
  await once();
  const first_ms = performance.now() - start;
  const submits = kernel.submits();
  await once();
  return { adapter: kernel.adapter(), measured, first_ms, submits_per_task: kernel.submits() - submits };
}

async function run(ms) {
  const start = performance.now();
  let tasks = 0;
  let elapsed = 0;
  while (elapsed < ms) {
    await once();
    tasks += 1;
    elapsed = performance.now() - start;
  }
  return (tasks * 1000) / elapsed;
}

onmessage = async ({ data }) => {
  try {
    postMessage({ value: data.prepare ? await prepare(data.prepare) : await run(data.run) });
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) });
  }
};
