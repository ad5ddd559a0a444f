import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readOwn } from '../src/earn/api.ts';
import { claimLink, readClaims } from '../src/earn/claims.ts';
import { daily } from '../src/earn/money.tsx';
import { allocated, ended } from '../src/earn/words.ts';
import { squares } from '../src/parts/qr.tsx';
import { time } from '../src/parts/times.ts';

const ORIGIN = 'https://raven.example';

test('a link has a claim, or none', () => {
  const claim = { statement: '{"purpose":"claim"}', signature: 'ab' };
  const coded = Buffer.from(JSON.stringify(claim)).toString('base64url');
  assert.deepEqual(readClaims(`#claim=${coded}`, ORIGIN), [claim]);
  const link = (claims: unknown): string => `#claim=${Buffer.from(JSON.stringify(claims)).toString('base64url')}`;
  const other = { ...claim, signature: 'cd' };
  assert.deepEqual(readClaims(link([claim, other]), ORIGIN), [claim, other], 'one for each key');
  const none = ['', '#claim=', '#claim=x', `#${coded}`, '#claim=e30', '#claim=<script>', link([]), link([claim, {}]), link([claim, null]), link(Array(33).fill(claim))];
  for (const hash of none) assert.deepEqual(readClaims(hash, ORIGIN), [], hash);
});

test('a crafted link is no claim, and no way to make the page fail', () => {
  const link = (claim: unknown): string => `#claim=${Buffer.from(JSON.stringify(claim)).toString('base64url')}`;
  const from = '{"from":{"toString":1,"valueOf":1},"expires_ms":{"valueOf":1,"toString":1},"nonce":"-f"}';
  const none: unknown[] = ['no JSON', '{', '{"é":1}', '"\u2028"', 'null', '[]', `{"a":"${'x'.repeat(1_100)}"}`].map((statement) => ({ statement, signature: 'ab' }));
  none.push({ statement: '{}', signature: 'é' }, { statement: '{}', signature: 'a'.repeat(129) }, { statement: '{}', signature: '' });
  for (const claim of none) assert.deepEqual(readClaims(link(claim), ORIGIN), [], JSON.stringify(claim));
  for (const statement of [from, '{}', '{"expires_ms":1e300}', '{"expires_ms":-1,"from":"-f-f","nonce":"+f"}']) {
    const claims = readClaims(link({ statement, signature: 'ab' }), ORIGIN);
    assert.equal(claims.length, 1, statement);
    assert.deepEqual(readClaims(new URL(claimLink(claims, ORIGIN)).hash, ORIGIN), claims, 'it goes on as it is');
  }
});

/** As the frame makes it. */
function signedClaim(digit: string) {
  const statement = JSON.stringify({ purpose: 'claim', coordinator: ORIGIN, from: digit.repeat(64), expires_ms: 1_796_000_000_000, nonce: digit.repeat(32) });
  return { statement, signature: digit.repeat(128) };
}

test('a link for another device says the same, shorter', () => {
  const claims = ['0', 'a', 'f'].map(signedClaim);
  const link = claimLink(claims, ORIGIN);
  assert.deepEqual(readClaims(new URL(link).hash, ORIGIN), claims);
  assert.ok(link.length < 520 && link.startsWith(`${ORIGIN}/earn#claims=`), link);
  const cut = new URL(link).hash.slice(0, -4);
  assert.deepEqual(readClaims(cut, ORIGIN), [], 'a link that was cut off');
  assert.notEqual(readClaims(new URL(link).hash, 'https://other.example')[0]?.statement, claims[0]?.statement, 'words for another coordinator');
});

test('words that the page would write otherwise go as they are', () => {
  const [claim] = [signedClaim('a')];
  for (const statement of [claim.statement.replace('":', '": '), claim.statement.toUpperCase(), '{}', claim.statement.replace('}', ',"more":1}')]) {
    const other = { ...claim, statement };
    const link = claimLink([other], ORIGIN);
    assert.deepEqual(readClaims(new URL(link).hash, ORIGIN), [other], statement);
  }
});

test('sixteen claims, as many as a frame has, fit into one code', () => {
  const claims = Array.from({ length: 16 }, (_, index) => signedClaim(index.toString(16)));
  const rows = squares(claimLink(claims, ORIGIN));
  assert.ok(rows && rows.length <= 177 + 8, String(rows?.length));
  assert.ok(rows.slice(0, 4).flat().every((isDark) => !isDark), 'white around it');
  assert.equal(squares('x'.repeat(3_000)), undefined);
  const one = squares(claimLink(claims.slice(0, 1), ORIGIN));
  assert.ok(one && one.length <= 61, `one claim has ${one?.length} squares a side`);
});

test('whatever the coordinator leaves out is nothing', () => {
  const own = readOwn({});
  assert.deepEqual([own.tasks, own.linked, own.earnings.live.available, own.payout.threshold], [0, [], 0, undefined]);
  assert.equal(own.links, undefined, 'a coordinator that knows of no links');
  const linked = readOwn({ accounts: [{ book: 'live', account: 'requester:7', at: '2026-01-01T00:00:00Z' }] });
  assert.deepEqual(linked.links, [{ book: 'live', account: 'requester:7', at: '2026-01-01T00:00:00Z' }]);
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
  assert.deepEqual(['', 'excluded', 'some_new_reason'].map(ended), ['Left', 'A result was wrong', 'Some new reason']);
});
