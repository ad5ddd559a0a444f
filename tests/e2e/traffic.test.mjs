// What a visit moves is counted, shown, and never above its cap.
import assert from 'node:assert/strict';
import { after, afterEach, before, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { Visitor } from './lib/contributor.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { World } from './lib/world.mjs';

const CAP_MB = 3;
const CAP_BYTES = CAP_MB * 1e6;

let world;
let dataset;
before(async () => {
  world = await World.start('traffic', { visitMb: CAP_MB });
  dataset = await uploadDigits(world.coordinator);
});
afterEach(() => world.clear());
after(() => world?.stop());

/** Bytes of WebSocket frames, both ways, as the coordinator counts them. */
async function socketBytes() {
  const text = await (await fetch(`${world.coordinator.origin}/metrics`)).text();
  const count = (name) => Number(text.match(new RegExp(`^${name} (\\d+)`, 'm'))?.[1]);
  return count('raven_frame_bytes_in_total') + count('raven_frame_bytes_out_total');
}

/** Requests of a visitor's hubs and workers, as they end. */
function record(context) {
  const requests = [];
  context.on('requestfinished', (request) => {
    if (/\/v1\/blobs\/|\/kernel\/|kernel-worker|hub\.js/.test(request.url())) requests.push(request);
  });
  return requests;
}

/** Bytes of answers, as their heads announce them: the browser forgets the sizes with the page. */
const sum = async (requests) => {
  const sizes = await Promise.all(requests.map(async (request) => {
    const response = await request.response();
    const head = Object.entries(response.headers()).reduce((all, [name, value]) => all + name.length + value.length + 4, 0);
    const body = Number(response.headers()['content-length']);
    assert.ok(body > 0, `${request.url()} announces its length`);
    return head + body;
  }));
  return sizes.reduce((all, size) => all + size, 0);
};

it(`a visit moves ${CAP_MB} MB at most, and says so`, async (t) => {
  await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 2000, name: 'endless' }));
  let requests = [];
  const visitor = await world.visitor({ prepare: (page) => void (requests = record(page.context())) });
  const before = await socketBytes();
  await visitor.accept(100);
  await visitor.until(({ tasks }) => tasks > 0, 'working');
  assert.match(await visitor.card.locator('#raven-traffic').textContent(), /^Traffic: [\d.]+ MB of 3 MB$/);
  await visitor.until(({ phase }) => phase === 'unavailable', 'at its cap', 60_000);
  assert.match(await visitor.card.locator('#raven-over-text').textContent(), /no work that fits/);
  await world.counts(0);
  const sockets = (await socketBytes()) - before;
  const http = await sum(requests);
  t.diagnostic(`${sockets} bytes by socket and ${http} by HTTP, the cap is ${CAP_BYTES}`);
  assert.ok(sockets + http <= CAP_BYTES, `${sockets + http} bytes moved`);
  assert.ok(sockets + http > CAP_BYTES * 0.6, 'most of what was allowed was used');

  // Another yes on the same page belongs to the same visit.
  await visitor.card.locator('#raven-again').click();
  await visitor.card.locator('#raven-yes').click();
  await visitor.until(({ phase }) => phase === 'unavailable', 'still at its cap');
  assert.equal((await socketBytes()) - before, sockets, 'nothing more is moved');
  await visitor.close();
});

it('and stays below over its pages and tabs, left in the middle of their work', async (t) => {
  // A page of the same site as the coordinator, whose frame has storage in private windows too.
  const origin = `http://127.0.0.1:${world.partner.port}`;
  const site = await world.coordinator.json('POST', '/v1/sites', { name: 'Near News', origins: [origin] });
  world.partner.routes['/near'] = world.partner.routes['/'].replace(world.site.site_key, site.site_key);
  await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 2000, name: 'endless' }));
  const profile = await world.browser.newContext();
  const requests = record(profile);
  const before = await socketBytes();
  const first = await Visitor.tab(profile, `${origin}/near`);
  await first.accept(100);
  const goesOn = ({ phase, tasks }) => (phase === 'working' && tasks > 0) || phase === 'unavailable';
  await first.until(goesOn, 'working');
  for (const query of ['?second', '?third']) {
    await first.page.goto(`${origin}/near${query}`);
    await first.until(goesOn, `working on ${query}`);
  }
  // Another tab takes over in the middle.
  const second = await Visitor.tab(profile, `${origin}/near?tab`);
  await first.hide();
  await second.until(({ phase }) => phase === 'unavailable', 'at its cap', 60_000);
  assert.match(await second.card.locator('#raven-over-text').textContent(), /no work that fits/);
  await first.hide(false);
  await first.until(({ phase }) => phase === 'unavailable', 'at the same cap', 10_000);
  await world.counts(0);

  const sockets = (await socketBytes()) - before;
  // What came once comes from the browser's cache on the next page.
  const http = await sum([...new Map(requests.reverse().map((request) => [request.url(), request])).values()]);
  t.diagnostic(`${sockets} bytes by socket and ${http} by HTTP over four pages, the cap is ${CAP_BYTES}`);
  assert.ok(sockets + http <= CAP_BYTES, `${sockets + http} bytes moved`);
});
