// Contributors who lie, with a program of their own behind the real tag: the model is as if everybody were honest.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { Visitor } from './lib/contributor.mjs';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob, finish } from './lib/jobs.mjs';
import { corrupt } from './lib/liar.mjs';
import { coordinatorBin, kernelDir, outDir } from './lib/paths.mjs';
import { firstRow } from './lib/store.mjs';
import { World } from './lib/world.mjs';

const EPOCHS = 6;
const EXCLUDED = 'A result of this browser was not right, so it gets no more work.';
/** Right gradients after which a sleeper begins to lie: by then it is vetted, and most results are believed singly. */
const SLEEPS = 10;
/** What yields the gradients whose sign is turned. */
const OP = 'matmul';

let world;
let dataset;
/** A page of the partner whose frame has storage, so that whoever comes back has the same key. */
let near;
/** Of an honest run. */
let model;
before(async () => {
  // One job is not verified at all, to see what the liars would make of it.
  process.env.RAVEN_PRIVATE_POOL = 'yes';
  world = await World.start('proof');
  dataset = await uploadDigits(world.coordinator);
  const origin = `http://127.0.0.1:${world.partner.port}`;
  const site = await world.coordinator.json('POST', '/v1/sites', { name: 'Near News', origins: [origin] });
  world.partner.routes['/near'] = world.partner.routes['/'].replace(world.site.site_key, site.site_key);
  near = `${origin}/near`;
});
afterEach(() => world.clear());
after(() => world?.stop());

async function train(verification) {
  // Small tasks, so that everybody gets many.
  const body = digitsJob(dataset.id, { epochs: EPOCHS, microBatch: 8, name: verification, verification });
  return finish(world.coordinator, (await world.coordinator.json('POST', '/v1/jobs', body)).id);
}
const proofOf = (job) => world.coordinator.json('GET', `/v1/jobs/${job.id}/proof`);

/** A visitor whose program lies after so many right gradients. */
async function liar(honestTasks = 0) {
  let lies;
  const prepare = async (page) => {
    lies = await corrupt(page.context(), { honestTasks });
  };
  const visitor = await Visitor.open(world.browser, near, { prepare });
  await visitor.accept(50);
  await visitor.contributing();
  return { visitor, lies };
}

/** Sessions that ended, or did not begin, because of a proven lie. */
async function exclusions() {
  const metrics = await (await world.coordinator.api('GET', '/metrics')).text();
  return Number(metrics.match(/^raven_goodbyes_total\{reason="excluded"\} (\d+)$/m)?.[1] ?? 0);
}

async function isExcluded(visitor) {
  await visitor.until(({ phase }) => phase === 'unavailable', 'excluded', 10_000);
  assert.equal(await visitor.card.locator('#raven-over-text').textContent(), EXCLUDED);
}

/** Whoever was excluded comes again: its frame says so and asks for nothing. Where the frame has forgotten, the coordinator has not. */
async function isSentAway({ visitor }) {
  const before = await exclusions();
  const asked = [];
  const note = (request) => asked.push(new URL(request.url()).pathname);
  visitor.context.on('request', note);
  const again = await Visitor.tab(visitor.context, near);
  await isExcluded(again);
  visitor.context.off('request', note);
  assert.equal((await again.state()).tasks, 0);
  assert.equal(await exclusions(), before, 'the frame asks nobody');
  assert.deepEqual(asked.filter((path) => /hub\.js|kernel/.test(path)), [], 'and loads no kernel');
  await again.card.locator('#raven').evaluate(() => {
    for (const [key, value] of Object.entries({ ...localStorage })) {
      const { excluded, ...record } = JSON.parse(value);
      if (excluded) localStorage.setItem(key, JSON.stringify(record));
    }
  });
  await again.page.reload();
  await isExcluded(again);
  assert.ok((await exclusions()) > before, 'the coordinator sent it away');
  await again.close();
}

/** Those who told the truth are still there, and have done something. */
async function areAtWork(visitors) {
  for (const visitor of visitors) {
    const { phase, tasks } = await visitor.state();
    assert.ok(phase === 'idle' || phase === 'working', phase);
    assert.ok(tasks > 0, 'an honest contributor worked');
  }
}

/**
 * Of a job: tasks, executions that are paid, contributors who were not excluded, executions that those who were are
 * paid, and lies that were believed for a while or are paid.
 */
async function books(job, lies = []) {
  const query = `
    WITH executions AS (
      SELECT round || '/' || stage || '/' || part AS task, contributor, NOT void AS paid,
        contributor IN (SELECT contributor FROM trust WHERE excluded) AS excluded,
        LOWER(HEX(digest)) IN (SELECT value FROM json_each(?2)) AS lie
      FROM credits WHERE job = CAST(?1 AS INTEGER)
    )
    SELECT COUNT(DISTINCT task), COUNT(*) FILTER (WHERE paid), COUNT(DISTINCT contributor) FILTER (WHERE NOT excluded),
      COUNT(*) FILTER (WHERE paid AND excluded), COUNT(*) FILTER (WHERE lie), COUNT(*) FILTER (WHERE lie AND paid)
    FROM executions`;
  const id = BigInt.asIntN(64, BigInt(job.id.replace('job_', '0x')));
  const row = await firstRow(world.coordinator, query, String(id), JSON.stringify(lies));
  const [tasks, executions, honest, excluded, believed, paid] = row;
  return { tasks, executions, honest, excluded, lies: { told: lies.length, believed, paid } };
}

/** The exit codes of replaying each piece of a job's evidence, as it was written and with one bit changed. */
async function replayed(job) {
  const filed = (await proofOf(job)).evidence.filter(({ id }) => !id.endsWith('-unfiled'));
  assert.ok(filed.length >= 2, `${filed.length} files`);
  const replay = (file) => promisify(execFile)(coordinatorBin, ['replay', file, '--kernel', join(kernelDir, 'raven_kernel.wasm')])
    .then(() => 0, ({ code }) => code);
  return Promise.all(filed.map(async ({ id }) => {
    const file = join(world.coordinator.dataDir, 'evidence', `${id}.evidence`);
    const bytes = readFileSync(file);
    const sent = await world.coordinator.api('GET', `/v1/jobs/${job.id}/proof/${id}`);
    assert.ok(bytes.equals(Buffer.from(await sent.arrayBuffer())), 'its owner gets the file as it is');
    bytes[bytes.length >> 1] ^= 1;
    const changed = join(world.coordinator.dataDir, `${id}.changed`);
    writeFileSync(changed, bytes);
    return { as_written: await replay(file), changed: await replay(changed) };
  }));
}

describe('honest contributors', () => {
  it('come to a model without a dispute', async (t) => {
    const honest = await world.contributors(3);
    const job = await train('adaptive');
    model = job.model_sha256;
    assert.match(model, /^[0-9a-f]{64}$/);
    const { executions, evidence, rollbacks } = await proofOf(job);
    assert.deepEqual([evidence, rollbacks, await exclusions()], [[], 0, 0]);
    assert.ok(!executions.some(({ proof }) => proof === 'unchecked'), JSON.stringify(executions));
    await areAtWork(honest);
    t.diagnostic(JSON.stringify({ ...(await books(job)), proofs: executions }));
  });
});

describe('liars among honest contributors', () => {
  let adaptive;
  let ledger;
  it('are excluded in mode adaptive, and the model is as without them', async (t) => {
    const honest = await world.contributors(4);
    const liars = [await liar(), await liar(SLEEPS)];
    adaptive = await train('adaptive');
    assert.equal(adaptive.verification, 'adaptive');
    assert.equal(adaptive.model_sha256, model);
    for (const { visitor, lies } of liars) {
      assert.ok(lies.length > 0, `no lie among ${(await visitor.state()).tasks} tasks`);
      await isExcluded(visitor);
      // What it is shown is what it was told, and the one that led to this.
      assert.match(await visitor.card.locator('#raven-over-results').textContent(), /refused, differs from the checked result: 1/);
    }
    await liars[1].visitor.page.setViewportSize({ width: 360, height: 740 });
    await liars[1].visitor.page.screenshot({ path: join(outDir('e2e'), 'excluded-360.png') });
    await areAtWork(honest);
    for (const one of liars) await isSentAway(one);
    const { executions, rollbacks } = await proofOf(adaptive);
    ledger = await books(adaptive, liars.flatMap(({ lies }) => lies));
    t.diagnostic(JSON.stringify({ ...ledger, rollbacks, proofs: executions }));
    assert.equal(rollbacks, adaptive.rollbacks);
    assert.ok(rollbacks > 0 || ledger.lies.believed === 0, 'what was believed is undone');
    assert.ok(!executions.some(({ proof }) => proof === 'unchecked'), JSON.stringify(executions));
    assert.ok(executions.find(({ proof }) => proof === 'refereed')?.count > 0, 'the referee settled what was disputed');
    assert.equal(ledger.honest, honest.length, 'every honest contributor is credited');
    await world.coordinator.restart();
    for (const one of liars) await isSentAway(one);
  });

  it('leave evidence that names the operation', async (t) => {
    const { evidence } = await proofOf(adaptive);
    for (const { finding } of evidence) t.diagnostic(finding);
    assert.ok(evidence.length >= 2, `${evidence.length} findings`);
    const named = evidence.filter(({ finding }) => finding.includes(`(${OP})`) && finding.endsWith('all signs turned'));
    // Of a result that was believed at first, and computed again later, the payload is gone.
    const bare = evidence.filter(({ finding }) => finding.endsWith('its payload was not shown'));
    assert.ok(named.length > 0, 'the operation is named');
    assert.equal(named.length + bare.length, evidence.length);
    for (const { task } of evidence) assert.ok(task.startsWith(`${adaptive.id}/`), task);
  });

  it('are found again by replaying the evidence, unless it was changed', async () => {
    for (const codes of await replayed(adaptive)) assert.deepEqual(codes, { as_written: 0, changed: 2 });
  });

  it('are not paid for lies', () => assert.equal(ledger.lies.paid, 0));

  it('are excluded in mode triple, where every task has three executions', async (t) => {
    const honest = await world.contributors(3);
    const { visitor, lies } = await liar();
    const job = await train('triple');
    assert.equal(job.model_sha256, model);
    assert.ok(lies.length > 0, 'it lied');
    await isExcluded(visitor);
    await areAtWork(honest);
    const paid = await books(job, lies);
    t.diagnostic(JSON.stringify({ ...paid, proofs: (await proofOf(job)).executions }));
    assert.deepEqual([paid.honest, paid.excluded, paid.lies.believed], [honest.length, 0, 0]);
    const each = paid.executions / paid.tasks;
    assert.ok(each > 2.7 && each <= 3, `${each} executions of a task`);
  });

  it('spoil the model where nothing is verified', async () => {
    const honest = await world.contributors(2);
    const { visitor, lies } = await liar();
    const job = await train('none');
    assert.ok(lies.length > 0, 'it lied');
    assert.notEqual(job.model_sha256, model);
    await areAtWork([...honest, visitor]);
    const { executions, evidence } = await proofOf(job);
    assert.deepEqual([executions.map(({ proof }) => proof), evidence], [['unchecked'], []]);
  });
});
