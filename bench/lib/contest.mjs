// What the benchmarks in one Chromium share: a page per contender, bundles, and the report.
import { build } from 'esbuild';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { outDir } from '../../tests/e2e/lib/paths.mjs';

const modules = join(dirname(fileURLToPath(import.meta.url)), '../node_modules');

export const say = (text) => process.stderr.write(`${text}\n`);

/** The version of an installed package. */
export const versionOf = (name) => JSON.parse(readFileSync(join(modules, name, 'package.json'), 'utf8')).version;

/** A route for a page whose `globalThis.bench` is the module's exports. */
export const page = (module) =>
  `<!doctype html><meta charset="utf-8"><script type="module">import * as bench from '${module}'; globalThis.bench = bench;</script>`;

/** A route for an entry file with everything that it imports. */
export async function bundle(entry) {
  const { outputFiles } = await build({
    entryPoints: [entry], bundle: true, write: false, format: 'esm', target: 'chrome120', logLevel: 'error', minify: true,
    // Code for Node in packages that run in both.
    external: ['node:*'],
  });
  return { type: 'text/javascript', body: outputFiles[0].text };
}

/** Opens pages and prepares them; who cannot run is named with the reason. */
export class Contenders {
  #browser;
  #origin;
  ready = [];
  cannot = {};

  constructor(browser, origin) {
    this.#browser = browser;
    this.#origin = origin;
  }

  /** A contender in a page of its own; `prepare` and `run` are calls of its module. */
  async add(name, path, prepare) {
    const opened = await (await this.#browser.newContext()).newPage();
    await opened.goto(`${this.#origin}${path}`);
    try {
      const facts = await opened.evaluate((args) => globalThis.bench.prepare(...args), prepare);
      const run = async (...args) => {
        await opened.bringToFront();
        return opened.evaluate((given) => globalThis.bench.run(...given), args);
      };
      this.ready.push({ name, run, facts });
    } catch (error) {
      this.cannot[name] = String(error.message).split('\n')[0].slice(0, 200);
      await opened.context().close();
    }
  }

  /** What each said of itself when it was prepared. */
  get facts() {
    return Object.fromEntries(this.ready.map(({ name, facts }) => [name, facts]));
  }

  async close() {
    for (const context of this.#browser.contexts()) await context.close();
  }
}

/** The figures of peers, `null` where one cannot. */
export function figuresOf(peers, cannot) {
  const figures = Object.fromEntries(Object.entries(peers).map(([name, { median }]) => [name, median]));
  for (const name of Object.keys(cannot)) figures[name] = null;
  return figures;
}

export const geomean = (values) => Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);

/** Prints the goals and writes the report; a goal that is missed makes the process fail. */
export function conclude(report) {
  console.log('');
  for (const { name, value, goal, met, at_most: atMost } of report.goals) {
    const bound = atMost ? 'at most' : 'goal';
    console.log(`${name}: ${value === null ? 'not measured' : value.toFixed(2)}, ${bound} ${goal}: ${met ? 'met' : 'MISSED'}`);
  }
  const file = join(outDir('bench'), `${report.name}.json`);
  writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
  console.log(`\nwritten to ${file}`);
  if (report.goals.some(({ met }) => !met)) process.exitCode = 1;
}
