// scripts/bench freivalds: the check of a matrix product beside the product that it spares.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { kernelDir, targetDir } from '../../tests/e2e/lib/paths.mjs';
import { LAYOUTS, SHAPES, nameOf } from '../kernels/cases.js';
import { conclude, say } from '../lib/contest.mjs';
import { LineProcess } from '../lib/lines.mjs';
import { machine } from '../lib/machine.mjs';
import { interleave } from '../lib/measure.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const ROUNDS = Number(process.env.RAVEN_BENCH_ROUNDS ?? 7);
const RUN_MS = 300;
const PROBES = { usual: 2, thorough: 6 };
/** What the usual check may cost at most, as a part of the kernel's product. */
const GOALS = { '512x512x512': 0.05, '1024x1024x1024': 0.02 };

/** The kernel module in this process, as `bench/kernels/ours.js` has it in a page. */
class KernelProduct {
  #Kernel;
  #frames;
  #folder;
  #open = null;

  static async load(folder) {
    const { default: init, Kernel } = await import(pathToFileURL(join(kernelDir, 'raven_kernel.js')));
    await init({ module_or_path: readFileSync(join(kernelDir, 'raven_kernel.wasm')) });
    const product = new KernelProduct();
    product.#Kernel = Kernel;
    product.#folder = folder;
    product.#frames = JSON.parse(readFileSync(join(folder, 'products.json'), 'utf8'));
    return product;
  }

  prepare(name) {
    this.#open?.kernel.free();
    const { graph, task, flops } = this.#frames[name];
    const kernel = new this.#Kernel(512 * 1024 * 1024);
    kernel.accept(readFileSync(join(this.#folder, graph)));
    this.#open = { kernel, task: readFileSync(join(this.#folder, task)), flops };
    this.#restart();
  }

  #restart() {
    const { kernel, task, flops } = this.#open;
    kernel.abort();
    const refused = kernel.begin(task);
    if (refused) throw new Error(new TextDecoder().decode(refused));
    kernel.step(5 * flops);
  }

  /** Milliseconds of one product. */
  run(ms) {
    const { kernel, flops } = this.#open;
    if (2 * kernel.flopsDone() > kernel.flopsTotal()) this.#restart();
    const before = kernel.flopsDone();
    const start = performance.now();
    let elapsed = 0;
    while (elapsed < ms && !kernel.step(Math.max(flops, 20e6))) elapsed = performance.now() - start;
    elapsed = performance.now() - start;
    return (elapsed * flops) / (kernel.flopsDone() - before);
  }
}

async function measure(shape, layout, { kernel, check, numpy }) {
  const name = nameOf(shape);
  kernel.prepare(`${name} ${layout}`);
  for (const other of [check, numpy]) await other?.ask(`prepare ${shape.join(' ')} ${layout}`);
  const timed = [
    { name: 'product, raven', run: () => kernel.run(RUN_MS) },
    ...Object.entries(PROBES).map(([probes, count]) => ({ name: probes, run: () => check.ask(`run ${count} ${RUN_MS}`) })),
  ];
  if (numpy) timed.push({ name: 'product, numpy', run: () => numpy.ask(`run ${RUN_MS}`) });
  const result = await interleave(timed, ROUNDS, (round) => say(`${name} ${layout}: round ${round + 1} of ${ROUNDS}`));
  const { usual, thorough, 'product, raven': product, 'product, numpy': native } = result;
  return {
    case: name, layout, unit: 'ms', ours: usual.median,
    peers: { 'product, raven': product.median, 'product, numpy': native?.median ?? null },
    cannot: numpy ? {} : { 'product, numpy': 'no NumPy here' },
    thorough: thorough.median, spread: result,
    of_product: usual.median / product.median, thorough_of_product: thorough.median / product.median,
  };
}

function goalsOf(rows) {
  return Object.entries(GOALS).flatMap(([name, goal]) => rows.filter((row) => row.case === name).map((row) => ({
    name: `check of ${name} ${row.layout}, percent of the product`, value: 100 * row.of_product, goal: 100 * goal,
    at_most: true, met: row.of_product <= goal,
  })));
}

function print(rows) {
  for (const { case: name, layout, ours, peers, thorough, of_product: part } of rows) {
    const products = Object.entries(peers).map(([peer, ms]) => `${peer} ${ms === null ? 'cannot' : `${ms.toFixed(3)} ms`}`);
    console.log(`${`${name} ${layout}`.padEnd(19)} check ${ours.toFixed(3)} ms (${(100 * part).toFixed(1)} % of our product;`
      + ` six probes ${thorough.toFixed(3)} ms)   ${products.join('   ')}`);
  }
}

const folder = mkdtempSync(join(tmpdir(), 'raven-bench-'));
execFileSync(join(targetDir, 'release/examples/product_frames'), [folder], { stdio: 'inherit' });
const python = process.env.PYTHON;
const contenders = {
  kernel: await KernelProduct.load(folder),
  check: new LineProcess('the check', join(targetDir, 'release/examples/freivalds')),
  numpy: python ? new LineProcess('NumPy', python, [join(here, 'numpy_product.py')]) : null,
};
try {
  const rows = [];
  for (const shape of SHAPES) {
    for (const layout of LAYOUTS) rows.push(await measure(shape, layout, contenders));
  }
  print(rows);
  conclude({
    name: 'freivalds', date: new Date().toISOString().slice(0, 10), machine: machine({ rounds: ROUNDS }),
    rows, goals: goalsOf(rows),
  });
} finally {
  contenders.check.end();
  contenders.numpy?.end();
  rmSync(folder, { recursive: true });
}
