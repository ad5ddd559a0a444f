// An account for somebody: from the form through the mail to a key that works.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, it } from 'node:test';
import { launch } from './lib/browser.mjs';
import { Coordinator } from './lib/coordinator.mjs';
import { assertClean, LOOKS, shot } from './lib/look.mjs';
import { until } from './lib/world.mjs';

let mail;
let coordinator;
/** One whose operator makes the accounts. */
let closed;
let browser;
before(async () => {
  mail = mkdtempSync(join(tmpdir(), 'raven-mail-'));
  coordinator = await Coordinator.start({ name: 'sign-up', flags: () => ['--mail-folder', mail, '--sign-ups-per-network', '100'] });
  closed = await Coordinator.start({ name: 'sign-up-closed' });
  browser = await launch();
});
afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
});
after(async () => {
  await browser?.close();
  await coordinator?.stop();
  await closed?.stop();
  rmSync(mail, { recursive: true, force: true });
});

/** The link of the newest message to an address. */
async function linkTo(address) {
  const find = () =>
    readdirSync(mail)
      .sort()
      .map((file) => readFileSync(join(mail, file), 'utf8'))
      .filter((message) => message.startsWith(`To: ${address}\r\n`))
      .at(-1)
      ?.match(/http\S+su_\w+/)?.[0];
  return until(find, `a message to ${address}`);
}

async function open(options = {}, at = coordinator) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(`${at.origin}/sign-up`);
  return page;
}

async function ask(page, address) {
  await page.getByLabel('E-mail address').fill(address);
  await page.getByLabel('E-mail address').press('Enter');
  await page.getByRole('heading', { name: 'Look into your mail' }).waitFor();
}

const account = (key) => fetch(`${coordinator.origin}/v1/account`, { headers: { authorization: `Bearer ${key}` } });

for (const [width, colorScheme] of LOOKS) {
  it(`leads from an address to a key, at ${width} px, ${colorScheme}`, async () => {
    const page = await open({ viewport: { width, height: 740 }, colorScheme });
    const look = async (name) => {
      await assertClean(page, name);
      await shot(page, `sign-up-${name}-${width}-${colorScheme}`);
    };
    await page.getByLabel('E-mail address').waitFor();
    await look('form');
    const address = `ann-${width}-${colorScheme}@example.org`;
    await ask(page, address);
    await look('sent');
    await page.goto(await linkTo(address));
    await page.getByRole('heading', { name: 'One more press' }).waitFor();
    assert.match(page.url(), /\/sign-up#su_/, 'the token is where no server sees it');
    await look('followed');
    await page.getByRole('button', { name: 'Make my account' }).click();
    await page.getByText('shown this once').waitFor();
    assert.ok(!page.url().includes('su_'), page.url());
    await look('made');
    const key = (await page.getByLabel('the API key', { exact: true }).textContent()).trim();
    assert.match(key, /^rk_test_/);
    const has = await account(key);
    assert.equal((await has.json()).balance.available_nano_usd, 1_000_000_000_000);
    await page.reload();
    await page.getByLabel('E-mail address').waitFor();
    assert.ok(!(await page.content()).includes(key), 'a reload shows it no more');
  });
}

it('copies, and gives the account back by the code', async () => {
  const page = await open({ permissions: ['clipboard-read', 'clipboard-write'] });
  await page.getByLabel('Real money').check();
  await ask(page, 'ben@example.org');
  await page.goto(await linkTo('ben@example.org'));
  await page.getByRole('button', { name: 'Make my account' }).click();
  await page.getByRole('button', { name: 'Copy the API key' }).click();
  await page.getByText('Copied').waitFor();
  const key = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(key, /^rk_live_/);
  const code = (await page.getByLabel('the recovery code', { exact: true }).textContent()).trim();
  assert.equal((await account(key)).status, 200);
  await page.getByRole('link', { name: 'the account' }).click();
  await page.getByRole('link', { name: 'get your account back' }).click();
  await page.getByLabel('Recovery code').fill('rr_wrong');
  await page.getByRole('button', { name: 'Give me the account back' }).click();
  await page.getByRole('alert').waitFor();
  await page.getByLabel('Recovery code').fill(code);
  await page.getByRole('button', { name: 'Give me the account back' }).click();
  await page.getByRole('heading', { name: 'The account is yours again' }).waitFor();
  await assertClean(page, 'recovered');
  const next = (await page.getByLabel('the API key', { exact: true }).textContent()).trim();
  assert.deepEqual([(await account(key)).status, (await account(next)).status], [401, 200]);
});

it('says in words what is wrong', async () => {
  const page = await open();
  await page.getByLabel('E-mail address').fill('a@b@c.org');
  await page.locator('form', { hasText: 'E-mail' }).evaluate((form) => (form.noValidate = true));
  await page.getByRole('button', { name: 'Send me the link' }).click();
  await page.getByRole('alert').getByText('email').waitFor();
  assert.equal(await page.getByLabel('E-mail address').getAttribute('aria-invalid'), 'true');
  await ask(page, 'cat@example.org');
  const link = await linkTo('cat@example.org');
  // One mistyped letter, a link of another's, and one that was used.
  await page.goto(`${coordinator.origin}/sign-up#su_nonsense`);
  await page.getByRole('button', { name: 'Make my account' }).click();
  await page.getByRole('alert').waitFor();
  await page.getByRole('link', { name: 'Ask for another link' }).waitFor();
  await page.goto(link);
  await page.getByRole('button', { name: 'Make my account' }).click();
  await page.getByText('shown this once').waitFor();
  const key = (await page.getByLabel('the API key', { exact: true }).textContent()).trim();
  assert.equal((await account(key)).status, 200);
  await page.goto('about:blank');
  await page.goto(link);
  await page.getByRole('button', { name: 'Make my account' }).click();
  await page.getByRole('alert').getByText('was used').waitFor();
  await assertClean(page, 'refused');
  const other = await open({}, closed);
  await other.getByText('Nobody can sign up by mail here').waitFor();
  assert.equal(await other.getByLabel('E-mail address').count(), 0);
  await assertClean(other, 'closed');
});
