// An account without mail and without a key: by a passkey of Chromium's own authenticator in software.
import assert from 'node:assert/strict';
import { after, afterEach, before, it } from 'node:test';
import { launch } from './lib/browser.mjs';
import { Visitor } from './lib/contributor.mjs';
import { Coordinator } from './lib/coordinator.mjs';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { assertClean, LOOKS, shot } from './lib/look.mjs';
import { serveStatic } from './lib/static.mjs';
import { article } from './lib/world.mjs';

let coordinator;
/** Passkeys are made for names, so that browsers come to the same coordinator by one. */
let place;
let browser;
before(async () => {
  const flags = (port) => ['--origin', `http://localhost:${port}`, '--passkey-sign-up', 'yes', '--sign-ups-per-network', '100'];
  coordinator = await Coordinator.start({ name: 'passkey', flags });
  place = `http://localhost:${coordinator.port}`;
  browser = await launch();
});
afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
});
after(async () => {
  await browser?.close();
  await coordinator?.stop();
});

/** Gives a page's browser an authenticator that knows its user. */
async function authenticator(page) {
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('WebAuthn.enable', { enableUI: false });
  const options = { protocol: 'ctap2', transport: 'internal', hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true };
  const { authenticatorId } = await devtools.send('WebAuthn.addVirtualAuthenticator', { options });
  return {
    add: async (more) => (await devtools.send('WebAuthn.addVirtualAuthenticator', { options: { ...options, ...more } })).authenticatorId,
    answers: (enabled, id = authenticatorId) => devtools.send('WebAuthn.setAutomaticPresenceSimulation', { authenticatorId: id, enabled }),
    verifies: (isUserVerified) => devtools.send('WebAuthn.setUserVerified', { authenticatorId, isUserVerified }),
    passkeys: async () => (await devtools.send('WebAuthn.getCredentials', { authenticatorId })).credentials,
  };
}

async function open(path, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const device = await authenticator(page);
  await page.goto(place + path);
  return { page, device };
}

/** Makes an account of play money on the page of that; answers its key. */
async function signUp(page) {
  await page.getByRole('form', { name: 'Sign up with a passkey' }).getByLabel('Name').fill('Ann');
  await page.getByRole('button', { name: 'Make a passkey and my account' }).click();
  await page.getByText('shown this once').waitFor();
  return (await page.getByLabel('the API key', { exact: true }).textContent()).trim();
}

async function signIn(page) {
  await page.getByRole('button', { name: 'Use a passkey' }).click();
  await page.getByRole('list', { name: 'Passkeys' }).waitFor();
}

const keptKey = (page) => page.evaluate(() => sessionStorage.getItem('raven-key'));
const ask = (key, path) => fetch(coordinator.origin + path, { headers: { authorization: `Bearer ${key}` } });

for (const [width, colorScheme] of LOOKS) {
  it(`signs up, out and in, at ${width} px, ${colorScheme}`, async () => {
    const { page, device } = await open('/sign-up', { viewport: { width, height: 740 }, colorScheme });
    const look = async (name) => {
      await assertClean(page, name);
      await shot(page, `passkey-${name}-${width}-${colorScheme}`);
    };
    await page.getByRole('heading', { name: 'Sign up with a passkey' }).waitFor();
    assert.equal(await page.getByText('by mail').count(), 0, 'nothing is offered that is not to be had');
    await look('sign-up');
    const key = await signUp(page);
    await look('made');
    assert.match(key, /^rk_test_/);
    const [{ rpId, isResidentCredential }] = await device.passkeys();
    assert.deepEqual([rpId, isResidentCredential], ['localhost', true]);
    const own = await (await ask(key, '/v1/account')).json();
    assert.equal(own.balance.available_nano_usd, 1_000_000_000_000);
    await page.getByRole('link', { name: 'the account' }).click();
    await page.getByRole('button', { name: 'Use a passkey' }).waitFor();
    await look('sign-in');
    await signIn(page);
    await page.getByText('$1,000.00').first().waitFor();
    await page.getByText('Signed in with a passkey').waitFor();
    await look('account');
    const session = await keptKey(page);
    assert.equal((await (await ask(session, '/v1/account')).json()).account, own.account);
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('button', { name: 'Use a passkey' }).waitFor();
    assert.equal(await keptKey(page), null);
    await assert.doesNotReject(async () => {
      for (let tries = 0; (await ask(session, '/v1/account')).status !== 401; tries += 1) {
        if (tries === 50) throw new Error('the key of the visit still holds');
        await page.waitForTimeout(100);
      }
    });
    await signIn(page);
  });
}

it('gives a key that lasts, keeps the last passkey, and says why it does not come in', async () => {
  const { page, device } = await open('/sign-up');
  await signUp(page);
  await page.goto(`${place}/account`);
  await signIn(page);
  const lasting = page.getByRole('form', { name: 'A key that lasts' });
  await lasting.getByLabel('Name of the key').fill('build server');
  await lasting.getByRole('button', { name: 'Make a key that lasts' }).click();
  const key = (await page.getByLabel('the key that lasts', { exact: true }).textContent()).trim();
  const { keys } = await (await ask(key, '/v1/keys')).json();
  assert.ok(keys.some(({ name, expires_at: end }) => name === 'build server' && end === null), JSON.stringify(keys));
  await page.getByRole('list', { name: 'Keys', exact: true }).getByText('build server').waitFor();
  await page.getByRole('button', { name: 'Remove Ann …' }).click();
  await page.getByText('Keys that it gave stay: build server').waitFor();
  await assertClean(page, 'a passkey that is about to be removed', ['label-content-name-mismatch']);
  await page.getByRole('button', { name: 'Remove for good: Ann' }).click();
  await page.getByRole('alert').getByText('last passkey').waitFor();
  // What is made here ends with the visit, and says so.
  const made = page.getByRole('form', { name: 'Another key' });
  await made.getByText('no key that you make here holds longer').waitFor();
  await made.getByLabel('Name').fill('for today');
  await made.getByRole('button', { name: 'Make the key' }).click();
  await made.getByText('It ends').waitFor();
  const sub = page.getByRole('form', { name: 'Another sub-account' });
  await sub.getByLabel('Name of the sub-account').fill('Ben');
  await sub.getByRole('button', { name: 'Make the sub-account' }).click();
  await sub.getByText('It ends').waitFor();
  await page.getByRole('region', { name: 'Ben' }).getByText('play money').first().waitFor();
  await assertClean(page, 'what ends with the visit');
  // This device has one of the account, so that it makes no second.
  const another = page.getByRole('form', { name: 'Another passkey' });
  await another.getByLabel('Name of the passkey').fill('the same device');
  await another.getByRole('button', { name: 'Add a passkey' }).click();
  await another.getByRole('alert').getByText('has a passkey of the account already').waitFor();
  await assertClean(page, 'refused');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await device.verifies(false);
  await page.getByRole('button', { name: 'Use a passkey' }).click();
  await page.getByRole('alert').getByText('No passkey was used').waitFor();
  await assertClean(page, 'not verified');
});

it('is added by another one, which is asked for its word, and stays when that is removed', async () => {
  const { page, device } = await open('/sign-up');
  await signUp(page);
  await page.goto(`${place}/account`);
  await signIn(page);
  // A second device, which makes the new one while the first is not touched.
  const second = await device.add({ transport: 'usb' });
  await device.answers(false, second);
  const asked = [];
  await page.exposeFunction('askedFor', async (what) => {
    asked.push(what);
    await device.answers(what === 'get');
    await device.answers(what === 'create', second);
  });
  await page.evaluate(() => {
    for (const what of ['get', 'create']) {
      const ask = navigator.credentials[what].bind(navigator.credentials);
      navigator.credentials[what] = async (options) => {
        await globalThis.askedFor(what);
        return ask(options);
      };
    }
  });
  const another = page.getByRole('form', { name: 'Another passkey' });
  await another.getByLabel('Name of the passkey').fill('stick');
  await another.getByRole('button', { name: 'Add a passkey' }).click();
  const list = page.getByRole('list', { name: 'Passkeys' });
  await list.getByText('confirmed by the passkey Ann').waitFor();
  assert.deepEqual(asked, ['get', 'create']);
  await list.getByRole('button', { name: 'Remove Ann …' }).click();
  await list.getByText('Passkeys that it confirmed stay: stick').waitFor();
  await assertClean(page, 'a passkey that has confirmed another one');
});

it('is added to an account by its key, which removes it again', async () => {
  const { page } = await open('/account');
  await page.getByLabel('API key').fill(coordinator.key);
  await page.getByRole('button', { name: 'Sign in' }).click();
  const another = page.getByRole('form', { name: 'Another passkey' });
  await another.getByLabel('Name of the passkey').fill('work laptop');
  await another.getByRole('button', { name: 'Add a passkey' }).click();
  const list = page.getByRole('list', { name: 'Passkeys' });
  await list.getByText('work laptop').waitFor();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await signIn(page);
  const { account } = await coordinator.json('GET', '/v1/account');
  assert.equal((await (await ask(await keptKey(page), '/v1/account')).json()).account, account);
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel('API key').fill(coordinator.key);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('button', { name: 'Remove work laptop …' }).click();
  await page.getByRole('button', { name: 'Remove for good: work laptop' }).click();
  await list.waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('button', { name: 'Use a passkey' }).click();
  await page.getByRole('alert').getByText('no account has this passkey').waitFor();
});

it('collects what a browser has earned, and links what it earns, to the account', async () => {
  const partner = await serveStatic({ mounts: {} });
  try {
    const origin = `http://localhost:${partner.port}`;
    const site = await coordinator.json('POST', '/v1/sites', { name: 'Near News', origins: [origin] });
    partner.routes['/'] = article(site.snippet);
    const dataset = await uploadDigits(coordinator);
    const job = await coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 400, name: 'digits' }));
    const visitor = await Visitor.open(browser, origin);
    await visitor.accept(50);
    await visitor.card.locator('#raven-keep:visible').waitFor({ timeout: 30_000 });
    const opened = visitor.context.waitForEvent('page');
    await visitor.card.locator('#raven-keep').click();
    const page = await opened;
    const link = page.url();
    await authenticator(page);
    await page.goto(`${place}/sign-up`);
    const key = await signUp(page);
    await page.goto(link);
    await page.getByRole('heading', { name: 'In your account' }).waitFor();
    for (const [width, colorScheme] of LOOKS) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 740 });
      await assertClean(page, `to collect at ${width} px, ${colorScheme}`);
      await shot(page, `passkey-collect-${width}-${colorScheme}`);
    }
    await page.getByRole('button', { name: 'Collect it with a passkey' }).click();
    await page.getByText('All play money that this wallet earns goes to the account').waitFor();
    await coordinator.api('POST', `/v1/jobs/${job.id}/cancel`);
    // It ends as any link does, and is made again with as little.
    await page.getByRole('button', { name: 'End that' }).click();
    const move = page.getByRole('form', { name: 'Move to an account' });
    await move.getByLabel('All, and what I earn').check();
    await move.getByRole('button', { name: 'Use a passkey' }).click();
    const { account } = await (await ask(key, '/v1/account')).json();
    await move.getByText(account).waitFor();
    assert.equal(await move.getByLabel('API key').count(), 0, 'none is asked for');
    for (const [width, colorScheme] of LOOKS) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 740 });
      await assertClean(page, `to link at ${width} px, ${colorScheme}`);
      await shot(page, `passkey-link-${width}-${colorScheme}`);
    }
    await move.getByRole('button', { name: 'Link the account' }).click();
    await page.getByText('Since').getByText(account).waitFor();
    const { links } = await (await ask(key, '/v1/account/links')).json();
    assert.equal(links[0].account, account);
  } finally {
    await partner.close();
  }
});
