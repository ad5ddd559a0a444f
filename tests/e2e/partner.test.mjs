// The partner's console, and what its site earns: by pages of its own, and by no copy of them.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, afterEach, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { Visitor } from './lib/contributor.mjs';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob, finish } from './lib/jobs.mjs';
import { assertClean, LOOKS, shot } from './lib/look.mjs';
import { dear, liveAccount, operate, waiting } from './lib/operator.mjs';
import { coordinatorBin } from './lib/paths.mjs';
import { article, until, World } from './lib/world.mjs';

let world;
before(async () => {
  dear();
  world = await World.start('partner');
});
afterEach(() => world.clear());
after(() => world?.stop());

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
    // What it has earned is within reach still.
    await page.getByRole('button', { name: 'Second (revoked)' }).press('Enter');
    await page.getByText('It is revoked').waitFor();
    await page.getByRole('heading', { name: 'Payouts' }).waitFor();
    assert.equal(await page.getByRole('button', { name: 'Pause the site' }).count(), 0);
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

  it('withdraws what a site has earned, takes it back, and spends it', async () => {
    const live = await liveAccount(world.coordinator, 1_000_000_000_000);
    await operate(world.coordinator, 'token-rate', 'set', '3000');
    const origin = `http://127.0.0.1:${world.partner.port}`;
    const site = await live.json('POST', '/v1/sites', { name: 'Paid News', origins: [origin] });
    world.partner.routes['/.well-known/raven-site.txt'] = { type: 'text/plain', body: site.site_key };
    world.partner.routes['/paid'] = article(site.snippet);
    await live.json('POST', `/v1/sites/${site.id}/prove`, {});
    const dataset = await uploadDigits(live);
    const job = await live.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 4, name: 'paid' }));
    const visitor = await Visitor.open(world.browser, `${origin}/paid`);
    await visitor.accept(50);
    await finish(live, job.id);
    await visitor.close();

    const { page, context } = await open({ acceptDownloads: true });
    await signIn(page, live.key);
    const form = page.getByRole('form', { name: 'Withdraw' });
    await form.waitFor();
    const { balance, tokens } = await live.json('GET', `/v1/sites/${site.id}/account`);
    assert.ok(balance.available_nano_usd > 200, JSON.stringify(balance));
    // What the coordinator says it is in tokens stands beside every amount in dollars.
    const raven = `${(tokens.available_micro_tokens / 1e6).toLocaleString('en', { maximumFractionDigits: 6 })} RAVEN`;
    await page.getByRole('region', { name: 'Payouts' }).locator('.tile', { hasText: 'Available' }).getByText(raven, { exact: true }).waitFor();
    await page.locator('.tile', { hasText: 'Earned in these days' }).getByText('RAVEN').waitFor();
    await page.getByRole('button', { name: 'Estimate' }).click();
    await page.locator('.tile', { hasText: "The site's 3 %" }).getByText('RAVEN').waitFor();
    await form.getByText('At least $0.0000001 at a time').waitFor();
    const ask = async (amount) => {
      await form.getByLabel('Amount in US dollars').fill(amount);
      await form.getByLabel('Pay to').fill('IBAN XX00 1234, Ann Example');
      await form.getByRole('button', { name: 'Withdraw' }).click();
    };
    await ask('999');
    await form.getByRole('alert').getByText('to spend').waitFor();
    await ask('0.00000001');
    await form.getByRole('alert').getByText('at least').waitFor();
    await ask('0.0000001');
    await form.getByText('$0.0000001 are held for you').waitFor();
    const list = page.getByRole('list', { name: 'Withdrawals' });
    await list.getByText('Held').waitFor();
    await list.getByRole('button', { name: 'Cancel the withdrawal of $0.0000001' }).click();
    await list.getByText('Cancelled').waitFor();
    await form.getByRole('button', { name: 'All of it' }).click();
    await form.getByLabel('Pay to').fill('IBAN XX00 1234, Ann Example');
    await form.getByRole('button', { name: 'Withdraw' }).click();
    await form.getByText('Available: $0.').waitFor();
    await assertClean(page, 'with withdrawals');
    await shot(page, 'partner-paid');
    const id = await waiting(world.coordinator);
    await operate(world.coordinator, 'withdrawals', 'begin', id);
    await operate(world.coordinator, 'withdrawals', 'refuse', '--note', 'no such account', id);
    await list.getByText('no such account').waitFor();
    // It is the site's again, and goes on to the account.
    const before = await live.json('GET', '/v1/account');
    const spend = page.getByRole('form', { name: 'Spend on your own jobs' });
    await spend.getByRole('button', { name: 'All of it' }).click();
    await spend.getByRole('button', { name: 'Move to your account' }).click();
    await spend.getByText("are your account's now").waitFor();
    const now = await live.json('GET', '/v1/account');
    assert.equal(now.balance.available_nano_usd - before.balance.available_nano_usd, balance.available_nano_usd);
    // The statement has a receipt for it that holds without the coordinator.
    await page.getByText('Statement, with receipts').click();
    const statement = page.getByRole('list', { name: 'Statement' });
    await statement.getByText('To an account').waitFor();
    await statement.getByText('given back').first().waitFor();
    const [receipt] = await Promise.all([page.waitForEvent('download'), statement.getByRole('button', { name: 'Receipt' }).first().click()]);
    const { stdout } = await promisify(execFile)(coordinatorBin, ['verify-receipt', await receipt.path()]);
    assert.match(stdout, /spend/, stdout);
    await assertClean(page, 'with a statement');
    await shot(page, 'partner-statement');
    assert.match(await operate(world.coordinator, 'audit'), /^live: \d+ entries, \d+ accounts, all right/m);
    await context.close();
  });

  it('shows kinds of jobs as refused or as the only ones, and cards that were shown', async () => {
    const path = `/v1/sites/${world.site.id}`;
    const site = () => world.coordinator.json('GET', path);
    const kinds = async () => {
      const { allowed_categories: allowed, refused_categories: refused } = await site();
      return { allowed, refused };
    };
    await world.coordinator.json('PATCH', path, { allowed_categories: null, refused_categories: [] });
    // A card that a visitor opened and could read.
    const before = (await work()).shown ?? 0;
    const visitor = await world.visitor();
    await visitor.card.locator('#raven-open').click();
    await visitor.card.locator('#raven-yes:enabled').waitFor();
    await until(async () => (await work()).shown === before + 1, 'the card counted');
    await visitor.close();

    const { page, context } = await open();
    await signIn(page);
    await page.getByRole('heading', { name: 'Local News' }).waitFor();
    const table = page.getByRole('group', { name: 'Visitors by day' });
    await table.waitFor();
    const cells = await table.locator('tbody tr').last().locator('td').allTextContents();
    const { day, views, blocked, shown, yes, worked } = await work();
    assert.deepEqual(cells, [day.slice(5), ...[views, blocked, shown, yes, worked].map(String)]);
    const only = page.getByLabel('Only these');
    const finance = page.getByLabel('Finance');
    const isFocused = (box) => box.evaluate((element) => document.activeElement === element);
    const boxes = page.getByRole('group', { name: 'work for jobs of these kinds' });
    const answered = () => until(async () => (await boxes.getAttribute('aria-busy')) === 'false', 'the answer');
    const { categories } = await site();
    const others = categories.filter((each) => each !== 'finance');
    await only.press('Space');
    await until(() => only.isChecked(), 'the only ones');
    await answered();
    assert.ok(await isFocused(only), 'the keyboard is where it was');
    assert.deepEqual(await kinds(), { allowed: categories, refused: [] });
    // While an answer is waited for a box stays as it is, and where the keyboard is.
    let goOn;
    const wait = new Promise((done) => (goOn = done));
    await page.route(`**${path}`, async (route) => {
      await wait;
      await route.fallback();
    });
    await finance.press('Space');
    await until(async () => (await boxes.getAttribute('aria-busy')) === 'true', 'a request');
    assert.ok(await isFocused(finance), 'the keyboard is where it was');
    const ticked = await finance.isChecked();
    await finance.press('Space');
    assert.equal(await finance.isChecked(), ticked);
    goOn();
    await until(async () => !(await finance.isChecked()), 'finance left out');
    await answered();
    assert.deepEqual(await kinds(), { allowed: others, refused: [] });
    await only.press('Space');
    await until(async () => !(await only.isChecked()), 'a list no longer');
    await answered();
    assert.deepEqual(await kinds(), { allowed: null, refused: ['finance'] });
    // Whoever wants none pauses the site: the last kind stays.
    await world.coordinator.json('PATCH', path, { refused_categories: others });
    await page.reload();
    await until(async () => (await finance.isChecked()) && (await finance.isDisabled()), 'the last kind kept');
    await world.coordinator.json('PATCH', path, { refused_categories: [] });
    await context.close();
  });

  for (const [width, colorScheme] of LOOKS) {
    it(`at ${width} px, ${colorScheme}: everything fits, and axe finds nothing`, async () => {
      const { page, context } = await open({ viewport: { width, height: 800 }, colorScheme });
      await page.getByLabel('API key').waitFor();
      await assertClean(page, 'signed out');
      await shot(page, `partner-out-${width}-${colorScheme}`);
      await signIn(page);
      await page.getByText(/By day|Nothing was earned/).waitFor();
      await page.getByRole('button', { name: 'Estimate' }).click();
      await page.getByText("The site's 3 %").waitFor();
      await page.waitForTimeout(500);
      await assertClean(page, 'signed in');
      await shot(page, `partner-in-${width}-${colorScheme}`);
      await context.close();
    });
  }
});
