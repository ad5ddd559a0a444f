// Pictures of what people see, at the widths of a phone and of a desktop, for a person to look at.
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { assertClean } from './lib/look.mjs';
import { outDir } from './lib/paths.mjs';
import { until, World } from './lib/world.mjs';

const WIDTHS = [360, 1280];
const SCHEMES = ['light', 'dark'];
const folder = outDir('e2e');

let world;
before(async () => {
  world = await World.start('screens', { gpu: true });
});
afterEach(() => world.clear());
after(() => world?.stop());

async function shoot(page, name) {
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path });
  assert.ok(statSync(path).size > 1000, `${path} is empty`);
}

const frameOf = (visitor) => visitor.page.frames().find((frame) => frame.url().includes('/embed/frame.html'));

/** Nothing may be wider than the window: a phone's reader would have to scroll sideways. */
async function fits(page, width) {
  const found = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(found <= width, `the page is ${found} px wide in a window of ${width}`);
}

for (const [width, scheme] of WIDTHS.flatMap((each) => SCHEMES.map((scheme) => [each, scheme]))) {
  it(`card, work and network page at ${width} px, ${scheme}`, async () => {
    const shot = (page, name) => shoot(page, `${name}-${width}-${scheme}`);
    const dataset = await uploadDigits(world.coordinator);
    const job = await world.coordinator.json('POST', '/v1/jobs', {
      ...digitsJob(dataset.id, { epochs: 200, name: 'digits' }), numerics: 'relaxed',
    });
    const viewport = { width, height: width < 600 ? 740 : 800 };
    const visitor = await world.visitor({ viewport, colorScheme: scheme });
    const clean = (what) => assertClean(frameOf(visitor), `${what} at ${width} px, ${scheme}`);
    await visitor.card.locator('#raven-open').waitFor();
    await shot(visitor.page, 'chip');
    await clean('chip');
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-yes:enabled').waitFor();
    await visitor.card.locator('#raven-gpu').check();
    await shot(visitor.page, 'card');
    await clean('card');
    await visitor.card.locator('#raven-kinds summary').click();
    await clean('card, kinds of work unfolded');
    await visitor.card.locator('#raven-kinds summary').click();
    await fits(visitor.page, width);
    await visitor.card.locator('#raven-yes').click();
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 5, 'working');
    const onGpu = async () => (await world.coordinator.json('GET', '/v1/nodes')).nodes.some((node) => node.numeric === 'gpu' && node.tasks_accepted > 0);
    await until(onGpu, 'a task of the GPU', 60_000);
    // What became of results is told after a while.
    await visitor.card.locator('#raven-results:not(:empty)').waitFor();
    await shot(visitor.page, 'working');
    await clean('working');

    const network = await visitor.context.newPage();
    await network.setViewportSize(viewport);
    await network.goto(`${world.coordinator.origin}/`);
    await network.getByText('digits').first().waitFor();
    await network.waitForTimeout(3000);
    await shot(network, 'network');
    await assertClean(network, `network page at ${width} px, ${scheme}`);
    await fits(network, width);
    await network.locator('#results').evaluate((heading) => heading.scrollIntoView());
    await shot(network, 'results');
    await visitor.card.locator('#raven-stop').click();
    await visitor.until(({ phase }) => phase === 'stopped', 'stopped');
    await shot(visitor.page, 'stopped');
    await clean('stopped');
    await world.coordinator.api('POST', `/v1/jobs/${job.id}/cancel`);
    await visitor.close();
  });
}
