// Firefox contributes on the CPU, and every way through the card is open there too.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { Firefox, firefoxPath } from './lib/firefox.mjs';
import { digitsJob, finish } from './lib/jobs.mjs';
import { World, until } from './lib/world.mjs';

const missing = firefoxPath() === undefined && 'no Firefox here: install firefox-esr, or set RAVEN_FIREFOX to its path';

describe('Firefox', { skip: missing }, () => {
  let world;
  let firefox;
  before(async () => {
    world = await World.start('firefox');
    firefox = await Firefox.launch();
  });
  afterEach(() => world.clear());
  after(async () => {
    await firefox?.close();
    await world?.stop();
  });

  const state = (page) => page.evaluate('({ ...raven.state })');
  const reaches = (page, ...phases) => until(async () => phases.includes((await state(page)).phase), phases.join(' or '));
  const cardOf = async (page) => (await page.frames()).find((frame) => frame.url.includes('/embed/frame.html'))?.context;
  const view = async (page, wanted) => {
    const card = await until(() => cardOf(page), 'a frame');
    await until(async () => (await page.evaluate('document.getElementById("raven")?.dataset.view', card)) === wanted, wanted);
  };

  async function click(page, id) {
    const card = await until(() => cardOf(page), 'a frame');
    const ready = `(() => { const it = document.getElementById("raven-${id}"); return it?.checkVisibility() && !it.disabled && it.getBoundingClientRect().bottom <= innerHeight; })()`;
    await until(() => page.evaluate(ready, card), `${id} ready`);
    // Some answers take the frame away while the mouse is still on it.
    await page.click(`#raven-${id}`, card).catch((error) => {
      if (!/no such frame/.test(error.message)) throw error;
    });
  }

  it('trains a model on the CPU, stops, and may be asked again', async (t) => {
    const dataset = await uploadDigits(world.coordinator);
    const page = await firefox.open(`${world.origin}/`);
    await click(page, 'open');
    await click(page, 'yes');
    await reaches(page, 'idle', 'working');
    const posted = await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 2, name: 'firefox' }));
    const job = await finish(world.coordinator, posted.id);
    const { tasks } = await state(page);
    t.diagnostic(`${firefox.version}: ${tasks} tasks, test accuracy ${job.evaluation?.accuracy ?? 'unknown'}`);
    assert.ok(tasks > 0 && job.model_sha256, JSON.stringify(job));
    await click(page, 'stop');
    await reaches(page, 'stopped');
    await world.counts(0);
    await click(page, 'again');
    await view(page, 'card');
    await page.close();
  });

  it('is walked by keys, stopped, closed, and said yes to once more', async () => {
    const page = await firefox.open(`${world.origin}/`);
    const inCard = async (expression) => page.evaluate(expression, await cardOf(page));
    await click(page, 'open');
    await page.press(await cardOf(page), 'Escape');
    await view(page, 'chip');
    // Where the card was left, so that the keyboard goes on from there.
    await until(() => inCard('document.activeElement.id === "raven-open"'), 'focus on the chip');
    await page.press(await cardOf(page), 'Enter');
    await view(page, 'card');
    const share = Number(await inCard('document.getElementById("raven-share").value'));
    await inCard('(document.getElementById("raven-share").focus(), true)');
    await page.press(await cardOf(page), 'ArrowRight', 'ArrowRight');
    assert.equal(Number(await inCard('document.getElementById("raven-share").value')), share + 10);
    assert.equal(await inCard('document.getElementById("raven-share-text").textContent'), `${share + 10}%`);
    await click(page, 'yes');
    await reaches(page, 'idle', 'working');
    await world.counts(1);
    await click(page, 'stop');
    await reaches(page, 'stopped');
    await click(page, 'close');
    await view(page, 'icon');
    await world.counts(0);
    await click(page, 'open');
    await click(page, 'yes');
    await reaches(page, 'idle', 'working');
    await click(page, 'stop');
    await world.counts(0);
    await page.close();
  });

  it('takes a no for now and keeps the mark', async () => {
    const page = await firefox.open(`${world.origin}/`);
    await click(page, 'open');
    await click(page, 'no');
    await view(page, 'icon');
    await page.reload();
    await view(page, 'icon');
    await page.evaluate('localStorage.clear()');
    await page.close();
  });

  it('takes a no for ever and shows nothing', async () => {
    const page = await firefox.open(`${world.origin}/`);
    await click(page, 'open');
    await click(page, 'never');
    // What this browser has earned in the tests before is nobody's yet.
    await view(page, 'leaving');
    await click(page, 'leaving-give');
    await until(async () => (await page.frames()).length === 0, 'gone');
    await page.reload();
    await new Promise((done) => setTimeout(done, 1_500));
    assert.equal((await page.frames()).length, 0);
    assert.equal((await state(page)).phase, 'off');
    await page.evaluate('localStorage.clear()');
    await page.close();
  });
});
