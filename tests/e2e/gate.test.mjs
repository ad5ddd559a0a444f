// A yes counts only where the visitor sees what they agree to, whatever the page around lays over the card.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { launch } from './lib/browser.mjs';
import { Visitor } from './lib/contributor.mjs';
import { World, until } from './lib/world.mjs';

/** Longer than the card must be in view for before its button is enabled, by far. */
const ARMED_MS = 1_000;

/**
 * With isolation the browser judges the frame as a whole, without it each
 * element: a phone has the second, so both must refuse.
 */
const BROWSERS = [
  { name: 'frame in a process of its own', flags: ['--site-per-process'] },
  { name: 'frame in the process of the page', flags: ['--disable-site-isolation-trials'] },
];

let world;
before(async () => {
  world = await World.start('gate');
});
after(() => world?.stop());

/** Lays an opaque box over a part of the frame, given as parts of its height. It lets clicks through. */
function cover(page, from, to) {
  return page.evaluate(([top, bottom]) => {
    const frame = document.querySelector('iframe[src*="/embed/frame.html"]').getBoundingClientRect();
    const box = document.createElement('div');
    box.id = 'overlay';
    box.style.cssText = `position:fixed;z-index:2147483647;background:#fff;pointer-events:none;left:${frame.left}px;`
      + `width:${frame.width}px;top:${frame.top + top * frame.height}px;height:${(bottom - top) * frame.height}px`;
    document.body.append(box);
  }, [from, to]);
}

const uncover = (page) => page.evaluate(() => document.getElementById('overlay').remove());

const fade = (page, opacity) => page.evaluate((value) => {
  document.querySelector('iframe[src*="/embed/frame.html"]').style.opacity = value;
}, opacity);

const yes = (visitor) => visitor.card.locator('#raven-yes');
const enabled = (visitor, wanted) => until(
  async () => (await yes(visitor).isEnabled()) === wanted, `"Yes" ${wanted ? 'enabled' : 'disabled'}`,
);

/** Middle of the button in the page, where a real mouse would go. */
async function place(visitor) {
  const { x, y, width, height } = await yes(visitor).boundingBox();
  return [x + width / 2, y + height / 2];
}

/** Clicks as a visitor would who has been lured there: with the mouse, without asking whether the button is ready. */
async function clickBlindly(visitor) {
  await visitor.page.mouse.click(...(await place(visitor)));
}

async function assertRefused(visitor) {
  await visitor.page.waitForTimeout(300);
  assert.equal(await visitor.card.locator('#raven').getAttribute('data-view'), 'card', 'the card still asks');
  assert.equal((await visitor.state()).phase, 'asking');
  assert.deepEqual(visitor.page.workers(), [], 'nothing was started');
}

for (const { name, flags } of BROWSERS) {
  describe(name, () => {
    let browser;
    before(async () => {
      browser = await launch(flags);
    });
    after(() => browser?.close());

    /** A visitor who has opened the card, with a mouse that is in the frame for long enough. */
    async function asked() {
      const visitor = await Visitor.open(browser, world.origin);
      await visitor.card.locator('#raven-open').click();
      await enabled(visitor, true);
      return visitor;
    }

    const attacks = {
      'an overlay over the card': [(page) => cover(page, 0, 1), uncover],
      'an overlay over the words only': [(page) => cover(page, 0.05, 0.5), uncover],
      'a frame that is hardly there': [(page) => fade(page, '0.01'), (page) => fade(page, '')],
    };
    let visitor;
    before(async () => {
      visitor = await asked();
    });

    for (const [attack, [start, end]] of Object.entries(attacks)) {
      it(`refuses a click through ${attack}`, async () => {
        await start(visitor.page);
        await enabled(visitor, false);
        await visitor.page.waitForTimeout(ARMED_MS);
        assert.ok(await yes(visitor).isDisabled(), 'waiting does not help');
        await clickBlindly(visitor);
        await assertRefused(visitor);
        await end(visitor.page);
        await enabled(visitor, true);
      });
    }

    it('refuses a click of a script', async () => {
      await yes(visitor).evaluate((button) => button.click());
      await assertRefused(visitor);
    });

    it('refuses a frame without room for the words', async () => {
      const size = visitor.page.viewportSize();
      await visitor.page.setViewportSize({ width: 800, height: 260 });
      await enabled(visitor, false);
      await clickBlindly(visitor);
      await assertRefused(visitor);
      await visitor.page.setViewportSize(size);
      await enabled(visitor, true);
    });

    it('takes an honest click', async () => {
      // The frame was away from below the mouse.
      await visitor.page.mouse.move(...(await place(visitor)));
      await visitor.page.waitForTimeout(500);
      await clickBlindly(visitor);
      await visitor.until(({ phase }) => phase !== 'asking', 'agreed');
      await visitor.close();
    });

    it('lowers a share unseen, and raises it only where the panel is seen', async () => {
      const visitor = await asked();
      const { page } = visitor;
      await page.mouse.move(...(await place(visitor)));
      await page.waitForTimeout(500);
      await clickBlindly(visitor);
      await visitor.until(({ phase }) => phase !== 'asking', 'agreed');
      const slider = visitor.card.locator('#raven-share');
      const share = async () => Number(await slider.inputValue());
      const press = async (part) => {
        const { x, y, width, height } = await slider.boundingBox();
        await page.mouse.click(x + part * width, y + height / 2);
        await page.waitForTimeout(300);
      };
      const { x, y } = await slider.boundingBox();
      await page.mouse.move(x + 10, y + 10);
      await page.waitForTimeout(ARMED_MS);
      const agreed = await share();
      await fade(page, '0.01');
      await page.waitForTimeout(ARMED_MS);
      await press(0.9);
      assert.equal(await share(), agreed, 'as it was');
      assert.match(await visitor.card.locator('#raven-live-hint').textContent(), /once more/);
      await press(0.01);
      await until(async () => (await share()) === 5, 'less is taken at once', 2_000);
      await press(0.9);
      assert.equal(await share(), 5);
      await fade(page, '');
      await page.waitForTimeout(ARMED_MS);
      await press(0.9);
      assert.ok((await share()) >= 80, 'seen, it is raised');
      assert.equal(await visitor.card.locator('#raven-live-hint').textContent(), '');
      await visitor.close();
    });

    it('wants no scrolling where all words fit, on a phone', async () => {
      const phone = await asked();
      // The words grow longer as the frame becomes narrower.
      await phone.page.setViewportSize({ width: 360, height: 740 });
      await phone.page.waitForTimeout(ARMED_MS);
      await enabled(phone, true);
      assert.equal(await phone.card.locator('#raven-hint').textContent(), '');
      await phone.close();
    });

    it('wants words that do not fit to be scrolled through', async () => {
      const visitor = await Visitor.open(browser, world.origin, { viewport: { width: 800, height: 440 } });
      await visitor.card.locator('#raven-open').click();
      await until(async () => /scroll/.test(await visitor.card.locator('#raven-hint').textContent()), 'asked to scroll');
      assert.ok(await yes(visitor).isDisabled());
      await visitor.page.mouse.move(...(await place(visitor)));
      await visitor.page.mouse.wheel(0, 2_000);
      await enabled(visitor, true);
      await visitor.close();
    });

    it('refuses a mouse that comes with its click, and takes keys', async () => {
      // Opened with the keyboard: the frame has seen no mouse yet.
      const visitor = await Visitor.open(browser, world.origin);
      await visitor.card.locator('#raven-open').press('Enter');
      await enabled(visitor, true);
      const [x, y] = await place(visitor);
      await visitor.page.mouse.move(5, 5);
      // Both are sent at once, so that a slow machine does not lengthen the time between them.
      await Promise.all([visitor.page.mouse.move(x, y), visitor.page.mouse.down(), visitor.page.mouse.up()]);
      await assertRefused(visitor);
      assert.match(await visitor.card.locator('#raven-hint').textContent(), /once more/);
      await yes(visitor).press('Enter');
      await visitor.until(({ phase }) => phase !== 'asking', 'agreed');
      await visitor.close();
    });
  });
}
