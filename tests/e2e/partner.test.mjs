// The partner's console, and what its site earns: by pages of its own, and by no copy of them.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { outDir } from './lib/paths.mjs';
import { until, World } from './lib/world.mjs';

const { source: AXE } = createRequire(import.meta.url)('axe-core');
const folder = outDir('e2e');

let world;
before(async () => {
  world = await World.start('partner');
});
afterEach(() => world.clear());
after(() => world?.stop());

async function assertClean(page, what) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`), [], what);
}

async function fits(page, width, what) {
  const found = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(found <= width, `${what} is ${found} px wide in a window of ${width}`);
}

async function open(options = {}) {
  const context = await world.browser.newContext(options);
  const page = await context.newPage();
  await page.goto(`${world.coordinator.origin}/partner`);
  return { page, context };
}

async function signIn(page, key = world.coordinator.key) {
  await page.getByLabel('API key').fill(key);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

const earnings = () => world.coordinator.json('GET', `/v1/sites/${world.site.id}/earnings`);
const work = async () => {
  const { days } = await world.coordinator.json('GET', `/v1/sites/${world.site.id}`);
  return days.at(-1) ?? { views: 0, blocked: 0, yes: 0, worked: 0, work: {} };
};

describe('what a site earns', () => {
  it('comes from its own pages; a page that copied the tag shows nothing and earns nothing', async () => {
    const dataset = await uploadDigits(world.coordinator);
    await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 2_000, name: 'endless' }));
    // The same files under a name that nobody registered.
    const copy = world.origin.replace('news.', 'copy.');
    const context = await world.browser.newContext();
    const page = await context.newPage();
    await page.goto(`${copy}/`);
    await until(async () => (await work()).blocked > 0, 'the blocked frame counted');
    const frame = await (await page.waitForSelector('iframe', { state: 'attached' })).contentFrame();
    const isDark = () => frame.evaluate(() => document.querySelector('#raven-open') === null).catch(() => true);
    assert.ok(await isDark(), 'the card is not there');
    const before = await earnings();
    assert.deepEqual([before.days, before.balance.available_nano_usd, before.balance.pending_nano_usd], [[], 0, 0], 'no entry at all');
    assert.equal((await work()).yes, 0);
    await context.close();

    const [visitor] = await world.contributors(1, 100);
    await visitor.until(({ tasks }) => tasks > 5, 'working');
    const earned = async () => {
      const { balance } = await earnings();
      return balance.available_nano_usd + balance.pending_nano_usd > 0;
    };
    await until(earned, 'an entry for the site', 120_000);
    const day = await work();
    assert.ok(day.views >= 1 && day.yes === 1 && day.worked === 1, JSON.stringify(day));
    assert.deepEqual(Object.keys(day.work), ['earned']);
  });

  it('stops where its owner pauses it, and visitors who are there are sent away', async () => {
    const dataset = await uploadDigits(world.coordinator);
    await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 2_000, name: 'endless' }));
    await world.contributors(1);
    const path = `/v1/sites/${world.site.id}`;
    await world.coordinator.json('PATCH', path, { paused: true });
    const online = async () => (await world.coordinator.json('GET', path)).contributors_online;
    await until(async () => (await online()) === 0, 'nobody there any more', 60_000);
    await world.coordinator.json('PATCH', path, { paused: false });
    await world.contributors(1);
  });
});

describe('the console', () => {
  it('signs in by key, says what is wrong by its field, and works by keyboard alone', async () => {
    const { page, context } = await open();
    await signIn(page, 'rk_test_wrong');
    await page.getByRole('alert').waitFor();
    await page.getByLabel('API key').fill(world.coordinator.key);
    await page.getByLabel('API key').press('Enter');
    await page.getByRole('heading', { name: 'Local News' }).waitFor();
    const register = page.locator('form', { hasText: 'Register a site' });
    await register.getByLabel('Name').fill('Second');
    await register.getByLabel('Origins').fill('https://second.example https://Second.example');
    await register.getByRole('button', { name: 'Register' }).press('Enter');
    await register.getByRole('alert').waitFor();
    assert.match(await register.getByRole('alert').textContent(), /origins\[1\]/);
    assert.equal(await register.getByLabel('Origins').getAttribute('aria-invalid'), 'true');
    await register.getByLabel('Origins').fill('https://second.example');
    await register.getByRole('button', { name: 'Register' }).press('Enter');
    await page.getByRole('heading', { name: 'Second' }).waitFor();
    await page.getByText('Unproven').waitFor();
    // A second tab knows nothing of the key, the same tab does.
    await page.reload();
    await page.getByRole('heading', { name: /Local News|Second/ }).waitFor();
    const other = await context.newPage();
    await other.goto(page.url());
    await other.getByLabel('API key').waitFor();
    await other.close();
    await page.getByRole('button', { name: 'Second' }).press('Enter');
    await page.getByRole('heading', { name: 'Second' }).waitFor();
    await page.getByRole('button', { name: 'Pause the site' }).press('Space');
    await page.getByText('The frame shows nothing').waitFor();
    await page.getByLabel('Finance').press('Space');
    await until(async () => !(await page.getByLabel('Finance').isChecked()), 'finance refused');
    await page.getByRole('button', { name: 'Revoke the site' }).press('Enter');
    await page.getByRole('button', { name: 'Revoke it for good' }).press('Enter');
    await page.getByRole('heading', { name: 'Local News' }).waitFor();
    await page.getByRole('button', { name: 'Sign out' }).press('Enter');
    await page.getByLabel('API key').waitFor();
    await context.close();
  });

  it('finds the tag, the proof and the table', async () => {
    const { page, context } = await open({ acceptDownloads: true });
    await signIn(page);
    assert.match(await page.getByLabel('the tag', { exact: true }).textContent(), /integrity="sha384-/);
    await page.getByRole('button', { name: 'Look whether it is' }).click();
    await page.getByText('Live', { exact: true }).last().waitFor();
    await until(async () => {
      await page.getByRole('button', { name: 'Look for the proof' }).click();
      return page.getByText('Unread').isVisible();
    }, 'a look at the proof', 20_000);
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download as CSV' }).click()]);
    assert.match(download.suggestedFilename(), /^raven-site_.*\.csv$/);
    await page.getByLabel('From').fill('2020-01-01');
    await page.getByRole('button', { name: 'Show' }).click();
    await page.getByText('the limit is 366').waitFor();
    await page.getByRole('button', { name: 'Estimate' }).click();
    await page.getByText("The site's 3 %").waitFor();
    await context.close();
  });

  for (const [width, colorScheme] of [[360, 'light'], [360, 'dark'], [1280, 'light'], [1280, 'dark']]) {
    it(`at ${width} px, ${colorScheme}: everything fits, and axe finds nothing`, async () => {
      const { page, context } = await open({ viewport: { width, height: 800 }, colorScheme });
      const shot = (name) => page.screenshot({ path: join(folder, `partner-${name}-${width}-${colorScheme}.png`), fullPage: true });
      await page.getByLabel('API key').waitFor();
      await assertClean(page, 'signed out');
      await shot('out');
      await signIn(page);
      await page.getByText('By day').waitFor();
      await page.getByRole('button', { name: 'Estimate' }).click();
      await page.getByText("The site's 3 %").waitFor();
      await page.waitForTimeout(500);
      await fits(page, width, 'the console');
      await assertClean(page, 'signed in');
      await shot('in');
      await context.close();
    });
  }
});
