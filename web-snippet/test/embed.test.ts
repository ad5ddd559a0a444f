import assert from 'node:assert/strict';
import { test } from 'node:test';
import { embedPhase, next, viewWidth, type Event, type View } from '../src/frame/state.ts';
import { offeredShare } from '../src/frame/pauses.ts';
import { Text } from '../src/frame/text.ts';
import { messages as english } from '../src/frame/text/en.ts';
import { renewTicket, ticketIn } from '../src/hub/ticket.ts';
import { envelope, readToFrame, readToLoader } from '../src/shared/embed-port.ts';

const text = new Text({ language: 'en', messages: english });

test('messages come through their envelope', () => {
  assert.deepEqual(readToFrame(envelope({ type: 'visibility', visible: false })), { type: 'visibility', visible: false });
  assert.deepEqual(readToLoader(envelope({ type: 'resize', width: 300, height: 99.2 })), {
    type: 'resize',
    width: 300,
    height: 100,
  });
  const state = { type: 'state', phase: 'working', tasks: 7 } as const;
  assert.deepEqual(readToLoader(envelope(state)), state);
  const answer = { type: 'answer', answer: 'never' } as const;
  assert.deepEqual(readToLoader(envelope(answer)), answer);
  const hello = { type: 'hello', quiet: true, forget: true, asked: true } as const;
  assert.deepEqual(readToFrame(envelope(hello)), hello);
  assert.deepEqual(readToFrame({ raven: 1, type: 'hello' }), { type: 'hello', quiet: false, forget: false, asked: false }, 'from a loader of before');
  assert.deepEqual(readToFrame(envelope({ type: 'forget' })), { type: 'forget' });
  assert.deepEqual(readToLoader(envelope({ type: 'forgotten' })), { type: 'forgotten' });
  const wish = { type: 'work_token', id: 3 } as const;
  assert.deepEqual(readToFrame(envelope(wish)), wish);
  for (const answer of [{ ...wish, token: 'wt1.00ff.ab' }, { ...wish, refusal: 'refused' }, { ...wish, refusal: 'not_lending' }] as const) {
    assert.deepEqual(readToLoader(envelope(answer)), answer);
  }
});

test('anything else is ignored', () => {
  const strangers: unknown[] = [
    undefined,
    null,
    'stop',
    7,
    [],
    {},
    { type: 'stop' },
    { raven: 2, type: 'stop' },
    { raven: '1', type: 'stop' },
    { raven: 1 },
    { raven: 1, type: 'visibility', visible: 'yes' },
    { raven: 1, type: 'resize', width: 0, height: 10 },
    { raven: 1, type: 'resize', width: 1e9, height: 10 },
    { raven: 1, type: 'resize', width: Number.NaN, height: 10 },
    { raven: 1, type: 'state', phase: 'constructor', tasks: 1 },
    { raven: 1, type: 'state', phase: 'working', tasks: -1 },
    { raven: 1, type: 'answer', answer: 'maybe' },
    { raven: 1, type: 'answer' },
    { raven: 1, type: 'work_token', id: -1 },
    { raven: 1, type: 'work_token', id: '1', token: 'wt1.ab.cd' },
    { raven: 1, type: 'work_token', token: 'wt1.ab.cd' },
  ];
  for (const data of strangers) {
    assert.equal(readToFrame(data), undefined, JSON.stringify(data));
    assert.equal(readToLoader(data), undefined, JSON.stringify(data));
  }
  for (const answer of [{}, { token: '<b>' }, { token: 'a'.repeat(2_049) }, { refusal: 'why' }]) {
    assert.equal(readToLoader({ raven: 1, type: 'work_token', id: 1, ...answer }), undefined, JSON.stringify(answer));
  }
});

function run(...events: Event[]): View {
  return events.reduce<View>(next, { at: 'chip' });
}

test('the card is asked for, answered, and can be asked for again', () => {
  assert.equal(run({ type: 'open' }).at, 'card');
  assert.equal(run({ type: 'open' }, { type: 'not_now' }).at, 'icon');
  assert.equal(run({ type: 'open' }, { type: 'not_now' }, { type: 'open' }).at, 'card');
  assert.equal(run({ type: 'open' }, { type: 'never' }).at, 'icon');
  assert.equal(run({ type: 'quiet' }).at, 'icon');
  assert.equal(run({ type: 'quiet' }, { type: 'open' }).at, 'card');
  assert.equal(run({ type: 'open' }, { type: 'quiet' }).at, 'card', 'an open card is not taken away');
  assert.equal(run({ type: 'open' }, { type: 'dismiss' }).at, 'chip');
  assert.equal(run({ type: 'open' }, { type: 'agree' }).at, 'live');
  const over = run(
    { type: 'open' },
    { type: 'agree' },
    { type: 'status', phase: { name: 'working' }, tasks: 4 },
    { type: 'stop' },
  );
  assert.deepEqual(over, { at: 'over', phase: { name: 'stopped' }, tasks: 4 });
  assert.equal(next(over, { type: 'close' }).at, 'icon');
});

test('nothing but the card leads to a yes, and a late status revives nothing', () => {
  assert.equal(run({ type: 'agree' }).at, 'chip');
  assert.equal(run({ type: 'open' }, { type: 'not_now' }, { type: 'agree' }).at, 'icon');
  const stopped = run({ type: 'open' }, { type: 'agree' }, { type: 'stop' });
  assert.equal(next(stopped, { type: 'status', phase: { name: 'working' }, tasks: 1 }), stopped);
});

test('a failure ends the work and is said', () => {
  const failed = run(
    { type: 'open' },
    { type: 'agree' },
    { type: 'status', phase: { name: 'failed', failure: 'incompatible', detail: '' }, tasks: 0 },
  );
  assert.equal(failed.at, 'over');
  assert.equal(embedPhase(failed), 'unavailable');
  assert.match(failed.at === 'over' ? text.over(failed.phase, 0) : '', /reload/);
});

test('the page learns the phase only', () => {
  assert.equal(embedPhase({ at: 'card' }), 'asking');
  assert.equal(embedPhase({ at: 'icon' }), 'stopped');
  assert.equal(embedPhase({ at: 'live', phase: { name: 'waiting', full: true }, tasks: 0 }), 'starting');
  assert.equal(embedPhase({ at: 'live', phase: { name: 'paused' }, tasks: 0 }), 'paused');
  assert.ok(viewWidth({ at: 'card' }) >= 320);
});

test('a smaller share is offered where the browser keeps the battery to itself', () => {
  const getBattery = (): void => undefined;
  const policy = (allowed: boolean) => ({ features: () => ['battery'], allowsFeature: (name: string) => name === 'battery' && allowed });
  // A browser that has no such rule answers no to whatever it is asked.
  const withoutRule = { features: () => ['camera'], allowsFeature: () => false };
  assert.equal(offeredShare({}), 0.1);
  assert.equal(offeredShare({ getBattery, featurePolicy: policy(false) }), 0.1);
  assert.equal(offeredShare({ getBattery, featurePolicy: policy(true) }), 0.2);
  assert.equal(offeredShare({ getBattery, featurePolicy: withoutRule }), 0.2);
  assert.equal(offeredShare({ getBattery }), 0.2);
});

test('a yes of an earlier page goes on without the card', () => {
  assert.equal(run({ type: 'recall' }).at, 'live');
  assert.equal(run({ type: 'open' }, { type: 'recall' }).at, 'card', 'a question that is being answered stays');
  const waiting = run({ type: 'recall' }, { type: 'status', phase: { name: 'elsewhere' }, tasks: 0 });
  assert.equal(embedPhase(waiting), 'paused');
  assert.equal(text.live({ name: 'elsewhere' }, undefined, 0.2), 'Working in another tab; this one uses 0%');
});

test('sentences', () => {
  assert.equal(text.live({ name: 'paused' }, 'battery', 0.2), 'Paused, using 0%: on battery');
  assert.equal(text.live({ name: 'waiting', full: true }, undefined, 0.2), 'Waiting for a place, using 0%');
  assert.equal(text.live({ name: 'idle' }, undefined, 0.2), 'Nothing to do, using 0%');
  assert.equal(text.live({ name: 'working' }, undefined, 0.2), 'Computing, using up to 20%');
  assert.equal(text.tasks(1_234), 'Tasks done: 1,234');
  assert.equal(text.traffic(1_340_000, 25_000_000), 'Traffic: 1.3 MB of 25 MB');
});

test('a ticket is found in the page and nowhere else', () => {
  const page = (value: string): string => `<meta charset="utf-8">\n<meta name="raven-ticket" content="${value}">`;
  assert.equal(ticketIn(page('site_00ff.1700000000.abcDEF09')), 'site_00ff.1700000000.abcDEF09');
  assert.equal(ticketIn(page('')), undefined);
  assert.equal(ticketIn(page('a&quot;b')), undefined);
  assert.equal(ticketIn(page('x'.repeat(600))), undefined);
  assert.equal(ticketIn('<title>No</title>'), undefined);
});

test('a ticket is renewed by showing the old one', async () => {
  const before = globalThis.fetch;
  const asked: Array<string | null> = [];
  globalThis.fetch = async (_input, init) => {
    asked.push(new Headers(init?.headers).get('raven-ticket'));
    return asked.length > 2 ? new Response('', { status: 404 }) : new Response('<meta name="raven-ticket" content="b.2">');
  };
  try {
    assert.equal(await renewTicket('http://c/frame', 'a.1'), 'b.2');
    assert.equal(await renewTicket('http://c/frame', ''), 'b.2');
    assert.equal(await renewTicket('http://c/frame', 'b.2'), undefined, 'e.g. of a page that is not the site’s any more');
  } finally {
    globalThis.fetch = before;
  }
  assert.deepEqual(asked, ['a.1', null, 'b.2']);
});
