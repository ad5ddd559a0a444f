// A coordinator for which no pages were built still has the one that a link of sign-up shows.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { launch } from './lib/browser.mjs';
import { Coordinator } from './lib/coordinator.mjs';
import { assertClean, LOOKS, shot } from './lib/look.mjs';
import { until } from './lib/world.mjs';

let mail;
let coordinator;
let browser;
before(async () => {
  mail = mkdtempSync(join(tmpdir(), 'raven-mail-'));
  coordinator = await Coordinator.start({ name: 'plain', www: null, flags: () => ['--mail-folder', mail, '--sign-ups-per-network', '100'] });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await coordinator?.stop();
  rmSync(mail, { recursive: true, force: true });
});

/** The link in the message to an address that asks for an account. */
async function linkTo(email) {
  const response = await fetch(`${coordinator.origin}/v1/sign-up`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ email }),
  });
  assert.equal(response.status, 202);
  const find = () =>
    readdirSync(mail)
      .map((file) => readFileSync(join(mail, file), 'utf8'))
      .find((message) => message.startsWith(`To: ${email}\r\n`))
      ?.match(/http\S+su_\w+/)?.[0];
  return until(find, `a message to ${email}`);
}

for (const [width, colorScheme] of LOOKS) {
  it(`at ${width} px, ${colorScheme}: a link leads to a button, axe finds nothing, and the button makes the account`, async () => {
    const context = await browser.newContext({ viewport: { width, height: 740 }, colorScheme });
    const page = await context.newPage();
    await page.goto(await linkTo(`ann-${width}-${colorScheme}@example.org`));
    await page.getByRole('heading', { name: 'Sign up' }).waitFor();
    await assertClean(page, 'the built-in page');
    await shot(page, `plain-${width}-${colorScheme}`);
    const [made] = await Promise.all([page.waitForResponse((response) => response.status() === 201), page.getByRole('button', { name: 'Make my account' }).click()]);
    const { key } = await made.json();
    const account = await fetch(`${coordinator.origin}/v1/account`, { headers: { authorization: `Bearer ${key}` } });
    assert.equal(account.status, 200);
    await context.close();
  });
}
