// Runs the conformance suite in a module worker of a headless Chromium and
// compares the digest of all output bits with Node's:
//   node tests/conformance/browser.mjs [KERNEL_DIR] [SUITE_DIR]
// RAVEN_CHROMIUM names the browser.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';
import { runSuite } from './run.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const kernelDir = resolve(process.argv[2] ?? 'dist/kernel');
const suiteDir = resolve(process.argv[3] ?? 'target/conformance');

/** The suite takes seconds; a browser that hangs must not hang the tests. */
const SUITE_MS_MAX = 300_000;

const WORKER = `
import init, { Kernel } from './raven_kernel.js';
import { runSuite } from './run.mjs';
await init({ module_or_path: './raven_kernel.wasm' });
const suite = await (await fetch('./suite.json')).json();
const bytes = new Uint8Array(await (await fetch('./suite.bin')).arrayBuffer());
postMessage(await runSuite(Kernel, suite, bytes));
`;
const files = {
  '/': { type: 'text/html', read: async () => '<!doctype html><title>conformance</title>' },
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
  return runSuite(Kernel, suite, readFileSync(`${suiteDir}/suite.bin`));
}

async function inChromium() {
  const server = createServer(async (request, response) => {
    const file = files[request.url];
    if (!file) return void response.writeHead(404).end();
    response.writeHead(200, { 'content-type': file.type });
    response.end(await file.read());
  });
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  const browser = await chromium.launch({
    executablePath: process.env.RAVEN_CHROMIUM ?? 'chromium',
    args: ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    return await page.evaluate((msMax) => new Promise((done, failed) => {
      setTimeout(() => failed(new Error(`no report after ${msMax} ms`)), msMax);
      const worker = new Worker('/worker.mjs', { type: 'module' });
      worker.onmessage = (event) => done(event.data);
      worker.onerror = (event) => failed(new Error(event.message));
    }), SUITE_MS_MAX);
  } finally {
    await browser.close();
    server.close();
  }
}

const [node, page] = [await inNode(), await inChromium()];
for (const { name, reason } of page.failed) console.error(`FAILED ${name}: ${reason}`);
const differing = page.cases.filter((result, i) => result.digest !== node.cases[i].digest);
for (const { name } of differing) console.error(`FAILED ${name}: other bits than in Node`);
console.log(`chromium: ${page.cases.length} cases, ${page.failed.length} failed, digest ${page.digest.slice(0, 16)}, `
  + (page.digest === node.digest ? 'as in node' : `node has ${node.digest.slice(0, 16)}`));
if (page.failed.length > 0 || page.cases.length === 0 || page.digest !== node.digest) process.exitCode = 1;
