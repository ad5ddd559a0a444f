// Pages with policies of their own, and pages that the tag cannot work on: each is told why, once.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { launch } from './lib/browser.mjs';
import { Visitor } from './lib/contributor.mjs';
import { article, World, until } from './lib/world.mjs';

/** The insecure partner: a name that is not of this machine, led here by the browser's flag. */
const STRANGER = 'partner.example';

let world;
let browser;
before(async () => {
  world = await World.start('policies');
  browser = await launch([`--host-resolver-rules=MAP ${STRANGER} 127.0.0.1`]);
});
afterEach(() => world.clear());
after(async () => {
  await browser?.close();
  await world?.stop();
});

/** Serves the article under a policy; `{coordinator}` in it stands for the coordinator's origin. */
function serve(path, policy, tag = world.site.snippet) {
  world.partner.routes[path] = {
    type: 'text/html; charset=utf-8',
    headers: policy ? { 'Content-Security-Policy': policy.replaceAll('{coordinator}', world.coordinator.origin) } : {},
    body: article(tag),
  };
}

/** Opens a page; `visitor.said` is what our tag and what the browser said in its console. */
async function open(url) {
  const said = [];
  const visitor = await Visitor.open(browser, url, {
    prepare: async (page) => {
      page.on('console', (message) => said.push(message.text()));
      await page.addInitScript(() => {
        globalThis.violations = [];
        document.addEventListener('securitypolicyviolation', ({ effectiveDirective, blockedURI }) => {
          globalThis.violations.push(`${effectiveDirective} ${blockedURI}`);
        });
      });
    },
  });
  visitor.said = said;
  return visitor;
}

const ours = (visitor) => visitor.said.filter((text) => text.startsWith('raven:'));

/** Waits for the tag's complaint; there must be one, and the page must hear of it. */
async function complaint(visitor) {
  await until(() => ours(visitor).length > 0, 'a word in the console', 15_000);
  await visitor.page.waitForTimeout(4_000);
  assert.equal(ours(visitor).length, 1, ours(visitor).join('\n'));
  assert.equal((await visitor.state()).phase, 'unavailable');
  const shown = await visitor.page.locator('iframe').evaluateAll((all) => all.filter((one) => one.checkVisibility({ visibilityProperty: true })).length);
  assert.equal(shown, 0, 'nothing is shown');
  return ours(visitor)[0];
}

describe('under a policy', () => {
  // The lines of PARTNERS.md, on a page that permits nothing else.
  const NEEDED = "default-src 'none'; script-src {coordinator}; frame-src {coordinator}";
  const STRICTER = `${NEEDED}; connect-src {coordinator}; require-trusted-types-for 'script'; trusted-types 'none'`;

  for (const [name, policy] of [['of the lines that it needs', NEEDED], ['of them and trusted types', STRICTER]]) {
    it(`${name}, the tag works`, async () => {
      serve('/strict', policy);
      const visitor = await open(`${world.origin}/strict`);
      await visitor.accept(50);
      await visitor.contributing();
      const violations = await visitor.page.evaluate(() => globalThis.violations);
      assert.deepEqual(violations.filter((text) => text.includes(world.coordinator.origin) || /style-src.* inline/.test(text)), []);
      assert.deepEqual(ours(visitor), []);
      await visitor.close();
    });
  }

  it('that names the pinned file by its hash alone, the tag works', async () => {
    const hash = world.site.snippet_pinned.match(/integrity="([^"]+)"/)[1];
    serve('/hash', `default-src 'none'; script-src '${hash}'; frame-src {coordinator}`, world.site.snippet_pinned);
    const visitor = await open(`${world.origin}/hash`);
    await visitor.card.locator('#raven-open').waitFor();
    await visitor.close();
  });

  for (const [name, policy] of [
    ['without frame-src', "default-src 'self'; script-src {coordinator}; connect-src {coordinator}"],
    ['with a frame-src of others', 'script-src {coordinator}; frame-src https://video.example'],
  ]) {
    it(`${name}, the console names the missing line`, async () => {
      serve('/no-frame', policy);
      const visitor = await open(`${world.origin}/no-frame`);
      assert.match(await complaint(visitor), new RegExp(`Add ${world.coordinator.origin} to its frame-src`));
      await visitor.close();
    });
  }

  it('without script-src, nothing of ours runs and the browser says so', async () => {
    serve('/no-script', "default-src 'self'");
    const visitor = await open(`${world.origin}/no-script`);
    await until(() => visitor.said.some((text) => text.includes('/embed/raven.js') && text.includes('Content Security Policy')), 'refused');
    assert.equal(await visitor.page.evaluate(() => typeof globalThis.raven), 'undefined');
    await visitor.close();
  });
});

describe('the console tells', () => {
  const tagWith = (key) => world.site.snippet.replace(world.site.site_key, key);

  it('that a site key is unknown', async () => {
    serve('/unknown', '', tagWith('pk_test_nobodyhasthis'));
    const visitor = await open(`${world.origin}/unknown`);
    assert.match(await complaint(visitor), /pk_test_nobodyhasthis is unknown to http/);
    await visitor.close();
  });

  it('that the page is not of a registered origin', async () => {
    const visitor = await open(`http://other.localhost:${world.partner.port}/`);
    assert.match(await complaint(visitor), /http:\/\/other\.localhost:\d+ is not one of the origins/);
    await visitor.close();
  });

  it('that it cannot even ask', async () => {
    serve('/mute', "script-src {coordinator}; frame-src {coordinator}; connect-src 'self'", tagWith('pk_test_nobodyhasthis'));
    const visitor = await open(`${world.origin}/mute`);
    assert.match(await complaint(visitor), /can't be asked why/);
    await visitor.close();
  });

  it('that a page without https cannot take part, and the coordinator is not asked for a frame', async () => {
    const origin = `http://${STRANGER}:${world.partner.port}`;
    const site = await world.coordinator.json('POST', '/v1/sites', { name: 'Insecure', origins: [origin] });
    serve('/insecure', '', site.snippet);
    const visitor = await open(`${origin}/insecure`);
    assert.match(await complaint(visitor), /needs https/);
    assert.equal(await visitor.page.locator('iframe').count(), 0);
    await visitor.close();
  });

  it('that the tag has no key', async () => {
    serve('/keyless', '', world.site.snippet.replace(/\?site=[^"]+/, ''));
    const visitor = await open(`${world.origin}/keyless`);
    await until(() => ours(visitor).length > 0, 'a word in the console');
    assert.match(ours(visitor)[0], /no \?site=pk_/);
    await visitor.close();
  });

  it('nothing where all is well', async () => {
    const visitor = await open(`${world.origin}/`);
    await visitor.card.locator('#raven-open').waitFor();
    await visitor.page.waitForTimeout(4_000);
    assert.deepEqual(visitor.said.filter((text) => /raven|embed/i.test(text)), []);
    await visitor.close();
  });
});
