// Runs the conformance suite in a module worker of headless browsers and
// compares the digests of all output bits with Node's:
//   node tests/conformance/browser.mjs [KERNEL_DIR] [SUITE_DIR]
// RAVEN_CHROMIUM and RAVEN_FIREFOX name the browsers; a Firefox that is not
// here is left out. RAVEN_BIT_SEEDS is how often every case runs on other
// operands.
import { execFileSync, spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';
import { runSeeds, runSuite } from './run.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const kernelDir = resolve(process.argv[2] ?? 'dist/kernel');
const suiteDir = resolve(process.argv[3] ?? 'target/conformance');

const SEEDS = Number(process.env.RAVEN_BIT_SEEDS ?? 3);

/** The suite takes seconds, a seed one or two; a browser that hangs must not hang the tests. */
const SUITE_MS_MAX = 300_000 + SEEDS * 5_000;

const WORKER = `
import init, { Kernel } from './raven_kernel.js';
import { runSeeds, runSuite } from './run.mjs';
await init({ module_or_path: './raven_kernel.wasm' });
const suite = await (await fetch('./suite.json')).json();
const bytes = new Uint8Array(await (await fetch('./suite.bin')).arrayBuffer());
const report = await runSuite(Kernel, suite, bytes);
report.seeds = await runSeeds(Kernel, suite, bytes, ${SEEDS});
postMessage(report);
`;
// A page that needs nobody to drive it: it posts the report of its worker.
const PAGE = `<!doctype html><title>conformance</title><script type="module">
const post = (report) => fetch('/report', { method: 'POST', body: JSON.stringify(report) });
const worker = new Worker('/worker.mjs', { type: 'module' });
worker.onmessage = ({ data }) => post(data);
worker.onerror = ({ message }) => post({ error: message || 'the worker failed' });
</script>`;
const files = {
  '/': { type: 'text/html', read: async () => PAGE },
  '/worker.mjs': { type: 'text/javascript', read: async () => WORKER },
  '/run.mjs': { type: 'text/javascript', read: () => readFile(`${here}/run.mjs`) },
  '/raven_kernel.js': { type: 'text/javascript', read: () => readFile(`${kernelDir}/raven_kernel.js`) },
  '/raven_kernel.wasm': { type: 'application/wasm', read: () => readFile(`${kernelDir}/raven_kernel.wasm`) },
  '/suite.json': { type: 'application/json', read: () => readFile(`${suiteDir}/suite.json`) },
  '/suite.bin': { type: 'application/octet-stream', read: () => readFile(`${suiteDir}/suite.bin`) },
};

async function inNode() {
  const { default: init, Kernel } = await import(pathToFileURL(`${kernelDir}/raven_kernel.js`));
  await init({ module_or_path: readFileSync(`${kernelDir}/raven_kernel.wasm`) });
  const suite = JSON.parse(readFileSync(`${suiteDir}/suite.json`, 'utf8'));
  const bytes = readFileSync(`${suiteDir}/suite.bin`);
  return { ...await runSuite(Kernel, suite, bytes), seeds: await runSeeds(Kernel, suite, bytes, SEEDS) };
}

/** Serves the page; `open(url)` shows it in a browser and resolves to what ends that browser. */
async function reportOf(open) {
  let reported;
  const report = new Promise((done) => { reported = done; });
  const server = createServer(async (request, response) => {
    if (request.method === 'POST') {
      const parts = [];
      for await (const part of request) parts.push(part);
      response.end();
      reported(JSON.parse(Buffer.concat(parts).toString()));
      return;
    }
    const file = files[request.url];
    if (!file) return void response.writeHead(404).end();
    response.writeHead(200, { 'content-type': file.type });
    response.end(await file.read());
  });
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  const end = await open(`http://127.0.0.1:${server.address().port}/`);
  let timer;
  const late = new Promise((_, failed) => {
    timer = setTimeout(() => failed(new Error(`no report after ${SUITE_MS_MAX} ms`)), SUITE_MS_MAX);
  });
  try {
    const result = await Promise.race([report, late]);
    if (result.error) throw new Error(result.error);
    return result;
  } finally {
    clearTimeout(timer);
    await end();
    server.closeAllConnections();
    server.close();
  }
}

async function openChromium(url) {
  const browser = await chromium.launch({
    executablePath: process.env.RAVEN_CHROMIUM ?? 'chromium',
    args: ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  await (await browser.newPage()).goto(url);
  return () => browser.close();
}

/** The path of a Firefox, if there is one. */
function firefoxPath() {
  for (const name of [process.env.RAVEN_FIREFOX, 'firefox-esr', 'firefox']) {
    try {
      if (name) return execFileSync('/bin/sh', ['-c', 'command -v "$0"', name], { encoding: 'utf8' }).trim();
    } catch {
      // Not this one.
    }
  }
  return null;
}

async function openFirefox(url) {
  const profile = mkdtempSync(join(tmpdir(), 'raven-firefox-'));
  // Nothing is asked, fetched or shown at the first start.
  const prefs = {
    'browser.shell.checkDefaultBrowser': false, 'browser.aboutwelcome.enabled': false,
    'datareporting.policy.dataSubmissionEnabled': false, 'app.normandy.enabled': false,
    'app.update.enabled': false, 'network.captive-portal-service.enabled': false,
    'network.connectivity-service.enabled': false, 'toolkit.telemetry.reportingpolicy.firstRun': false,
    'dom.ipc.processPrelaunch.enabled': false,
  };
  const lines = Object.entries(prefs).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${value});`);
  writeFileSync(join(profile, 'user.js'), lines.join('\n'));
  const child = spawn(firefoxPath(), ['--headless', '--no-remote', '--profile', profile, url], {
    stdio: 'ignore', env: { ...process.env, HOME: profile },
  });
  const ended = new Promise((done) => { child.once('exit', done); });
  return async () => {
    child.kill();
    const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await ended;
    clearTimeout(late);
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  };
}

/** Says where a browser's bits are others than Node's. */
function compare(name, found, node) {
  for (const { name: title, reason } of found.failed) console.error(`FAILED ${title}: ${reason}`);
  const differing = (of, and) => of.filter((result, i) => result.digest !== and[i].digest);
  for (const { name: title } of differing(found.cases, node.cases)) console.error(`FAILED ${title}: other bits than in Node`);
  for (const { name: title } of differing(found.seeds.cases, node.seeds.cases)) {
    console.error(`FAILED ${title}: other bits than in Node on random operands`);
  }
  const same = found.digest === node.digest && found.seeds.digest === node.seeds.digest;
  console.log(`${name}: ${found.cases.length} cases, ${found.failed.length} failed, digest ${found.digest.slice(0, 16)}; `
    + `${found.seeds.cases.length} tasks with ${SEEDS} seeds, digest ${found.seeds.digest.slice(0, 16)}: ${same ? 'as in node' : 'OTHER BITS than in node'}`);
  if (found.failed.length > 0 || found.cases.length === 0 || !same) process.exitCode = 1;
}

const node = await inNode();
compare('chromium', await reportOf(openChromium), node);
if (firefoxPath()) compare('firefox', await reportOf(openFirefox), node);
else console.log('firefox: not here, left out');
