// The GPU module in Chromium on its software adapter:
//   node gpu-worker/tests/browser.mjs MODULE_DIR FRAMES_DIR
// where FRAMES_DIR is what `gpu_bench --frames` has written. A software adapter is refused unless
// it is asked for, a task is one submission, and a device that is lost in mid-task hands the lease back.
import assert from 'node:assert/strict';
import { launch, SOFTWARE_GPU } from '../../tests/e2e/lib/browser.mjs';
import { serveStatic } from '../../tests/e2e/lib/static.mjs';

const [, , moduleDir, framesDir] = process.argv;
if (!framesDir) {
  console.error('usage: browser.mjs MODULE_DIR FRAMES_DIR');
  process.exit(2);
}

/** Runs in the page; resolves to what was seen. */
async function scenario() {
  const { default: init, GpuKernel } = await import('/gpu/raven_gpu.js');
  await init({ module_or_path: '/gpu/raven_gpu.wasm' });
  const header = (frame) => {
    const view = new DataView(frame.buffer, frame.byteOffset);
    return JSON.parse(new TextDecoder().decode(frame.subarray(16, 16 + view.getUint32(8, true))));
  };
  const load = async (file) => new Uint8Array(await (await fetch(`/frames/${file}`)).arrayBuffer());
  const [graph, task] = [await load('mlp.graph.frame'), await load('mlp.task.frame')];
  const seen = {};
  seen.unasked = await GpuKernel.open(1e9, false).then(() => null, (error) => error.message);
  const kernel = await GpuKernel.open(512 * 2 ** 20, true);
  seen.measured = await kernel.measure();
  seen.unsupported = kernel.unsupported(graph);
  kernel.accept(graph);
  const before = kernel.submits();
  kernel.begin(task);
  await kernel.settled();
  seen.first = header(kernel.finish(1));
  seen.submits = kernel.submits() - before;
  kernel.begin(task);
  kernel.destroyDevice();
  const late = new Promise((done) => setTimeout(done, 20_000, 'late'));
  seen.settled = await Promise.race([kernel.settled().then(() => 'in time'), late]);
  seen.second = header(kernel.finish(1));
  // The page learns of the loss a little later than of the failed readback.
  while (!kernel.lost()) await new Promise((done) => setTimeout(done, 10));
  seen.third = header(kernel.begin(task));
  seen.lost = kernel.lost();
  return seen;
}

const server = await serveStatic({
  routes: { '/page.html': '<!doctype html><link rel="icon" href="data:,">' },
  mounts: { '/gpu/': moduleDir, '/frames/': framesDir },
});
const browser = await launch(SOFTWARE_GPU);
try {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${server.port}/page.html`);
  const seen = await page.evaluate(scenario);
  assert.match(seen.unasked, /^adapter: only a software one/);
  assert.ok(seen.measured > 1e6, `measured ${seen.measured}`);
  assert.equal(seen.unsupported, undefined);
  assert.equal(seen.first.type, 'commit');
  assert.equal(seen.submits, 1);
  assert.equal(seen.settled, 'in time');
  assert.deepEqual([seen.second.type, seen.second.reason], ['refuse', 'failed']);
  assert.deepEqual([seen.third.type, seen.third.reason], ['refuse', 'failed']);
  assert.ok(seen.lost);
  console.log(`gpu in the browser: ok, ${(seen.measured / 1e9).toFixed(2)} Gflop/s`);
} finally {
  await browser.close();
  await server.close();
}
