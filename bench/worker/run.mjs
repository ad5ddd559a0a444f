// scripts/bench worker: one browser contributor beside TensorFlow.js, in the same Chromium.
import { build } from 'esbuild';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch } from '../../tests/e2e/lib/browser.mjs';
import { Coordinator } from '../../tests/e2e/lib/coordinator.mjs';
import { kernelDir, outDir } from '../../tests/e2e/lib/paths.mjs';
import { serveStatic } from '../../tests/e2e/lib/static.mjs';
import { machine } from '../lib/machine.mjs';
import { interleave } from '../lib/measure.mjs';
import { capture } from './capture.mjs';
import { BATCH, CASES } from './cases.js';

const here = dirname(fileURLToPath(import.meta.url));
const ROUNDS = Number(process.env.RAVEN_BENCH_ROUNDS ?? 7);
/** Long enough that a step of a fast contender is a small part of it. */
const RUN_MS = 1_000;
const PEERS = ['wasm', 'cpu', 'webgl'];

const say = (text) => process.stderr.write(`${text}\n`);

/** One page per contender; a contender that cannot run the case is named with its reason. */
async function contenders(browser, origin, name) {
  const ready = [];
  const cannot = {};
  const add = async (label, script, argument) => {
    const page = await (await browser.newContext()).newPage();
    await page.goto(`${origin}/${script}.html`);
    try {
      const facts = await page.evaluate(([arg, kind]) => globalThis.bench.prepare(...(kind === 'tfjs' ? arg : [arg[1]])), [argument, script]);
      const run = async () => {
        await page.bringToFront();
        return page.evaluate((ms) => globalThis.bench.run(ms), RUN_MS);
      };
      ready.push({ name: label, run, facts });
    } catch (error) {
      cannot[label] = String(error.message).split('\n')[0].slice(0, 200);
      await page.context().close();
    }
  };
  await add('raven', 'ours', [null, name]);
  for (const peer of PEERS) await add(`tfjs-${peer}`, 'tfjs', [peer, name]);
  return { ready, cannot };
}

async function serve(frames) {
  const bundled = await build({
    entryPoints: [join(here, 'tfjs.js')], bundle: true, write: false, format: 'esm', target: 'chrome120',
    logLevel: 'error', minify: true,
  });
  const page = (module) =>
    `<!doctype html><meta charset="utf-8"><script type="module">import * as bench from '${module}'; globalThis.bench = bench;</script>`;
  const files = await serveStatic({
    routes: {
      '/ours.html': page('/worker/ours.js'),
      '/tfjs.html': page('/tfjs-bundle.js'),
      '/tfjs-bundle.js': { type: 'text/javascript', body: bundled.outputFiles[0].text },
    },
    mounts: {
      '/worker/': here,
      '/kernel/': kernelDir,
      '/frames/': frames,
      '/tfjs-wasm/': join(here, '../node_modules/@tensorflow/tfjs-backend-wasm/dist'),
    },
  });
  return files;
}

/** Bytes that one image costs each way; graphs and shards come once, weights every round. */
function bytesPerImage(sizes, resultBytes) {
  const per = (bytes) => Math.round((bytes / sizes.images) * 10) / 10;
  return {
    down_every_round: per(sizes.weights + sizes.task),
    of_which_weights: per(sizes.weights),
    up_every_round: per(resultBytes),
    once_per_session: sizes.graph,
    shards_of_this_task: sizes.shards,
  };
}

async function measureCase(browser, origin, name, sizes) {
  const { ready, cannot } = await contenders(browser, origin, name);
  if (cannot.raven) throw new Error(`our own kernel cannot run ${name}: ${cannot.raven}`);
  const perTask = sizes.images;
  // Our contender counts tasks, a peer counts images.
  const timed = ready.map(({ name: label, run }) => ({
    name: label,
    run: label === 'raven' ? async () => (await run()) * perTask : run,
  }));
  const result = await interleave(timed, ROUNDS, (round) => say(`${name}: round ${round + 1} of ${ROUNDS}`));
  for (const context of browser.contexts()) await context.close();
  const { raven, ...peers } = result;
  const figures = Object.fromEntries(Object.entries(peers).map(([label, { median }]) => [label, median]));
  for (const label of Object.keys(cannot)) figures[label] = null;
  return {
    row: {
      case: `${CASES[name].title}, training step, batch ${BATCH}`, unit: 'images/s', ours: raven.median, peers: figures,
      spread: result, cannot, gflop_per_s: (raven.median * sizes.flops) / perTask / 1e9,
      facts: Object.fromEntries(ready.map(({ name: label, facts }) => [label, facts])),
      bytes_per_image: bytesPerImage(sizes, ready[0].facts.bytes),
    },
    goal: {
      name: `${name}: times the best peer`,
      value: raven.median / Math.max(...Object.values(figures).filter((value) => value !== null)),
      goal: CASES[name].goal,
    },
  };
}

function print(report) {
  for (const row of report.rows) {
    console.log(`\n${row.case} (${row.unit})`);
    console.log(`  ${'raven'.padEnd(14)}${row.ours.toFixed(0).padStart(9)}   ${row.gflop_per_s.toFixed(1)} Gflop/s`);
    for (const [peer, value] of Object.entries(row.peers)) {
      console.log(`  ${peer.padEnd(14)}${(value === null ? 'cannot' : value.toFixed(0)).padStart(9)}   ${row.cannot[peer] ?? ''}`);
    }
    const bytes = row.bytes_per_image;
    console.log(`  bytes per image: ${bytes.down_every_round} down (weights ${bytes.of_which_weights}), ${bytes.up_every_round} up;` +
      ` once: graph ${bytes.once_per_session}, shards of this task ${bytes.shards_of_this_task}`);
  }
  console.log('');
  for (const { name, value, goal, met } of report.goals) {
    console.log(`${name}: ${value.toFixed(2)}, goal ${goal}: ${met ? 'met' : 'MISSED'}`);
  }
}

const frames = mkdtempSync(join(tmpdir(), 'raven-bench-'));
const coordinator = await Coordinator.start({ name: 'bench' });
const sizes = {};
try {
  // One after the other: a contributor would be given tasks of either job.
  for (const name of Object.keys(CASES)) sizes[name] = await capture(coordinator, name, frames);
} finally {
  await coordinator.stop();
}
const server = await serve(frames);
const browser = await launch(['--use-angle=swiftshader', '--enable-unsafe-swiftshader']);
try {
  const origin = `http://127.0.0.1:${server.port}`;
  const report = {
    name: 'worker',
    date: new Date().toISOString().slice(0, 10),
    machine: machine({ browser: `Chromium ${browser.version()}`, tfjs: tfjsVersion(), rounds: ROUNDS }),
    rows: [],
    goals: [],
  };
  for (const name of Object.keys(CASES)) {
    const { row, goal } = await measureCase(browser, origin, name, sizes[name]);
    report.rows.push(row);
    report.goals.push({ ...goal, met: goal.value >= goal.goal });
  }
  print(report);
  const file = join(outDir('bench'), 'worker.json');
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
