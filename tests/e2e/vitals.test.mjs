// What a reader waits for: the page with the tag shows, settles and answers as soon as the page without it.
import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { World } from './lib/world.mjs';

/** Pairs of loads; the long run takes more. */
const PAIRS = process.env.RAVEN_FULL ? 20 : 5;
/** Loads before any that counts: a browser's first page is slow. */
const WARM_UP = 2;
/** The frame is there well before; what it does to the page is seen by then. */
const WATCH_MS = 3_000;
/** Time in which a display shows one picture: no eye sees less. */
const PICTURE_MS = 17;
/** A shift that Chromium's own report calls none at all. */
const SHIFT_MAX = 0.001;

let world;
before(async () => {
  world = await World.start('vitals');
});
after(() => world?.stop());

/** Loads a page in a fresh context and takes its vitals. */
async function load(path) {
  const visitor = await world.visitor({
    path,
    prepare: (page) => page.addInitScript(() => {
      const vitals = { lcp: 0, cls: 0, tbt: 0 };
      globalThis.vitals = vitals;
      const watch = (type, take) => new PerformanceObserver((list) => list.getEntries().forEach(take)).observe({ type, buffered: true });
      watch('largest-contentful-paint', (entry) => { vitals.lcp = entry.startTime; });
      watch('layout-shift', (entry) => { if (!entry.hadRecentInput) vitals.cls += entry.value; });
      watch('longtask', (entry) => { vitals.tbt += Math.max(0, entry.duration - 50); });
    }),
  });
  await visitor.page.waitForTimeout(WATCH_MS);
  const frames = await visitor.page.locator('iframe').count();
  const vitals = await visitor.page.evaluate(() => globalThis.vitals);
  await visitor.close();
  return { ...vitals, frames };
}

const sorted = (values) => [...values].sort((a, b) => a - b);
const quantile = (values, part) => {
  const all = sorted(values);
  const at = part * (all.length - 1);
  const low = Math.floor(at);
  return all[low] + (at - low) * ((all[low + 1] ?? all[low]) - all[low]);
};
const describe = (values) => [0.25, 0.5, 0.75].map((part) => quantile(values, part).toFixed(2)).join(' / ');

it(`LCP, CLS and total blocking time are the same with and without the tag, over ${PAIRS} pairs`, async (t) => {
  const runs = { with: [], without: [] };
  for (let pair = -WARM_UP; pair < PAIRS; pair += 1) {
    // Each goes first in turn: the machine is not the same at the end of the run.
    const order = pair % 2 === 0 ? ['with', 'without'] : ['without', 'with'];
    for (const which of order) {
      const found = await load(which === 'with' ? '/' : '/plain');
      assert.equal(found.frames, which === 'with' ? 1 : 0);
      assert.ok(found.lcp > 0, 'no contentful paint');
      if (pair >= 0) runs[which].push(found);
    }
  }
  for (const [vital, unit, least] of [['lcp', 'ms', PICTURE_MS], ['cls', '', SHIFT_MAX], ['tbt', 'ms', PICTURE_MS]]) {
    const [tagged, plain] = [runs.with, runs.without].map((run) => run.map((found) => found[vital]));
    const differences = tagged.map((value, pair) => value - plain[pair]);
    const median = quantile(differences, 0.5);
    // Half of the pages without the tag lie this far apart from each other by chance alone.
    const noise = Math.max(least, quantile(plain, 0.75) - quantile(plain, 0.25));
    t.diagnostic(`${vital.toUpperCase()} ${unit}, quartiles: with ${describe(tagged)}, without ${describe(plain)}; `
      + `difference ${median.toFixed(3)}, noise ${noise.toFixed(3)}`);
    assert.ok(median <= noise, `${vital} is worse by ${median} with the tag; noise is ${noise}`);
  }
});
