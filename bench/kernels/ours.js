// Our side: products as nodes of a task's graph, in the module that visitors load.
//
// A task is one product, repeated as micro-batches and summed up in one number; only running is
// measured, not the task's arrival. Both it and a peer's call allocate the result.
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

/** Gflop/s of a case for at least `ms` milliseconds. */
export async function run(name, ms) {
  await begin(name);
  const { flops } = open.entry;
  let elapsed = 0;
  let done = 0;
  while (elapsed < ms) {
    const before = kernel.flopsDone();
    const start = performance.now();
    const finished = kernel.step(Math.max(flops, 20e6));
    elapsed += performance.now() - start;
    done += kernel.flopsDone() - before;
    if (finished) restart();
  }
  return done / elapsed / 1e6;
}
