// What stays a visitor's own: what a key has earned after a stop, the button that stops, and a "never here".
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { Visitor } from './lib/contributor.mjs';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { assertClean } from './lib/look.mjs';
import { outDir } from './lib/paths.mjs';
import { firstRow } from './lib/store.mjs';
import { until, World } from './lib/world.mjs';

/** A look at the button every two seconds, four in which it may be unseen, and a moment for the rest. */
const REST_MS_MAX = 12_000;

let world;
/** A page of the same site as the coordinator, whose frame has storage in private windows too. */
let near;
let nearSite;
before(async () => {
  world = await World.start('visit');
  const origin = `http://127.0.0.1:${world.partner.port}`;
  nearSite = await world.coordinator.json('POST', '/v1/sites', { name: 'Near News', origins: [origin] });
  const page = world.partner.routes['/'].replace(world.site.site_key, nearSite.site_key);
  world.partner.routes['/near'] = page;
  world.partner.routes['/near-hidden'] = page.replace('</head>', '<style id="hides">iframe { opacity: 0 !important }</style></head>');
  // What a page can do by itself: forget what it was told, and say that the frame is to be shown.
  world.partner.routes['/near-pushy'] = page.replace('</head>', '<script>localStorage.clear(); addEventListener("raven:ready", () => raven.show());</script></head>');
  near = `${origin}/near`;
});
afterEach(() => world.clear());
after(() => world?.stop());

const post = async () => {
  const dataset = await uploadDigits(world.coordinator);
  return world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 400, name: 'digits' }));
};

/** A visitor whose first results were accepted. */
async function earning(options) {
  const visitor = await Visitor.open(world.browser, near, options);
  await visitor.accept(50);
  await visitor.card.locator('#raven-keep:visible').waitFor({ timeout: 30_000 });
  return visitor;
}

/** A card is laid out once it can be answered; a click before that may land beside. */
async function openCard(card, button) {
  await card.locator(button).click();
  await card.locator('#raven-yes:enabled').waitFor();
}

/** All that was earned is confirmed, and what has come to be one's own stays as it is. */
async function settled(job) {
  await world.coordinator.api('POST', `/v1/jobs/${job.id}/cancel`);
  await until(async () => (await world.coordinator.json('GET', `/v1/jobs/${job.id}`)).state === 'cancelled', 'cancelled');
}

describe('what a browser has earned', () => {
  it('is collected on a later page after a stop, without working again', async () => {
    const job = await post();
    const visitor = await earning();
    await visitor.stop();
    await visitor.page.close();
    await settled(job);
    const later = await Visitor.tab(visitor.context, near);
    await openCard(later.card, '#raven-open');
    const opened = visitor.context.waitForEvent('page');
    await later.card.locator('#raven-card-keep').click();
    const page = await opened;
    await page.getByRole('button', { name: 'Collect it here' }).click();
    await page.getByText('earnings are yours now').waitFor();
    const [claimed] = await firstRow(world.coordinator, "SELECT COALESCE(SUM(amount), 0) FROM entries WHERE reason = 'claim'");
    assert.ok(claimed > 0, 'the wallet has it');
    assert.equal((await later.state()).tasks, 0);
    await visitor.context.close();
  });

  it('goes on under the same key with the next yes', async () => {
    await post();
    const visitor = await earning();
    await visitor.stop();
    await visitor.page.close();
    const later = await Visitor.tab(visitor.context, near);
    await later.accept(50);
    await later.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
    const [keys, sessions] = await firstRow(world.coordinator, `SELECT COUNT(DISTINCT contributor), COUNT(*) FROM sessions
      WHERE contributor = (SELECT contributor FROM sessions ORDER BY opened_ms DESC LIMIT 1)`);
    assert.deepEqual([keys, sessions >= 2], [1, true]);
    await visitor.context.close();
  });

  for (const [width, colorScheme] of [[360, 'light'], [1280, 'dark']]) {
    it(`is said at "never here", and is the site’s where the visitor gives it, at ${width} px, ${colorScheme}`, async () => {
      const job = await post();
      const viewport = { width, height: 740 };
      const visitor = await earning({ viewport, colorScheme });
      await settled(job);
      await visitor.stop();
      await openCard(visitor.card, '#raven-again');
      await visitor.card.locator('#raven-never').click();
      const said = visitor.card.locator('#raven-leaving-text', { hasText: 'Nobody has collected $0.' });
      await said.waitFor();
      await assertClean(visitor.page, 'the last question');
      await visitor.page.screenshot({ path: join(outDir('e2e'), `leaving-${width}-${colorScheme}.png`) });
      const given = async () => firstRow(world.coordinator, `SELECT COALESCE(SUM(e.amount), 0), COALESCE(MAX(a.name), '') FROM entries e
        JOIN accounts a ON a.id = e.credit WHERE e.reason = 'gift' AND e.number > ${before}`);
      const [before] = await firstRow(world.coordinator, 'SELECT COALESCE(MAX(number), 0) FROM entries');
      await visitor.card.locator('#raven-leaving-give').click();
      await visitor.page.locator('iframe').waitFor({ state: 'detached' });
      const [amount, to] = await given();
      assert.ok(amount > 0, `${amount} nano-USD were given`);
      assert.match(to, /^site:/);
      await visitor.context.close();
    });
  }
});

describe('a page that takes the visitor’s Stop out of sight', () => {
  const HIDES = {
    fades: (frame) => { frame.style.opacity = '0'; },
    moves: (frame) => { frame.style.left = '-9999px'; frame.style.right = 'auto'; },
    covers: () => {
      const cover = document.createElement('div');
      cover.id = 'cover';
      cover.style.cssText = 'position:fixed;inset:0;background:white;z-index:2147483647';
      document.documentElement.append(cover);
    },
  };
  const shows = (frame) => {
    frame.style.opacity = '';
    Object.assign(frame.style, { left: '', right: '16px' });
    document.getElementById('cover')?.remove();
  };
  for (const [how, hide] of Object.entries(HIDES)) {
    it(`has it rest: it ${how} the frame`, async () => {
      await post();
      const visitor = await world.visitor();
      await visitor.accept(50);
      await visitor.until(({ phase }) => phase === 'working', 'working');
      // As long as it can be seen nothing rests.
      await visitor.page.waitForTimeout(7_000);
      assert.notEqual((await visitor.state()).phase, 'paused');
      const frame = visitor.page.locator('iframe');
      await frame.evaluate(hide);
      await visitor.until(({ phase }) => phase === 'paused', 'resting', REST_MS_MAX);
      assert.match(await visitor.status(), /Stop is out of sight/);
      await visitor.page.waitForTimeout(1_000);
      const { tasks } = await visitor.state();
      await visitor.page.waitForTimeout(2_000);
      assert.equal((await visitor.state()).tasks, tasks, 'nothing is computed');
      await frame.evaluate(shows);
      await visitor.until(({ phase, tasks: now }) => phase === 'working' && now > tasks, 'working again', REST_MS_MAX);
      await visitor.close();
    });
  }

  it('gets nothing from a yes of an earlier page', async () => {
    await post();
    const visitor = await earning();
    await visitor.page.close();
    const loaded = [];
    visitor.context.on('request', (request) => loaded.push(new URL(request.url()).pathname));
    const later = await Visitor.tab(visitor.context, near.replace('/near', '/near-hidden'));
    await later.until(({ phase }) => phase === 'paused', 'waiting to be seen');
    await later.page.waitForTimeout(3_000);
    assert.deepEqual(loaded.filter((path) => /kernel.*wasm/.test(path)), []);
    assert.equal((await later.state()).tasks, 0);
    await later.page.evaluate(() => document.querySelector('#hides').remove());
    await later.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
    await visitor.context.close();
  });
});

describe('"never here"', () => {
  it('holds in the frame, whatever the page forgets, and only the visitor takes it back', async () => {
    const visitor = await Visitor.open(world.browser, near);
    await openCard(visitor.card, '#raven-open');
    await visitor.card.locator('#raven-never').click();
    await visitor.page.locator('iframe').waitFor({ state: 'detached' });
    await visitor.page.evaluate(() => localStorage.clear());
    for (const path of ['/near', '/near-pushy']) {
      await visitor.page.goto(near.replace('/near', path));
      const unasked = async () => {
        const open = visitor.page.frames()[1]?.locator('#raven-open');
        assert.notEqual(await open?.isVisible().catch(() => false), true, `${path}: nobody is asked`);
      };
      await until(async () => {
        await unasked();
        return await visitor.page.evaluate(() => localStorage.getItem('raven')) === 'never';
      }, `${path}: the page was told again`);
      await until(async () => {
        await unasked();
        return await visitor.page.locator('iframe').count() === 0;
      }, `${path}: the frame is gone`);
    }
    // The visitor presses the page's own link.
    await visitor.page.evaluate(() => {
      const link = document.createElement('button');
      link.id = 'menu';
      link.style.cssText = 'position:fixed;top:0;left:0';
      link.addEventListener('click', () => globalThis.raven.show());
      document.body.append(link);
    });
    await visitor.page.locator('#menu').click();
    const mark = visitor.card.locator('#raven-open');
    await mark.waitFor();
    assert.equal(await visitor.card.locator('#raven').getAttribute('data-view'), 'icon');
    assert.match(await mark.getAttribute('title'), /You said “never here”/);
    await mark.click();
    await visitor.card.locator('#raven-yes:enabled').click();
    await visitor.contributing();
    await visitor.page.reload();
    await visitor.contributing();
    await visitor.context.close();
  });
});
