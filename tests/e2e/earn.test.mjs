// From a yes on a partner's page to a wallet that collects: the card's link, the page behind it, and what it shows.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, afterEach, before, it } from 'node:test';
import { Visitor } from './lib/contributor.mjs';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { outDir } from './lib/paths.mjs';
import { until, World } from './lib/world.mjs';

const { source: AXE } = createRequire(import.meta.url)('axe-core');

let world;
/** A page of the same site as the coordinator, whose frame has storage in private windows too. */
let near;
before(async () => {
  world = await World.start('earn');
  const origin = `http://127.0.0.1:${world.partner.port}`;
  const site = await world.coordinator.json('POST', '/v1/sites', { name: 'Near News', origins: [origin] });
  world.partner.routes['/near'] = world.partner.routes['/'].replace(world.site.site_key, site.site_key);
  near = `${origin}/near`;
});
afterEach(() => world.clear());
after(() => world?.stop());

async function assertClean(page, what) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`), [], what);
}

/** A visitor whose first results were accepted. */
async function earning(options) {
  const visitor = await Visitor.open(world.browser, near, options);
  await visitor.accept(50);
  await visitor.card.locator('#raven-keep:visible').waitFor({ timeout: 30_000 });
  return visitor;
}

/** Presses the button; answers the tab that it opens. */
async function keep(visitor, button = '#raven-keep') {
  const opened = visitor.context.waitForEvent('page');
  await visitor.card.locator(button).click();
  const page = await opened;
  await page.getByText('earnings are yours now').waitFor();
  return page;
}

for (const [width, colorScheme] of [[360, 'light'], [360, 'dark'], [1280, 'light'], [1280, 'dark']]) {
  it(`keeps what was earned, at ${width} px, ${colorScheme}`, async () => {
    const dataset = await uploadDigits(world.coordinator);
    const job = await world.coordinator.json('POST', '/v1/jobs', { ...digitsJob(dataset.id, { epochs: 400, name: 'digits' }), category: 'vision' });
    const viewport = { width, height: width < 600 ? 740 : 800 };
    const visitor = await earning({ viewport, colorScheme });
    assert.equal(await visitor.card.locator('#raven-earner').textContent(), 'Earns for you');
    await visitor.page.screenshot({ path: join(outDir('e2e'), `keep-${width}-${colorScheme}.png`) });
    assert.match(await visitor.card.locator('#raven-about').textContent(), /^For [A-Z]\w+ [A-Z]\w+: image recognition$/);
    const page = await keep(visitor);
    assert.ok(!page.url().includes('claim'), 'a reload does not repeat it');
    await page.setViewportSize(viewport);
    await page.locator('#devices').waitFor();
    await page.getByText('At work').first().waitFor();
    await world.coordinator.api('POST', `/v1/jobs/${job.id}/cancel`);
    await page.reload();
    await page.locator('.chart').first().waitFor();
    await page.locator('#history').waitFor();
    await page.waitForTimeout(300);
    await assertClean(page, 'full');
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= width, `the page is ${wide} px wide in a window of ${width}`);
    await page.screenshot({ path: join(outDir('e2e'), `earn-${width}-${colorScheme}.png`), fullPage: true });
    await visitor.close();
  });
}

it('is offered after a stop too, and collects once', async () => {
  const dataset = await uploadDigits(world.coordinator);
  const job = await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 400, name: 'digits' }));
  const visitor = await earning();
  await visitor.card.locator('#raven-stop').click();
  const page = await keep(visitor, '#raven-over-keep');
  await world.coordinator.api('POST', `/v1/jobs/${job.id}/cancel`);
  await page.getByText('At work').waitFor({ state: 'detached' });
  await page.getByText('Stopped').first().waitFor();
  // The payout settings by keyboard.
  await page.locator('#payout-address').focus();
  await page.keyboard.type('ann@example.org');
  await page.keyboard.press('Tab');
  await page.keyboard.type('0.5');
  await page.keyboard.press('Enter');
  await page.getByText('Saved.').waitFor();
  await page.reload();
  await page.locator('#payout-address').waitFor();
  assert.equal(await page.locator('#payout-address').inputValue(), 'ann@example.org');
  // In another browser the same link gives nothing: it is claimed.
  const again = visitor.context.waitForEvent('page');
  const stranger = await world.browser.newContext();
  let link;
  await visitor.context.route('**/v1/contributors/claims', (route) => {
    link = JSON.parse(route.request().postData());
    return route.abort();
  });
  await visitor.card.locator('#raven-over-keep').click();
  await again;
  await until(() => link, 'a claim');
  const other = await stranger.newPage();
  const coded = Buffer.from(JSON.stringify({ statement: link.statement, signature: link.signature })).toString('base64url');
  await other.goto(`${world.coordinator.origin}/earn#claim=${coded}`);
  await other.getByText('go to another wallet already').waitFor();
  await stranger.close();
});

it('the site earns where the visitor says so, and where the browser keeps no key', async () => {
  const dataset = await uploadDigits(world.coordinator);
  await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 400, name: 'digits' }));
  const earner = async (visitor, name) => {
    await visitor.card.locator('#raven-results:not(:empty)').waitFor();
    assert.equal(await visitor.card.locator('#raven-earner').textContent(), `Earns for ${name}`);
    assert.ok(await visitor.card.locator('#raven-keep').isHidden());
    await visitor.close();
  };
  const giver = await Visitor.open(world.browser, near);
  await giver.card.locator('#raven-open').click();
  await giver.card.locator('#raven-yes:enabled').waitFor();
  await giver.card.locator('#raven-give').check();
  await giver.card.locator('#raven-yes:enabled').click();
  await earner(giver, 'Near News');
  // A private window denies storage to frames of other sites.
  const keyless = await world.visitor();
  await keyless.accept(50);
  await earner(keyless, 'Local News');
});
