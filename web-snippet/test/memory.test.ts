import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMemory } from '../src/public/memory.ts';

const DAY_MS = 86_400_000;

/** A site's storage, and what it holds. */
function storage(): { store: Storage; held: Map<string, string> } {
  const held = new Map<string, string>();
  const store = {
    getItem: (key: string) => held.get(key) ?? null,
    setItem: (key: string, value: string) => void held.set(key, value),
    removeItem: (key: string) => void held.delete(key),
  };
  return { store: store as unknown as Storage, held };
}

test('nothing is kept before an answer, and a word after it', () => {
  const { store, held } = storage();
  const memory = createMemory(() => store, () => 20_000 * DAY_MS + 12_345_678);
  assert.equal(memory.recall(), undefined);
  assert.equal(held.size, 0);
  memory.remember('never');
  assert.deepEqual([...held], [['raven', 'never']]);
  memory.remember('not_now');
  // The day and no more: a finer time could tell visitors apart.
  assert.deepEqual([...held], [['raven', 'not_now 20000']]);
  memory.remember('yes');
  assert.deepEqual([...held], [['raven', 'yes 20000']]);
  memory.forget();
  assert.equal(held.size, 0);
});

test('what has run out is removed, what others wrote is not', () => {
  const { store, held } = storage();
  let now = 20_000 * DAY_MS;
  const memory = createMemory(() => store, () => now);
  for (const [answer, days] of [['not_now', 7], ['yes', 2], ['withdrawn', 2]] as const) {
    memory.remember(answer);
    now += days * DAY_MS - 1;
    assert.equal(memory.recall(), answer);
    now += 1;
    assert.equal(memory.recall(), undefined);
    assert.equal(held.size, 0, answer);
  }
  held.set('raven', 'of another script');
  assert.equal(memory.recall(), undefined);
  assert.equal(held.size, 1);
});

test('a "never" holds for ever and a "not now" for a week', () => {
  const { store } = storage();
  let now = 20_000 * DAY_MS;
  const memory = createMemory(() => store, () => now);
  memory.remember('not_now');
  now += 7 * DAY_MS - 1;
  assert.equal(memory.recall(), 'not_now');
  now += 1;
  assert.equal(memory.recall(), undefined);
  memory.remember('never');
  now += 10_000 * DAY_MS;
  assert.equal(createMemory(() => store, () => now).recall(), 'never');
  memory.remember('not_now');
  now -= DAY_MS;
  assert.equal(memory.recall(), undefined, 'a clock that was put back');
});

test('where storage is denied the answer holds for the page', () => {
  const denied = (): Storage => {
    throw new DOMException('denied', 'SecurityError');
  };
  const memory = createMemory(denied, () => 0);
  assert.equal(memory.recall(), undefined);
  memory.remember('never');
  assert.equal(memory.recall(), 'never');
  memory.forget();
  assert.equal(memory.recall(), undefined);
  const full = { getItem: () => null, setItem: denied, removeItem: denied } as unknown as Storage;
  const kept = createMemory(() => full, () => 0);
  kept.remember('never');
  assert.equal(kept.recall(), 'never');
});

test('what others wrote under the key is nothing', () => {
  const { store, held } = storage();
  const memory = createMemory(() => store, () => 20_000 * DAY_MS);
  for (const text of ['', 'yes', 'not_now', 'not_now x', 'not_now 999999999', '{}', 'not_now -1']) {
    held.set('raven', text);
    assert.equal(memory.recall(), undefined, text);
  }
});
