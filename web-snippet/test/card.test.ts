import assert from 'node:assert/strict';
import { afterEach, test, type mock as nodeMock } from 'node:test';
import { Card } from '../src/frame/card.ts';
import type { PageConfig } from '../src/frame/config.ts';
import type { Embed } from '../src/frame/embed.ts';
import { UNSEEN_MS_MAX } from '../src/frame/in-sight.ts';
import { Text } from '../src/frame/text.ts';
import { messages } from '../src/frame/text/en.ts';
import type { ToLoader } from '../src/shared/embed-port.ts';
import { channelName, type FromHub, type ToHub } from '../src/shared/hub-port.ts';
import { Identity } from '../src/hub/identity.ts';
import { keepKey, keptKey, keptKeys, retireKey } from '../src/shared/key-store.ts';
import { fromHex, until } from './hub-world.ts';
import { FakeElement, FakeIndexedDb, FakeObserver, FakeSight, fakeStorage, stub, trusted } from './fakes.ts';

const SITE = 'pk_test_x';
const KEY = `raven ${SITE}`;
const CONFIG: PageConfig = { ticket: 't', site: SITE, siteName: 'News', textVersion: 'text-1', view: '0a'.repeat(32), visitBytesMax: 25e6, unclaimedDays: 180, gpu: 'no' };
/** What an earlier card showed. */
const SEEN = '0b'.repeat(32);
/** What the frame notes where there may be a key, and after a "never". */
const [KEY_TRACE, NEVER, ASKED] = [`${KEY} key`, `${KEY} never`, `${KEY} asked`];
const settle = (ms = 5): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The hub of a tab, as its frame sees it. */
class FakeHub {
  onmessage: ((event: { data: FromHub }) => void) | undefined;
  onerror: unknown;
  readonly got: ToHub[] = [];
  isTerminated = false;
  postMessage(message: ToHub): void {
    this.got.push(message);
  }
  terminate(): void {
    this.isTerminated = true;
  }
  say(message: Partial<Extract<FromHub, { kind: 'status' }>>): void {
    const status = { kind: 'status', phase: { name: 'working' }, tasks: 1, bytes: 0, bytesMax: 25e6, moved: 0, gpu: 'off' } as const;
    this.onmessage?.({ data: { ...status, ...message } });
  }
}

interface Tab {
  readonly card: Card;
  readonly hubs: FakeHub[];
  /** What was said to the hubs of other tabs. */
  readonly channel: string[];
  readonly toPage: ToLoader[];
  readonly held: Map<string, string>;
  readonly database: FakeIndexedDb;
  /** The tab comes to the front or goes behind another one. */
  hide(isHidden: boolean): void;
  /** What was opened in new tabs. */
  readonly opened: string[];
  /** What the coordinator was asked and told. */
  readonly asked: string[];
  click(id: string): void;
  /** What the browser says of a removal in another tab. */
  removedElsewhere(): void;
  /** The same of a change. */
  wroteElsewhere(newValue: string): void;
  /** What the visitor does to the whole document. */
  act(event: Event): void;
  view(): string | undefined;
  byId(id: string): FakeElement;
}

let restore = (): void => undefined;
const leave = (): void => {
  FakeSight.forget();
  restore();
};
afterEach(leave);

const yes = (until = Date.now() + 3_600_000, text = 'text-1'): string =>
  JSON.stringify({ text, view: SEEN, share: 0.2, bytes: 100, until, seen: Date.now() });

const charging = { charging: true, addEventListener: () => undefined };

interface Surroundings {
  readonly battery?: Promise<unknown>;
  readonly config?: Partial<PageConfig>;
  /** What would be computed now; without it nobody answers. */
  readonly queue?: object;
  /** What the coordinator answers to what is signed; without it nobody does. */
  readonly coordinator?: (path: string, body: string) => { status: number; json?: object } | undefined;
  /** What the frame keeps already, beside a yes. */
  readonly traces?: Readonly<Record<string, string>>;
  /** How long that takes to say. */
  readonly lateMs?: number;
  /** How long the coordinator takes to answer at a path that ends like this. */
  readonly late?: readonly [path: string, ms: number];
  /** What the browser has beyond the least. */
  readonly navigator?: object;
}

/** @param kept the remembered yes. */
function open(kept?: string, surroundings: Surroundings = {}): Tab {
  const { battery = Promise.resolve(charging), config, navigator, lateMs, late, coordinator, traces = {} } = surroundings;
  leave();
  const elements = new Map<string, FakeElement>();
  const byId = (id: string): FakeElement => {
    const found = elements.get(id) ?? new FakeElement();
    // The page has these ticked.
    if (!elements.has(id)) found.checked = id.startsWith('raven-kind-');
    elements.set(id, found);
    return found;
  };
  const [opened, asked]: [string[], string[]] = [[], []];
  const answer = async (url: string, { method = 'GET', body = '' }: { method?: string; body?: string }) => {
    asked.push(`${method} ${url} ${body}`.trim());
    const told = url.startsWith('/v1/') ? coordinator?.(url, body) : undefined;
    if (late && url.endsWith(late[0])) await settle(late[1]);
    if (told) return { ok: told.status < 300, status: told.status, json: async () => told.json };
    if (lateMs !== undefined) await settle(lateMs);
    // It may be another one by now.
    const { queue } = surroundings;
    if (!queue) throw new TypeError('no network');
    return { ok: true, json: async () => queue };
  };
  const window = Object.assign(new EventTarget(), { open: (url: string) => void opened.push(url) });
  const document = Object.assign(new EventTarget(), {
    getElementById: byId,
    querySelectorAll: () => [],
    documentElement: new FakeElement(),
    hidden: false,
    hasFocus: () => false,
  });
  const { storage, held } = fakeStorage(new Map([...Object.entries(traces), ...(kept === undefined ? [] : [[KEY, kept] as const])]));
  const [hubs, channel, toPage]: [FakeHub[], string[], ToLoader[]] = [[], [], []];
  const database = new FakeIndexedDb();
  restore = stub({
    window, document, parent: {}, isSecureContext: true, innerWidth: 344, innerHeight: 600, location: { href: 'https://c/frame.html', origin: 'https://c' },
    addEventListener: window.addEventListener.bind(window),
    navigator: { hardwareConcurrency: 2, userAgent: '', getBattery: () => battery, ...navigator },
    getComputedStyle: () => ({}),
    IntersectionObserver: FakeSight,
    ResizeObserver: FakeObserver,
    fetch: answer,
    localStorage: storage,
    indexedDB: database,
    Worker: class extends FakeHub {
      constructor() {
        super();
        hubs.push(this);
      }
    },
    BroadcastChannel: class {
      constructor(readonly name: string) {}
      postMessage({ kind }: { kind: string }): void {
        channel.push(`${this.name}: ${kind}`);
      }
      close(): void {}
    },
  });
  const embed = { send: (message: ToLoader) => void toPage.push(message) } as unknown as Embed;
  const card = new Card({ ...CONFIG, ...config }, new Text({ language: 'en', messages }), embed);
  return {
    card, hubs, channel, toPage, held, database, opened, asked,
    click: (id) => byId(`raven-${id}`).click(),
    removedElsewhere: () => {
      const oldValue = held.get(KEY) ?? null;
      held.delete(KEY);
      window.dispatchEvent(Object.assign(new Event('storage'), { key: KEY, oldValue, newValue: null }));
    },
    wroteElsewhere: (newValue) => {
      const oldValue = held.get(KEY) ?? null;
      held.set(KEY, newValue);
      window.dispatchEvent(Object.assign(new Event('storage'), { key: KEY, oldValue, newValue }));
    },
    act: (event) => void document.dispatchEvent(event),
    hide: (isHidden) => {
      document.hidden = isHidden;
      document.dispatchEvent(new Event('visibilitychange'));
    },
    view: () => byId('raven').dataset.view,
    byId: (id) => byId(`raven-${id}`),
  };
}

const hello = { type: 'hello', quiet: false, forget: false, asked: false } as const;
const types = (tab: Tab): string[] => tab.toPage.map(({ type }) => type);

/** Longer than the panel must have been in view for before more of the machine may be lent. */
const SEEN_MS = 550;

/** The visitor comes to the controls of the panel, which is watched from then on. */
async function approach(tab: Tab): Promise<void> {
  tab.byId('share-live').dispatchEvent(new Event('pointermove'));
  await settle(SEEN_MS);
}

/** A tab at work by a yes of an earlier page. */
async function working(kept = yes(), surroundings?: Surroundings): Promise<{ tab: Tab; hub: FakeHub }> {
  const tab = open(kept, surroundings);
  tab.card.obeyPage(hello);
  await settle();
  const [hub] = tab.hubs;
  assert.ok(hub);
  assert.equal(tab.view(), 'live');
  return { tab, hub };
}

test('a page that takes the yes back: work ends everywhere, the key alone stays, and the frame says so', async () => {
  const { tab, hub } = await working();
  const { publicKey, privateKey } = await Identity.generate();
  await keepKey(SITE, { publicKey, privateKey });
  tab.card.obeyPage({ type: 'forget' });
  assert.deepEqual(hub.got.at(-1), { kind: 'stop', everywhere: true });
  assert.deepEqual([...tab.held.keys()], [KEY_TRACE]);
  await settle(20);
  assert.equal((await keptKey(SITE))?.publicKey, publicKey, 'what it has earned is not the page’s to erase');
  assert.equal(types(tab).at(-1), 'forgotten');
  assert.equal(tab.view(), 'over');
  tab.card.obeyPage(hello);
  await settle();
  assert.equal(tab.hubs.length, 1, 'a yes is asked for anew');
});

test('a page that took the yes back before there was a frame: nothing starts', async () => {
  const tab = open(yes());
  tab.card.obeyPage({ ...hello, forget: true });
  await settle(20);
  assert.deepEqual([tab.hubs.length, [...tab.held.keys()], tab.view()], [0, [KEY_TRACE], 'chip']);
  assert.equal(types(tab).at(-1), 'forgotten');
});

for (const [button, answer] of [['no', 'not_now'], ['never', 'never']] as const) {
  test(`"${answer}" in one tab ends what a yes began in others`, async () => {
    const tab = open();
    tab.card.obeyPage(hello);
    tab.click('open');
    // Agreed in another tab, while this one shows its card.
    tab.held.set(KEY, yes());
    tab.click(button);
    assert.ok(!tab.held.has(KEY), 'the yes');
    assert.deepEqual(tab.channel, [`${channelName(SITE)}: stop`]);
    assert.equal(tab.view(), 'icon');
    await settle(20);
    assert.deepEqual(tab.toPage.at(-1), { type: 'answer', answer });
    assert.equal(tab.held.has(NEVER), answer === 'never');
  });
}

test('a no without a yes before it opens no database', async () => {
  const tab = open();
  tab.card.obeyPage(hello);
  tab.click('open');
  tab.click('no');
  await settle();
  assert.equal(tab.database.uses, 0);
  assert.equal(tab.held.size, 0);
  assert.ok(types(tab).includes('answer'));
});

test('a stop in another tab is heard before there is a hub, and after', async () => {
  let tell = (): void => undefined;
  const battery = new Promise((resolve) => (tell = () => resolve(charging)));
  const starting = open(yes(), { battery });
  starting.card.obeyPage(hello);
  assert.equal(starting.view(), 'live');
  starting.held.delete(KEY);
  tell();
  await settle();
  assert.deepEqual([starting.hubs.length, starting.view()], [0, 'over'], 'looked at again before the hub');

  const { tab, hub } = await working();
  tab.removedElsewhere();
  assert.deepEqual(hub.got.at(-1), { kind: 'stop', everywhere: false });
  assert.equal(tab.view(), 'over');
});

test('a yes that has run out is removed, also where the page wants quiet', async () => {
  for (const kept of [yes(Date.now() - 1), yes(undefined, 'text-0'), '{']) {
    const tab = open(kept);
    tab.card.obeyPage({ ...hello, quiet: true });
    await settle(20);
    assert.deepEqual([tab.hubs.length, [...tab.held.keys()]], [0, [KEY_TRACE]], kept);
  }
});

test('what the hub moves is added to the visit, also after it was stopped', async () => {
  const { tab, hub } = await working();
  const bytes = (): number => JSON.parse(tab.held.get(KEY) ?? '{}').bytes;
  hub.say({ bytes: 2_100, moved: 2_000 });
  assert.equal(bytes(), 2_100);
  // Another tab, which this one has not heard of.
  tab.held.set(KEY, JSON.stringify({ ...JSON.parse(tab.held.get(KEY) ?? ''), bytes: 9_100 }));
  hub.say({ bytes: 2_150, moved: 50 });
  assert.equal(bytes(), 9_150, 'added, and not written over');
  assert.deepEqual(hub.got.at(-1), { kind: 'traffic', bytes: 9_150 }, 'the hub learns of it');
  hub.say({ bytes: 9_150, moved: 0, phase: { name: 'failed', failure: 'traffic_cap', detail: '' } });
  assert.equal(tab.view(), 'over');
  hub.say({ bytes: 9_100, moved: -50 });
  assert.equal(bytes(), 9_100, 'what was set aside and did not come');
});

test('counts are shown now and then, a new phase at once, and the last count before a stop', async () => {
  const { tab, hub } = await working();
  const counts = (): number[] => tab.toPage.flatMap((message) => (message.type === 'state' && message.phase === 'working' ? [message.tasks] : []));
  const before = counts().length;
  for (let tasks = 10; tasks < 30; tasks += 1) hub.say({ tasks });
  assert.ok(counts().length <= before + 1, `${counts()}`);
  hub.say({ tasks: 30, phase: { name: 'idle' } });
  hub.say({ tasks: 31, phase: { name: 'idle' } });
  await settle(600);
  const states = tab.toPage.filter((message) => message.type === 'state');
  assert.equal(states.at(-1)?.tasks, 31);
  hub.say({ tasks: 40 });
  hub.say({ tasks: 41 });
  tab.click('stop');
  assert.equal(tab.toPage.filter((message) => message.type === 'state').at(-1)?.tasks, 41);
});

/** A browser with WebGPU, and a coordinator that wants it. */
const WITH_GPU: Surroundings = { config: { gpu: 'hardware' }, navigator: { gpu: {} } };

test('the GPU is offered where the coordinator wants it and the browser has it, and is never ticked beforehand', () => {
  const cases: Array<[Surroundings, boolean]> = [
    [WITH_GPU, true],
    [{ ...WITH_GPU, config: { gpu: 'any' } }, true],
    [{ ...WITH_GPU, config: { gpu: 'no' } }, false],
    [{ ...WITH_GPU, navigator: {} }, false],
  ];
  for (const [surroundings, isOffered] of cases) {
    const tab = open(undefined, surroundings);
    assert.deepEqual([tab.byId('gpu-field').hidden, tab.byId('gpu').checked], [!isOffered, false]);
  }
});

test('a tick is kept with the yes, and its change is told to the hub', async () => {
  const { tab, hub } = await working(yes(), WITH_GPU);
  await approach(tab);
  const kept = (): unknown => JSON.parse(tab.held.get(KEY) ?? '{}').gpu;
  const start = hub.got[0];
  assert.ok(start?.kind === 'start');
  assert.deepEqual([start.config.gpu, start.config.gpuAllowed, tab.byId('gpu').checked], ['hardware', false, false], 'an old yes was none to it');
  for (const allowed of [true, false]) {
    tab.byId('gpu').checked = allowed;
    tab.byId('gpu').dispatchEvent(trusted('change'));
    assert.deepEqual(hub.got.at(-1), { kind: 'gpu', allowed });
    assert.equal(kept(), allowed || undefined);
  }
  hub.onmessage?.({ data: { kind: 'gpu', allowed: true } });
  assert.equal(tab.byId('gpu').checked, true, 'ticked in another tab');
});

test('a tick of an earlier page holds, but not where the GPU is not offered any more', async () => {
  const withTick = JSON.stringify({ ...JSON.parse(yes()), gpu: true });
  for (const [surroundings, allowed] of [[WITH_GPU, true], [undefined, false]] as const) {
    const { hub } = await working(withTick, surroundings);
    const start = hub.got[0];
    assert.ok(start?.kind === 'start');
    assert.equal(start.config.gpuAllowed, allowed);
  }
});

test('asked again, it is not ticked beforehand, and a tick that nobody has agreed to is not kept', async () => {
  const withTick = JSON.stringify({ ...JSON.parse(yes()), gpu: true });
  const { tab } = await working(withTick, WITH_GPU);
  assert.equal(tab.byId('gpu').checked, true);
  tab.click('stop');
  tab.click('again');
  assert.equal(tab.byId('gpu').checked, false);
  // Meanwhile the visitor says yes to the processor alone in another tab.
  tab.held.set(KEY, yes());
  tab.byId('gpu').checked = true;
  tab.byId('gpu').dispatchEvent(new Event('change'));
  assert.equal(tab.held.get(KEY), yes());
});

test('what became of the tick is said in words', async () => {
  const { tab, hub } = await working(yes(), WITH_GPU);
  const said = (): string => tab.byId('gpu-status').textContent;
  hub.say({ gpu: 'starting' });
  assert.equal(said(), '');
  hub.say({ gpu: 'on', phase: { name: 'idle' } });
  assert.equal(said(), '', 'nothing is in use');
  hub.say({ gpu: 'on' });
  assert.equal(said(), messages.gpuOn);
  hub.say({ gpu: 'none', phase: { name: 'idle' } });
  assert.equal(said(), messages.gpuNone);
});

test('what became of results is said in words, also once work has ended', async () => {
  const { tab, hub } = await working();
  hub.say({ tasks: 131 });
  assert.equal(tab.byId('results').textContent, '', 'nothing was told');
  const results = { accepted: 128, notNeeded: 2, late: 0, withdrawn: 0, wrong: 1 };
  hub.say({ tasks: 131, results, phase: { name: 'idle' } });
  const said = 'Results accepted: 128 · not needed, others were faster: 2 · refused, differs from the checked result: 1';
  assert.equal(tab.byId('results').textContent, said);
  hub.say({ tasks: 131, results, phase: { name: 'failed', failure: 'excluded', detail: '' } });
  assert.deepEqual([tab.view(), tab.byId('over-text').textContent], ['over', messages.failedExcluded]);
  assert.equal(tab.byId('over-results').textContent, said);
});

test('an exclusion is remembered: the next page says so and starts nothing', async () => {
  const { tab, hub } = await working();
  hub.say({ phase: { name: 'failed', failure: 'excluded', detail: '' } });
  const kept = tab.held.get(KEY);
  const next = open(kept);
  next.card.obeyPage(hello);
  await settle();
  assert.deepEqual([next.hubs.length, next.view()], [0, 'over']);
  assert.equal(next.byId('over-text').textContent, messages.failedExcluded);
  const state = next.toPage.findLast(({ type }) => type === 'state');
  assert.deepEqual(state, { type: 'state', phase: 'unavailable', tasks: 0 });
  // Closing the sentence starts nothing either; only a new yes would.
  next.click('close');
  next.click('open');
  await settle();
  assert.deepEqual([next.hubs.length, next.held.get(KEY)], [0, kept]);
});

test('an exclusion in another tab of the site ends the work of this one', async () => {
  const { tab, hub } = await working();
  const kept = JSON.stringify({ ...JSON.parse(yes()), excluded: true });
  tab.wroteElsewhere(kept);
  await settle();
  assert.equal(tab.view(), 'over');
  assert.deepEqual(hub.got.at(-1), { kind: 'stop', everywhere: false });
  assert.equal(tab.held.get(KEY), kept, 'and it is not forgotten');
});

test('of the two switches the last stays on, and each change is told and kept', async () => {
  const { tab, hub } = await working(yes(), WITH_GPU);
  await approach(tab);
  const [cpu, gpu] = [tab.byId('cpu'), tab.byId('gpu')];
  const flip = (box: FakeElement, checked: boolean): void => {
    box.checked = checked;
    box.dispatchEvent(trusted('change'));
  };
  const kept = (): unknown => JSON.parse(tab.held.get(KEY) ?? '{}').cpu;
  assert.deepEqual([cpu.checked, cpu.disabled, gpu.checked], [true, true, false], 'an old yes was one to the processor');
  flip(gpu, true);
  assert.deepEqual([cpu.disabled, gpu.disabled], [false, false]);
  flip(cpu, false);
  assert.deepEqual([cpu.disabled, gpu.disabled, kept()], [false, true, false]);
  assert.deepEqual(hub.got.at(-1), { kind: 'cpu', allowed: false });
  hub.onmessage?.({ data: { kind: 'cpu', allowed: true } });
  assert.deepEqual([cpu.checked, gpu.disabled], [true, false], 'switched on in another tab');
});

test('the card says whose the earnings are, and what was given stays given on the next page', async () => {
  const given = JSON.stringify({ ...JSON.parse(yes()), give: true });
  const { tab, hub } = await working(given);
  const start = hub.got[0];
  assert.ok(start?.kind === 'start');
  assert.equal(start.config.earnings, 'site');
  hub.say({ earner: 'site' });
  assert.equal(tab.byId('earner').textContent, 'Earns for News');
  hub.say({ phase: { name: 'idle' }, earner: 'visitor' });
  assert.equal(tab.byId('earner').textContent, 'Earns for you');
});

/** What a link lets its opener claim. */
const claimsOf = (link = ''): Array<{ statement: string; signature: string }> =>
  JSON.parse(Buffer.from(new URL(link).hash.replace('#claim=', ''), 'base64url').toString());

test('a second yes goes on under the same key, and after an exclusion the link is for both', async () => {
  const { tab, hub } = await working();
  const results = { accepted: 1, notNeeded: 0, late: 0, withdrawn: 0, wrong: 0 };
  const [first, second] = [await Identity.generate(), await Identity.generate()];
  const keep = ({ publicKey, privateKey }: Identity) => keepKey(SITE, { publicKey, privateKey });
  await keep(first);
  hub.say({ earner: 'visitor', results });
  await settle(20);
  const uses = tab.database.uses;
  for (let accepted = 2; accepted < 9; accepted += 1) hub.say({ earner: 'visitor', results: { ...results, accepted } });
  await settle(20);
  assert.equal(tab.database.uses, uses, 'looked for once');
  tab.click('stop');
  await settle(20);
  assert.equal((await keptKey(SITE))?.publicKey, first.publicKey, 'a stop is no reason to lose it');
  tab.click('again');
  await settle(550);
  tab.byId('yes').dispatchEvent(trusted('click', { detail: 0 }));
  await settle(20);
  const next = tab.hubs[1];
  assert.ok(next);
  hub.say({ earner: 'visitor', results });
  await retireKey(SITE);
  await keep(second);
  next.say({ earner: 'visitor', results });
  await settle(20);
  tab.click('keep');
  await until(() => tab.opened.length === 1);
  const from = claimsOf(tab.opened[0]).map(({ statement }) => JSON.parse(statement).from);
  assert.deepEqual(from, [first.publicKey, second.publicKey]);
});

test('what was earned can be kept once something was accepted, also after a stop, by a link that the key has signed', async () => {
  const { tab, hub } = await working();
  const { publicKey, privateKey } = await Identity.generate();
  await keepKey(SITE, { publicKey, privateKey });
  const results = { accepted: 1, notNeeded: 0, late: 0, withdrawn: 0, wrong: 0 };
  tab.byId('keep').hidden = true;
  hub.say({ earner: 'site', results });
  await settle();
  assert.equal(tab.byId('keep').hidden, true, 'nothing of the visitor’s');
  hub.say({ earner: 'visitor', results });
  await settle(20);
  assert.equal(tab.byId('keep').hidden, false);
  tab.click('stop');
  await settle(20);
  assert.ok(!tab.held.has(KEY), 'the yes is over');
  tab.click('over-keep');
  await until(() => tab.opened.length === 1);
  const url = new URL(tab.opened[0] ?? '');
  assert.equal(url.pathname, '/earn');
  const [claimed] = claimsOf(tab.opened[0]);
  assert.ok(claimed);
  const { statement, signature } = claimed;
  const claim = JSON.parse(statement);
  assert.deepEqual([claim.purpose, claim.from, claim.coordinator], ['claim', publicKey, 'https://c']);
  assert.ok(claim.expires_ms <= Date.now() + 15 * 60_000);
  const key = await crypto.subtle.importKey('raw', fromHex(publicKey), { name: 'Ed25519' }, true, ['verify']);
  assert.ok(await crypto.subtle.verify({ name: 'Ed25519' }, key, fromHex(signature), new TextEncoder().encode(statement)));
});

/** A browser with a GPU whose panel has been in view for long enough, the mouse in it. */
async function seen(): Promise<{ tab: Tab; hub: FakeHub; change(id: string, to: number | boolean, event?: Event): void; lent(): unknown }> {
  const { tab, hub } = await working(yes(), WITH_GPU);
  await approach(tab);
  return {
    tab,
    hub,
    change(id, to, event = trusted('change')) {
      const control = tab.byId(id);
      if (typeof to === 'boolean') control.checked = to;
      else control.value = String(to);
      control.dispatchEvent(event);
    },
    lent: () => [tab.byId('share').value, tab.byId('cpu').checked, tab.byId('gpu').checked],
  };
}

const mouse = (type: string, timeStamp: number): Event => {
  const event = trusted(type, { pointerType: 'mouse', clientX: 1, clientY: 1, relatedTarget: null });
  return Object.defineProperty(event, 'timeStamp', { value: timeStamp });
};

test('while the panel is not seen nothing can be raised, and everything lowered', async () => {
  const { tab, hub, change, lent } = await seen();
  FakeSight.become(false);
  const said = hub.got.length;
  change('share', 80);
  change('gpu', true);
  assert.deepEqual([lent(), hub.got.length, tab.held.get(KEY)?.includes('gpu')], [['20', true, false], said, false], 'as it was');
  assert.equal(tab.byId('live-hint').textContent, messages.pressAgain);
  change('share', 10);
  assert.deepEqual(hub.got.at(-1), { kind: 'share', share: 0.1 });
  assert.equal(tab.byId('live-hint').textContent, '');
  change('share', 15);
  assert.deepEqual(lent(), ['10', true, false], 'back to what was before is more, too');
  FakeSight.become(true);
  change('share', 15);
  assert.deepEqual(lent(), ['10', true, false], 'seen, but only just');
  await settle(SEEN_MS);
  change('share', 15);
  assert.deepEqual(hub.got.at(-1), { kind: 'share', share: 0.15 });
});

test('each of the three is raised only by a press that was meant for the frame, or by a key', async () => {
  for (const [id, to] of [['share', 80], ['gpu', true], ['cpu', true]] as const) {
    const { tab, hub, change, lent } = await seen();
    if (id === 'cpu') {
      change('gpu', true);
      change('cpu', false);
    }
    const before = lent();
    const said = hub.got.length;
    const refused = (why: string): void => assert.deepEqual([lent(), hub.got.length], [before, said], `${id}: ${why}`);
    change(id, to, new Event('change'));
    refused('a script');
    tab.act(new Event('click'));
    change(id, to);
    refused('a click of a script');
    tab.act(mouse('pointerdown', 1_000));
    change(id, to);
    refused('a mouse that comes with its press');
    tab.act(mouse('pointerdown', 1_200));
    change(id, to);
    refused('a mouse that has only just come');
    tab.act(mouse('pointerdown', 1_400));
    change(id, to);
    assert.equal(hub.got.length, said + 1, `${id}: the mouse has been here`);
  }
  const { tab, hub, change } = await seen();
  tab.act(mouse('pointerdown', 1_000));
  tab.act(trusted('keydown'));
  change('share', 25);
  assert.deepEqual(hub.got.at(-1), { kind: 'share', share: 0.25 });
});

test('what was raised in another tab is what holds here', async () => {
  const { hub, change, lent } = await seen();
  hub.onmessage?.({ data: { kind: 'share', share: 0.8 } });
  FakeSight.become(false);
  change('share', 60);
  assert.deepEqual(hub.got.at(-1), { kind: 'share', share: 0.6 }, 'less');
  change('share', 65);
  assert.deepEqual(lent(), ['60', true, false]);
});

test('a share that is dragged on a card without an answer is no yes to it', () => {
  const tab = open();
  tab.card.obeyPage(hello);
  tab.click('open');
  // Meanwhile the visitor agreed in another tab.
  const elsewhere = yes();
  tab.held.set(KEY, elsewhere);
  tab.byId('share').value = '90';
  tab.byId('share').dispatchEvent(trusted('change'));
  assert.equal(tab.held.get(KEY), elsewhere);
});

test('a yes to the GPU alone is asked for anew where there is none, and is not lost', async () => {
  const gpuOnly = JSON.stringify({ ...JSON.parse(yes()), cpu: false, gpu: true });
  const tab = open(gpuOnly);
  tab.card.obeyPage(hello);
  await settle();
  assert.deepEqual([tab.hubs.length, tab.view(), tab.held.get(KEY)], [0, 'chip', gpuOnly]);
  const { hub } = await working(gpuOnly, WITH_GPU);
  const start = hub.got[0];
  assert.ok(start?.kind === 'start');
  assert.deepEqual([start.config.cpuAllowed, start.config.gpuAllowed], [false, true]);
});

test('a wish for a work token goes to the hub once at a time, and its answer to everyone who asked', async () => {
  const idle = open();
  idle.card.obeyPage(hello);
  idle.card.obeyPage({ type: 'work_token', id: 1 });
  assert.deepEqual(idle.toPage.at(-1), { type: 'work_token', id: 1, refusal: 'not_lending' });

  const { tab, hub } = await working();
  const asked = (): number => hub.got.filter(({ kind }) => kind === 'work_token').length;
  const answers = (): ToLoader[] => tab.toPage.filter(({ type }) => type === 'work_token');
  tab.card.obeyPage({ type: 'work_token', id: 1 });
  tab.card.obeyPage({ type: 'work_token', id: 2 });
  assert.equal(asked(), 1);
  hub.onmessage?.({ data: { kind: 'work_token', answer: { token: 'wt1.ab.cd' } } });
  assert.deepEqual(answers(), [1, 2].map((id) => ({ type: 'work_token', id, token: 'wt1.ab.cd' })));
  tab.card.obeyPage({ type: 'work_token', id: 3 });
  assert.equal(asked(), 2);
  tab.click('stop');
  assert.deepEqual(answers().at(-1), { type: 'work_token', id: 3, refusal: 'not_lending' }, 'a stop answers, too');
});

test('the panel is watched only where the visitor is at its controls', async () => {
  const { tab, hub } = await working();
  await settle(SEEN_MS);
  assert.equal(FakeSight.watched, 0);
  tab.byId('share').value = '30';
  tab.byId('share').dispatchEvent(trusted('change'));
  assert.deepEqual([tab.byId('share').value, hub.got.some(({ kind }) => kind === 'share')], ['20', false], 'not seen yet');
  await approach(tab);
  assert.equal(FakeSight.watched, 2);
  tab.byId('share').value = '30';
  tab.byId('share').dispatchEvent(trusted('change'));
  assert.deepEqual(hub.got.at(-1), { kind: 'share', share: 0.3 });
  tab.click('stop');
  assert.equal(FakeSight.watched, 0);
});

const QUEUE = { categories: ['vision', 'tabular'], work: [{ category: 'vision', requester: 'Amber Heron' }], more: 1, view: '0c'.repeat(32) };

test('the card says for whom and what it would compute before the yes, and asks that only when it is opened', async () => {
  const tab = open(undefined, { queue: QUEUE });
  tab.card.obeyPage(hello);
  await settle(20);
  assert.deepEqual(tab.asked, [], 'the page’s load waits for nothing');
  tab.click('open');
  await settle(20);
  assert.deepEqual(tab.asked, [`GET /embed/now?site=${SITE}`]);
  assert.equal(tab.byId('queue').textContent, 'Now: image recognition for Amber Heron and 1 more.');
  const [heron] = QUEUE.work;
  // What could not be shown in whole has another name than what would be.
  const odd = [{ work: [heron, heron, heron] }, { work: [heron, { category: 'war', requester: 'x' }] }, { categories: ['vision', 'war'] }];
  const bad = [{ work: 'x' }, { more: -1 }, { view: 'x' }, { categories: 'vision' }, ...odd].map((change) => ({ ...QUEUE, ...change }));
  for (const queue of [undefined, {}, ...bad]) {
    const other = open(undefined, queue ? { queue } : {});
    other.card.obeyPage(hello);
    other.click('open');
    await settle(20);
    assert.equal(other.byId('queue').textContent, messages.queueLater, JSON.stringify(queue));
    await settle(SEEN_MS);
    assert.equal(other.byId('yes').disabled, false, 'it can be answered all the same');
  }
});

/** What the hubs of a tab are told that their visitor has seen. */
const seenBy = (tab: Tab): unknown[] => tab.hubs.map(({ got }) => (got[0]?.kind === 'start' ? got[0].config.view : undefined));
const keptView = (tab: Tab): unknown => JSON.parse(tab.held.get(KEY) ?? '{}').view;
/** By a key, which has no place that could be moved. */
const press = (tab: Tab): boolean => tab.byId('yes').dispatchEvent(trusted('click', { detail: 0 }));

test('a yes is to what the card shows at that moment, and the next page holds to it', async () => {
  for (const [queue, expected] of [[QUEUE, QUEUE.view], [undefined, CONFIG.view]] as const) {
    const tab = open(undefined, queue ? { queue } : {});
    tab.card.obeyPage(hello);
    tab.click('open');
    await settle(SEEN_MS);
    press(tab);
    await settle(20);
    assert.deepEqual([seenBy(tab), keptView(tab)], [[expected], expected]);
    const next = open(tab.held.get(KEY), { queue: { ...QUEUE, view: '0d'.repeat(32) } });
    next.card.obeyPage(hello);
    await settle(20);
    assert.deepEqual([next.asked, seenBy(next)], [[], [expected]], 'no card was shown since');
  }
});

/** A card that has been open for an hour, with a yes to what it said then. */
async function openForLong(answers: { queue?: object }, { mock }: { mock: { method: typeof nodeMock.method } }): Promise<Tab> {
  const tab = open(undefined, answers);
  tab.card.obeyPage(hello);
  tab.click('open');
  await settle(SEEN_MS);
  const opened = Date.now();
  mock.method(Date, 'now', () => opened + 3_600_000);
  return tab;
}

test('a card that was open for long is told anew, shows it, and wants the yes once more', async (t) => {
  const tab = await openForLong({ queue: QUEUE }, t);
  const hint = (): string => tab.byId('hint').textContent;
  press(tab);
  assert.deepEqual([tab.view(), hint()], ['card', messages.pressAgain]);
  await settle(20);
  assert.equal(tab.asked.filter((line) => line.startsWith('GET')).length, 2, 'it has asked once more');
  assert.equal(hint(), messages.pressAgain, 'which is still to be done');
  press(tab);
  await settle(20);
  assert.deepEqual([tab.view(), seenBy(tab)], ['live', [QUEUE.view]]);
});

test('words that have changed must be in view for as long as any, before they can be agreed to', async (t) => {
  const answers: { queue?: object } = { queue: QUEUE };
  const tab = await openForLong(answers, t);
  const later = { ...QUEUE, more: 7, view: '0d'.repeat(32) };
  answers.queue = later;
  press(tab);
  await settle(20);
  assert.match(tab.byId('queue').textContent, /7 more/);
  // The second half of a double click.
  press(tab);
  assert.deepEqual([tab.view(), tab.byId('yes').disabled, tab.byId('hint').textContent], ['card', true, messages.pressAgain]);
  await settle(SEEN_MS);
  assert.deepEqual([tab.byId('yes').disabled, tab.byId('hint').textContent], [false, messages.pressAgain]);
  press(tab);
  await settle(20);
  assert.deepEqual([tab.view(), seenBy(tab)], ['live', [later.view]]);
  tab.click('stop');
  tab.click('again');
  assert.equal(tab.byId('hint').textContent, '', 'asked anew, nothing was pressed yet');
});

test('an answer that comes late changes the words: the yes waits as long again', async () => {
  const tab = open(undefined, { queue: QUEUE, lateMs: SEEN_MS + 50 });
  tab.card.obeyPage(hello);
  tab.click('open');
  await settle(SEEN_MS);
  assert.equal(tab.byId('yes').disabled, false);
  await settle(100);
  assert.match(tab.byId('queue').textContent, /Amber Heron/);
  press(tab);
  assert.deepEqual([tab.view(), tab.byId('yes').disabled], ['card', true]);
  await settle(SEEN_MS);
  press(tab);
  await settle(20);
  assert.deepEqual(seenBy(tab), [QUEUE.view]);
});

test('a card that gets no answer any more says so, offers all kinds, and is agreed to as that', async (t) => {
  const answers: { queue?: object } = { queue: QUEUE };
  const tab = await openForLong(answers, t);
  // Each has a place of its own, as in the page.
  const field = new FakeElement();
  field.hidden = true;
  tab.byId('kind-finance').parentElement = field;
  delete answers.queue;
  press(tab);
  await settle(20);
  assert.deepEqual([tab.byId('queue').textContent, field.hidden], [messages.queueLater, false]);
  await settle(SEEN_MS);
  press(tab);
  await settle(20);
  assert.deepEqual([seenBy(tab), keptView(tab)], [[CONFIG.view], CONFIG.view]);
});

test('a yes that the coordinator takes for too old is not kept, and the key of what was earned is', async () => {
  const { tab, hub } = await working();
  const { publicKey, privateKey } = await Identity.generate();
  await keepKey(SITE, { publicKey, privateKey });
  assert.deepEqual(seenBy(tab), [SEEN]);
  hub.say({ phase: { name: 'failed', failure: 'text_changed', detail: '' } });
  await settle(20);
  assert.deepEqual([tab.view(), tab.byId('over-text').textContent], ['over', messages.failedTextChanged]);
  assert.equal(tab.held.has(KEY), false, 'the next page asks');
  assert.ok(tab.database.databases.has(KEY));
});

test('a card that came into view is told once, and one that did not is not', async () => {
  const tab = open();
  const told = (): number => tab.asked.filter((line) => line === 'POST /embed/shown t').length;
  tab.card.obeyPage(hello);
  FakeSight.become(false);
  tab.click('open');
  await settle(SEEN_MS);
  assert.equal(told(), 0, 'it is covered');
  FakeSight.become(true);
  await settle(SEEN_MS);
  assert.equal(told(), 1);
  tab.click('no');
  await settle(20);
  tab.click('open');
  await settle(SEEN_MS);
  assert.equal(told(), 1, 'of one page once');
});

test('a kind of job that is switched off counts at once and is kept; switched on again it is vouched for', async () => {
  const { tab, hub } = await working();
  const box = tab.byId('kind-finance');
  const turn = (checked: boolean): void => {
    box.checked = checked;
    box.dispatchEvent(trusted('change'));
  };
  const kept = (): unknown => JSON.parse(tab.held.get(KEY) ?? '{}').refuses;
  turn(false);
  assert.deepEqual(hub.got.at(-1), { kind: 'refuses', refuses: ['finance'] });
  assert.deepEqual(kept(), ['finance']);
  turn(true);
  assert.equal(box.checked, false, 'nobody was seen to come to it');
  assert.deepEqual(kept(), ['finance']);
  await approach(tab);
  turn(true);
  assert.deepEqual([hub.got.at(-1), kept()], [{ kind: 'refuses', refuses: [] }, undefined]);
  // What another tab was told holds here too.
  hub.onmessage?.({ data: { kind: 'refuses', refuses: ['vision', 'other'] } });
  assert.deepEqual([tab.byId('kind-vision').checked, tab.byId('kind-finance').checked], [false, true]);
  const next = await working(JSON.stringify({ ...JSON.parse(yes()), refuses: ['other', 'nonsense'] }));
  const [start] = next.hub.got;
  assert.ok(start?.kind === 'start');
  assert.deepEqual(start.config.refuses, ['other'], 'the next page begins with it');
});

test('the last kind of job stays: who wants none says no', async () => {
  const tab = open(undefined, { queue: QUEUE });
  for (const id of ['vision', 'language', 'tabular', 'science', 'finance', 'other']) {
    tab.byId(`kind-${id}`).parentElement = new FakeElement();
  }
  tab.card.obeyPage(hello);
  tab.click('open');
  await settle(20);
  const box = (id: string): FakeElement => tab.byId(`kind-${id}`);
  assert.equal(box('science').parentElement?.hidden, true, 'the site takes none of these anyway');
  box('tabular').checked = false;
  box('tabular').dispatchEvent(trusted('change'));
  assert.deepEqual([box('vision').disabled, box('tabular').disabled], [true, false]);
  // The card is watched no longer.
  tab.click('no');
  await settle(20);
});

test('where all that the site takes is what the visitor refused, a yes waits for a tick and says so', async () => {
  const tab = open(undefined, { queue: { ...QUEUE, categories: ['science'] } });
  const box = (id: string): FakeElement => tab.byId(`kind-${id}`);
  for (const id of ['vision', 'language', 'tabular', 'science', 'finance', 'other']) {
    box(id).parentElement = new FakeElement();
    box(id).checked = id !== 'science';
  }
  tab.card.obeyPage(hello);
  tab.click('open');
  await settle(SEEN_MS);
  assert.equal(box('science').checked, false, 'nobody ticks it for them');
  assert.deepEqual([tab.byId('yes').disabled, tab.byId('hint').textContent], [true, messages.noKind]);
  box('science').checked = true;
  box('science').dispatchEvent(trusted('change'));
  assert.deepEqual([tab.byId('yes').disabled, tab.byId('hint').textContent], [false, '']);
  // The card is watched no longer.
  tab.click('no');
  await settle(20);
});

/** A key that has earned, in the database of the tab that is open. */
async function earnedKey(): Promise<Identity> {
  const identity = await Identity.generate();
  const { publicKey, privateKey } = identity;
  await keepKey(SITE, { publicKey, privateKey, hasEarned: true });
  return identity;
}

/** A coordinator that knows what a key has, and takes gifts. */
function ledger(available: number, { gift = 201, wallet = null as string | null, aheadMs = 0 } = {}) {
  const gifts: Array<{ purpose: string; site: string; from: string; expires_ms: number }> = [];
  const coordinator = (path: string, body: string): { status: number; json?: object } => {
    if (path.endsWith('/challenge')) return { status: 201, json: { nonce: 'ab', now_ms: Date.now() + aheadMs } };
    if (path.endsWith('/gifts')) {
      gifts.push(JSON.parse(JSON.parse(body).statement));
      return { status: gift };
    }
    const earnings = { live: { available_nano_usd: available, pending_nano_usd: 0 }, test: { available_nano_usd: 0, pending_nano_usd: 0 } };
    return { status: 200, json: { wallet, given: null, accounts: [], earnings } };
  };
  return { gifts, coordinator };
}

const traces = { [KEY_TRACE]: '1' };
const answers = (tab: Tab): unknown[] => tab.toPage.flatMap((message) => (message.type === 'answer' ? [message.answer] : []));

/** Says "never here" on a card. */
async function sayNever(tab: Tab): Promise<void> {
  tab.card.obeyPage(hello);
  tab.click('open');
  await settle(20);
  tab.click('never');
  await settle(50);
}

test('whoever comes back after a stop can collect without working again', async () => {
  const tab = open(undefined, { traces });
  const { publicKey } = await earnedKey();
  tab.card.obeyPage(hello);
  tab.byId('card-keep').hidden = true;
  tab.click('open');
  await settle(20);
  assert.equal(tab.byId('card-keep').hidden, false);
  tab.click('card-keep');
  await until(() => tab.opened.length === 1);
  assert.deepEqual(claimsOf(tab.opened[0]).map(({ statement }) => JSON.parse(statement).from), [publicKey]);
  tab.click('no');
  await settle(20);
  assert.equal((await keptKey(SITE))?.publicKey, publicKey, '"not now" erases nothing');
});

test('"never here" says what is uncollected, and erases the key only once the site has it', async () => {
  const { gifts, coordinator } = ledger(1_234);
  const tab = open(undefined, { traces, coordinator });
  const { publicKey } = await earnedKey();
  await sayNever(tab);
  assert.equal(tab.view(), 'leaving');
  assert.match(tab.byId('leaving-text').textContent, /\$0\.000001234 /);
  assert.deepEqual([answers(tab), (await keptKey(SITE))?.publicKey], [[], publicKey], 'nothing is gone yet');
  tab.click('leaving-give');
  await settle(50);
  assert.deepEqual(gifts.map(({ purpose, site, from }) => [purpose, site, from]), [['give', SITE, publicKey]]);
  assert.ok(!tab.database.databases.has(KEY), 'the key is erased');
  assert.deepEqual([answers(tab), [...tab.held.keys()]], [['never'], [NEVER]]);
});

test('what is kept at "never here" is not given, and the frame waits until it was collected', async () => {
  const { gifts, coordinator } = ledger(1_234, { gift: 409 });
  const tab = open(undefined, { traces, coordinator });
  await earnedKey();
  await sayNever(tab);
  tab.click('leaving-keep');
  await until(() => tab.opened.length === 1);
  await settle(20);
  assert.deepEqual([tab.view(), answers(tab), gifts], ['leaving', [], []]);
  assert.equal(tab.byId('leaving-give').textContent, messages.leaveDone);
  tab.click('leaving-give');
  await settle(50);
  assert.ok(!tab.database.databases.has(KEY), 'a wallet has claimed it');
  assert.deepEqual(answers(tab), ['never']);
});

test('a coordinator that does not answer keeps the key from being erased, and the next page gives by default', async () => {
  const tab = open(undefined, { traces });
  await earnedKey();
  await sayNever(tab);
  assert.deepEqual([tab.view(), tab.byId('leaving-text').textContent], ['leaving', messages.leaveUnknown.replace('{site}', 'News')]);
  tab.click('leaving-give');
  await settle(50);
  assert.equal(tab.byId('leaving-hint').textContent, messages.leaveFailed);
  assert.ok(tab.database.databases.has(KEY));
  assert.deepEqual(answers(tab), []);
  for (const [ago, isGiven] of [[60_000, false], [3_600_000, true]] as const) {
    const { gifts, coordinator } = ledger(1_234);
    const next = open(undefined, { traces: { ...traces, [NEVER]: String(Date.now() - ago), [ASKED]: String(Date.now() - ago) }, coordinator });
    await earnedKey();
    next.card.obeyPage(hello);
    await settle(50);
    assert.deepEqual([gifts.length > 0, !next.database.databases.has(KEY), answers(next)], [isGiven, isGiven, isGiven ? ['never'] : []]);
    // A link that was opened a minute ago may still be on its way: the question stands once more.
    assert.equal(next.view(), isGiven ? 'gone' : 'leaving');
  }
});

test('gifts and links end by the coordinator’s clock, whatever the device’s says', async () => {
  for (const aheadMs of [-3_600_000, 3_600_000]) {
    const { gifts, coordinator } = ledger(1_234, { aheadMs });
    const left = (expires = 0): number => expires - (Date.now() + aheadMs);
    const linked = open(undefined, { traces, coordinator });
    await earnedKey();
    linked.card.obeyPage(hello);
    await settle(20);
    linked.click('card-keep');
    await until(() => linked.opened.length === 1);
    const [claim] = claimsOf(linked.opened[0]).map(({ statement }) => JSON.parse(statement).expires_ms);
    const tab = open(undefined, { traces, coordinator });
    await earnedKey();
    await sayNever(tab);
    tab.click('leaving-give');
    await settle(50);
    for (const expires of [claim, gifts[0]?.expires_ms]) assert.ok(left(expires) > 13 * 60_000 && left(expires) < 15 * 60_000, `${left(expires)} ms`);
  }
});

test('a gift that is refused is not said to be unanswered', async () => {
  const { coordinator } = ledger(1_234, { gift: 422 });
  const tab = open(undefined, { traces, coordinator });
  const { publicKey } = await earnedKey();
  await sayNever(tab);
  tab.click('leaving-give');
  await settle(50);
  assert.deepEqual([tab.byId('leaving-hint').textContent, (await keptKey(SITE))?.publicKey], [messages.leaveRefused, publicKey]);
});

test('nothing is given by default before the visitor has seen the question', async () => {
  const never = { ...traces, [NEVER]: String(Date.now() - 3_600_000) };
  // A question of the page before would be seen just now.
  open();
  await settle(SEEN_MS);
  for (const isSeen of [false, true]) {
    const { gifts, coordinator } = ledger(1_234);
    const tab = open(undefined, { traces: never, coordinator });
    FakeSight.become(isSeen);
    await earnedKey();
    tab.card.obeyPage(hello);
    await settle(50);
    assert.deepEqual([tab.view(), gifts, tab.held.has(ASKED)], ['leaving', [], false]);
    await settle(SEEN_MS);
    assert.deepEqual([gifts, tab.held.has(ASKED)], [[], isSeen], 'a page that hides it gains nothing');
    tab.click('leaving-give');
    await settle(50);
    assert.deepEqual([gifts.length, [...tab.held.keys()]], [1, [NEVER]]);
  }
});

test('whoever has the mark shown after a "never here" can open it, and keeps the key and the frame', async () => {
  const ago = String(Date.now() - 3_600_000);
  const { gifts, coordinator } = ledger(1_234);
  const tab = open(undefined, { traces: { ...traces, [NEVER]: ago, [ASKED]: ago }, coordinator });
  const { publicKey } = await earnedKey();
  tab.card.obeyPage({ ...hello, asked: true });
  await settle(50);
  assert.deepEqual([tab.view(), answers(tab), gifts], ['icon', [], []]);
  await agree(tab);
  assert.deepEqual([tab.view(), (await keptKey(SITE))?.publicKey, tab.held.has(ASKED)], ['live', publicKey, false]);
  tab.click('stop');
});

test('a key that an earlier frame kept without a word of it is known by its yes, even one that has run out', async () => {
  for (const kept of [yes(Date.now() - 1), yes(undefined, 'text-0'), '{}']) {
    const tab = open(kept);
    tab.card.obeyPage(hello);
    await settle(20);
    assert.deepEqual([tab.held.has(KEY), tab.held.get(KEY_TRACE)], [false, '1']);
  }
});

test('what was accepted after its page was left is asked about, too', async () => {
  const { gifts, coordinator } = ledger(9);
  const tab = open(undefined, { traces, coordinator });
  const { publicKey, privateKey } = await Identity.generate();
  await keepKey(SITE, { publicKey, privateKey });
  await sayNever(tab);
  assert.deepEqual([tab.view(), gifts], ['leaving', []]);
  tab.click('leaving-keep');
  await until(() => tab.opened.length === 1);
  assert.deepEqual(claimsOf(tab.opened[0]).map(({ statement }) => JSON.parse(statement).from), [publicKey]);
});

/** The visitor opens the card, reads it, and agrees. */
async function agree(tab: Tab): Promise<void> {
  tab.click('open');
  await settle(SEEN_MS);
  tab.byId('yes').dispatchEvent(trusted('click', { detail: 0 }));
  await settle(50);
}

test('a yes while a goodbye is on its way ends it: nothing is given, and the key stays', async () => {
  const { gifts, coordinator } = ledger(0);
  const tab = open(undefined, { traces, late: ['/challenge', 900], coordinator });
  const { publicKey } = await earnedKey();
  tab.card.obeyPage(hello);
  tab.click('open');
  await settle(20);
  tab.click('never');
  await agree(tab);
  await settle(1_200);
  assert.deepEqual([tab.view(), gifts, (await keptKey(SITE))?.publicKey], ['live', [], publicKey]);
  assert.deepEqual([answers(tab), tab.held.get(KEY_TRACE), tab.held.has(NEVER)], [['yes'], '1', false]);
  tab.click('stop');
});

test('a question that still stands gives nothing of a key that another tab works under', async () => {
  const { gifts, coordinator } = ledger(1_234);
  const tab = open(undefined, { traces, coordinator });
  const { publicKey } = await earnedKey();
  await sayNever(tab);
  assert.equal(tab.view(), 'leaving');
  // The yes of the other one.
  tab.held.delete(NEVER);
  tab.click('leaving-give');
  await settle(50);
  assert.deepEqual([tab.view(), gifts, (await keptKey(SITE))?.publicKey], ['icon', [], publicKey]);
  assert.deepEqual([answers(tab), tab.held.get(KEY_TRACE)], [[], '1']);
});

test('a yes after a gift whose answer is late or lost begins with a new key, and erases none', async () => {
  for (const isLost of [true, false]) {
    const { coordinator } = ledger(0, { gift: isLost ? 503 : 201 });
    const never = { ...traces, [NEVER]: String(Date.now()) };
    const tab = open(undefined, { traces: never, late: ['/gifts', 900], coordinator });
    const { publicKey } = await earnedKey();
    tab.card.obeyPage({ ...hello, asked: true });
    tab.click('open');
    tab.click('no');
    await settle(50);
    assert.equal(tab.held.get(KEY_TRACE), '0', 'noted before it is sent');
    await agree(tab);
    const { publicKey: next, privateKey } = await Identity.generate();
    assert.equal(await keptKey(SITE), undefined, 'the hub makes a new one');
    await keepKey(SITE, { publicKey: next, privateKey });
    await settle(900);
    const kept = (await keptKeys(SITE)).map((key) => key.publicKey);
    assert.deepEqual([tab.view(), kept], ['live', [publicKey, next]]);
    assert.deepEqual([answers(tab), tab.held.get(KEY_TRACE)], [['yes'], '1']);
    tab.click('stop');
  }
});

test('where nothing is uncollected "never here" asks nothing', async () => {
  for (const answer of [ledger(0), ledger(500, { wallet: 'ab' })]) {
    const tab = open(undefined, { traces, coordinator: answer.coordinator });
    await earnedKey();
    await sayNever(tab);
    assert.deepEqual([tab.view(), answers(tab), tab.database.databases.has(KEY)], ['icon', ['never'], false]);
  }
});

test('"never here" holds in the frame, whatever the page remembers, until a yes', async () => {
  const never = { [NEVER]: String(Date.now()) };
  const tab = open(yes(), { traces: never });
  tab.card.obeyPage(hello);
  await settle(20);
  assert.deepEqual([tab.view(), tab.hubs.length, answers(tab)], ['gone', 0, ['never']], 'the page is told again');
  tab.click('open');
  assert.equal(tab.view(), 'gone', 'nothing can be opened');
  // The visitor has the page show it: a mark, and no question.
  const shown = open(undefined, { traces: never });
  shown.card.obeyPage({ ...hello, asked: true });
  await settle(20);
  assert.deepEqual([shown.view(), answers(shown)], ['icon', []]);
  assert.equal(shown.byId('ask').textContent, messages.neverHolds);
  shown.click('open');
  shown.click('no');
  await settle(20);
  assert.deepEqual([shown.held.has(NEVER), answers(shown)], [true, ['never']], 'a no takes no "never" back');
  shown.click('open');
  await settle(SEEN_MS);
  shown.byId('yes').dispatchEvent(trusted('click', { detail: 0 }));
  await settle(20);
  assert.deepEqual([shown.held.has(NEVER), shown.view()], [false, 'live']);
});

test('a tab that was covered while it was hidden rests when it is back', async () => {
  const { tab, hub } = await working();
  await settle(20);
  tab.hide(true);
  FakeSight.become(false);
  await settle(2_000 + UNSEEN_MS_MAX + 200);
  assert.deepEqual(hub.got.at(-1), { kind: 'pause', detail: 'hidden' });
  tab.hide(false);
  await settle(20);
  assert.equal(hub.got.at(-1)?.kind, 'resume', 'what was seen before counts for a moment');
  await settle(UNSEEN_MS_MAX + 200);
  assert.deepEqual(hub.got.at(-1), { kind: 'pause', detail: 'unseen' });
  tab.click('stop');
});

test('work rests while Stop is out of sight, and a recalled yes waits for the first sight of it', async () => {
  const { tab, hub } = await working();
  const said = (): unknown[] => hub.got.map((message) => (message.kind === 'pause' ? message.detail : message.kind));
  await settle(20);
  assert.deepEqual([hub.got[0], said()], [{ ...hub.got[0], paused: 'unseen' }, ['start', 'resume']]);
  FakeSight.become(false);
  await settle(2_000 + UNSEEN_MS_MAX + 200);
  assert.deepEqual(said().at(-1), 'unseen');
  assert.equal(tab.byId('status').textContent.length > 0, true);
  FakeSight.become(true);
  await settle(20);
  assert.deepEqual(said().at(-1), 'resume');
  const covered = open(yes());
  FakeSight.become(false);
  covered.card.obeyPage(hello);
  await settle(50);
  const start = covered.hubs[0]?.got;
  assert.deepEqual(start?.map(({ kind }) => kind), ['start'], 'nothing is loaded for a page that hides the button');
  tab.click('stop');
  covered.click('stop');
});
