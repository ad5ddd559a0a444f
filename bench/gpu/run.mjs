// scripts/bench gpu: the GPU module beside TensorFlow.js on one adapter, in the same Chromium.
import { execFileSync } from 'node:child_process';
import { build } from 'esbuild';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch } from '../../tests/e2e/lib/browser.mjs';
import { outDir, root, targetDir } from '../../tests/e2e/lib/paths.mjs';
import { serveStatic } from '../../tests/e2e/lib/static.mjs';
import { machine } from '../lib/machine.mjs';
import { interleave } from '../lib/measure.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const ROUNDS = Number(process.env.RAVEN_BENCH_ROUNDS ?? 5);
const RUN_MS = 1_500;
/** Steps in one of our tasks: a task of a relaxed job holds several micro-batches. */
const STEPS = 5;
const CASES = {
  matmul: { title: 'fp32 matmul 512 cubed', unit: 'products/s', each: 1, goal: 6 },
  mlp: { title: 'MLP 784-256-128-10, training step, batch 64', unit: 'images/s', each: 64, goal: 1 },
  cnn: { title: 'CNN 28x28, training step, batch 64', unit: 'images/s', each: 64, goal: 5 },
};
const GPU_FLAGS = ['--enable-unsafe-webgpu'];
// Without a device, Chromium's software adapter: slow for both sides alike.
if (process.env.RAVEN_GPU_HARDWARE !== '1') GPU_FLAGS.push('--use-webgpu-adapter=swiftshader');

const say = (text) => process.stderr.write(`${text}\n`);

async function contenders(browser, origin, name) {
  const ready = [];
  for (const script of ['raven', 'tfjs-webgpu']) {
    const page = await (await browser.newContext()).newPage();
    await page.goto(`${origin}/${script}.html`);
    const facts = await page.evaluate((arg) => globalThis.bench.prepare(arg), name);
    say(`${name}: ${script} ${JSON.stringify(facts)}`);
    const run = async () => {
      await page.bringToFront();
      const rate = await page.evaluate((ms) => globalThis.bench.run(ms), RUN_MS);
      return script === 'raven' ? rate * STEPS * CASES[name].each : rate;
    };
    ready.push({ name: script, run, facts });
  }
  return ready;
}

async function serve(frames) {
  const bundled = await build({
    entryPoints: [join(here, 'tfjs.js')], bundle: true, write: false, format: 'esm', target: 'chrome120',
    logLevel: 'error', minify: true,
  });
  const page = (module) =>
    `<!doctype html><meta charset="utf-8"><script type="module">import * as bench from '${module}'; globalThis.bench = bench;</script>`;
  return serveStatic({
    routes: {
      '/raven.html': page('/gpu-bench/ours.js'),
      '/tfjs-webgpu.html': page('/tfjs-bundle.js'),
      '/tfjs-bundle.js': { type: 'text/javascript', body: bundled.outputFiles[0].text },
    },
    mounts: { '/gpu-bench/': here, '/gpu/': process.env.RAVEN_GPU_DIR ?? join(root, 'dist/gpu'), '/frames/': frames },
  });
}

async function measureCase(browser, origin, name) {
  const ready = await contenders(browser, origin, name);
  const result = await interleave(ready, ROUNDS, (round) => say(`${name}: round ${round + 1} of ${ROUNDS}`));
  for (const context of browser.contexts()) await context.close();
  const [ours, peer] = [result.raven.median, result['tfjs-webgpu'].median];
  const { title, unit, goal } = CASES[name];
  const facts = ready[0].facts;
  return {
    row: { case: title, unit, ours, peers: { 'tfjs-webgpu': peer }, spread: result, facts },
    goals: [
      { name: `${name}: times tfjs-webgpu`, value: ours / peer, goal, met: ours / peer >= goal },
      { name: `${name}: submissions per task`, value: facts.submits_per_task, goal: 1, met: facts.submits_per_task === 1 },
    ],
  };
}

const frames = mkdtempSync(join(tmpdir(), 'raven-bench-'));
const example = process.env.RAVEN_GPU_BENCH ?? join(targetDir, 'release/examples/gpu_bench');
execFileSync(example, ['--frames', frames, String(STEPS)]);
const server = await serve(frames);
const browser = await launch(GPU_FLAGS);
try {
  const report = {
    name: 'gpu',
    date: new Date().toISOString().slice(0, 10),
    machine: machine({ browser: `Chromium ${browser.version()}`, tfjs: tfjsVersion(), rounds: ROUNDS }),
    rows: [],
    goals: [],
  };
  const only = process.env.RAVEN_BENCH_CASES?.split(',') ?? Object.keys(CASES);
  for (const name of only) {
    const { row, goals } = await measureCase(browser, `http://127.0.0.1:${server.port}`, name);
    report.rows.push(row);
    report.goals.push(...goals);
  }
  for (const { case: title, unit, ours, peers, facts } of report.rows) {
    console.log(`\n${title} (${unit}), ${facts.adapter}`);
    console.log(`  ${'raven'.padEnd(14)}${ours.toFixed(1).padStart(9)}`);
    for (const [peer, value] of Object.entries(peers)) console.log(`  ${peer.padEnd(14)}${value.toFixed(1).padStart(9)}`);
  }
  console.log('');
  for (const { name, value, goal, met } of report.goals) {
    console.log(`${name}: ${value.toFixed(2)}, goal ${goal}: ${met ? 'met' : 'MISSED'}`);
  }
  const file = join(outDir('bench'), 'gpu.json');
  writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
  console.log(`\nwritten to ${file}`);
  if (report.goals.some(({ met }) => !met)) process.exitCode = 1;
} finally {
  await browser.close();
  await server.close();
  rmSync(frames, { recursive: true, force: true });
}

function tfjsVersion() {
  const file = join(here, '../node_modules/@tensorflow/tfjs-core/package.json');
  return JSON.parse(readFileSync(file, 'utf8')).version;
}
