import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Memory } from '../src/frame/memory.ts';
import { readTabMessage, Tabs, type TabMessage } from '../src/hub/tabs.ts';
import { Turn, type Locks } from '../src/hub/turn.ts';
import { ELSEWHERE, type FromHub, type HubConfig, type ToHub } from '../src/shared/hub-port.ts';

const settle = (ms = 0): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Web Locks of one storage partition. */
class FakeLocks implements Locks {
  #holder: Promise<unknown> | undefined;
  readonly #queue: Array<() => void> = [];

  async request<T>(
    _name: string,
    options: { ifAvailable?: boolean; signal?: AbortSignal },
    callback: (lock: unknown) => T | PromiseLike<T>,
  ): Promise<unknown> {
    await Promise.resolve();
    if (this.#holder && options.ifAvailable) return callback(null);
    if (this.#holder) {
      await new Promise<void>((resolve, reject) => {
        this.#queue.push(resolve);
        options.signal?.addEventListener('abort', () => {
          this.#queue.splice(this.#queue.indexOf(resolve), 1);
          reject(new DOMException('', 'AbortError'));
        });
      });
    }
    const held = Promise.resolve(callback({}));
    this.#holder = held;
    await held;
    this.#holder = undefined;
    this.#queue.shift()?.();
    return undefined;
  }
}

const CONFIG = { site: 'pk_test_x', share: 0.2 } as HubConfig;

interface Tab {
  readonly tabs: Tabs;
  readonly got: string[];
  /** What it was told of the whole visit, when it came in. */
  readonly totals: number[];
  readonly posted: FromHub[];
}

/** Tabs of one browser on one site. */
function open(count: number, locks: Locks | undefined, starts: HubConfig[] = []): Tab[] {
  const all: Tab[] = [];
  for (let at = 0; at < count; at += 1) {
    const [got, totals, posted]: [string[], number[], FromHub[]] = [[], [], []];
    const hub = {
      handle: (message: ToHub) => {
        if (message.kind === 'start') starts.push(message.config);
        const detail = message.kind === 'start' ? message.paused : message.kind === 'pause' ? message.detail : undefined;
        got.push(detail === undefined ? message.kind : `${message.kind} ${detail}`);
      },
      sleep: () => void got.push('sleep'),
      bytes: 500,
      noteTraffic: (bytes: number, total: number) => void (bytes === 0 ? totals.push(total) : got.push(`traffic ${bytes} ${total}`)),
    };
    const tabs = new Tabs(hub, {
      turn: (name, changed) => new Turn(locks, name, changed),
      broadcast: (message: TabMessage) => all.forEach((tab) => tab.tabs !== tabs && tab.tabs.hear(message)),
      post: (message) => posted.push(message),
    });
    all.push({ tabs, got, totals, posted });
  }
  return all;
}

/** What the card showed. */
const VIEW = '0a'.repeat(32);
const choose = (share: number, gpu = false) => ({ share, cpu: true, gpu, give: false, refuses: [] });

test('of five tabs one works, and when it is hidden or gone another does', async () => {
  const all = open(5, new FakeLocks());
  for (const { tabs } of all) tabs.handle({ kind: 'start', config: CONFIG });
  await settle();
  const [first, second, third] = all;
  assert.ok(first && second && third);
  assert.deepEqual(first.got, ['start']);
  for (const { got } of all.slice(1)) assert.deepEqual(got.filter((word) => word !== 'sleep'), [`start ${ELSEWHERE}`]);

  first.tabs.handle({ kind: 'pause', detail: 'hidden' });
  await settle();
  assert.deepEqual(first.got, ['start', 'pause hidden', 'sleep'], 'its connection is given up');
  assert.equal(second.got.at(-1), 'resume');
  assert.equal(third.got.includes('resume'), false);

  // Back in view it waits until the second one is gone.
  first.tabs.handle({ kind: 'resume' });
  await settle();
  assert.equal(first.got.at(-1), `pause ${ELSEWHERE}`);
  second.tabs.handle({ kind: 'pause', detail: 'hidden' });
  await settle();
  assert.equal(third.got.at(-1), 'resume');
  const working = all.filter(({ got }) => got.findLast((word) => /^(start|resume|pause)/.test(word)) === 'resume');
  assert.equal(working.length, 1);
});

test('a tab that is hidden from the start asks for no turn before it is seen', async () => {
  const [hidden, seen] = open(2, new FakeLocks());
  assert.ok(hidden && seen);
  hidden.tabs.handle({ kind: 'start', config: CONFIG, paused: 'hidden' });
  seen.tabs.handle({ kind: 'start', config: CONFIG });
  await settle();
  assert.deepEqual(hidden.got, ['start hidden', 'sleep']);
  assert.deepEqual(seen.got, ['start']);
});

test('where locks are missing or denied each tab works alone', async () => {
  const denied: Locks = { request: () => Promise.reject(new DOMException('', 'SecurityError')) };
  for (const locks of [undefined, denied]) {
    const all = open(2, locks);
    for (const { tabs } of all) tabs.handle({ kind: 'start', config: CONFIG });
    await settle();
    for (const { got } of all) assert.deepEqual(got.filter((word) => word !== 'sleep'), ['start']);
  }
});

test('a stop and a share hold for every tab', async () => {
  const [first, second] = open(2, new FakeLocks());
  assert.ok(first && second);
  for (const { tabs } of [first, second]) tabs.handle({ kind: 'start', config: CONFIG });
  await settle();
  second.tabs.handle({ kind: 'share', share: 0.5 });
  assert.equal(first.got.at(-1), 'share');
  assert.deepEqual(first.posted, [{ kind: 'share', share: 0.5 }]);
  first.tabs.tellTraffic(77);
  assert.equal(second.got.at(-1), 'traffic 77 500');
  const heard = first.got.length;
  first.tabs.tellTraffic(0);
  assert.equal(second.got.at(-1), 'traffic 77 500');
  assert.equal(first.got.length, heard, 'what was heard is not told on');
  for (const bytes of [10, 20, -5]) first.tabs.tellTraffic(bytes);
  assert.equal(second.got.at(-1), 'traffic 77 500', 'not every frame is told alone');
  first.tabs.handle({ kind: 'pause', detail: 'hidden' });
  assert.ok(second.got.includes('traffic 25 500'), 'but before another tab may begin');
  first.tabs.handle({ kind: 'resume' });
  second.tabs.handle({ kind: 'stop', everywhere: true });
  await settle();
  assert.equal(first.got.at(-1), 'stop');
  assert.equal(second.got.at(-1), 'stop', 'nobody takes over');
});

test('the switch for the GPU holds for every tab, also before it is known whose turn it is', async () => {
  const starts: HubConfig[] = [];
  const [first, second] = open(2, new FakeLocks(), starts);
  assert.ok(first && second);
  first.tabs.handle({ kind: 'start', config: { ...CONFIG, gpuAllowed: false } });
  second.tabs.handle({ kind: 'start', config: { ...CONFIG, gpuAllowed: false } });
  second.tabs.handle({ kind: 'gpu', allowed: true });
  await settle();
  assert.deepEqual(starts.map(({ gpuAllowed }) => gpuAllowed), [true, true]);
  assert.deepEqual(first.posted, [{ kind: 'gpu', allowed: true }]);
  first.tabs.handle({ kind: 'gpu', allowed: false });
  assert.equal(second.got.at(-1), 'gpu');
});

test('a tab that comes in hears what the visit has moved', async () => {
  const [first, second] = open(2, new FakeLocks());
  assert.ok(first && second);
  first.tabs.handle({ kind: 'start', config: CONFIG });
  await settle();
  assert.deepEqual(first.totals, [], 'nobody else was there');
  second.tabs.handle({ kind: 'start', config: CONFIG });
  assert.deepEqual(second.totals, [500]);
  assert.ok(!second.got.includes('start'), 'before it starts');
  assert.deepEqual(first.totals, [], 'a newcomer knows nothing');
});

test('a tab that fails makes room for another and stops nobody', async () => {
  const [first, second] = open(2, new FakeLocks());
  assert.ok(first && second);
  for (const { tabs } of [first, second]) tabs.handle({ kind: 'start', config: CONFIG });
  await settle();
  first.tabs.handle({ kind: 'stop', everywhere: false });
  await settle();
  assert.equal(second.got.at(-1), 'resume');
  assert.ok(!second.got.includes('stop'));
});

test('only messages of the channel are heard', () => {
  for (const data of [undefined, null, 'stop', {}, { kind: 'share', share: 2 }, { kind: 'moved', bytes: 1 }, { kind: 'moved', bytes: NaN, total: 1 }, { kind: 'gpu', allowed: 1 }]) {
    assert.equal(readTabMessage(data), undefined);
  }
  assert.deepEqual(readTabMessage({ kind: 'leading', more: 1 }), { kind: 'leading' });
  assert.deepEqual(readTabMessage({ kind: 'moved', bytes: -5, total: 9 }), { kind: 'moved', bytes: -5, total: 9 });
});

function remembering(items = new Map<string, string>()) {
  const clock = { now: 1_000_000 };
  const storage = {
    getItem: (key: string) => items.get(key) ?? null,
    setItem: (key: string, value: string) => void items.set(key, value),
    removeItem: (key: string) => void items.delete(key),
  } as unknown as Storage;
  const memory = (text = 'text-1') => new Memory(() => storage, () => clock.now, 'pk_test_x', text);
  return { clock, items, memory };
}

test('a yes is remembered for a day, to the same words only, and without an identifier', () => {
  const { clock, items, memory } = remembering();
  assert.equal(memory().recall(), undefined);
  memory().agree(choose(0.2), VIEW, 0);
  memory().addBytes(500, 500);
  memory().noteShare(0.4);
  assert.deepEqual(memory().recall(), { ...choose(0.4), view: VIEW, bytes: 500 });
  const kept = Object.keys(JSON.parse([...items.values()][0] ?? '{}')).sort();
  assert.deepEqual(kept, ['bytes', 'seen', 'share', 'text', 'until', 'view']);
  clock.now += 24 * 60 * 60 * 1000 - 1;
  assert.deepEqual(memory().recall(), { ...choose(0.4), view: VIEW, bytes: 0 }, 'another visit');
  clock.now += 1;
  assert.equal(memory().recall(), undefined);
  assert.equal(items.size, 0, 'what has run out is not kept');
  memory().agree(choose(0.1), VIEW, 0);
  assert.equal(memory('text-2').recall(), undefined);
  assert.equal(items.size, 0, 'nor is a yes to other words');
  memory().agree(choose(0.1), VIEW, 0);
  memory().forget();
  assert.equal(items.size, 0);
  memory().addBytes(9, 9);
  memory().noteShare(0.3);
  assert.equal(items.size, 0, 'without a yes nothing is kept');
});

test('a tick for the GPU is kept with the yes, only where there is one', () => {
  const { items, memory } = remembering();
  memory().noteGpu(true);
  assert.equal(items.size, 0);
  memory().agree(choose(0.2, true), VIEW, 0);
  assert.equal(memory().recall()?.gpu, true);
  memory().noteShare(0.3);
  assert.deepEqual(memory().recall(), { ...choose(0.3, true), view: VIEW, bytes: 0 });
  memory().noteGpu(false);
  assert.equal(memory().recall()?.gpu, false);
  assert.ok(!items.get('raven pk_test_x')?.includes('gpu'));
  memory().noteGpu(true);
  memory().agree(choose(0.2, false), VIEW, 0);
  assert.equal(memory().recall()?.gpu, false, 'a new yes is asked for anew');
});

test('a tab of an older text leaves a new yes alone', () => {
  const { items, memory } = remembering();
  memory('text-2').agree(choose(0.2), VIEW, 0);
  const kept = [...items.values()];
  memory('text-1').addBytes(5, 5);
  memory('text-1').noteShare(0.9);
  assert.deepEqual([...items.values()], kept);
});

test('tabs that cannot hear each other add to one count, and none makes it smaller', () => {
  const { memory } = remembering();
  const [one, two] = [memory(), memory()];
  one.agree(choose(0.2), VIEW, 0);
  assert.equal(one.addBytes(700, 700), 700);
  assert.equal(two.addBytes(50, 50), 750, 'its own view of the visit is smaller');
  assert.equal(one.addBytes(-200, 500), 550, 'less was moved than was set aside');
  assert.equal(two.addBytes(1, 900), 900, 'it has heard of more');
  assert.equal(one.agree(choose(0.2), VIEW, 950).bytes, 950, 'a page knows what it has moved itself');
});

test('a yes that is taken back in another tab is told from one that ran out and from a new one', () => {
  const { clock, items, memory } = remembering();
  const key = 'raven pk_test_x';
  const here = memory();
  here.agree(choose(0.2), VIEW, 0);
  const oldValue = items.get(key) ?? '';
  const gone = { key, oldValue, newValue: null };
  items.delete(key);
  assert.ok(here.isTakenBack(gone));
  assert.ok(here.isTakenBack({ key: null, oldValue: null, newValue: null }), 'all was cleared');
  assert.ok(!here.isTakenBack({ ...gone, key: 'raven pk_test_y' }));
  assert.ok(!here.isTakenBack({ ...gone, newValue: oldValue }));
  // A count that crossed the removal, with the old yes in it.
  items.set(key, oldValue);
  assert.ok(here.isTakenBack(gone));
  clock.now += 5;
  here.agree(choose(0.2), VIEW, 0);
  assert.ok(!here.isTakenBack(gone), 'agreed anew since');
  items.delete(key);
  clock.now += 24 * 60 * 60 * 1000;
  assert.ok(!here.isTakenBack(gone), 'it ran out, and was tidied away');
});

test('what is kept cannot be stretched, and denied storage keeps nothing', () => {
  const { clock, items, memory } = remembering();
  const record = { text: 'text-1', view: VIEW, share: 0.2, bytes: 0, seen: 0, until: clock.now + 1 };
  const bad = [{ until: clock.now + 1e12 }, { share: 7 }, { share: 'x' }, { bytes: -1 }, { until: null }, { view: undefined }, { view: 'x' }, { view: VIEW.toUpperCase() }];
  for (const change of bad) {
    items.set('raven pk_test_x', JSON.stringify({ ...record, ...change }));
    assert.equal(memory().recall(), undefined, JSON.stringify(change));
  }
  items.set('raven pk_test_x', '{');
  assert.equal(memory().recall(), undefined);
  const denied = new Memory(
    () => {
      throw new DOMException('', 'SecurityError');
    },
    () => 0,
    'pk_test_x',
    'text-1',
  );
  assert.deepEqual(denied.agree(choose(0.2), VIEW, 7), { ...choose(0.2), view: VIEW, bytes: 7 });
  assert.equal(denied.addBytes(1, 1), undefined);
  denied.forget();
  assert.equal(denied.recall(), undefined);
});

test('what is refused in one tab holds in all, and what is no category is not heard', () => {
  const first: HubConfig[] = [];
  const [one, other] = open(2, undefined, first);
  assert.ok(one && other);
  one.tabs.handle({ kind: 'start', config: CONFIG });
  one.tabs.handle({ kind: 'refuses', refuses: ['finance'] });
  assert.deepEqual(other.posted.at(-1), { kind: 'refuses', refuses: ['finance'] });
  assert.ok(other.got.includes('refuses'));
  assert.deepEqual(readTabMessage({ kind: 'refuses', refuses: ['other', 'x', 'vision', 'other'] }), { kind: 'refuses', refuses: ['vision', 'other'] });
  assert.equal(readTabMessage({ kind: 'refuses', refuses: 'vision' }), undefined);
});
