// From a yes on a partner's page to a wallet that collects: the card's link, the page behind it, what it shows, and how money leaves it.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, afterEach, before, it } from 'node:test';
import { promisify } from 'node:util';
import { Visitor } from './lib/contributor.mjs';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob, finish } from './lib/jobs.mjs';
import { assertClean, LOOKS, readQr, shot } from './lib/look.mjs';
import { dear, liveAccount, operate, waiting } from './lib/operator.mjs';
import { coordinatorBin, outDir } from './lib/paths.mjs';
import { until, World } from './lib/world.mjs';

let world;
/** A page of the same site as the coordinator, whose frame has storage in private windows too. */
let near;
before(async () => {
  dear();
  world = await World.start('earn');
  const origin = `http://127.0.0.1:${world.partner.port}`;
  const site = await world.coordinator.json('POST', '/v1/sites', { name: 'Near News', origins: [origin] });
  world.partner.routes['/near'] = world.partner.routes['/'].replace(world.site.site_key, site.site_key);
  near = `${origin}/near`;
});
afterEach(() => world.clear());
after(() => world?.stop());

/** A visitor whose first results were accepted. */
async function earning(options) {
  const visitor = await Visitor.open(world.browser, near, options);
  await visitor.accept(50);
  await visitor.card.locator('#raven-keep:visible').waitFor({ timeout: 30_000 });
  return visitor;
}

/** Presses the card's button; answers the tab that it opens, which asks where to collect. */
async function keep(visitor, button = '#raven-keep') {
  const opened = visitor.context.waitForEvent('page');
  await visitor.card.locator(button).click();
  const page = await opened;
  await page.getByRole('heading', { name: 'Keep what a browser has earned' }).waitFor();
  return page;
}

async function collect(page) {
  await page.getByRole('button', { name: 'Collect it here' }).click();
  await page.getByText('earnings are yours now').waitFor();
}

for (const [width, colorScheme] of LOOKS) {
  it(`keeps what was earned, at ${width} px, ${colorScheme}`, async () => {
    const dataset = await uploadDigits(world.coordinator);
    const job = await world.coordinator.json('POST', '/v1/jobs', { ...digitsJob(dataset.id, { epochs: 400, name: 'digits' }), category: 'vision' });
    const viewport = { width, height: width < 600 ? 740 : 800 };
    const visitor = await earning({ viewport, colorScheme });
    assert.equal(await visitor.card.locator('#raven-earner').textContent(), 'Earns for you');
    await visitor.page.screenshot({ path: join(outDir('e2e'), `keep-${width}-${colorScheme}.png`) });
    assert.match(await visitor.card.locator('#raven-about').textContent(), /^For [A-Z]\w+ [A-Z]\w+: image recognition$/);
    const page = await keep(visitor);
    await page.setViewportSize(viewport);
    await assertClean(page, 'the choice');
    await shot(page, `collect-${width}-${colorScheme}`);
    await collect(page);
    assert.ok(!page.url().includes('claim'), 'a reload does not repeat it');
    await page.locator('#devices').waitFor();
    await page.getByText('At work').first().waitFor();
    await world.coordinator.api('POST', `/v1/jobs/${job.id}/cancel`);
    await page.reload();
    await page.locator('.chart').first().waitFor();
    await page.locator('#history').waitFor();
    await page.waitForTimeout(300);
    await assertClean(page, 'full');
    await shot(page, `earn-${width}-${colorScheme}`);
    await visitor.close();
  });
}

it('is offered after a stop too, and collects once', async () => {
  const dataset = await uploadDigits(world.coordinator);
  const job = await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 400, name: 'digits' }));
  const visitor = await earning();
  await visitor.card.locator('#raven-stop').click();
  const page = await keep(visitor, '#raven-over-keep');
  await collect(page);
  await world.coordinator.api('POST', `/v1/jobs/${job.id}/cancel`);
  await page.getByText('At work').waitFor({ state: 'detached' });
  await page.getByText('Stopped').first().waitFor();
  // The payout settings by keyboard.
  await page.getByLabel('Pay to').focus();
  await page.keyboard.type('ann@example.org');
  await page.keyboard.press('Tab');
  await page.keyboard.type('0.5');
  await page.keyboard.press('Enter');
  await page.getByText('Saved.').waitFor();
  await page.getByLabel('From so many dollars').fill('0,5');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').getByText('with a point').waitFor();
  await page.reload();
  await page.getByLabel('Pay to').waitFor();
  assert.equal(await page.getByLabel('Pay to').inputValue(), 'ann@example.org');
  assert.equal(await page.getByLabel('From so many dollars').inputValue(), '0.5');
  // In another browser the same link gives nothing: it is claimed.
  const again = await keep(visitor, '#raven-over-keep');
  const stranger = await world.browser.newContext();
  const other = await stranger.newPage();
  await other.goto(again.url());
  await other.getByRole('button', { name: 'Collect it here' }).click();
  await other.getByText('go to another wallet already').waitFor();
  await stranger.close();
});

for (const colorScheme of ['light', 'dark']) {
  it(`is collected by a phone that reads the code, ${colorScheme}`, async () => {
    const dataset = await uploadDigits(world.coordinator);
    await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 400, name: 'digits' }));
    const visitor = await earning({ colorScheme });
    const page = await keep(visitor);
    const asked = [];
    page.on('request', (request) => asked.push(new URL(request.url()).origin));
    const link = await readQr(page);
    assert.ok(link.startsWith(`${world.coordinator.origin}/earn#claims=`), link);
    assert.deepEqual(asked.filter((origin) => origin !== world.coordinator.origin && origin !== 'null'), [], 'nobody else was asked');
    const phone = await world.browser.newContext({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
    const there = await phone.newPage();
    await there.goto(link);
    await there.getByRole('button', { name: 'Collect it here' }).tap();
    await there.getByText('earnings are yours now').waitFor();
    await there.getByText('At work').first().waitFor();
    // It is the phone's for good.
    await page.getByRole('button', { name: 'Collect it here' }).click();
    await page.getByText('go to another wallet already').waitFor();
    await phone.close();
  });
}

it('says of each result what became of it, and of each device why it is gone', async () => {
  const context = await world.browser.newContext({ viewport: { width: 360, height: 740 } });
  const page = await context.newPage();
  const session = (number, reason, closed = '2026-01-02T10:00:00Z') => ({
    session: `ses_${number}`, key: 'a', device: 'phone', backend: number === 1 ? 'gpu' : 'cpu', share: 0.2, opened: '2026-01-02T09:00:00Z', closed, reason,
  });
  // What this takes from liars and slow devices the coordinator's own tests make; here it is what the page says of it.
  await page.route(/\/v1\/contributors\/[0-9a-f]{64}$/, (route) =>
    route.fulfill({
      json: {
        key: 'a'.repeat(64), linked: [{ key: 'b'.repeat(64), at: '2026-01-02T09:00:00Z' }], work: { tasks: 7, calculations: 3.5 },
        results: { accepted: 5, wrong: 2, broken_commitment: 1, void: 4, late: 3, not_needed: 6 },
        sessions: [session(1, null, null), session(2, 'excluded'), session(3, 'traffic_cap'), session(4, null)],
      },
    }),
  );
  await page.goto(`${world.coordinator.origin}/earn`);
  const tile = async (what) => (await page.locator('.tile', { hasText: what }).locator('b').textContent()).trim();
  for (const [what, count] of [
    ['differs from the checked result', '2'], ['not what had been committed to', '1'], ['another result of the same device was wrong', '4'],
    ['the task had been given to somebody else', '3'], ['others were faster', '6'], ['Results: accepted', '5'],
  ]) assert.equal(await tile(what), count, what);
  const rows = await page.locator('table', { hasText: 'Device' }).locator('tbody tr').allTextContents();
  assert.deepEqual(rows.map((row) => /At work|A result was wrong|The visit had moved.*|Left/.exec(row)?.[0]), ['At work', 'A result was wrong', 'The visit had moved its share of bytes', 'Left']);
  assert.match(rows[0], /PhoneGPU20 %/);
  await assertClean(page, 'refused results');
  await shot(page, 'earn-refused-360');
  await context.close();
});

it('pays out what its owner asks for and the operator approves, and moves the rest to an account', async () => {
  await operate(world.coordinator, 'token-rate', 'set', '3000');
  const live = await liveAccount(world.coordinator, 1_000_000_000_000);
  const dataset = await uploadDigits(live);
  const job = await live.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 4, name: 'paid' }));
  const visitor = await earning();
  await finish(live, job.id);
  const page = await keep(visitor);
  await collect(page);
  await page.getByText('Say above where they are to be paid to').waitFor();
  await page.getByLabel('Pay to').fill('ann@example.org');
  await page.getByRole('button', { name: 'Save' }).click();
  const form = page.getByRole('form', { name: 'Withdraw' });
  await form.waitFor();
  await form.getByText('At least $0.0000001 at a time').waitFor();
  const amount = form.getByLabel('Amount in US dollars');
  const available = async () => (await form.getByText('Available:').textContent()).match(/\$([\d.]+)\./)[1];
  const all = await available();
  assert.ok(Number(all) > 0, all);
  const raven = (BigInt(Math.round(Number(all) * 1e9)) * 1_000_000n) / 3_000n;
  const shown = `${(Number(raven) / 1e6).toLocaleString('en', { maximumFractionDigits: 6 })} RAVEN`;
  await page.locator('.tile', { hasText: 'Available' }).getByText(shown, { exact: true }).waitFor();
  // What cannot be is said beside the field, and moves nothing.
  for (const [typed, said] of [['1,5', 'with a point'], ['0', 'more than nothing'], ['0.00000001', 'at least'], ['999', 'to spend']]) {
    await amount.fill(typed);
    await form.getByRole('button', { name: 'Withdraw' }).click();
    await form.getByRole('alert').getByText(said).waitFor();
  }
  await amount.fill('0.000001');
  await form.getByRole('button', { name: 'Withdraw' }).click();
  await page.getByText('$0.000001 are held for you').waitFor();
  const list = page.getByRole('list', { name: 'Withdrawals' });
  await list.getByText('Held').waitFor();
  const id = await waiting(world.coordinator);
  await operate(world.coordinator, 'withdrawals', 'begin', id);
  await list.getByText('Begun').waitFor();
  assert.equal(await list.getByRole('button', { name: /Cancel/ }).count(), 0, 'money that is on its way is not taken back');
  await operate(world.coordinator, 'withdrawals', 'approve', '--note', 'bank 7', id);
  await list.getByText('Approved').waitFor();
  await list.getByText('bank 7').waitFor();
  // The rest pays for jobs.
  const nano = (text) => BigInt(Math.round(Number(text) * 1e9));
  const rest = nano(all) - 1_000n;
  assert.equal(nano(await available()), rest);
  const spend = page.getByRole('form', { name: 'Move to an account' });
  await spend.getByLabel('API key').fill(world.coordinator.key);
  await spend.getByRole('button', { name: 'All of it' }).click();
  await spend.getByRole('button', { name: 'Move to the account' }).click();
  await spend.getByRole('alert').getByText('never meet').waitFor();
  const before = await live.json('GET', '/v1/account');
  await spend.getByLabel('API key').fill(live.key);
  await spend.getByRole('button', { name: 'Move to the account' }).click();
  await spend.getByText('account’s now').waitFor();
  const now = await live.json('GET', '/v1/account');
  assert.equal(BigInt(now.balance.available_nano_usd) - BigInt(before.balance.available_nano_usd), rest);
  await form.getByText('Available: $0.').waitFor();
  await assertClean(page, 'after money moved');
  await shot(page, 'earn-paid');
  assert.match(await operate(world.coordinator, 'audit'), /^live: \d+ entries, \d+ accounts, all right/m);
});

it('takes a withdrawal back, shows each movement with its receipt, and links an account to all that is earned', async () => {
  const live = await liveAccount(world.coordinator, 1_000_000_000_000);
  const dataset = await uploadDigits(live);
  const job = await live.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 4, name: 'paid' }));
  const visitor = await earning();
  await finish(live, job.id);
  const page = await keep(visitor);
  await collect(page);
  await page.getByLabel('Pay to').fill('ann@example.org');
  await page.getByRole('button', { name: 'Save' }).click();
  const form = page.getByRole('form', { name: 'Withdraw' });
  await form.getByRole('button', { name: 'All of it' }).click();
  await form.getByRole('button', { name: 'Withdraw' }).click();
  const list = page.getByRole('list', { name: 'Withdrawals' });
  await list.getByRole('button', { name: /Cancel/ }).click();
  await list.getByText('Cancelled').waitFor();
  await page.getByText('Statement of real money, with receipts').click();
  const statement = page.getByRole('list', { name: 'Statement' });
  await statement.getByText('given back').waitFor();
  await statement.getByText('Collected by a wallet').first().waitFor();
  const [receipt] = await Promise.all([page.waitForEvent('download'), statement.getByRole('button', { name: 'Receipt' }).first().click()]);
  // It is the one that was taken back: genuine, and no payment.
  const verified = promisify(execFile)(coordinatorBin, ['verify-receipt', await receipt.path()]);
  await assert.rejects(verified, ({ code, stdout }) => code === 3 && stdout.includes('NOT PAID: the hold was voided'));
  const move = page.getByRole('form', { name: 'Move to an account' });
  await move.getByLabel('All, and what I earn').check();
  await move.getByLabel('API key').fill(live.key);
  await assertClean(page, 'with a statement');
  await move.getByRole('button', { name: 'Link the account' }).click();
  const { account } = await live.json('GET', '/v1/account');
  await page.getByText(account).waitFor();
  await page.getByText('which withdraws it').waitFor();
  await assertClean(page, 'linked');
  await shot(page, 'earn-linked');
  const { lines } = await live.json('GET', '/v1/account/statement');
  assert.ok(lines.some(({ reason, nano_usd: nano }) => nano > 0 && reason !== 'deposit' && reason !== 'release'), JSON.stringify(lines));
  await page.getByRole('button', { name: 'End that' }).click();
  await move.waitFor();
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
