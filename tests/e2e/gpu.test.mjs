// GPUs of visitors who allow them, for which Chromium's software adapter stands in: the code and the
// way of the work are those of a real one, only the speed is not.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { fashionMnist, uploadDigits, uploadFashionMnist } from './lib/data.mjs';
import { digitsJob, finish } from './lib/jobs.mjs';
import { commandLine, descendants } from './lib/threads.mjs';
import { World, until } from './lib/world.mjs';

let world;
let digits;
before(async () => {
  world = await World.start('gpu', { gpu: true });
  digits = await uploadDigits(world.coordinator);
});
afterEach(() => world.clear());
after(() => world?.stop());

const json = (path) => world.coordinator.json('GET', path);
const post = (job) => world.coordinator.json('POST', '/v1/jobs', job);

/** Nodes that compute on `numeric`. */
const nodes = async (numeric) => (await json('/v1/nodes')).nodes.filter((node) => node.numeric === numeric);

/** A visitor who has said yes to the GPU too, once it is at hand. */
async function withGpu(share = 100) {
  const visitor = await world.visitor();
  await visitor.accept(share, { gpu: true });
  await visitor.contributing();
  await until(async () => (await nodes('gpu')).length === 1, 'a session on the GPU', 60_000);
  return visitor;
}

/** Work of a job by what executed it. */
const workOf = (job) => Object.fromEntries(job.work.map(({ backend, tasks }) => [backend, tasks]));

/** Waits until a GPU has done at least one task of the job. */
const gpuHasWorked = (id) => until(async () => (workOf(await json(`/v1/jobs/${id}`)).gpu ?? 0) > 0, 'work on the GPU', 120_000);

/** Ends the process that owns the devices, as a crash of its driver does: all of them are lost. */
function killGpuProcess() {
  const found = descendants().filter((pid) => commandLine(pid).includes('--type=gpu-process'));
  assert.equal(found.length, 1, 'one browser has one GPU process');
  process.kill(Number(found[0]), 'SIGKILL');
}

describe('a visitor who allows the GPU', () => {
  it('is one contributor with two sessions, and only relaxed work goes to the GPU', async () => {
    await withGpu();
    assert.equal((await json('/v1/stats')).contributors, 1);
    const [gpu] = await nodes('gpu');
    assert.equal(gpu.workers, 1);
    assert.ok(gpu.flops_per_s > 1e6, `measured ${gpu.flops_per_s} flop/s`);
    const { numerics, ...relaxed } = digitsJob(digits.id, { epochs: 2 });
    assert.equal(numerics, 'strict');
    const posted = await post(relaxed);
    assert.equal(posted.numerics, 'relaxed', 'the default');
    const job = await finish(world.coordinator, posted.id);
    // The processor helps once a GPU turns out to be slower, as a software one does.
    assert.ok(workOf(job).gpu > 0, JSON.stringify(workOf(job)));
    assert.equal(job.contributors, 1);
    // Nothing else changed, so what differs are last bits.
    const strict = await finish(world.coordinator, (await post(digitsJob(digits.id, { epochs: 2 }))).id);
    assert.deepEqual(Object.keys(workOf(strict)), ['cpu'], 'strict work stays on the processor');
    assert.ok(Math.abs(job.train.loss - strict.train.loss) < 0.02 * strict.train.loss, `${job.train.loss}, ${strict.train.loss}`);
    assert.ok(Math.abs(job.best.accuracy - strict.best.accuracy) <= 0.02);
  });

  it('takes the word back at once, and the processor goes on', async () => {
    const visitor = await withGpu();
    const posted = await post({ ...digitsJob(digits.id, { epochs: 30 }), numerics: 'relaxed' });
    await gpuHasWorked(posted.id);
    await visitor.card.locator('#raven-gpu').uncheck();
    await until(async () => (await nodes('gpu')).length === 0, 'no session on the GPU', 5_000);
    const job = await finish(world.coordinator, posted.id);
    const work = workOf(job);
    assert.ok(work.gpu > 0 && work.cpu > 0, JSON.stringify(work));
  });

  it('loses the device in the middle and nothing else', async () => {
    const visitor = await withGpu();
    const posted = await post({ ...digitsJob(digits.id, { epochs: 30 }), numerics: 'relaxed' });
    await gpuHasWorked(posted.id);
    killGpuProcess();
    const job = await finish(world.coordinator, posted.id);
    const work = workOf(job);
    assert.ok(work.gpu > 0 && work.cpu > 0, JSON.stringify(work));
    await visitor.contributing();
    assert.equal((await nodes('gpu')).length, 0);
  });
});

describe('without an allowance', () => {
  it('no GPU module is fetched and no session opened', async () => {
    const asked = [];
    const visitor = await world.visitor({
      prepare: (page) => page.context().on('request', (request) => asked.push(new URL(request.url()).pathname)),
    });
    await visitor.accept(50);
    await visitor.contributing();
    const job = await finish(world.coordinator, (await post({ ...digitsJob(digits.id, { epochs: 1 }), numerics: 'relaxed' })).id);
    assert.deepEqual(Object.keys(workOf(job)), ['cpu']);
    assert.ok(asked.some((path) => path.includes('/kernel/')), 'requests of the workers are seen');
    assert.ok(!asked.some((path) => path.includes('/gpu/')), asked.join('\n'));
  });
});

const folder = fashionMnist();
describe('one GPU and two processors', { skip: folder ? false : 'Fashion-MNIST is not here' }, () => {
  it('train Fashion-MNIST side by side to the accuracy of processors alone, and the page shows who did what', async () => {
    const dataset = await uploadFashionMnist(world.coordinator, folder);
    const job = (numerics) => ({
      ...digitsJob(dataset.id, { name: `fashion ${numerics}`, epochs: 1, batch: 256, microBatch: 32 }), numerics,
    });
    await withGpu();
    await world.contributors(2, 50);
    const relaxed = await finish(world.coordinator, (await post(job('relaxed'))).id);
    const work = workOf(relaxed);
    assert.ok(work.gpu > 0 && work.cpu > 0, JSON.stringify(work));
    assert.equal(relaxed.contributors, 3);
    const context = await world.browser.newContext();
    const page = await context.newPage();
    await page.goto(world.coordinator.origin);
    await page.locator('article', { hasText: 'fashion relaxed' }).getByText(/GPU: \d+\s?% of the work/).waitFor();
    const cells = await page.locator('tbody tr td:first-child').allTextContents();
    assert.deepEqual(cells.map((cell) => cell.trim()).sort(), ['Desktop CPU', 'Desktop CPU', 'Desktop CPU', 'Desktop GPU']);
    await context.close();
    const strict = await finish(world.coordinator, (await post(job('strict'))).id);
    assert.ok(strict.best.accuracy > 0.75, `accuracy ${strict.best.accuracy}`);
    assert.ok(Math.abs(relaxed.best.accuracy - strict.best.accuracy) < 0.03, `${relaxed.best.accuracy} beside ${strict.best.accuracy}`);
  });
});
