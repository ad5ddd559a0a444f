// scripts/bench kernels: matrix products on one thread beside other runtimes' in one Chromium.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch } from '../../tests/e2e/lib/browser.mjs';
import { kernelDir, targetDir } from '../../tests/e2e/lib/paths.mjs';
import { serveStatic } from '../../tests/e2e/lib/static.mjs';
import { Contenders, bundle, conclude, figuresOf, geomean, page, say, versionOf } from '../lib/contest.mjs';
import { machine } from '../lib/machine.mjs';
import { interleave } from '../lib/measure.mjs';
import { LAYOUTS, SHAPES, nameOf } from './cases.js';

const here = dirname(fileURLToPath(import.meta.url));
const modules = join(here, '../node_modules');
const ROUNDS = Number(process.env.RAVEN_BENCH_ROUNDS ?? 7);
const RUN_MS = 300;
const GOALS = { 'tfjs-wasm': 1.25, 'onnxruntime-web': 1.5 };
/** A product with a turned operand beside the one without, at least. */
const LAYOUT_GOAL = 0.9;

async function serve(frames) {
  return serveStatic({
    routes: {
      '/ours.html': page('/kernels/ours.js'),
      '/tfjs.html': page('/tfjs-bundle.js'),
      '/ort.html': page('/ort-bundle.js'),
      '/peak.html': page('/lib/peak.js'),
      '/tfjs-bundle.js': await bundle(join(here, 'tfjs.js')),
      '/ort-bundle.js': await bundle(join(here, 'ort.js')),
    },
    mounts: {
      '/kernels/': here,
      '/lib/': join(here, '../lib'),
      '/kernel/': kernelDir,
      '/frames/': frames,
      '/tfjs-wasm/': join(modules, '@tensorflow/tfjs-backend-wasm/dist'),
      '/ort/': join(modules, 'onnxruntime-web/dist'),
    },
  });
}

/** Runs one case for everyone who can, ours in each layout. */
async function measureShape(contenders, shape) {
  const name = nameOf(shape);
  const timed = contenders.ready.flatMap(({ name: who, run }) => {
    if (who === 'peak') return [{ name: who, run: () => run(RUN_MS) }];
    if (who !== 'raven') return [{ name: who, run: () => run(name, RUN_MS) }];
    return LAYOUTS.map((layout) => ({ name: `raven ${layout}`, run: () => run(`${name} ${layout}`, RUN_MS) }));
  });
  const result = await interleave(timed, ROUNDS, (round) => say(`${name}: round ${round + 1} of ${ROUNDS}`));
  const { 'raven ab': ours, 'raven atb': atb, 'raven abt': abt, peak, ...peers } = result;
  return {
    case: name, unit: 'Gflop/s', ours: ours.median, peers: figuresOf(peers, contenders.cannot), cannot: contenders.cannot,
    spread: result, turned: { atb: atb.median / ours.median, abt: abt.median / ours.median },
    of_peak: ours.median / peak.median,
  };
}

function goalsOf(rows) {
  const goal = (name, value, bound) => ({ name, value, goal: bound, met: value !== null && value >= bound });
  const goals = Object.entries(GOALS).map(([peer, bound]) => {
    const can = rows.every(({ peers }) => typeof peers[peer] === 'number');
    const value = can ? geomean(rows.map(({ ours, peers }) => ours / peers[peer])) : null;
    return goal(`matrix products: times ${peer}, geometric mean`, value, bound);
  });
  const turned = (layout) => geomean(rows.map((row) => row.turned[layout]));
  goals.push(goal('turned left operand beside plain', turned('atb'), LAYOUT_GOAL));
  goals.push(goal('turned right operand beside plain', turned('abt'), LAYOUT_GOAL));
  return goals;
}

function print(rows) {
  for (const { case: name, ours, peers, turned, of_peak: share, cannot } of rows) {
    const others = Object.entries(peers).map(([peer, value]) => `${peer} ${value === null ? `cannot (${cannot[peer]})` : value.toFixed(1)}`);
    console.log(`${name.padEnd(16)} raven ${ours.toFixed(1)} Gflop/s (${(share * 100).toFixed(0)} % of the peak; turned left`
      + ` ${turned.atb.toFixed(2)}, right ${turned.abt.toFixed(2)})   ${others.join('   ')}`);
  }
}

const frames = mkdtempSync(join(tmpdir(), 'raven-bench-'));
const server = await serve(frames);
execFileSync(join(targetDir, 'release/examples/product_frames'), [frames], { stdio: 'inherit' });
const browser = await launch();
try {
  const contenders = new Contenders(browser, `http://127.0.0.1:${server.port}`);
  await contenders.add('raven', '/ours.html', []);
  await contenders.add('peak', '/peak.html', []);
  await contenders.add('tfjs-wasm', '/tfjs.html', []);
  await contenders.add('onnxruntime-web', '/ort.html', []);
  for (const needed of ['raven', 'peak']) {
    if (contenders.cannot[needed]) throw new Error(`${needed} cannot run: ${contenders.cannot[needed]}`);
  }
  const rows = [];
  for (const shape of SHAPES) rows.push(await measureShape(contenders, shape));
  const peak = geomean(rows.map(({ spread }) => spread.peak.median));
  const report = {
    name: 'kernels',
    date: new Date().toISOString().slice(0, 10),
    machine: machine({
      browser: `Chromium ${browser.version()}`, tfjs: versionOf('@tensorflow/tfjs-core'),
      onnxruntime_web: versionOf('onnxruntime-web'), rounds: ROUNDS, peak_gflop_per_s: peak,
    }),
    facts: contenders.facts,
    rows,
    goals: goalsOf(rows),
  };
  print(rows);
  console.log(`peak of 128-bit registers: ${peak.toFixed(1)} Gflop/s`);
  conclude(report);
} finally {
  await browser.close();
  await server.close();
  rmSync(frames, { recursive: true, force: true });
}
