import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readClaims, readOwn } from '../src/earn/api.ts';
import { daily } from '../src/earn/money.tsx';
import { allocated, time, usd, usdShort } from '../src/earn/words.ts';

test('small amounts are seen, and large ones are short', () => {
  assert.deepEqual(
    [0, 1, 432, 14_400, 1_234_567, 5e9, 12_345_678_900].map(usd),
    ['$0', '$0.000000001', '$0.000000432', '$0.0000144', '$0.00123', '$5.00', '$12.35'],
  );
});

test('an axis has room for few characters', () => {
  assert.deepEqual([0, 131, 14_400, 2_500_000, 5e9].map(usdShort), ['$0', '131 n$', '14.4 µ$', '2.5 m$', '$5.00']);
});

test('a link has a claim, or none', () => {
  const claim = { statement: '{"purpose":"claim"}', signature: 'ab' };
  const coded = Buffer.from(JSON.stringify(claim)).toString('base64url');
  assert.deepEqual(readClaims(`#claim=${coded}`), [claim]);
  const link = (claims: unknown): string => `#claim=${Buffer.from(JSON.stringify(claims)).toString('base64url')}`;
  const other = { ...claim, signature: 'cd' };
  assert.deepEqual(readClaims(link([claim, other])), [claim, other], 'one for each key');
  const none = ['', '#claim=', '#claim=x', `#${coded}`, '#claim=e30', '#claim=<script>', link([]), link([claim, {}]), link([claim, null]), link(Array(33).fill(claim))];
  for (const hash of none) assert.deepEqual(readClaims(hash), [], hash);
});

test('whatever the coordinator leaves out is nothing', () => {
  const own = readOwn({});
  assert.deepEqual([own.tasks, own.linked, own.earnings.live.available, own.payout.threshold], [0, [], 0, undefined]);
  const some = readOwn({
    earned: [{ day: '1970-01-03T00:00:00.000Z', book: 'live', nano_usd: 7 }, { day: 'x', book: 'test', nano_usd: 'y' }],
    earnings: { live: { available_nano_usd: 7, expires: '2026-01-01T00:00:00Z' } },
  });
  assert.deepEqual(some.earned.live, [[2, 7]]);
  assert.equal(some.earnings.live.expires, '2026-01-01T00:00:00Z');
  assert.equal(some.earnings.test.expires, undefined);
});

test('days without earnings are days too', () => {
  assert.deepEqual(daily([], 100), []);
  assert.deepEqual(daily([[98, 5], [100, 7]], 100), [[94, 0], [95, 0], [96, 0], [97, 0], [98, 5], [99, 0], [100, 7]]);
});

test('allocations in words', () => {
  assert.equal(allocated({ kind: 'raise', share: 0.5, cpu: true, gpu: false }), 'Raised: 50 % of the processor');
  assert.equal(allocated({ kind: 'consent', share: 0.2, cpu: false, gpu: true }), 'Agreed: 20 % of the GPU');
  assert.equal(allocated({ kind: 'revoke', share: 0, cpu: false, gpu: false }), 'Stopped');
  assert.equal(time('nonsense'), '');
});
