// scripts/bench step: training steps of one worker beside other runtimes' in one Chromium, and
// beside native TensorFlow on one core.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch } from '../../tests/e2e/lib/browser.mjs';
import { kernelDir, outDir, targetDir } from '../../tests/e2e/lib/paths.mjs';
import { serveStatic } from '../../tests/e2e/lib/static.mjs';
import { Contenders, bundle, conclude, figuresOf, page, say, versionOf } from '../lib/contest.mjs';
import { machine } from '../lib/machine.mjs';
import { interleave, median } from '../lib/measure.mjs';
import { BATCH, CASES } from '../worker/cases.js';
import { NativeTensorFlow } from './native.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const modules = join(here, '../node_modules');
const ROUNDS = Number(process.env.RAVEN_BENCH_ROUNDS ?? 7);
const RUN_MS = 1_000;
const TFJS = ['wasm', 'cpu', 'webgl'];
/** Fresh workers whose first task is timed. */
const FRESH = 9;
const FIRST_TASK_MS_MAX = 300;

/** What a step must reach, as times of a peer or of the best of several. */
const GOALS = {
  mlp: [
    ['the best TensorFlow.js back end', TFJS.map((name) => `tfjs-${name}`), 5],
    ['jax-js', ['jax-js'], 1.5],
    ['burn-flex with autodiff', ['burn-flex'], 2],
    ['native TensorFlow on one core', ['tensorflow-native'], 0.3],
  ],
  cnn: [
    ['the best of TensorFlow.js and jax-js', [...TFJS.map((name) => `tfjs-${name}`), 'jax-js'], 25],
    ['burn-flex with autodiff', ['burn-flex'], 2],
    ['native TensorFlow on one core', ['tensorflow-native'], 0.2],
  ],
};

async function serve(frames) {
  return serveStatic({
    routes: {
      '/ours.html': page('/step/ours.js'),
      '/tfjs.html': page('/tfjs-bundle.js'),
      '/jax.html': page('/jax-bundle.js'),
      '/flex.html': page('/step/flex.js'),
      '/peak.html': page('/lib/peak.js'),
      '/tfjs-bundle.js': await bundle(join(here, '../worker/tfjs.js')),
      '/jax-bundle.js': await bundle(join(here, 'jax.js')),
    },
    mounts: {
      '/step/': here,
      '/worker/': join(here, '../worker'),
      '/flex/': join(outDir('bench'), 'flex'),
      '/lib/': join(here, '../lib'),
      '/kernel/': kernelDir,
      '/frames/': frames,
      '/tfjs-wasm/': join(modules, '@tensorflow/tfjs-backend-wasm/dist'),
    },
  });
}

/** Everyone who can run the case; ours runs both kinds of work. */
async function contendersOf(browser, origin, name, native) {
  const contenders = new Contenders(browser, origin);
  await contenders.add('raven', '/ours.html', [name]);
  await contenders.add('peak', '/peak.html', []);
  for (const backend of TFJS) await contenders.add(`tfjs-${backend}`, '/tfjs.html', [backend, name]);
  await contenders.add('jax-js', '/jax.html', [name]);
  await contenders.add('burn-flex', '/flex.html', [name]);
  for (const needed of ['raven', 'peak']) {
    if (contenders.cannot[needed]) throw new Error(`${needed} cannot run ${name}: ${contenders.cannot[needed]}`);
  }
  const timed = contenders.ready.flatMap(({ name: who, run }) => {
    if (who !== 'raven') return [{ name: who, run: () => run(RUN_MS) }];
    const images = (kind) => async () => (await run(kind, RUN_MS)) * BATCH;
    return [{ name: 'raven', run: images('scan') }, { name: 'raven round', run: images('round') }];
  });
  if (native) {
    await native.ask(`prepare ${name}`);
    timed.push({ name: 'tensorflow-native', run: () => native.ask(`run ${RUN_MS}`) });
  } else {
    contenders.cannot['tensorflow-native'] = 'TensorFlow is not installed';
  }
  return { contenders, timed };
}

async function measureCase(browser, origin, name, frames, native) {
  const { contenders, timed } = await contendersOf(browser, origin, name, native);
  const result = await interleave(timed, ROUNDS, (round) => say(`${name}: round ${round + 1} of ${ROUNDS}`));
  await contenders.close();
  const { raven, 'raven round': round, peak, ...peers } = result;
  const figures = figuresOf(peers, contenders.cannot);
  const title = `${CASES[name].title}, batch ${BATCH}`;
  const row = (kind, measured, flops, beside) => {
    const rate = (measured.median * flops) / BATCH / 1e9;
    return {
      case: `${title}, ${kind}`, unit: 'images/s', ours: measured.median, gflop_per_s: rate, of_peak: rate / peak.median,
      ...beside,
    };
  };
  const rows = [
    row('training step', raven, frames.flops / frames.steps, {
      peers: figures, spread: { raven, peak, ...peers }, cannot: contenders.cannot, facts: contenders.facts,
    }),
    // What peers were measured at has the update in it, which a round has not.
    row('a round: new weights in, gradients out', round, frames.round.flops, {
      peers: {}, spread: { raven: round, peak }, cannot: {},
    }),
  ];
  const goals = GOALS[name].map(([label, names, goal]) => {
    const values = names.map((peer) => figures[peer]).filter((value) => typeof value === 'number');
    const value = values.length === 0 ? null : raven.median / Math.max(...values);
    return { name: `${name}: times ${label}`, value, goal, met: value !== null && value >= goal };
  });
  return { rows, goals, peak: peak.median };
}

/** The median of several fresh workers' first tasks, in milliseconds. */
async function firstTasks(browser, origin) {
  const times = [];
  for (let i = 0; i < FRESH; i += 1) {
    // A context of its own: pages of one process share compiled modules.
    const opened = await (await browser.newContext()).newPage();
    await opened.goto(`${origin}/ours.html`);
    await opened.waitForFunction(() => globalThis.bench);
    times.push(await opened.evaluate(() => globalThis.bench.firstTask('cnn')));
    await opened.context().close();
  }
  return { median: median(times), min: Math.min(...times), max: Math.max(...times) };
}

function print(rows) {
  for (const { case: name, ours, peers, gflop_per_s: rate, of_peak: share, cannot } of rows) {
    console.log(`\n${name} (images/s)`);
    console.log(`  ${'raven'.padEnd(18)}${ours.toFixed(0).padStart(8)}   ${rate.toFixed(1)} Gflop/s, ${(share * 100).toFixed(0)} % of the peak`);
    for (const [peer, value] of Object.entries(peers)) {
      console.log(`  ${peer.padEnd(18)}${(value === null ? 'cannot' : value.toFixed(0)).padStart(8)}   ${cannot[peer] ?? ''}`);
    }
  }
}

const folder = mkdtempSync(join(tmpdir(), 'raven-bench-'));
execFileSync(join(targetDir, 'release/examples/train_frames'), [folder], { stdio: 'inherit' });
const frames = JSON.parse(readFileSync(join(folder, 'frames.json'), 'utf8'));
const python = process.env.RAVEN_NATIVE_PEER;
const native = python ? new NativeTensorFlow(python) : null;
const server = await serve(folder);
const browser = await launch(['--use-angle=swiftshader', '--enable-unsafe-swiftshader']);
try {
  const origin = `http://127.0.0.1:${server.port}`;
  const first = await firstTasks(browser, origin);
  const report = { name: 'step', date: new Date().toISOString().slice(0, 10), machine: null, rows: [], goals: [] };
  const peaks = [];
  for (const name of Object.keys(CASES)) {
    const { rows, goals, peak } = await measureCase(browser, origin, name, frames[name], native);
    report.rows.push(...rows);
    report.goals.push(...goals);
    peaks.push(peak);
  }
  report.goals.push({
    name: 'first task of a fresh worker, ms', value: first.median, goal: FIRST_TASK_MS_MAX, at_most: true,
    met: first.median <= FIRST_TASK_MS_MAX, spread: first,
  });
  report.machine = machine({
    browser: `Chromium ${browser.version()}`, tfjs: versionOf('@tensorflow/tfjs-core'), jax_js: versionOf('@jax-js/jax'),
    rounds: ROUNDS, peak_gflop_per_s: median(peaks),
  });
  print(report.rows);
  conclude(report);
} finally {
  native?.end();
  await browser.close();
  await server.close();
  rmSync(folder, { recursive: true, force: true });
}
