// Who is paid what: two partner sites, their visitors and a contributor without a browser, with a power cut in the middle.
// Each of both is a site of its own to the browser, and so is the coordinator, whose frame they show: `localhost` is a suffix, as `com` is.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import WebSocket from 'ws';
import { launchProfile } from './lib/browser.mjs';
import { expectedBalances } from './lib/balances.mjs';
import { Visitor } from './lib/contributor.mjs';
import { uploadDigits } from './lib/data.mjs';
import { decode, encode } from './lib/frame.mjs';
import { digitsJob, finish, TERMINAL } from './lib/jobs.mjs';
import { contribute } from './lib/native.mjs';
import { startNative } from './lib/native-process.mjs';
import { coordinatorBin, kernelDir } from './lib/paths.mjs';
import { serveStatic } from './lib/static.mjs';
import { firstRow } from './lib/store.mjs';
import { article, World, until } from './lib/world.mjs';

const kernel = JSON.parse(readFileSync(join(kernelDir, 'kernel.json'), 'utf8'));
const EPOCHS = 6;
/** Where the power goes out. */
const CUT_AT_ROUND = 30;
/** What a test key begins with: 1,000 USD of play money. */
const TRIAL = 1_000_000_000_000n;
const BAD_TICKET = 4006;
const HOSTS = { a: 'news.localhost', b: 'blog.localhost' };
/** As in the worked example of the books: Ann and Ben have a key, in one browser's profile; Cleo has a phone, and a window that keeps none. */
const PHONE = {
  viewport: { width: 360, height: 740 },
  isMobile: true,
  hasTouch: true,
  userAgent: 'Mozilla/5.0 (Linux; Android 14; Phone) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36',
};
const VISITORS = { ann: { site: 'a' }, ben: { site: 'b' }, cleo: { site: 'a', phone: true } };

let world;
let folder;
let profile;
/** Sites by name: `{origin, id, partner}`, on origins of their own. */
const sites = {};

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'raven-money-'));
  world = await World.start('money');
  profile = await launchProfile(join(folder, 'profile'));
  for (const [name, host] of Object.entries(HOSTS)) {
    const partner = await serveStatic();
    const origin = `http://${host}:${partner.port}`;
    const { id, site_key: siteKey, snippet } = await world.coordinator.json('POST', '/v1/sites', { name: `Site ${name}`, origins: [origin] });
    partner.routes['/'] = article(snippet);
    sites[name] = { origin, id, siteKey, partner };
  }
});
afterEach(() => world.clear());
after(async () => {
  await profile?.close();
  for (const { partner } of Object.values(sites)) await partner.close();
  await world?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const [MICRO_BATCH, BATCH, ROWS] = [8, 64, 1438];
/** Rows of each round of an epoch: whole micro-batches, of which the last may be filled up. */
const BATCHES = Array.from({ length: Math.ceil(ROWS / BATCH) }, (_, round) => Math.ceil(Math.min(BATCH, ROWS - round * BATCH) / MICRO_BATCH) * MICRO_BATCH);
/**
 * Flops of a row of the digits MLP, by hand: two for each weight on the way there, as many for each weight's gradient, and for
 * the inputs of all layers but the first. Biases, activations and the loss are left out: they are two in a hundred.
 */
const ROW_FLOPS = 2 * (2 * 64 * 128 + 3 * 128 * 64 + 3 * 64 * 10);
const ROW_FLOPS_REST = 0.03;
/** Pico-USD for a calculation. */
const RATES = { server: 20_000, desktop: 16_000, phone: 12_000 };
/** Of each task a job in mode `triple` pays for so many executions. */
const PAID_MAX = 3;

/** Executions that are credited and not void. Numbers come as text: a site's id is longer than a number of JavaScript. */
async function credits() {
  const [text] = await firstRow(world.coordinator, `
    SELECT json_group_array(json_object('job', CAST(job AS TEXT), 'contributor', LOWER(HEX(contributor)), 'site', CAST(site AS TEXT),
      'flops', CAST(flops AS TEXT), 'rate', CAST(rate AS TEXT), 'payer', payer, 'beneficiary', beneficiary)) FROM credits WHERE void = 0`);
  const hex = (id) => BigInt.asUintN(64, BigInt(id)).toString(16).padStart(16, '0');
  return JSON.parse(text).map((credit) => ({ ...credit, site: credit.site === null ? null : hex(credit.site) }));
}

/** What the books say: balances of play money by account, and what is still held. */
async function accounts() {
  const [text] = await firstRow(world.coordinator, `
    SELECT json_group_array(json_array(name, CAST(posted AS TEXT), held_in + held_out)) FROM accounts WHERE book = 'test'`);
  const rows = JSON.parse(text);
  const posted = new Map(rows.map(([name, amount]) => [name, BigInt(amount)]));
  return { posted, held: rows.reduce((sum, [, , held]) => sum + held, 0) };
}

/** Tasks of each attempt: how often the job pays for each, and the flops that one execution is credited with. */
async function tasks() {
  const [text] = await firstRow(world.coordinator, `
    SELECT json_group_array(json_array(round, attempt, stage, part, paid, least, most)) FROM (
      SELECT round, attempt, stage, part, SUM(payer = 'job') AS paid, MIN(flops) AS least, MAX(flops) AS most
      FROM credits WHERE void = 0 GROUP BY job, round, attempt, stage, part)`);
  return JSON.parse(text).map(([round, attempt, stage, part, paid, least, most]) => ({ round, attempt, stage, part, paid, least, most }));
}

const entries = async () => (await firstRow(world.coordinator, 'SELECT COUNT(*) FROM entries'))[0];
const sessions = async () => (await firstRow(world.coordinator, 'SELECT COUNT(*) FROM sessions'))[0];

async function audit() {
  const { stdout } = await promisify(execFile)(coordinatorBin, ['audit', '--data', world.coordinator.dataDir]);
  assert.match(stdout, /^test: \d+ entries, \d+ accounts, all right/m);
}

/** Whose an execution's earning is: its contributor's, or the site's where that was chosen on the card. */
const earnerOf = ({ contributor, site, beneficiary }) => (beneficiary === 'site' ? `site:${site}` : `contributor:${contributor}`);

/** Compares every account with what the credits alone say that it must have. */
async function compare() {
  const executions = await credits();
  const { posted, held } = await accounts();
  const requester = [...posted.keys()].filter((name) => name.startsWith('requester:'));
  assert.equal(requester.length, 1, requester.join());
  const { balances, jobs } = expectedBalances({ credits: executions, requester: requester[0], trial: TRIAL, earnerOf });
  assert.equal(held, 0, 'nothing is open');
  const named = (map) => Object.fromEntries([...map].filter(([, amount]) => amount !== 0n).sort().map(([name, amount]) => [name, String(amount)]));
  assert.deepEqual(named(posted), named(balances));
  await audit();
  return { executions, posted, jobs };
}

/** Opens a visitor's page and says yes. */
async function open({ site, phone }) {
  const { origin } = sites[site];
  // A private window denies storage to frames of other sites.
  const visitor = phone ? await Visitor.open(world.browser, origin, PHONE) : await Visitor.tab(profile, origin);
  await visitor.accept(50);
  await visitor.contributing();
  return visitor;
}

/** Names of the databases that the coordinator's frame sees on a partner's page; `null` where it is denied any. */
function databases(visitor) {
  const frame = visitor.page.frames().find((it) => it.url().startsWith(world.coordinator.origin));
  return frame.evaluate(() => indexedDB.databases().then((found) => found.map(({ name }) => name), () => null));
}

/** Public keys of contributors by visitor, as their sessions have them: the site, and whether it is a phone, tells who it is. */
async function keysByVisitor() {
  const [text] = await firstRow(world.coordinator, `
    SELECT json_group_array(json_array(LOWER(HEX(contributor)), CAST(site AS TEXT), device_class)) FROM
      (SELECT DISTINCT contributor, site, device_class FROM sessions WHERE site IS NOT NULL)`);
  const hex = (id) => BigInt.asUintN(64, BigInt(id)).toString(16).padStart(16, '0');
  const found = JSON.parse(text).map(([key, site, device]) => ({ key, site: `site_${hex(site)}`, device }));
  const own = ({ site, phone }) => found.filter((it) => it.site === sites[site].id && it.device === (phone ? 'phone' : 'desktop')).map(({ key }) => key);
  return Object.fromEntries(Object.entries(VISITORS).map(([name, visitor]) => [name, own(visitor)]));
}

/** What the credits themselves must be, from the job's terms: the coordinator is not asked what it thinks of its own work. */
async function compareCredits(executions, rounds, nativeKey, cleo) {
  const wholeRound = new Map();
  /** Which attempt the job pays for: a round that is done again after the crash is cut anew, and the operator's to pay. */
  const paidAttempt = new Map();
  for (const { round, attempt, stage, part, paid, least, most } of await tasks()) {
    const task = `task ${round}.${stage}.${part} of attempt ${attempt}`;
    assert.equal(least, most, `${task} costs the same whoever does it`);
    assert.ok(paid <= PAID_MAX, `${task} is paid ${paid} times`);
    if (paid === 0) continue;
    assert.equal(paidAttempt.get(round) ?? attempt, attempt, `round ${round} is paid once`);
    paidAttempt.set(round, attempt);
    wholeRound.set(round, (wholeRound.get(round) ?? 0) + least);
  }
  // However a round was cut into tasks, together they are its batch; the last one of an epoch has fewer rows.
  assert.equal(wholeRound.size, EPOCHS * BATCHES.length, 'rounds');
  assert.equal(wholeRound.size, rounds);
  const perRow = Math.max(...wholeRound.values()) / BATCHES[0];
  assert.ok(perRow >= ROW_FLOPS && perRow <= ROW_FLOPS * (1 + ROW_FLOPS_REST), `a row is credited as ${perRow} flops, it has ${ROW_FLOPS} and a little`);
  for (const [round, flops] of wholeRound) assert.equal(flops, perRow * BATCHES[round % BATCHES.length], `round ${round}`);
  assert.ok(executions.some(({ contributor }) => contributor === nativeKey), 'the native contributor is paid');
  for (const { contributor, site, rate, beneficiary } of executions) {
    const isNative = contributor === nativeKey;
    const isCleo = cleo.includes(contributor);
    assert.equal(Number(rate), RATES[isNative ? 'server' : isCleo ? 'phone' : 'desktop'], contributor);
    assert.equal(site === null, isNative, `${contributor} came through ${site}`);
    assert.equal(beneficiary, isCleo ? 'site' : 'contributor', contributor);
  }
}

/** The public half of a contributor's key, as the books name it. */
function publicKey(file) {
  const seed = Buffer.from(readFileSync(file, 'utf8').trim(), 'hex');
  const key = createPrivateKey({ key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]), format: 'der', type: 'pkcs8' });
  return createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32).toString('hex');
}

const percent = (amount, parts) => (amount * parts) / 100n;

describe('a job of mode triple', () => {
  it('pays every account to the nano-USD, across a power cut', async (t) => {
    const { coordinator } = world;
    const dataset = await uploadDigits(coordinator);
    const native = await startNative(coordinator, folder);
    const visitors = {};
    try {
      for (const [name, spec] of Object.entries(VISITORS)) visitors[name] = await open(spec);
      // One browser has visited both, and neither page's frame sees what is kept for the other's.
      assert.deepEqual(await databases(visitors.ann), [`raven ${sites.a.siteKey}`]);
      assert.deepEqual(await databases(visitors.ben), [`raven ${sites.b.siteKey}`]);
      assert.deepEqual((await databases(visitors.cleo)) ?? [], []);
      const body = digitsJob(dataset.id, { epochs: EPOCHS, batch: BATCH, microBatch: MICRO_BATCH, verification: 'triple' });
      const { id } = await coordinator.json('POST', '/v1/jobs', body);
      await until(async () => (await coordinator.json('GET', `/v1/jobs/${id}`)).round >= CUT_AT_ROUND, `at round ${CUT_AT_ROUND}`, 120_000);
      const cards = { ann: 'Earns for you', ben: 'Earns for you', cleo: 'Earns for Site a' };
      for (const [name, text] of Object.entries(cards)) assert.equal(await visitors[name].card.locator('#raven-earner').textContent(), text, name);
      const before = await entries();
      const cut = await coordinator.json('GET', `/v1/jobs/${id}`);
      await coordinator.crash();
      assert.ok(!TERMINAL.has(cut.state) && cut.round + 10 < cut.rounds, `the power went out when the job was ${cut.state} at ${cut.round} of ${cut.rounds}`);
      assert.ok((await entries()) >= before, 'nothing that was entered is lost');
      await audit();
      const job = await finish(coordinator, id);
      for (const [name, visitor] of Object.entries(visitors)) assert.ok((await visitor.state()).tasks > 0, `${name} worked`);
      assert.ok(native.said('at work') > 1, 'the native contributor came back');

      const { executions, posted, jobs } = await compare();
      const { ann, ben, cleo } = await keysByVisitor();
      assert.deepEqual([ann.length, ben.length], [1, 1], 'one key each, before and after the cut');
      await compareCredits(executions, job.rounds, publicKey(join(folder, 'contributor.key')), cleo);
      const [{ parts, price }] = jobs.values();
      const earned = parts.earning;
      t.diagnostic(`${executions.length} executions, R_T ${earned}, margin ${parts.partner} + ${parts.master} + ${parts.fee}, R_S ${price} nano-USD`);
      // 5/3/2 of the exact cost, each rounded down, of which R_T is at most a nano-USD less.
      for (const [share, of] of [['master', 5n], ['partner', 3n], ['fee', 2n]]) {
        assert.ok(parts[share] >= percent(earned, of) && parts[share] <= percent(earned + 1n, of) + 1n, `${share}: ${parts[share]} of ${earned}`);
      }
      assert.ok(price <= BigInt(job.cost.escrow_nano_usd), `${price} of ${job.cost.escrow_nano_usd} that were held`);
      assert.equal(posted.get(`escrow:${id}`) ?? 0n, 0n, 'the rest of the escrow went back');
      const through = new Set(executions.map(({ site }) => site));
      assert.equal(through.size, 3, 'both sites and none');
      for (const key of [...ann, ...ben]) assert.ok(posted.get(`contributor:${key}`) > 0n, 'who has a key has its earnings');
      for (const key of cleo) assert.equal(posted.get(`contributor:${key}`) ?? 0n, 0n, 'who has none has left them to the site');
      const left = executions.filter(({ contributor }) => cleo.includes(contributor));
      assert.ok(left.length > 0 && left.every(({ site }) => `site_${site}` === sites.a.id), 'through which it came');
      assert.ok(posted.get('reserve') > 0n, 'what came through no site goes to the reserve');
    } finally {
      assert.equal(await native.stop(), 0);
      await Promise.all(Object.values(visitors).map((visitor) => visitor.close()));
    }
  });
});

describe('a site gets nothing', () => {
  it('from a page of an unregistered origin that copies its tag', async () => {
    const before = { entries: await entries(), sessions: await sessions() };
    world.partner.routes['/copied'] = sites.a.partner.routes['/'];
    const seen = { attached: 0, blocked: [] };
    const visitor = await Visitor.open(world.browser, `http://copy.localhost:${world.partner.port}/copied`, {
      prepare: (page) => {
        page.on('frameattached', () => { seen.attached += 1; });
        page.on('console', (message) => { if (message.text().includes('frame-ancestors')) seen.blocked.push(message.text()); });
      },
    });
    await until(() => seen.blocked.length > 0, 'blocked by the browser');
    assert.ok(seen.attached > 0, 'there was a frame to block');
    await visitor.page.waitForTimeout(2_000);
    const shown = visitor.page.frames().filter((it) => it.url().startsWith(world.coordinator.origin));
    assert.deepEqual(shown.map((it) => it.url()), [], 'the browser blocked the frame');
    assert.deepEqual({ entries: await entries(), sessions: await sessions() }, before, 'no entry, no session');
    await visitor.close();
  });

  /** The reason that a scripted client with these headers is sent away for. */
  function sentAway(headers) {
    return new Promise((done, fail) => {
      const socket = new WebSocket(`${world.coordinator.origin.replace('http', 'ws')}/v1/contribute`, { headers });
      socket.binaryType = 'nodebuffer';
      const hello = {
        type: 'hello', protocol: 4, numeric: { class: 'cpu', kernel: kernel.kernel },
        device: { class: 'desktop', cores: 2, memory_bytes: 1 << 29, flops_per_s: 10_000_000_000 },
        share: 1, workers: 1, session_key: 'ab'.repeat(32),
      };
      socket.once('open', () => socket.send(encode(hello)));
      socket.once('error', fail);
      socket.once('close', (code) => done(code));
      socket.on('message', (bytes) => {
        if (decode(bytes).header.type === 'welcome') fail(new Error('it was welcome'));
      });
    });
  }

  it('from a scripted client with a forged origin and no ticket', async () => {
    const before = { entries: await entries(), sessions: await sessions() };
    await assert.rejects(sentAway({ Origin: sites.a.origin }), /403/, 'a site is not the coordinator');
    assert.equal(await sentAway({ Origin: world.coordinator.origin }), BAD_TICKET, 'its own frame has a ticket');
    assert.deepEqual({ entries: await entries(), sessions: await sessions() }, before, 'no entry, no session');
  });

  it('from a scripted client that says nothing of where it comes from', async () => {
    const siteless = async () => (await firstRow(world.coordinator, 'SELECT COUNT(*) FROM sessions WHERE site IS NULL'))[0];
    const before = await siteless();
    const session = await contribute(world.coordinator);
    assert.equal(await siteless(), before + 1, 'it comes through no site');
    session.close();
    await session.closed;
  });
});
