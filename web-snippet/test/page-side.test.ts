import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import type { WorkTokenError } from '../src/public/api.ts';
import { PageSide } from '../src/public/page-side.ts';
import { TOKEN_MS_MAX } from '../src/public/tokens.ts';
import { envelope, type ToFrame, type ToLoader } from '../src/shared/embed-port.ts';
import { FakeElement, FakeObserver, fakeStorage, stub } from './fakes.ts';

const ORIGIN = 'https://c.example';
const TAG = { site: 'pk_test_x', origin: ORIGIN, frameUrl: `${ORIGIN}/embed/frame.html`, corner: 'right', waits: false } as const;

/** An iframe; what is sent to it is kept. */
class FakeFrame extends FakeElement {
  readonly sent: ToFrame[] = [];
  readonly window = { postMessage: (message: ToFrame) => void this.sent.push(message) };
  get contentWindow(): unknown {
    return this.isConnected ? this.window : null;
  }
}

interface Page {
  readonly side: PageSide;
  readonly frame: FakeFrame;
  readonly held: Map<string, string>;
  /** The frame's document has loaded. */
  load(): void;
  say(message: ToLoader): void;
  /** Types of what was sent since this was last asked, but for visibility. */
  heard(): string[];
}

let restore = (): void => undefined;
beforeEach(() => mock.timers.enable({ apis: ['setTimeout'] }));
afterEach(() => {
  mock.timers.reset();
  restore();
});

function open({ waits = false, held = new Map<string, string>() } = {}): Page {
  restore();
  const frame = new FakeFrame();
  const window = new EventTarget();
  const document = Object.assign(new EventTarget(), {
    readyState: 'complete',
    hidden: false,
    documentElement: new FakeElement(),
    createElement: () => frame,
    querySelector: () => null,
  });
  const { storage } = fakeStorage(held);
  restore = stub({ window, document, localStorage: storage, isSecureContext: true, MutationObserver: FakeObserver });
  const side = new PageSide({ ...TAG, waits });
  mock.timers.tick(50);
  return {
    side,
    frame,
    held,
    load: () => void frame.dispatchEvent(new Event('load')),
    say: (message) => void window.dispatchEvent(Object.assign(new Event('message'), { origin: ORIGIN, source: frame.window, data: envelope(message) })),
    heard: () => {
      const words = frame.sent.splice(0).filter(({ type }) => type !== 'visibility');
      return words.map((message) => (message.type === 'hello' && message.forget ? 'hello forget' : message.type));
    },
  };
}

/** A page whose visitor has agreed. */
function agreed(): Page {
  const page = open();
  page.load();
  page.say({ type: 'ready' });
  page.say({ type: 'answer', answer: 'yes' });
  page.say({ type: 'state', phase: 'working', tasks: 3 });
  assert.deepEqual(page.heard(), ['hello']);
  return page;
}

test('a withdrawal has the frame forget, and removes it once it has', () => {
  const page = agreed();
  page.side.consent(false);
  assert.deepEqual(page.heard(), ['forget']);
  assert.equal(page.side.state.phase, 'off');
  assert.equal(page.frame.style.display, 'none', 'out of sight at once');
  assert.ok(page.frame.isConnected);
  page.say({ type: 'state', phase: 'stopped', tasks: 3 });
  assert.equal(page.side.state.phase, 'off', 'it has nothing else to say');
  page.say({ type: 'forgotten' });
  assert.ok(!page.frame.isConnected);
  assert.equal(page.held.size, 0);

  page.side.consent(true);
  assert.equal(page.frame.style.display, 'block');
  page.load();
  assert.deepEqual(page.heard(), ['hello'], 'all is forgotten already');
});

test('a frame that does not confirm is removed all the same, and told again when it is back, on any page', () => {
  const page = agreed();
  page.side.consent(false);
  mock.timers.tick(1_000);
  assert.ok(!page.frame.isConnected);
  assert.match(page.held.get('raven') ?? '', /^withdrawn \d+$/);

  const next = open({ held: page.held });
  next.load();
  assert.deepEqual(next.heard(), ['hello forget']);
  next.say({ type: 'ready' });
  next.say({ type: 'forgotten' });
  assert.equal(next.held.size, 0);
  assert.ok(next.frame.isConnected, 'it may ask');
});

test('a withdrawal on a page without a frame is kept for the next one, and of those who never agreed nothing is', () => {
  const { held } = agreed();
  const rejecting = open({ waits: true, held });
  rejecting.side.consent(false);
  assert.ok(!rejecting.frame.isConnected, 'nothing is fetched');
  const next = open({ waits: true, held });
  next.side.consent(true);
  next.load();
  assert.deepEqual(next.heard(), ['hello forget']);

  const stranger = open({ waits: true });
  stranger.side.consent(false);
  assert.equal(stranger.held.size, 0);
});

test('consent that is given again at once starts a new frame, which forgets first', () => {
  const page = agreed();
  page.side.consent(false);
  page.side.consent(true);
  assert.ok(page.frame.isConnected);
  assert.equal(page.side.state.phase, 'asking');
  page.heard();
  page.load();
  assert.deepEqual(page.heard(), ['hello forget']);
  page.say({ type: 'ready' });
  page.say({ type: 'forgotten' });
  mock.timers.tick(5_000);
  assert.ok(page.frame.isConnected, 'no timer of the first withdrawal is left');
});

test('a stop before the frame has loaded is not lost', () => {
  const page = open();
  page.side.stop();
  assert.deepEqual(page.heard(), []);
  page.load();
  assert.deepEqual(page.heard(), ['hello forget'], 'a yes that it remembers does not count');
  page.say({ type: 'ready' });
  page.say({ type: 'forgotten' });
  page.side.stop();
  assert.deepEqual(page.heard(), ['forget', 'stop']);

  const greeted = open();
  greeted.load();
  greeted.side.stop();
  assert.deepEqual(greeted.heard(), ['hello']);
  greeted.say({ type: 'ready' });
  assert.deepEqual(greeted.heard(), ['forget']);
});

test('a yes after all is not taken back by a wish of before', () => {
  const page = open();
  page.side.stop();
  page.load();
  page.say({ type: 'ready' });
  page.say({ type: 'answer', answer: 'yes' });
  page.heard();
  page.load();
  assert.deepEqual(page.heard(), ['hello']);
});

test('a work token comes under the number of its wish, and each refusal is told apart', async () => {
  const reason = (wish: Promise<string>): Promise<unknown> => wish.then(() => 'none', (error: WorkTokenError) => error.reason);
  const early = open();
  assert.equal(await reason(early.side.tokens.ask()), 'not_lending', 'there is no frame that could hear');

  const page = agreed();
  const [first, second, third] = [page.side.tokens.ask(), page.side.tokens.ask(), page.side.tokens.ask()];
  assert.deepEqual(page.frame.sent.splice(0).filter(({ type }) => type === 'work_token').map((message) => 'id' in message && message.id), [1, 2, 3]);
  page.say({ type: 'work_token', id: 2, refusal: 'refused' });
  page.say({ type: 'work_token', id: 7, token: 'wt1.ee.ff' });
  page.say({ type: 'work_token', id: 1, token: 'wt1.ab.cd' });
  assert.deepEqual([await first, await reason(second)], ['wt1.ab.cd', 'refused']);
  mock.timers.tick(TOKEN_MS_MAX);
  assert.equal(await reason(third), 'timeout', 'an old frame does not know the wish');

  const last = page.side.tokens.ask();
  page.side.consent(false);
  page.say({ type: 'forgotten' });
  assert.equal(await reason(last), 'not_lending', 'the frame is gone');
});
