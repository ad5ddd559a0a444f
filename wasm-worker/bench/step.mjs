// Measures training steps on the compiled kernel in Node:
//   cargo run --release -p raven-worker --example train_frames -- target/bench-frames
//   node wasm-worker/bench/step.mjs [KERNEL_DIR] [FRAMES_DIR] [--ops]
// With --ops the steps that take longest are listed. The second line of a network is one
// micro-batch of a round: weights in, gradients out, and where that time goes.
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const words = process.argv.slice(2).filter((word) => word !== '--ops');
const listOps = process.argv.includes('--ops');
const kernelDir = resolve(words[0] ?? 'dist/kernel');
const framesDir = resolve(words[1] ?? 'target/bench-frames');
const { default: init, Kernel } = await import(pathToFileURL(`${kernelDir}/raven_kernel.js`));
await init({ module_or_path: readFileSync(`${kernelDir}/raven_kernel.wasm`) });

/** Time per step of one run. A step is one node or several that run as one: its operations tell which. */
function profile(kernel, entry, task) {
  const calls = [];
  kernel.begin(task);
  for (let done = false, before = 0; !done;) {
    const start = performance.now();
    done = kernel.step(1);
    const flops = kernel.flopsDone();
    calls.push({ ms: performance.now() - start, flops: flops - before });
    before = flops;
  }
  kernel.finish(0);
  const count = calls.length / entry.steps;
  const steps = calls.slice(0, count).map(({ flops }, at) => {
    const same = calls.filter((_, i) => i % count === at);
    return { at, flops, ms: same.reduce((sum, { ms }) => sum + ms, 0) / entry.steps };
  });
  for (const { at, flops, ms } of steps.sort((a, b) => b.ms - a.ms).slice(0, 24)) {
    console.log(`  ${ms.toFixed(3).padStart(7)} ms  step ${at} of ${count}: ${(flops / 1e6).toFixed(3)} Mflop, ${(flops / ms / 1e6).toFixed(1)} Gflop/s`);
  }
}

/** A frame without tensors. */
function message(header) {
  const text = Buffer.from(JSON.stringify(header));
  const frame = Buffer.alloc((16 + text.length + 15) & ~15);
  frame.write('RAVN');
  frame.writeUInt16LE(1, 4);
  frame.writeUInt32LE(text.length, 8);
  text.copy(frame, 16);
  return frame;
}

const headerOf = (frame) => JSON.parse(Buffer.from(frame.subarray(16, 16 + Buffer.from(frame.buffer, frame.byteOffset).readUInt32LE(8))).toString());

/** One micro-batch of a round after another, each with weights that are new to the kernel. */
function rounds(name, entry) {
  const kernel = new Kernel(512 * 2 ** 20);
  const load = (part) => readFileSync(`${framesDir}/${entry.round[part]}`);
  const [weights, task] = [load('weights'), load('task')];
  kernel.accept(load('graph'));
  const forget = message({ type: 'drop', blobs: [headerOf(weights).id], graphs: [] });
  const reveal = message({ type: 'reveal', lease: headerOf(task).lease });
  const parts = {
    weights: () => kernel.accept(weights),
    begin: () => kernel.begin(task),
    run: () => kernel.step(1e18),
    finish: () => kernel.finish(0),
    reveal: () => kernel.accept(reveal),
    drop: () => kernel.accept(forget),
  };
  const best = Object.fromEntries(Object.keys(parts).map((part) => [part, Infinity]));
  for (let i = 0; i < 40; i += 1) {
    for (const [part, run] of Object.entries(parts)) {
      const start = performance.now();
      run();
      best[part] = Math.min(best[part], performance.now() - start);
    }
  }
  const total = Object.values(best).reduce((sum, ms) => sum + ms, 0);
  console.log(`  a round: ${((entry.batch * 1000) / total).toFixed(0)} images/s, ${total.toFixed(2)} ms: `
    + Object.entries(best).map(([part, ms]) => `${part} ${ms.toFixed(2)}`).join(', '));
  kernel.free();
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
  rounds(name, entry);
  if (listOps) profile(kernel, entry, task);
  kernel.free();
}
