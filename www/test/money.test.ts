import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Refusal } from '../src/parts/refusal.ts';
import { isNoKey } from '../src/parts/sign-in.tsx';
import { nameOf, readLines } from '../src/parts/statement.tsx';
import { References, withdraw, type Till, type Wish } from '../src/parts/till.ts';

const WISH = { nanoUsd: 5, address: 'ann@example.org', pay: 'usd' } as const;

/** A till that says of each reference what became of it, and keeps what was asked. */
function tillOf(states: Map<string, string>): { readonly till: Till; readonly asked: Wish[] } {
  const asked: Wish[] = [];
  const till: Till = {
    withdraw: async (wish) => {
      asked.push(wish);
      if (!states.has(wish.reference)) states.set(wish.reference, 'pending');
      return states.get(wish.reference) ?? '';
    },
    cancel: async () => undefined,
  };
  return { till, asked };
}

test('what was given back is asked for anew, and never said to be held', async () => {
  for (const state of ['cancelled', 'refused', 'expired']) {
    const references = new References();
    // Its answer never came; then it was given back.
    const { till, asked } = tillOf(new Map([[references.of(WISH, 'to'), state]]));
    assert.equal(await withdraw(till, references, WISH, 'to'), 'pending');
    assert.equal(asked.length, 2, state);
    assert.notEqual(asked[0]?.reference, asked[1]?.reference);
  }
});

test('what is held already is not asked for twice', async () => {
  for (const state of ['pending', 'paying', 'approved']) {
    const references = new References();
    const { till, asked } = tillOf(new Map([[references.of(WISH, 'to'), state]]));
    assert.equal(await withdraw(till, references, WISH, 'to'), state);
    assert.equal(asked.length, 1);
    assert.equal(await withdraw(till, references, WISH, 'to'), 'pending', 'the same wish once more is another one');
    assert.notEqual(asked[0]?.reference, asked[1]?.reference);
  }
});

test('a statement says what was paid in tokens, and nothing of other lines', () => {
  const rate = { nano_usd_per_token: 40_000_000, from: '2026-01-01T00:00:00Z' };
  const { lines } = readLines({ lines: [{ number: 2, paid: { micro_tokens: 37_500_000, rate } }, { number: 1, paid: null }] });
  assert.deepEqual(lines.map(({ paid }) => paid), [{ microTokens: 37_500_000, rate: 40_000_000 }, undefined]);
});

test('a movement of earnings is named by who reads it', () => {
  const line = { number: 1, at: '', state: 'posted', paid: undefined };
  assert.equal(nameOf({ ...line, reason: 'spend', nanoUsd: 5 }), 'From earnings');
  assert.equal(nameOf({ ...line, reason: 'spend', nanoUsd: -5 }), 'To an account');
  assert.equal(nameOf({ ...line, reason: 'escrow', nanoUsd: -5 }), 'Set aside for a job');
});

test('only a refusal of the key signs anybody out', () => {
  const refusals = [0, 400, 401, 403, 404, 429, 500, 503].filter((status) => isNoKey(new Refusal(status, '', '')));
  assert.deepEqual(refusals, [401, 403]);
  assert.equal(isNoKey(new TypeError('x')), false);
});
