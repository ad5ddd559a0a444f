// What a partner's page gets from the tag: one frame, asked for, hidden, remembered, and taken away.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { article, World, until } from './lib/world.mjs';

const FRAME = 'iframe[src*="/embed/frame.html"]';

let world;
before(async () => {
  world = await World.start('tag');
  const { routes } = world.partner;
  const { snippet } = world.site;
  routes['/twice'] = article(snippet + snippet);
  routes['/slot'] = article(snippet).replace('<article>', '<div id="place" data-raven-slot></div><article>');
  routes['/manual'] = article(snippet.replace('<script ', '<script data-consent="manual" '));
  // A page that stops what has not begun yet.
  routes['/hasty'] = article(`<script>addEventListener('raven:ready', () => raven.stop())</script>${snippet}`);
  // A page that asks again by itself, as soon as it can.
  routes['/pushy'] = article(`<script>addEventListener('raven:ready', () => raven.show())</script>${snippet}`);
});
afterEach(() => world.clear());
after(() => world?.stop());

const frames = (visitor) => visitor.page.locator(FRAME).count();
const view = (visitor) => visitor.card.locator('#raven').getAttribute('data-view');
const stored = (visitor) => visitor.page.evaluate(() => ({ ...localStorage }));

/** Opens a page; `visitor.asked` are the paths that it and its frames fetched from the coordinator. */
async function open(path) {
  const asked = [];
  const visitor = await world.visitor({
    path,
    prepare: (page) => page.context().on('request', (request) => {
      const url = new URL(request.url());
      if (url.origin === world.coordinator.origin) asked.push(url.pathname);
    }),
  });
  visitor.asked = asked;
  return visitor;
}

/** Loads the tag once more, as a page's router might. */
const loadAgain = (visitor) => visitor.page.evaluate((source) => new Promise((done, fail) => {
  const script = document.createElement('script');
  Object.assign(script, { src: source, onload: done, onerror: fail });
  document.head.append(script);
}), `${world.coordinator.origin}/embed/raven.js?site=${world.site.site_key}`);

/** Long enough for whatever the loader does after a page has loaded. */
const settle = (visitor) => visitor.page.waitForTimeout(1_500);

async function working() {
  const dataset = await uploadDigits(world.coordinator);
  await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 1000, name: 'endless' }));
  const visitor = await open('/');
  await visitor.accept(50);
  await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
  return visitor;
}

describe('one frame', () => {
  it('however often the tag is loaded', async () => {
    const visitor = await open('/twice');
    await visitor.card.locator('#raven-open').waitFor();
    const api = await visitor.page.evaluateHandle(() => globalThis.raven);
    await loadAgain(visitor);
    await visitor.page.evaluate(() => history.pushState({}, '', '/another-route'));
    await loadAgain(visitor);
    await settle(visitor);
    assert.equal(await frames(visitor), 1);
    assert.ok(await visitor.page.evaluate((first) => first === globalThis.raven, api), 'one window.raven');
  });

  it('that works on while a single-page application changes its body', async () => {
    const visitor = await working();
    const before = await visitor.state();
    await visitor.page.evaluate(() => {
      document.body = Object.assign(document.createElement('body'), { innerHTML: '<h1>Another route</h1>' });
    });
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > before.tasks + 3, 'working on');
    await visitor.page.evaluate(() => document.body.replaceChildren());
    const then = await visitor.state();
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > then.tasks + 3, 'working on');
    assert.equal(await frames(visitor), 1);
  });

  it('that stays in its slot, finds the next one, and comes back without one', async () => {
    const visitor = await open('/slot');
    await visitor.card.locator('#raven-open').waitFor();
    const parent = () => visitor.page.evaluate((frame) => document.querySelector(frame)?.parentElement.id, FRAME);
    assert.equal(await parent(), 'place');
    await visitor.page.evaluate(() => {
      document.body = Object.assign(document.createElement('body'), { innerHTML: '<div id="next" data-raven-slot></div>' });
    });
    await until(async () => (await parent()) === 'next', 'in the next slot');
    await visitor.card.locator('#raven-open').waitFor();
    await visitor.page.evaluate(() => document.getElementById('next').remove());
    await until(async () => (await frames(visitor)) === 1, 'back in the corner');
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-yes').waitFor();
    assert.equal(await frames(visitor), 1);
  });
});

describe('asked for', () => {
  it('only once the consent manager of the page agrees', async () => {
    const visitor = await open('/manual');
    await settle(visitor);
    assert.deepEqual(visitor.asked, ['/embed/raven.js']);
    assert.equal((await visitor.state()).phase, 'off');
    await visitor.page.evaluate(() => globalThis.raven.consent(true));
    await visitor.card.locator('#raven-open').waitFor();
    assert.equal((await visitor.state()).phase, 'asking');
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-no').click();
    await until(async () => 'raven' in (await stored(visitor)), 'remembered');
    await visitor.page.evaluate(() => globalThis.raven.consent(false));
    assert.equal((await visitor.state()).phase, 'off');
    assert.deepEqual(await stored(visitor), {});
    assert.ok(!(await visitor.page.locator(FRAME).isVisible()), 'out of sight at once');
    // It is removed once it has forgotten.
    await until(async () => (await frames(visitor)) === 0, 'removed', 2_000);
  });

  it('by the page itself, and taken away by it, with work resting meanwhile', async () => {
    const visitor = await working();
    await visitor.page.evaluate(() => {
      globalThis.heard = [];
      globalThis.forget = globalThis.raven.on('state', ({ phase }) => globalThis.heard.push(phase));
      globalThis.raven.on('state', () => {
        throw new Error('a listener of the page fails');
      });
      globalThis.raven.hide();
    });
    await visitor.until(({ phase }) => phase === 'paused', 'paused');
    assert.ok(!(await visitor.page.locator(FRAME).isVisible()));
    const { tasks } = await visitor.state();
    await visitor.page.evaluate(() => globalThis.raven.show());
    await visitor.until((state) => state.phase === 'working' && state.tasks > tasks, 'working again');
    await visitor.page.evaluate(() => {
      globalThis.raven.stop();
    });
    await visitor.until(({ phase }) => phase === 'stopped', 'stopped');
    const heard = await visitor.page.evaluate(() => globalThis.heard);
    const steps = heard.filter((phase) => phase !== 'starting' && phase !== 'idle');
    assert.deepEqual(steps.filter((phase, at) => phase !== steps[at - 1]), ['paused', 'working', 'stopped']);
    await visitor.page.evaluate(() => {
      globalThis.forget();
      globalThis.raven.consent(false);
    });
    assert.equal((await visitor.page.evaluate(() => globalThis.heard)).length, heard.length, 'unheard after its end');
    await world.counts(0);
  });

  it('to stop before its frame has loaded, and stopped it stays', async () => {
    const visitor = await open('/hasty');
    await visitor.card.locator('#raven-open').waitFor();
    await settle(visitor);
    assert.equal((await visitor.state()).phase, 'asking');
    await visitor.accept(50);
    await visitor.contributing();
  });

  it('and not unbidden: the card opens for nobody but the visitor', async () => {
    const visitor = await open('/pushy');
    await visitor.card.locator('#raven-open').waitFor();
    await visitor.page.evaluate(() => globalThis.raven.show());
    await settle(visitor);
    assert.equal(await view(visitor), 'chip');
  });
});

describe('a no', () => {
  it('for now leaves the mark on every page of the site, and a way back', async () => {
    const visitor = await open('/');
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-no').click();
    await until(async () => 'raven' in (await stored(visitor)), 'remembered');
    const memory = await stored(visitor);
    assert.deepEqual(memory, { raven: `not_now ${Math.floor(Date.now() / 86_400_000)}` });
    await visitor.page.goto(`${world.origin}/slot`);
    await visitor.card.locator('#raven-open').waitFor();
    assert.equal(await view(visitor), 'icon');
    assert.deepEqual(await visitor.context.cookies(), []);
    await visitor.accept(50);
    await visitor.contributing();
    assert.match((await stored(visitor)).raven, /^yes \d+$/, 'a yes takes the no back');
  });

  it('for ever takes the frame away, and the next page asks the coordinator for nothing', async () => {
    const visitor = await open('/');
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-never').click();
    await until(async () => (await frames(visitor)) === 0, 'gone');
    assert.deepEqual(await stored(visitor), { raven: 'never' });
    for (const path of ['/', '/pushy']) {
      visitor.asked.length = 0;
      await visitor.page.goto(world.origin + path);
      await settle(visitor);
      assert.deepEqual(visitor.asked.filter((asked) => asked !== '/embed/raven.js'), [], `on ${path}`);
      assert.equal((await visitor.state()).phase, 'off');
    }
    // The way back is a click of the visitor's.
    await visitor.page.evaluate(() => {
      const link = Object.assign(document.createElement('button'), { id: 'lend', textContent: 'Lend computing power' });
      link.onclick = () => globalThis.raven.show();
      document.body.prepend(link);
    });
    await visitor.page.locator('#lend').click();
    await visitor.card.locator('#raven-open').waitFor();
    assert.equal(await view(visitor), 'chip');
    assert.deepEqual(await stored(visitor), {});
  });

  it('holds for the page where its storage is denied', async () => {
    const errors = [];
    const visitor = await world.visitor({
      prepare: async (page) => {
        page.on('pageerror', (error) => errors.push(error.message));
        await page.addInitScript(() => {
          Object.defineProperty(globalThis, 'localStorage', { get: () => { throw new DOMException('denied', 'SecurityError'); } });
        });
      },
    });
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-never').click();
    await until(async () => (await frames(visitor)) === 0, 'gone');
    await loadAgain(visitor);
    await settle(visitor);
    assert.equal(await frames(visitor), 0);
    assert.deepEqual(errors, []);
  });
});

it('is found by the coordinator that is asked to look for it', async () => {
  const look = (page) => world.coordinator.json('POST', `/v1/sites/${world.site.id}/verify`, page && { page: world.origin + page });
  const found = await look();
  assert.deepEqual(found, { id: world.site.id, live: true, pages: [{ url: `${world.origin}/`, result: 'live', pinned: false }] });
  await assert.rejects(look('/plain'), /too-soon/);
  await new Promise((done) => setTimeout(done, 5_000));
  const bare = await look('/plain');
  assert.deepEqual([bare.live, bare.pages[0].result], [false, 'no_tag']);
});
