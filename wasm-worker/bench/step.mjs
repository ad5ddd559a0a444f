// Measures training steps on the compiled kernel in Node:
//   cargo run --release -p raven-worker --example train_frames -- target/bench-frames
//   node wasm-worker/bench/step.mjs [KERNEL_DIR] [FRAMES_DIR] [--ops]
// With --ops the nodes that take longest are listed.
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const words = process.argv.slice(2).filter((word) => word !== '--ops');
const listOps = process.argv.includes('--ops');
const kernelDir = resolve(words[0] ?? 'dist/kernel');
const framesDir = resolve(words[1] ?? 'target/bench-frames');
const { default: init, Kernel } = await import(pathToFileURL(`${kernelDir}/raven_kernel.js`));
await init({ module_or_path: readFileSync(`${kernelDir}/raven_kernel.wasm`) });

/** Time per node of one run: a step of one operation is one node. */
function profile(kernel, entry, task) {
  const bytes = readFileSync(`${framesDir}/${entry.graph}`);
  const { graph } = JSON.parse(bytes.subarray(16, 16 + bytes.readUInt32LE(8)).toString());
  const live = new Set(graph.outputs.map((output) => output.node));
  for (let i = graph.nodes.length - 1; i >= 0; i -= 1) {
    if (live.has(i)) (graph.nodes[i].inputs ?? []).forEach((operand) => live.add(operand));
  }
  const nodes = graph.nodes.map((node, i) => ({ ...node, i })).filter(({ op, i }) => op !== 'input' && live.has(i));
  const times = nodes.map(() => 0);
  kernel.begin(task);
  for (let at = 0, done = false; !done; at = (at + 1) % nodes.length) {
    const start = performance.now();
    done = kernel.step(1);
    times[at] += (performance.now() - start) / entry.steps;
  }
  kernel.finish(0);
  const order = times.map((ms, at) => [ms, nodes[at]]).sort((a, b) => b[0] - a[0]).slice(0, 24);
  for (const [ms, { op, i, function: f = '', inputs = [] }] of order) {
    console.log(`  ${ms.toFixed(3).padStart(7)} ms  ${op} ${f} #${i} (${inputs.join(', ')})`);
  }
}

const frames = JSON.parse(readFileSync(`${framesDir}/frames.json`, 'utf8'));
for (const [name, entry] of Object.entries(frames)) {
  const kernel = new Kernel(512 * 2 ** 20);
  kernel.accept(readFileSync(`${framesDir}/${entry.graph}`));
  const task = readFileSync(`${framesDir}/${entry.task}`);
  let best = 0;
  for (let round = 0; round < 4; round += 1) {
    const refused = kernel.begin(task);
    if (refused) throw new Error(new TextDecoder().decode(refused));
    const start = performance.now();
    let calls = 0;
    while (!kernel.step(20e6)) calls += 1;
    const seconds = (performance.now() - start) / 1000;
    const commit = kernel.finish(0);
    const images = entry.steps * entry.batch;
    best = Math.max(best, images / seconds);
    if (round === 3) {
      const digest = /"digest":"(\w{16})/.exec(new TextDecoder().decode(commit))[1];
      console.log(`${name}: ${best.toFixed(0)} images/s, ${((entry.flops / images / 1e9) * best).toFixed(1)} Gflop/s, `
        + `${((seconds * 1000) / entry.steps).toFixed(2)} ms a step, ${calls} pauses possible, digest ${digest}`);
    }
  }
  if (listOps) profile(kernel, entry, task);
  kernel.free();
}
