// A slow phone: a processor of a quarter of the speed, 360 pixels, a finger.
import assert from 'node:assert/strict';
import { after, afterEach, before, it } from 'node:test';
import { launch } from './lib/browser.mjs';
import { Visitor } from './lib/contributor.mjs';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { World } from './lib/world.mjs';

const SLOWER = 4;
const WATCH_MS = 6_000;
/** A display of 60 pictures a second that misses two of them. */
const GAP_MS = 50;
/** Part of the pictures that may come late beyond those that do without the tag. */
const LATE_MAX = 0.02;
/**
 * Where others use this machine pictures come late by themselves, up to one in twenty-five for some seconds and with
 * no tag either; what the work does to a page it does every time.
 */
const TRIES_MAX = 3;
const PHONE = {
  viewport: { width: 360, height: 740 },
  isMobile: true,
  hasTouch: true,
  userAgent: 'Mozilla/5.0 (Linux; Android 14; Phone) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36',
};

let world;
let browser;
before(async () => {
  world = await World.start('phone');
  // As on a phone, the frame is in the process of the page.
  browser = await launch(['--disable-site-isolation-trials']);
});
afterEach(() => world.clear());
after(async () => {
  await browser?.close();
  await world?.stop();
});

async function open(path) {
  const visitor = await Visitor.open(browser, world.origin + path, PHONE);
  const session = await visitor.context.newCDPSession(visitor.page);
  await session.send('Emulation.setCPUThrottlingRate', { rate: SLOWER });
  return visitor;
}

/** Scrolls for a while and counts the pictures, and those that came late. */
async function scroll(visitor) {
  await visitor.page.evaluate(() => {
    const gaps = [];
    globalThis.gaps = gaps;
    let last = performance.now();
    const draw = (now) => {
      gaps.push(now - last);
      last = now;
      scrollTo(0, (now / 4) % 400);
      requestAnimationFrame(draw);
    };
    requestAnimationFrame(draw);
  });
  await visitor.page.waitForTimeout(WATCH_MS);
  const gaps = await visitor.page.evaluate(() => globalThis.gaps);
  const late = gaps.filter((gap) => gap > GAP_MS);
  return { pictures: gaps.length, late: late.length / gaps.length, worst: Math.max(...gaps) };
}

/** How smoothly a page without the tag scrolls, and one whose visitor computes, right after each other. */
async function compare(t) {
  const plain = await open('/plain');
  const without = await scroll(plain);
  await plain.close();

  const visitor = await open('/');
  await visitor.card.locator('#raven-open').tap();
  const yes = visitor.card.locator('#raven-yes:enabled');
  await yes.waitFor();
  assert.equal(await visitor.card.locator('#raven-hint').textContent(), '', 'all words fit');
  await yes.tap();
  await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 0, 'working');
  const before = (await visitor.state()).tasks;
  const working = await scroll(visitor);
  const done = (await visitor.state()).tasks - before;
  const width = await visitor.page.evaluate(() => document.documentElement.scrollWidth);
  const { nodes } = await world.coordinator.json('GET', '/v1/nodes');
  await visitor.card.locator('#raven-stop').tap();
  await visitor.until(({ phase }) => phase === 'stopped', 'stopped');
  await visitor.close();

  t.diagnostic(`${done} tasks; pictures without ${JSON.stringify(without)}, while working ${JSON.stringify(working)}`);
  assert.ok(done > 0, 'no task was done while the page was scrolled');
  assert.match(JSON.stringify(nodes), /phone/, 'known as a phone');
  assert.ok(width <= PHONE.viewport.width, `the page is ${width} px wide`);
  return working.late <= without.late + LATE_MAX;
}

it('contributes and scrolls as smoothly as without the tag', async (t) => {
  const dataset = await uploadDigits(world.coordinator);
  await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 1000, name: 'endless' }));
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    if (await compare(t)) return;
  }
  assert.fail('pictures come late');
});
