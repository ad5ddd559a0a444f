import assert from 'node:assert/strict';
import { test } from 'node:test';
import { embedPhase, next, viewWidth, type Event, type View } from '../src/frame/state.ts';
import { liveText, overText, taskCount } from '../src/frame/text.ts';
import { ticketIn } from '../src/hub/ticket.ts';
import { envelope, readToFrame, readToLoader } from '../src/shared/embed-port.ts';

test('messages come through their envelope', () => {
  assert.deepEqual(readToFrame(envelope({ type: 'visibility', visible: false })), { type: 'visibility', visible: false });
  assert.deepEqual(readToLoader(envelope({ type: 'resize', width: 300, height: 99.2 })), {
    type: 'resize',
    width: 300,
    height: 100,
  });
  const state = { type: 'state', phase: 'working', tasks: 7 } as const;
  assert.deepEqual(readToLoader(envelope(state)), state);
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
  ];
  for (const data of strangers) {
    assert.equal(readToFrame(data), undefined, JSON.stringify(data));
    assert.equal(readToLoader(data), undefined, JSON.stringify(data));
  }
});

function run(...events: Event[]): View {
  return events.reduce<View>(next, { at: 'chip' });
}

test('the card is asked for, answered, and can be asked for again', () => {
  assert.equal(run({ type: 'open' }).at, 'card');
  assert.equal(run({ type: 'open' }, { type: 'not_now' }).at, 'icon');
  assert.equal(run({ type: 'open' }, { type: 'not_now' }, { type: 'open' }).at, 'card');
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
  assert.match(failed.at === 'over' ? overText(failed.phase, 0) : '', /reload/);
});

test('the page learns the phase only', () => {
  assert.equal(embedPhase({ at: 'card' }), 'asking');
  assert.equal(embedPhase({ at: 'icon' }), 'stopped');
  assert.equal(embedPhase({ at: 'live', phase: { name: 'waiting', full: true }, tasks: 0 }), 'starting');
  assert.equal(embedPhase({ at: 'live', phase: { name: 'paused' }, tasks: 0 }), 'paused');
  assert.ok(viewWidth({ at: 'card' }) >= 320);
});

test('sentences', () => {
  assert.equal(liveText({ name: 'paused' }, 'battery'), 'Paused: on battery');
  assert.equal(liveText({ name: 'waiting', full: true }, undefined), 'Waiting for a place');
  assert.equal(taskCount(1), '1 task done');
  assert.equal(taskCount(1_234), '1,234 tasks done');
});

test('a ticket is found in the page and nowhere else', () => {
  const page = (value: string): string => `<meta charset="utf-8">\n<meta name="raven-ticket" content="${value}">`;
  assert.equal(ticketIn(page('site_00ff.1700000000.abcDEF09')), 'site_00ff.1700000000.abcDEF09');
  assert.equal(ticketIn(page('')), undefined);
  assert.equal(ticketIn(page('a&quot;b')), undefined);
  assert.equal(ticketIn(page('x'.repeat(600))), undefined);
  assert.equal(ticketIn('<title>No</title>'), undefined);
});
