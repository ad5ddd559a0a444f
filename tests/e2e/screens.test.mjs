// Pictures of what people see, at the widths of a phone and of a desktop, for a person to look at.
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { outDir } from './lib/paths.mjs';
import { World } from './lib/world.mjs';

const WIDTHS = [360, 1280];
const folder = outDir('e2e');

let world;
before(async () => {
  world = await World.start('screens');
});
afterEach(() => world.clear());
after(() => world?.stop());

async function shoot(page, name) {
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path });
  assert.ok(statSync(path).size > 1000, `${path} is empty`);
}

/** Nothing may be wider than the window: a phone's reader would have to scroll sideways. */
async function fits(page, width) {
  const found = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(found <= width, `the page is ${found} px wide in a window of ${width}`);
}

for (const width of WIDTHS) {
  it(`card, work and network page at ${width} px`, async () => {
    const dataset = await uploadDigits(world.coordinator);
    const job = await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 200, name: 'digits' }));
    const viewport = { width, height: width < 600 ? 740 : 800 };
    const visitor = await world.visitor({ viewport });
    await visitor.card.locator('#raven-open').waitFor();
    await shoot(visitor.page, `chip-${width}`);
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-yes:enabled').waitFor();
    await shoot(visitor.page, `card-${width}`);
    await fits(visitor.page, width);
    await visitor.card.locator('#raven-yes').click();
    await visitor.until(({ phase, tasks }) => phase === 'working' && tasks > 5, 'working');
    await shoot(visitor.page, `working-${width}`);

    const network = await visitor.context.newPage();
    await network.setViewportSize(viewport);
    await network.goto(`${world.coordinator.origin}/`);
    await network.getByText('digits').first().waitFor();
    await network.waitForTimeout(3000);
    await shoot(network, `network-${width}`);
    await fits(network, width);
    await visitor.card.locator('#raven-stop').click();
    await visitor.until(({ phase }) => phase === 'stopped', 'stopped');
    await shoot(visitor.page, `stopped-${width}`);
    await world.coordinator.api('POST', `/v1/jobs/${job.id}/cancel`);
    await visitor.close();
  });
}
