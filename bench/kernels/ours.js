// Our side: products as nodes of a task's graph, in the module that visitors load.
//
// A task is one product, repeated as micro-batches, of which one element each is summed up; only
// running is measured, not the task's arrival. Each product takes the memory of the one before; a
// peer's is freed before the next one, too.
import init, { Kernel } from '/kernel/raven_kernel.js';

const MEMORY_BYTES = 512 * 1024 * 1024;
let kernel = null;
let frames = null;
let open = null;

async function load(file) {
  return new Uint8Array(await (await fetch(`/frames/${file}`)).arrayBuffer());
}

export async function prepare() {
  await init({ module_or_path: '/kernel/raven_kernel.wasm' });
  frames = await (await fetch('/frames/products.json')).json();
  return null;
}

/** Makes the case's task the running one. */
async function begin(name) {
  if (open?.name === name && open.task) return;
  const entry = frames[name];
  if (open) kernel.free();
  kernel = new Kernel(MEMORY_BYTES);
  kernel.accept(await load(entry.graph));
  open = { name, entry, task: await load(entry.task) };
  restart();
}

function restart() {
  kernel.abort();
  const refused = kernel.begin(open.task);
  if (refused) throw new Error(new TextDecoder().decode(refused));
  kernel.step(5 * open.entry.flops);
}

/** Gflop/s of a case for at least `ms` milliseconds, or until its task ends. */
export async function run(name, ms) {
  await begin(name);
  // Half of a task is more than a run takes.
  if (2 * kernel.flopsDone() > kernel.flopsTotal()) restart();
  const before = kernel.flopsDone();
  const start = performance.now();
  let finished = false;
  let elapsed = 0;
  while (elapsed < ms && !finished) {
    finished = kernel.step(Math.max(open.entry.flops, 20e6));
    elapsed = performance.now() - start;
  }
  return (kernel.flopsDone() - before) / elapsed / 1e6;
}
