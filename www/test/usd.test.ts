import assert from 'node:assert/strict';
import { test } from 'node:test';
import { amountOf } from '../src/parts/amount.tsx';
import { References, readWithdrawals, STATES } from '../src/parts/till.ts';
import { inTokens } from '../src/parts/tokens.tsx';
import { decimal, parseUsd, tokens, usd, usdBrief, usdShort } from '../src/parts/usd.ts';

test('amounts are shown to the last digit', () => {
  const cases: Array<[number, string]> = [
    [0, '$0'],
    [1, '$0.000000001'],
    [432, '$0.000000432'],
    [500_000_000, '$0.50'],
    [5e9, '$5.00'],
    [12_345_678_901, '$12.345678901'],
    [1_000_000_000_000, '$1,000.00'],
    [999_999_999_999_999, '$999,999.999999999'],
    [-70_000_000, '−$0.07'],
  ];
  for (const [nano, expected] of cases) assert.equal(usd(nano), expected);
});

test('tokens are shown to the last millionth', () => {
  assert.deepEqual([0, 1, 1_250_500_000, 1_000_000].map(tokens), ['0 RAVEN', '0.000001 RAVEN', '1,250.5 RAVEN', '1 RAVEN']);
});

test('amounts are shown in tokens as the coordinator rounds them, where there is a rate', () => {
  const cases: Array<[number, number, string]> = [
    [2, 3_000_000, '0 RAVEN'],
    [5, 3_000_000, '0.000001 RAVEN'],
    [-5, 3_000_000, '−0.000001 RAVEN'],
    [1_500_000_000, 40_000_000, '37.5 RAVEN'],
    [9_007_199_254_740_991, 1_000, '9,007,199,254,740.991 RAVEN'],
    [1_500_000_000, 0, ''],
    [0, 40_000_000, ''],
  ];
  for (const [nanoUsd, rate, expected] of cases) assert.equal(inTokens(nanoUsd, rate), expected, `${nanoUsd} at ${rate}`);
});

test('where there is little room no amount is larger than it is', () => {
  assert.deepEqual([9_999_999_999, 12_999_999_999, 10_000_000_001].map(usdBrief), ['$9.999999999', '$12.99', '$10.00']);
});

test('an axis has room for few characters', () => {
  assert.deepEqual([0, 131, 14_400, 2_500_000, 5e9].map(usdShort), ['$0', '131 n$', '14.4 µ$', '2.5 m$', '$5.00']);
});

test('what is typed is the amount that is meant, or none', () => {
  const cases: Array<[string, number | undefined]> = [
    ['12.5', 12_500_000_000],
    [' $0.000000001 ', 1],
    // In floating point this is 1.1000000000000001e9 after the product.
    ['1.1', 1_100_000_000],
    ['.5', 500_000_000],
    ['5.', 5e9],
    ['0', 0],
    ['1000000', 1e15],
    ['1000000.000000001', undefined],
    ['0.0000000001', undefined],
    ['1,5', undefined],
    ['1,000.00', undefined],
    ['-1', undefined],
    ['1e3', undefined],
    ['.', undefined],
    ['$', undefined],
    ['', undefined],
    ['99999999999999999999', undefined],
  ];
  for (const [typed, expected] of cases) assert.equal(parseUsd(typed), expected, typed);
  for (const nano of [1, 432, 12_345_678_901, 1e15]) assert.equal(parseUsd(decimal(nano)), nano);
  for (const typed of ['', 'x', '0', '0.00']) assert.throws(() => amountOf(typed), { field: 'nano_usd' });
});

test('a wish that is sent again has the same reference, and another wish another', () => {
  const references = new References();
  const first = references.of(5, 'a');
  assert.match(first, /^[0-9a-f]{32}$/);
  assert.equal(references.of(5, 'a'), first);
  const other = references.of(6, 'a');
  assert.notEqual(other, first);
  references.done();
  assert.notEqual(references.of(6, 'a'), other, 'the same wish once more, after it went well');
});

test('a list of withdrawals is read whatever is missing', () => {
  assert.deepEqual(readWithdrawals({}), { withdrawals: [], least: 0 });
  const { withdrawals, least } = readWithdrawals({ withdrawals: [{ id: 'wd_1', nano_usd: 7, state: 'paying' }, 'x'], least_nano_usd: 9 });
  assert.deepEqual([withdrawals[0]?.nanoUsd, withdrawals[0]?.pay, withdrawals[1]?.id, least], [7, 'usd', '', 9]);
  for (const state of ['pending', 'paying', 'approved', 'refused', 'cancelled', 'expired']) assert.ok(STATES[state], state);
});
