// An account's own page: what it has, what moved, who may use it.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, afterEach, before, it } from 'node:test';
import { promisify } from 'node:util';
import { launch } from './lib/browser.mjs';
import { Coordinator } from './lib/coordinator.mjs';
import { assertClean, LOOKS, shot } from './lib/look.mjs';
import { liveAccount, operate, waiting } from './lib/operator.mjs';
import { coordinatorBin } from './lib/paths.mjs';

/** What a control is called holds what stands on it: axe asks it only where it is told to. */
const NAMES = ['label-content-name-mismatch'];

let coordinator;
let browser;
before(async () => {
  coordinator = await Coordinator.start({ name: 'account', flags: () => ['--sub-accounts-max', '3'] });
  browser = await launch();
});
afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
});
after(async () => {
  await browser?.close();
  await coordinator?.stop();
});

async function signedIn(key, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(`${coordinator.origin}/account`);
  await page.getByLabel('API key').fill(key);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('heading', { name: 'Keys', exact: true }).waitFor();
  return page;
}

const status = async (key, path) => (await fetch(coordinator.origin + path, { headers: { authorization: `Bearer ${key}` } })).status;

it('withdraws money, and shows every movement of it with a receipt', async () => {
  const live = await liveAccount(coordinator, 1_000_000_000_000);
  const page = await signedIn(live.key, { acceptDownloads: true });
  await page.getByText('$1,000.00').first().waitFor();
  const form = page.getByRole('form', { name: 'Withdraw' });
  const ask = async (amount) => {
    await form.getByLabel('Amount in US dollars').fill(amount);
    await form.getByLabel('Pay to').fill('IBAN XX00 1234, Ann Example');
    await form.getByRole('button', { name: 'Withdraw' }).click();
  };
  await form.getByText('At least $1.00 at a time').waitFor();
  await ask('0.99');
  await form.getByRole('alert').getByText('at least').waitFor();
  await ask('1000.000000001');
  await form.getByRole('alert').getByText('to spend').waitFor();
  await ask('12.50');
  await form.getByText('$12.50 are held for you').waitFor();
  await page.getByText('$987.50').first().waitFor();
  const id = await waiting(coordinator);
  await operate(coordinator, 'withdrawals', 'begin', id);
  await operate(coordinator, 'withdrawals', 'approve', '--note', 'bank 7', id);
  await page.getByRole('list', { name: 'Withdrawals' }).getByText('bank 7').waitFor();
  await page.getByText('Statement, with receipts').click();
  const statement = page.getByRole('list', { name: 'Statement' });
  await statement.getByText('Paid in').waitFor();
  // Held until the operator began to pay it, and held anew without an end then.
  assert.deepEqual(await statement.locator('b').allTextContents(), ['−$12.50', '−$12.50', '$1,000.00']);
  assert.equal(await statement.getByText('given back').count(), 1);
  const [receipt] = await Promise.all([page.waitForEvent('download'), statement.getByRole('button', { name: 'Receipt' }).first().click()]);
  await promisify(execFile)(coordinatorBin, ['verify-receipt', await receipt.path()]);
  await assertClean(page, 'with a statement');
  await shot(page, 'account-paid');
});

it('is paid in tokens, at the rate that was shown', async () => {
  await operate(coordinator, 'token-rate', 'set', '40000000');
  const live = await liveAccount(coordinator, 5_000_000_000);
  const page = await signedIn(live.key);
  const form = page.getByRole('form', { name: 'Withdraw' });
  await form.getByLabel('In RAVEN tokens, at $0.04 each').check();
  await form.getByLabel('Amount in US dollars').fill('1.5');
  await form.getByLabel('Pay to').fill('raven1qexample');
  await form.getByRole('button', { name: 'Withdraw' }).click();
  await page.getByRole('list', { name: 'Withdrawals' }).getByText('as 37.5 RAVEN').waitFor();
  await page.getByRole('button', { name: /Cancel the withdrawal/ }).click();
  await page.getByText('Cancelled').waitFor();
  await assertClean(page, 'with tokens');
});

it('shows what was paid in as tokens, and every amount in them', async () => {
  await operate(coordinator, 'token-rate', 'set', '40000000');
  const live = await liveAccount(coordinator, 1_000_000_000);
  await operate(coordinator, 'deposit', '--micro-tokens', '37500000', '--payment', `tokens ${live.key.slice(-8)}`, live.key);
  const page = await signedIn(live.key, { acceptDownloads: true });
  const available = page.getByRole('region', { name: 'Money', exact: true }).locator('.tile', { hasText: 'Available' });
  await available.getByText('$2.50').waitFor();
  await available.getByText('62.5 RAVEN').waitFor();
  await page.getByText('Statement, with receipts').click();
  const statement = page.getByRole('list', { name: 'Statement' });
  await statement.getByText('as 37.5 RAVEN at $0.04 each').waitFor();
  const [receipt] = await Promise.all([page.waitForEvent('download'), statement.getByRole('button', { name: 'Receipt' }).first().click()]);
  const { stdout } = await promisify(execFile)(coordinatorBin, ['verify-receipt', await receipt.path()]);
  assert.match(stdout, /paid as 37500000 millionths of a token, worth 0\.040000000 USD/);
});

it('makes keys that may do what they are for, and takes them back', async () => {
  const live = await liveAccount(coordinator, 5_000_000_000);
  const page = await signedIn(live.key);
  const form = page.getByRole('form', { name: 'Another key' });
  await form.getByLabel('Name').fill('laptop');
  await form.getByLabel('Last day').fill('2020-01-01');
  await form.getByRole('button', { name: 'Make the key' }).click();
  await form.getByRole('alert').getByText('in the future').waitFor();
  await form.getByLabel('Last day').fill('2030-01-01');
  await form.getByLabel(/^Datasets/).uncheck();
  await form.getByLabel('Name').press('Enter');
  const key = (await form.getByLabel('the new key', { exact: true }).textContent()).trim();
  assert.deepEqual([await status(key, '/v1/jobs'), await status(key, '/v1/datasets'), await status(key, '/v1/account')], [200, 403, 403]);
  const line = page.getByRole('list', { name: 'Keys' }).locator('li', { hasText: 'laptop' });
  await line.getByText('may do: jobs').waitFor();
  await line.getByText('until').waitFor();
  // Whoever signs in with it is told what it may not.
  const other = await signedIn(key);
  for (const scope of ['account', 'keys']) await other.getByRole('alert').getByText(`the scope ${scope}`).first().waitFor();
  await assertClean(other, 'a key with one scope');
  await line.getByRole('button', { name: 'Revoke laptop …' }).press('Enter');
  await line.getByText('A recovery code that it made goes with it').waitFor();
  await assertClean(page, 'a key that is about to be revoked', NAMES);
  await line.getByRole('button', { name: 'Revoke for good: laptop' }).press('Enter');
  await line.getByText('revoked').waitFor();
  assert.equal(await status(key, '/v1/jobs'), 401);
  // The last one that may do everything stays.
  await page.getByRole('button', { name: 'Revoke The first key …' }).click();
  await page.getByRole('button', { name: 'Revoke for good: The first key' }).click();
  await page.getByRole('alert').getByText('make another one first').waitFor();
  await page.getByRole('button', { name: 'Make a recovery code' }).click();
  const code = (await page.getByLabel('the recovery code', { exact: true }).textContent()).trim();
  assert.match(code, /^rr_/);
  await page.getByText('There is one since').waitFor();
  const recovered = await fetch(`${coordinator.origin}/v1/recover`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ code }),
  });
  assert.equal(recovered.status, 201);
});

it('makes sub-accounts, moves money to them and back, and says by name what is refused', async () => {
  const live = await liveAccount(coordinator, 5_000_000_000);
  const page = await signedIn(live.key);
  const panel = page.getByRole('region', { name: 'Sub-accounts' });
  await panel.getByText('There is none yet').waitFor();
  await panel.getByText('At most 3 are open at a time').waitFor();
  const form = panel.getByRole('form', { name: 'Another sub-account' });
  const make = async (name, id) => {
    await form.getByLabel('Name of the sub-account').fill(name);
    await form.getByLabel('Your own number for it').fill(id);
    await form.getByRole('button', { name: 'Make the sub-account' }).click();
  };
  await make('Ann', 'user 7');
  const key = (await form.getByLabel('the first key of the sub-account', { exact: true }).textContent()).trim();
  const spendable = async (of) => (await Object.create(live, { key: { value: of } }).json('GET', '/v1/account')).balance.available_nano_usd;
  assert.equal(await spendable(key), 0);
  await make('Ben', 'user 7');
  await form.getByRole('alert').getByText('it is that of requester:').waitFor();

  // It is unfolded: money goes there and back, and never more than there is.
  const ann = panel.getByRole('region', { name: 'Ann' });
  const move = ann.getByRole('form', { name: 'Move money of Ann' });
  const ask = async (way, amount) => {
    await move.getByLabel(way).check();
    await move.getByLabel('Amount in US dollars').fill(amount);
    await move.getByRole('button', { name: 'Move it' }).click();
  };
  await move.getByText('Available: $5.00').waitFor();
  await ask('To the sub-account', '5.01');
  await move.getByRole('alert').getByText('5.010000000 USD are needed').waitFor();
  await ask('To the sub-account', 'much');
  await move.getByRole('alert').getByText('must be an amount').waitFor();
  await ask('To the sub-account', '2');
  await move.getByText('$2.00 are Ann’s now').waitFor();
  await ask('Back to this account', '2.5');
  await move.getByRole('alert').getByText('2.500000000 USD are needed').waitFor();
  await ask('Back to this account', '0.5');
  await move.getByText('$0.50 are back in this account').waitFor();
  await ann.locator('.tile', { hasText: 'Available' }).getByText('$1.50').waitFor();
  assert.deepEqual([await spendable(key), await spendable(live.key)], [1_500_000_000, 3_500_000_000]);

  // A key for one purpose, and back.
  const keys = ann.getByRole('form', { name: 'Another key of Ann' });
  await keys.getByLabel('Name').fill('phone');
  await keys.getByLabel('Last day').fill('2020-01-01');
  await keys.getByRole('button', { name: 'Make the key' }).click();
  await keys.getByRole('alert').getByText('in the future').waitFor();
  await keys.getByLabel('Last day').fill('2030-01-01');
  await keys.getByLabel(/^Datasets/).uncheck();
  await keys.getByRole('button', { name: 'Make the key' }).click();
  const phone = (await keys.getByLabel('the new key of Ann', { exact: true }).textContent()).trim();
  assert.deepEqual([await status(phone, '/v1/jobs'), await status(phone, '/v1/datasets')], [200, 403]);
  await assertClean(page, 'with a sub-account');
  await shot(page, 'account-sub');
  const line = ann.getByRole('list', { name: 'Keys of Ann' }).locator('li', { hasText: 'phone' });
  await line.getByRole('button', { name: 'Revoke phone …' }).click();
  await line.getByRole('button', { name: 'Revoke for good: phone' }).click();
  await line.getByText('revoked').waitFor();
  assert.deepEqual([await status(phone, '/v1/jobs'), await status(key, '/v1/jobs')], [401, 200]);

  // As many as there may be.
  for (const name of ['Ben', 'Cid']) {
    await make(name, '');
    await panel.getByRole('region', { name }).waitFor();
  }
  await make('Dan', '');
  await form.getByRole('alert').getByText('the limit is 3').waitFor();

  // One that is closed keeps its money until it is taken back, and makes room for another.
  await panel.getByRole('button', { name: 'Open Ann' }).press('Enter');
  await ann.getByRole('button', { name: 'Close Ann …' }).press('Enter');
  await assertClean(page, 'a sub-account that is about to be closed', NAMES);
  await ann.getByRole('button', { name: 'Close for good: Ann' }).press('Enter');
  await panel.getByText('closed').first().waitFor();
  assert.equal(await status(key, '/v1/jobs'), 401);
  await move.getByLabel('To the sub-account').waitFor({ state: 'detached' });
  await ask('Back to this account', '1.5');
  await move.getByText('$1.50 are back').waitFor();
  assert.equal(await spendable(live.key), 5_000_000_000);
  await make('Dan', '');
  await panel.getByRole('region', { name: 'Dan' }).waitFor();
});

it('tells a sub-account that it has none of its own', async () => {
  const live = await liveAccount(coordinator, 1_000_000_000);
  const { key } = await live.json('POST', '/v1/accounts', { name: 'Ann' });
  const page = await signedIn(key);
  const form = page.getByRole('form', { name: 'Another sub-account' });
  await form.getByLabel('Name of the sub-account').fill('Ben');
  await form.getByRole('button', { name: 'Make the sub-account' }).click();
  await form.getByRole('alert').getByText('a sub-account has no sub-accounts of its own').waitFor();
});

for (const [width, colorScheme] of LOOKS) {
  it(`at ${width} px, ${colorScheme}: everything fits, and axe finds nothing`, async () => {
    const context = await browser.newContext({ viewport: { width, height: 740 }, colorScheme });
    const page = await context.newPage();
    await page.goto(`${coordinator.origin}/account`);
    await page.getByLabel('API key').waitFor();
    await assertClean(page, 'signed out');
    await page.getByLabel('API key').fill(coordinator.key);
    await page.getByLabel('API key').press('Enter');
    await page.getByText('play money', { exact: true }).first().waitFor();
    await page.getByText('may do everything').first().waitFor();
    await page.getByText('Statement, with receipts').click();
    await page.getByText('To begin with').waitFor();
    const panel = page.getByRole('region', { name: 'Sub-accounts' });
    if (!(await panel.getByRole('button', { name: 'Open Ann' }).count())) {
      await panel.getByLabel('Name of the sub-account').fill('Ann');
      await panel.getByLabel('Your own number for it').fill('user 7');
      await panel.getByRole('button', { name: 'Make the sub-account' }).click();
    } else {
      await panel.getByRole('button', { name: 'Open Ann' }).click();
    }
    await panel.getByRole('list', { name: 'Keys of Ann' }).getByText('may do everything').waitFor();
    await page.getByText('RAVEN').first().waitFor();
    await assertClean(page, 'signed in');
    await shot(page, `account-${width}-${colorScheme}`);
    // The same tab is signed in on the other page, until it signs out.
    await page.goto(`${coordinator.origin}/partner`);
    await page.getByText('This key has no site yet').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.goto(`${coordinator.origin}/account`);
    await page.getByLabel('API key').waitFor();
  });
}

it('keeps whoever is signed in while the coordinator has trouble, and signs out whose key is over', async () => {
  const live = await liveAccount(coordinator, 1_000_000_000_000);
  const page = await signedIn(live.key);
  const route = '**/v1/account';
  const detail = 'The disk is busy.';
  await page.route(route, (asked) => asked.fulfill({ status: 503, contentType: 'application/problem+json', body: JSON.stringify({ detail }) }));
  await page.reload();
  await page.getByRole('alert').getByText(detail).waitFor();
  await assertClean(page, 'in trouble');
  assert.equal(await page.getByLabel('API key').count(), 0);
  await page.unroute(route);
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.getByRole('heading', { name: 'Keys', exact: true }).waitFor();
  await page.route(route, (asked) => asked.fulfill({ status: 401, contentType: 'application/problem+json', body: JSON.stringify({ detail }) }));
  await page.reload();
  await page.getByLabel('API key').waitFor();
  await page.unroute(route);
  await page.reload();
  await page.getByLabel('API key').waitFor();
});
