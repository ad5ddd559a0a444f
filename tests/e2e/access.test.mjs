// For everybody: screen readers, keyboards, people who want no motion, and readers of six languages.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, afterEach, before, describe, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { World, until } from './lib/world.mjs';

const { source: AXE } = createRequire(import.meta.url)('axe-core');

let world;
before(async () => {
  world = await World.start('access', { gpu: true });
});
afterEach(() => world.clear());
after(() => world?.stop());

const frameOf = (visitor) => visitor.page.frames().find((frame) => frame.url().includes('/embed/frame.html'));

/** Every rule that is broken in a document, with the first element that breaks it. */
async function broken(document) {
  await document.evaluate(AXE);
  const { violations } = await document.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`);
}

async function assertClean(document, what) {
  assert.deepEqual(await broken(document), [], what);
}

/** A phone's and a desktop's: what fits on one may be cut off or overlap on the other. */
async function atBothWidths(page, what) {
  for (const width of [360, 1280]) {
    await page.setViewportSize({ width, height: 740 });
    // Charts are drawn anew.
    await page.waitForTimeout(300);
    await assertClean(page, `${what}, ${width} px`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= width, `${what} is ${wide} px wide in a window of ${width}`);
  }
}

const post = async (name = 'endless') => {
  const dataset = await uploadDigits(world.coordinator);
  return world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 1000, name }));
};

for (const colorScheme of ['light', 'dark']) {
  describe(`axe, ${colorScheme}`, () => {
    it('finds nothing in any state of the card', async () => {
      const job = await post();
      const visitor = await world.visitor({ colorScheme });
      const clean = (what) => assertClean(frameOf(visitor), what);
      await visitor.card.locator('#raven-open').waitFor();
      await clean('chip');
      await assertClean(visitor.page, 'the page around it');
      await visitor.card.locator('#raven-open').click();
      await clean('card, not ready');
      await visitor.card.locator('#raven-yes:enabled').waitFor();
      await clean('card');
      await visitor.card.locator('#raven-kinds summary').click();
      await clean('card, kinds of work unfolded');
      await visitor.card.locator('#raven-yes').click();
      await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
      await clean('working');
      await world.coordinator.api('POST', `/v1/jobs/${job.id}/cancel`);
      await visitor.until(({ phase }) => phase === 'idle', 'idle');
      await clean('idle');
      await visitor.card.locator('#raven-stop').click();
      await visitor.card.locator('#raven-again').waitFor();
      await clean('stopped');
      await visitor.card.locator('#raven-close').click();
      await clean('mark');
    });

    it('finds nothing in a failure, or where the frame stands alone', async () => {
      // A page that was open while the text changed.
      const outdate = async (route) => {
        const response = await route.fetch();
        const body = (await response.text()).replace(/(raven-consent-text" content=")[0-9a-f]+/, '$10123456789abcdef');
        await route.fulfill({ response, body });
      };
      const visitor = await world.visitor({ colorScheme, prepare: (page) => page.route('**/embed/frame.html*', outdate) });
      await visitor.accept(50);
      await visitor.until(({ phase }) => phase === 'unavailable', 'failed');
      await assertClean(frameOf(visitor), 'failed');
      await visitor.page.goto(`${world.coordinator.origin}/embed/frame.html?site=${world.site.site_key}`);
      await visitor.page.locator('#raven-over-text').waitFor();
      await assertClean(visitor.page, 'alone');
    });

    it('finds nothing on the network page, empty and full', async () => {
      const visitor = await world.visitor({ colorScheme });
      const page = await visitor.context.newPage();
      await page.goto(`${world.coordinator.origin}/`);
      await page.getByText('Nobody is lending').waitFor();
      await atBothWidths(page, 'empty');
      await post('digits');
      await visitor.accept(50);
      await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 5, 'working');
      await page.getByText('Training loss by round').first().waitFor();
      await page.locator('table').waitFor();
      await atBothWidths(page, 'full');
    });

    it('finds nothing on the contributor page of somebody new, or with a link that is not whole', async () => {
      const visitor = await world.visitor({ colorScheme });
      const page = await visitor.context.newPage();
      await page.goto(`${world.coordinator.origin}/earn`);
      await page.getByText('Nothing here yet').waitFor();
      await assertClean(page, 'new');
      await page.goto(`${world.coordinator.origin}/partner`);
      await page.goto(`${world.coordinator.origin}/earn#claim=x`);
      await page.getByText('This link is not whole').waitFor();
      await assertClean(page, 'a broken link');
    });
  });
}

describe('the keyboard', () => {
  it('walks through the card in its order, and Escape puts it away', async () => {
    const visitor = await world.visitor();
    const { keyboard } = visitor.page;
    const focused = () => frameOf(visitor).evaluate(() => document.activeElement?.id);
    await visitor.card.locator('#raven-open').focus();
    await keyboard.press('Enter');
    await until(async () => (await focused()) === 'raven-title', 'the title in focus');
    await visitor.card.locator('#raven-yes:enabled').waitFor();
    // The processor's switch is the last that is on, so that it cannot be switched off.
    for (const id of ['share', 'gpu', 'kinds-open', 'give', 'no', 'yes', 'never']) {
      await keyboard.press('Tab');
      assert.equal(await focused(), `raven-${id}`);
    }
    await keyboard.press('Escape');
    await until(async () => (await focused()) === 'raven-open', 'the chip in focus');
    assert.equal(await visitor.card.locator('#raven').getAttribute('data-view'), 'chip');
  });

  it('says yes, stops, and closes', async () => {
    const visitor = await world.visitor();
    const { keyboard } = visitor.page;
    await visitor.card.locator('#raven-open').focus();
    await keyboard.press('Space');
    await visitor.card.locator('#raven-yes:enabled').waitFor();
    await visitor.card.locator('#raven-share').focus();
    await keyboard.press('Home');
    assert.equal(await visitor.card.locator('#raven-share').getAttribute('aria-valuetext'), '5%');
    await visitor.card.locator('#raven-yes').focus();
    await keyboard.press('Enter');
    await visitor.contributing();
    // The focus is on Stop: one key ends it.
    await keyboard.press('Enter');
    await visitor.until(({ phase }) => phase === 'stopped', 'stopped');
    await keyboard.press('Shift+Tab');
    await keyboard.press('Enter');
    assert.equal(await visitor.card.locator('#raven').getAttribute('data-view'), 'icon');
  });
});

it('nothing moves where motion is not wanted', async () => {
  await post();
  for (const [reducedMotion, moves] of [['reduce', false], ['no-preference', true]]) {
    const visitor = await world.visitor({ reducedMotion });
    await visitor.accept(50);
    await visitor.until(({ phase }) => phase === 'working', 'working');
    const running = await frameOf(visitor).evaluate(() => document.getAnimations().length);
    assert.equal(running > 0, moves, reducedMotion);
    await visitor.close();
  }
});

describe('the card speaks', () => {
  const LANGUAGES = { es: 'Sí, prestar', fr: 'Oui, prêter', hi: 'हाँ, उधार दें', sw: 'Ndiyo, kopesha', zh: '好，借出' };

  /** Opens the card and takes its state of affairs. */
  async function card(options) {
    const texts = [];
    const visitor = await world.visitor({
      ...options,
      prepare: (page) => page.context().on('request', (request) => {
        const name = /\/text\/(\w+)\.js$/.exec(new URL(request.url()).pathname)?.[1];
        if (name) texts.push(name);
      }),
    });
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-yes:enabled').waitFor();
    const shown = await frameOf(visitor).evaluate(() => ({
      lang: document.documentElement.lang,
      yes: document.getElementById('raven-yes').textContent,
      words: document.getElementById('raven-words').innerText,
      buttons: [...document.querySelectorAll('button')].map((button) => button.textContent.trim()),
      wide: document.documentElement.scrollWidth > innerWidth,
    }));
    return { visitor, shown, texts };
  }

  for (const [language, yes] of Object.entries(LANGUAGES)) {
    it(`${language}, and fetches no other language`, async () => {
      const { visitor, shown, texts } = await card({ locale: language });
      assert.equal(shown.lang, language);
      assert.equal(shown.yes, yes);
      assert.deepEqual(texts, [language]);
      assert.match(shown.words, /Local News/);
      assert.match(shown.words, /\d/, 'the cap on the traffic');
      assert.doesNotMatch(shown.words, /[{}]/);
      assert.ok(shown.buttons.every((text) => text !== ''), 'a button without a name');
      assert.ok(!shown.wide, 'wider than its frame');
      await assertClean(frameOf(visitor), language);
    });
  }

  it('English where it knows no better, without fetching it', async () => {
    const { shown, texts } = await card({ locale: 'de-DE' });
    assert.deepEqual([shown.lang, shown.yes, texts], ['en', 'Yes, lend', []]);
  });

  it('what the tag asks for, whatever the browser prefers', async () => {
    world.partner.routes['/french'] = world.partner.routes['/'].replace('<script ', '<script data-lang="fr" ');
    const { shown } = await card({ locale: 'es', path: '/french' });
    assert.equal(shown.lang, 'fr');
  });

  it('English where its language cannot be had', async () => {
    const visitor = await world.visitor({ locale: 'fr', prepare: (page) => page.route('**/text/fr.js', (route) => route.abort()) });
    await visitor.card.locator('#raven-open').click();
    assert.equal(await visitor.card.locator('#raven-yes').textContent(), 'Yes, lend');
  });
});
