// What the card says and offers before a yes: what would run now, kinds of jobs that can be refused, all of it in view on a phone.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { firstRow } from './lib/store.mjs';
import { World, until } from './lib/world.mjs';

const LANGUAGES = ['en', 'es', 'fr', 'hi', 'sw', 'zh'];
/** As long as a card's answer gets: two are named, of the longest kinds and pseudonyms, and more are counted. */
const LONG = {
  categories: ['vision', 'language', 'tabular', 'science', 'finance', 'other'],
  work: [{ category: 'tabular', requester: 'Crimson Albatross' }, { category: 'vision', requester: 'Crimson Sandpiper' }],
  more: 12,
  view: '0a'.repeat(32),
};

let world;
before(async () => {
  world = await World.start('card', { gpu: true, visitMb: 25 });
});
afterEach(() => world.clear());
after(() => world?.stop());

const post = async (more) => {
  const dataset = await uploadDigits(world.coordinator);
  return world.coordinator.json('POST', '/v1/jobs', { ...digitsJob(dataset.id, { epochs: 1000, name: 'endless' }), ...more });
};

const today = async () => (await world.coordinator.json('GET', `/v1/sites/${world.site.id}`)).days[0] ?? {};

describe('on a phone of 360 × 740', () => {
  for (const locale of LANGUAGES) {
    it(`all of the card is in view in ${locale}, however much waits`, async () => {
      const prepare = (page) => page.route('**/embed/now*', (route) => route.fulfill({ json: LONG }));
      const visitor = await world.visitor({ viewport: { width: 360, height: 740 }, locale, prepare });
      await visitor.card.locator('#raven-open').click();
      await visitor.card.locator('#raven-queue', { hasText: 'Crimson Sandpiper' }).waitFor();
      // It can be answered without being scrolled.
      await visitor.card.locator('#raven-yes:enabled').waitFor();
      const hidden = await visitor.card.locator('body').evaluate(() => document.documentElement.scrollHeight - innerHeight);
      assert.ok(hidden <= 0, `${hidden} px of the card are out of view`);
      await visitor.close();
    });
  }
});

it('names category and pseudonym before the yes, and is counted once it was in view', async () => {
  const before = (await today()).shown ?? 0;
  const idle = await world.visitor();
  await idle.card.locator('#raven-open').click();
  await idle.card.locator('#raven-queue', { hasText: 'Nothing waits now' }).waitFor();
  await idle.card.locator('#raven-yes:enabled').waitFor();
  await until(async () => (await today()).shown === before + 1, 'counted');
  await idle.close();
  await post({ category: 'vision' });
  const visitor = await world.visitor();
  // A frame that is loaded and not opened is a view and no more.
  await visitor.card.locator('#raven-open').waitFor();
  await visitor.page.waitForTimeout(1_000);
  assert.equal((await today()).shown, before + 1);
  await until(async () => {
    await visitor.card.locator('#raven-open').click();
    const text = await visitor.card.locator('#raven-queue').textContent();
    if (/^Now: image recognition for \w+ \w+\.$/.test(text ?? '')) return true;
    // The answer of before may be kept for some seconds.
    await visitor.page.keyboard.press('Escape');
    await visitor.page.waitForTimeout(500);
    return false;
  }, 'named');
  assert.equal(await visitor.page.evaluate(() => globalThis.raven.state.phase), 'asking', 'nobody has agreed yet');
  await visitor.close();
});

it('a kind of job that is switched off is signed for and given no task; switched on it works again', async () => {
  await post({ category: 'vision' });
  const visitor = await world.visitor();
  await visitor.card.locator('#raven-open').click();
  await visitor.card.locator('#raven-yes:enabled').waitFor();
  await visitor.card.locator('#raven-kinds summary').click();
  await visitor.page.waitForTimeout(500);
  await visitor.card.locator('#raven-kind-vision').uncheck();
  // What was unfolded has moved the buttons, and must have been in view for a while.
  await visitor.page.waitForTimeout(1_000);
  await visitor.card.locator('#raven-yes:enabled').click();
  await visitor.until(({ phase }) => phase === 'idle', 'connected without work');
  await visitor.page.waitForTimeout(2_000);
  assert.equal((await visitor.state()).tasks, 0, 'the only job is refused');
  const [receipt] = await firstRow(world.coordinator, "SELECT receipt FROM sessions WHERE receipt != '' ORDER BY opened_ms DESC LIMIT 1");
  const { refuses, time_ms } = JSON.parse(receipt);
  assert.deepEqual(refuses, ['vision']);
  assert.ok(Math.abs(time_ms - Date.now()) < 60_000, 'dated by the coordinator’s clock');
  // More is taken from who was seen at the controls for a while.
  await visitor.card.locator('#raven-share').focus();
  await visitor.page.waitForTimeout(1_000);
  await visitor.card.locator('#raven-kind-vision').focus();
  await visitor.page.keyboard.press('Space');
  await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
  await visitor.card.locator('#raven-kind-vision').focus();
  await visitor.page.keyboard.press('Space');
  await visitor.until(({ phase }) => phase === 'idle', 'idle');
  await visitor.close();
});
