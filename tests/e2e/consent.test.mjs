// What happens before, at and after a yes, on a page of another site.
import assert from 'node:assert/strict';
import { appendFileSync, cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { Coordinator } from './lib/coordinator.mjs';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { embedDir } from './lib/paths.mjs';
import { firstRow } from './lib/store.mjs';
import { article, World, until } from './lib/world.mjs';

let world;
before(async () => {
  world = await World.start('consent');
});
afterEach(() => world.clear());
after(() => world?.stop());

/** Every request that a visitor's page and its frames and workers make, by path. */
function record(visitor) {
  const paths = [];
  visitor.context.on('request', (request) => {
    const url = new URL(request.url());
    if (url.origin === world.coordinator.origin) paths.push(url.pathname);
  });
  return paths;
}

describe('before a yes', () => {
  it('fetches the tag and the card and nothing else', async () => {
    const paths = [];
    const visitor = await world.visitor({
      prepare: (page) => page.context().on('request', (request) => {
        const url = new URL(request.url());
        if (url.origin === world.coordinator.origin) paths.push(url.pathname);
      }),
    });
    await visitor.card.locator('#raven-open').waitFor();
    // What waits, and that the card was seen, is asked and told once somebody opens it.
    assert.deepEqual(paths.filter((path) => /\/(now|shown)$/.test(path)), []);
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-yes').waitFor();
    // Longer than the card takes to arm its button and than any deferred start.
    await visitor.page.waitForTimeout(1500);
    const allowed = /^\/embed\/(raven(-[0-9a-f.]+)?\.js|frame\.html|now|shown|v\/[0-9a-f]+\/frame\.(js|css))$/;
    assert.deepEqual(paths.filter((path) => !allowed.test(path)), [], 'nothing but tag and card');
    assert.ok(paths.some((path) => path.endsWith('frame.js')), 'the card itself was loaded');
    assert.equal(visitor.page.workers().length, 0);
    await world.counts(0);
    await visitor.close();
  });

  it('stays so after a no', async () => {
    const visitor = await world.visitor();
    const paths = record(visitor);
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-no').click();
    await visitor.page.waitForTimeout(1000);
    assert.deepEqual(paths.filter((path) => path.includes('kernel') || path.includes('hub') || path.startsWith('/v1/')), []);
    assert.equal(visitor.page.workers().length, 0);
    await visitor.close();
  });

  it('keeps no cookie and no storage', async () => {
    const visitor = await world.visitor();
    await visitor.card.locator('#raven-open').click();
    await visitor.page.waitForTimeout(700);
    assert.deepEqual(await visitor.context.cookies(), []);
    const { origins } = await visitor.context.storageState();
    assert.deepEqual(origins, []);
    await visitor.close();
  });
});

describe('a yes', () => {
  it('is to what the card showed: the receipt names it, and it is kept', async () => {
    const dataset = await uploadDigits(world.coordinator);
    const job = await world.coordinator.json('POST', '/v1/jobs', { ...digitsJob(dataset.id, { epochs: 1000 }), category: 'science' });
    const visitor = await world.visitor();
    await visitor.card.locator('#raven-open').click();
    const queue = visitor.card.locator('#raven-queue');
    await until(async () => /science/.test(await queue.textContent()), 'the card says what waits');
    const said = await queue.textContent();
    await visitor.card.locator('#raven-yes:enabled').waitFor();
    await visitor.card.locator('#raven-yes').click();
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
    const [receipt] = await firstRow(world.coordinator, 'SELECT receipt FROM sessions WHERE site IS NOT NULL ORDER BY opened_ms DESC LIMIT 1');
    const { view } = JSON.parse(receipt);
    assert.match(view, /^[0-9a-f]{64}$/);
    const [document] = await firstRow(world.coordinator, 'SELECT document FROM card_views WHERE named = 1 AND lower(hex(id)) = ?', view);
    const { queue: shown, ...rest } = JSON.parse(document);
    assert.deepEqual(Object.keys(rest), ['text_version', 'visit_mb', 'gpu'], 'and nothing that the card does not say');
    assert.ok(shown.work.length > 0, document);
    for (const { requester } of shown.work) assert.ok(said.includes(requester), `${requester} in ${said}`);
    await world.coordinator.api('POST', `/v1/jobs/${job.id}/cancel`);
    await visitor.close();
  });
});

describe('the pinned tag', () => {
  it('outlives new builds of the frame and of itself', async () => {
    const first = mkdtempSync(join(tmpdir(), 'raven-embed-'));
    cpSync(embedDir, first, { recursive: true });
    const coordinator = await Coordinator.start({ name: 'pinned', embed: first });
    try {
      const site = await coordinator.json('POST', '/v1/sites', { name: 'Old Tag', origins: [world.origin] });
      world.partner.routes['/old'] = article(site.snippet_pinned);
      const loader = new URL(site.snippet_pinned.match(/src="([^"]+)"/)[1]);
      for (const change of ['frame.css', 'raven.js']) {
        appendFileSync(join(first, change), '\n/* a new build */\n');
        await coordinator.restart();
        assert.equal((await fetch(loader)).status, 200, `after a change of ${change}`);
        const visitor = await world.visitor({ path: '/old' });
        await visitor.card.locator('#raven-open').click();
        await visitor.card.locator('#raven-yes').waitFor();
        await visitor.close();
      }
      const now = await coordinator.json('POST', '/v1/sites', { name: 'New Tag', origins: [world.origin] });
      assert.ok(!now.snippet_pinned.includes(loader.pathname), 'a new tag names the new loader');
    } finally {
      await coordinator.stop();
      rmSync(first, { recursive: true });
    }
  });

  it('shows the card', async () => {
    const visitor = await world.visitor({ path: '/pinned' });
    await visitor.card.locator('#raven-open').waitFor();
  });

  it('does nothing where the file is not the one that was pinned', async () => {
    const visitor = await world.visitor({ path: '/tampered' });
    await visitor.page.waitForTimeout(1500);
    assert.equal(await visitor.page.locator('iframe').count(), 0);
    assert.equal(await visitor.page.evaluate(() => typeof globalThis.raven), 'undefined');
  });
});

describe('where the card may be shown', () => {
  const frameUrl = (key) => `${world.coordinator.origin}/embed/frame.html?site=${key}`;

  it('names exactly the registered origins in frame-ancestors', async () => {
    const response = await fetch(frameUrl(world.site.site_key));
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('cache-control'), 'no-store');
    const policy = response.headers.get('content-security-policy');
    assert.match(policy, new RegExp(`frame-ancestors ${world.origin}(;|$)`));
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe-inline|'unsafe-eval'/);
  });

  it('refuses an unknown site', async () => {
    const response = await fetch(frameUrl('pk_test_unknown'));
    assert.match(response.headers.get('content-security-policy') ?? '', /frame-ancestors 'none'/);
  });

  it('is not rendered on an origin that is not listed', async () => {
    const stranger = `http://other.localhost:${world.partner.port}/`;
    const visitor = await world.visitor();
    const page = await visitor.context.newPage();
    const blocked = until(
      async () => page.frames().some((frame) => frame.url().startsWith('chrome-error:')),
      'the frame blocked',
    );
    await page.goto(stranger);
    await blocked;
    assert.equal(await page.frameLocator('iframe').locator('#raven-open').count(), 0);
    await visitor.close();
  });
});

describe('after a yes', () => {
  it('works, pauses when the page is hidden, goes on, and stops', async () => {
    const dataset = await uploadDigits(world.coordinator);
    const posted = await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 400, name: 'endless' }));
    const visitor = await world.visitor();
    await visitor.accept(50);
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
    await world.counts(1);

    await hide(visitor.page, true);
    await visitor.until(({ phase }) => phase === 'paused', 'paused');
    await visitor.page.waitForTimeout(500);
    const paused = await visitor.state();
    await visitor.page.waitForTimeout(1500);
    assert.equal((await visitor.state()).tasks, paused.tasks, 'no task is done while hidden');

    await hide(visitor.page, false);
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > paused.tasks, 'working again');

    await visitor.stop();
    await visitor.until(({ phase }) => phase === 'stopped', 'stopped', 2000);
    await until(() => visitor.page.workers().length === 0, 'every worker gone', 2000);
    await world.counts(0);
    const stopped = await visitor.state();
    await visitor.page.waitForTimeout(1000);
    assert.equal((await visitor.state()).tasks, stopped.tasks, 'nothing is computed after a stop');

    await world.coordinator.api('POST', `/v1/jobs/${posted.id}/cancel`);
    await until(
      async () => (await world.coordinator.json('GET', `/v1/jobs/${posted.id}`)).state === 'cancelled', 'cancelled', 5000,
    );
    await visitor.close();
  });

  it('asks again after a reload', async () => {
    const visitor = await world.visitor();
    await visitor.accept(50);
    await visitor.contributing();
    await visitor.page.reload();
    await visitor.card.locator('#raven-open').waitFor();
    assert.equal((await visitor.state()).phase, 'asking');
    await world.counts(0);
    assert.equal(visitor.page.workers().length, 0);
    await visitor.close();
  });

  it('counts two visitors as two', async () => {
    const visitors = await world.contributors(2);
    await world.counts(2);
    for (const visitor of visitors) await visitor.close();
    await world.counts(0);
  });
});

/** Makes the page believe that its tab went to the background, or came back. */
function hide(page, hidden) {
  return page.evaluate((value) => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => value });
    Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => (value ? 'hidden' : 'visible') });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
}
