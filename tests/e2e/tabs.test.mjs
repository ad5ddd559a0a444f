// One pool per browser and site, a yes that holds from page to page, and neither where storage is denied.
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Visitor } from './lib/contributor.mjs';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { firstRow } from './lib/store.mjs';
import { computedMs, workerThreads } from './lib/threads.mjs';
import { World, until } from './lib/world.mjs';

const TABS = 5;
const SHARE = 20;
const WATCH_MS = 6_000;
/** From the end of one tab's work to the beginning of another's, and from a page's load to the beginning of its work. */
const SOON_MS = 1_000;
/** Five tabs may use so much more than one: their hubs and frames wake up now and then. */
const MORE = 1.15;

let world;
let dataset;
/** A page of the same site as the coordinator, whose frame has storage in private windows too. */
let near;
/** One browser's profile. */
let profile;
before(async () => {
  world = await World.start('tabs');
  dataset = await uploadDigits(world.coordinator);
  const origin = `http://127.0.0.1:${world.partner.port}`;
  const site = await world.coordinator.json('POST', '/v1/sites', { name: 'Near News', origins: [origin] });
  world.partner.routes['/near'] = world.partner.routes['/'].replace(world.site.site_key, site.site_key);
  near = `${origin}/near`;
});
beforeEach(async () => {
  profile = await world.browser.newContext();
});
afterEach(() => world.clear());
after(() => world?.stop());

const tab = (query = '') => Visitor.tab(profile, near + query);
const isAtWork = ({ phase }) => phase === 'working' || phase === 'idle';
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Milliseconds of processor time of all workers over a while. */
async function computed() {
  const before = new Map(workerThreads().map((thread) => [thread, computedMs(thread) ?? 0]));
  await sleep(WATCH_MS);
  return workerThreads().reduce((sum, thread) => sum + (computedMs(thread) ?? 0) - (before.get(thread) ?? 0), 0);
}

/** Milliseconds until one of the tabs is at work, and which. */
async function takeover(tabs) {
  const start = Date.now();
  const next = await until(async () => {
    for (const visitor of tabs) if (isAtWork(await visitor.state())) return visitor;
    return undefined;
  }, 'another tab at work', 5_000);
  return { ms: Date.now() - start, next };
}

describe('where storage is allowed', () => {
  it(`${TABS} tabs use what one uses, and take over from each other`, async (t) => {
    await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 2000, batch: 512, name: 'endless' }));
    const first = await tab();
    await first.accept(SHARE);
    await first.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
    await sleep(2_000);
    const one = await computed();
    const others = [];
    for (let n = 1; n < TABS; n += 1) others.push(await tab());
    for (const other of others) {
      await until(async () => (await other.status()).startsWith('Working in another tab'), 'told where the work is', 5_000);
    }
    // As long as before the first: a page that has just been opened is still at work on itself.
    await sleep(2_000);
    const five = await computed();
    t.diagnostic(`processor time in ${WATCH_MS} ms: ${Math.round(one)} ms with one tab, ${Math.round(five)} ms with ${TABS}`);
    assert.ok(five <= one * MORE, `${five} ms with ${TABS} tabs, ${one} ms with one`);
    await world.counts(1);

    await first.hide();
    const hidden = await takeover(others);
    t.diagnostic(`after the first was hidden another worked in ${hidden.ms} ms`);
    assert.ok(hidden.ms <= SOON_MS, `${hidden.ms} ms`);
    await world.counts(1);

    const rest = others.filter((other) => other !== hidden.next);
    await hidden.next.close();
    const closed = await takeover(rest);
    t.diagnostic(`after that one was closed another worked in ${closed.ms} ms`);
    assert.ok(closed.ms <= SOON_MS, `${closed.ms} ms`);
    await world.counts(1);

    // What is said in one tab holds for all.
    await rest.find((other) => other !== closed.next).stop();
    await closed.next.until(({ phase }) => phase === 'stopped', 'stopped');
    await world.counts(0);
    const fresh = await tab();
    await fresh.card.locator('#raven-open').waitFor();
    assert.equal((await fresh.state()).phase, 'asking', 'a stop is no yes');
  });

  it('goes on after a navigation without a second question', async (t) => {
    await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 2000, name: 'endless' }));
    const since = Date.now();
    const visitor = await tab();
    await visitor.accept(SHARE);
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
    await visitor.share(35);
    for (const query of ['?second', '?third']) {
      await visitor.page.goto(near + query);
      const loaded = Date.now();
      await visitor.until(isAtWork, 'at work again', 5_000);
      const ms = Date.now() - loaded;
      t.diagnostic(`${query}: at work ${ms} ms after the page had loaded`);
      assert.ok(ms <= SOON_MS, `${ms} ms`);
      assert.equal(await visitor.card.locator('#raven-share').inputValue(), '35', 'the share is remembered');
      await visitor.until(({ tasks }) => tasks > 0, 'tasks done', 5_000);
    }
    await world.counts(1);
    // One visit has one key, however many sessions.
    const query = 'SELECT COUNT(*), COUNT(DISTINCT contributor) FROM sessions WHERE opened_ms >= ?';
    const [sessions, keys] = await firstRow(world.coordinator, query, since);
    assert.ok(sessions >= 3, `${sessions} sessions`);
    assert.equal(keys, 1, 'one key');

    await visitor.stop();
    await visitor.page.goto(`${near}?fourth`);
    await visitor.card.locator('#raven-open').waitFor();
    await sleep(500);
    assert.equal((await visitor.state()).phase, 'asking', 'a stop is remembered as no yes');
  });
});

describe('a yes that is taken back', () => {
  beforeEach(() => world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 2000, name: 'endless' })));

  const frames = (visitor) => visitor.page.locator('iframe[src*="/embed/frame.html"]').count();
  const atWork = async () => {
    const visitor = await tab();
    await visitor.accept(SHARE);
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
    return visitor;
  };
  const asks = async (visitor) => {
    await visitor.card.locator('#raven-open').waitFor();
    await sleep(500);
    assert.equal((await visitor.state()).phase, 'asking');
  };

  it('by the consent manager: consent that is given again asks again, in every tab and on every page', async () => {
    const [first, second] = [await atWork(), await tab()];
    await until(async () => (await second.status()).startsWith('Working in another tab'), 'remembered in the second tab', 5_000);
    await first.page.evaluate(() => globalThis.raven.consent(false));
    await until(async () => (await frames(first)) === 0, 'removed', 2_000);
    await second.until(({ phase }) => phase === 'stopped', 'stopped in the second tab');
    await world.counts(0);
    await first.page.evaluate(() => globalThis.raven.consent(true));
    await asks(first);
    await first.page.goto(`${near}?second`);
    await asks(first);
  });

  it('by the consent manager of a page that has no frame', async () => {
    const visitor = await atWork();
    // The next page waits for its consent manager, which says no.
    world.partner.routes['/near-manual'] = world.partner.routes['/near'].replace('<script ', '<script data-consent="manual" ');
    await visitor.page.goto(`${near}-manual`);
    await visitor.page.waitForFunction(() => globalThis.raven);
    await visitor.page.evaluate(() => globalThis.raven.consent(false));
    await world.counts(0);
    await visitor.page.goto(near);
    await asks(visitor);
    await visitor.page.reload();
    await asks(visitor);
  });

  for (const [button, phase] of [['never', 'off'], ['no', 'stopped']]) {
    it(`by the button "${button}" in another tab, whose card was open`, async () => {
      const second = await tab();
      await second.card.locator('#raven-open').click();
      const first = await atWork();
      await second.card.locator(`#raven-${button}`).click();
      await first.until((state) => state.phase === 'stopped', 'stopped');
      await world.counts(0);
      // What the first tab has earned has an owner before its key goes.
      if (button === 'never') await second.card.locator('#raven-leaving-give').click();
      await second.until((state) => state.phase === phase, 'answered');
      // The answer holds for the next page, and no yes is left below it.
      await first.page.goto(`${near}?second`);
      await sleep(1_500);
      assert.equal((await first.state()).phase, phase);
      await world.counts(0);
    });
  }
});

describe('where storage is denied', () => {
  it('everything works for the page, and the next one asks again', async () => {
    await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 2000, name: 'endless' }));
    const visitor = await world.visitor();
    await visitor.card.locator('#raven-open').waitFor();
    const frame = visitor.page.frames().find((candidate) => candidate.url().includes('/embed/frame.html'));
    const denied = await frame.evaluate(() => {
      try {
        return localStorage === undefined;
      } catch (error) {
        return error.name;
      }
    });
    assert.equal(denied, 'SecurityError', 'this context denies storage');
    await visitor.accept(SHARE);
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
    await visitor.page.goto(world.origin + '/?second');
    await visitor.card.locator('#raven-open').waitFor();
    assert.equal((await visitor.state()).phase, 'asking');
    await visitor.accept(SHARE);
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working again');
    await visitor.close();
  });
});
