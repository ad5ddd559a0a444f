// A page that opens to visitors who have computed enough: the tag hands out a token, the site's server has it checked.
import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { uploadDigits } from './lib/data.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { until, World } from './lib/world.mjs';

/** Verified calculations that the page wants. */
const WANTED = 3;

let world;
before(async () => {
  world = await World.start('unlock');
});
after(() => world?.stop());

const check = (token) => world.coordinator.json('POST', `/v1/sites/${world.site.id}/work-tokens/check`, { token });
const wish = (visitor) => visitor.page.evaluate(() => globalThis.raven.workToken().then((token) => ({ token }), ({ reason }) => ({ reason })));

it('unlocks after so many verified calculations, and not by a token that was tampered with', async () => {
  const visitor = await world.visitor();
  const answers = [];
  // The site's own server.
  await visitor.page.route('**/unlock', async (route) => {
    const answer = await check(route.request().postData());
    answers.push(answer);
    const isEnough = answer.valid && answer.work.visit_calculations >= WANTED;
    await route.fulfill({ status: isEnough ? 200 : 403, body: isEnough ? 'the rest of the story' : '' });
  });
  await visitor.card.locator('#raven-open').waitFor();
  assert.deepEqual(await wish(visitor), { reason: 'not_lending' }, 'nobody has agreed');
  await visitor.accept(100);
  await visitor.contributing();
  const unlock = () => visitor.page.evaluate(async () => {
    const answer = await fetch('/unlock', { method: 'POST', body: await globalThis.raven.workToken() });
    return answer.status === 200 ? answer.text() : '';
  });
  assert.equal(await unlock(), '', 'nothing was computed yet');
  const dataset = await uploadDigits(world.coordinator);
  await world.coordinator.json('POST', '/v1/jobs', digitsJob(dataset.id, { epochs: 2_000, batch: 512, name: 'endless' }));
  const story = await until(unlock, 'unlocked', 60_000);
  assert.equal(story, 'the rest of the story');
  assert.equal(answers[0].work.visit_calculations, 0);
  assert.equal(answers.at(-1).work.site, world.site.id);
  assert.deepEqual(new Set(answers.map(({ work }) => work.visitor)).size, 1, 'one visitor');

  const { token } = await wish(visitor);
  const [prefix, body, signature] = token.split('.');
  const work = JSON.parse(Buffer.from(body, 'hex').toString());
  const more = Buffer.from(JSON.stringify({ ...work, visit_calculations: 1_000_000 })).toString('hex');
  assert.equal((await check([prefix, more, signature].join('.'))).reason, 'tampered');
  assert.equal((await check(token)).valid, true);

  await visitor.stop();
  await visitor.until(({ phase }) => phase === 'stopped', 'stopped');
  assert.deepEqual(await wish(visitor), { reason: 'not_lending' });
});
