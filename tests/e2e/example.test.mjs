// The worked example of engine/LEDGER.md by the calculator that every other balance is compared with, from what the page itself says.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { expectedBalances } from './lib/balances.mjs';
import { root } from './lib/paths.mjs';

const page = readFileSync(join(root, 'engine/LEDGER.md'), 'utf8');
const example = page.slice(page.indexOf('## Worked example'));
const number = (text) => BigInt(text.replaceAll(',', ''));

/** The numbers that the example's words give for `pattern`, in their order. */
function said(pattern) {
  const found = pattern.exec(example);
  assert.ok(found, `the example says ${pattern}`);
  return found.slice(1).map(number);
}

/** What the table says was paid for a row that begins so: the last number of the row, or that at the end of the job. */
function paid(row) {
  const line = example.split('\n').find((it) => it.startsWith(`| ${row}`) || it.startsWith(`| **${row}`));
  assert.ok(line, `the table has ${row}`);
  return number(/([\d,]+)[^\d]*$/.exec(line)[1]);
}

const [TASKS, MFLOP] = said(/has (\d+) tasks of (\d+) Mflop/);
const [PHONE, DESKTOP, SERVER] = said(/phone ([\d,]+), desktop ([\d,]+), server ([\d,]+) pico-USD/);
const PEOPLE = [
  { contributor: 'ann', site: 'a', rate: DESKTOP, count: said(/Ann, desktop, has a key and came through site A: (\d+) executions/)[0] },
  { contributor: 'ben', site: 'b', rate: DESKTOP, count: said(/Ben, desktop, with a key, through site B: (\d+)/)[0] },
  { contributor: 'cleo', site: 'a', rate: PHONE, beneficiary: 'site', count: said(/Cleo, phone, without a key, through\s+site A: (\d+)/)[0] },
  { contributor: 'node', site: null, rate: SERVER, count: said(/A native node, server, through no site: (\d+)/)[0] },
];

const flops = MFLOP * 1_000_000n;
const credits = PEOPLE.flatMap(({ count, ...person }) => Array.from({ length: Number(count) }, () => ({ job: '1', payer: 'job', flops, ...person })));
const earnerOf = ({ contributor, site, beneficiary }) => (beneficiary === 'site' ? `site:${site}` : `contributor:${contributor}`);

it('comes to what the page says, to the nano-USD', () => {
  assert.equal(credits.length, 3 * Number(TASKS), 'three executions of each task');
  const { balances, jobs } = expectedBalances({ credits, requester: 'requester:1', trial: 0n, earnerOf });
  const [{ parts, price }] = jobs.values();
  const left = paid('Cleo');
  const figures = {
    'contributor:ann': paid('Ann'), 'contributor:ben': paid('Ben'), 'contributor:node': paid('node'),
    'site:a': left + paid('site A'), 'site:b': paid('site B'), reserve: paid('reserve'),
    master_node: paid('master node'), protocol_fee: paid('transaction fee'), 'requester:1': -paid('the customer pays'),
  };
  const named = (entries) => Object.fromEntries(entries.filter(([, amount]) => amount !== 0n).sort().map(([name, amount]) => [name, String(amount)]));
  assert.deepEqual(named([...balances]), named(Object.entries(figures)));
  assert.deepEqual([parts.earning, parts.partner, parts.master, parts.fee, price],
    [paid('operational cost'), paid('partners, 3 %'), paid('master node'), paid('transaction fee'), paid('the customer pays')]);
  assert.equal([...balances.values()].reduce((sum, amount) => sum + amount, 0n), 0n, 'nothing comes from nowhere');
});

it('holds what the page says, and gives back the rest', () => {
  const [calculations, rate, held] = said(/\*\*Quote\*\*: (\d+) calculations × ([\d,]+) × 4 × 1\.1 = [\d,]+ pico-USD = \*\*([\d,]+) nano-USD/);
  assert.deepEqual([calculations, rate], [(TASKS * MFLOP) / 50n, SERVER]);
  assert.equal((calculations * rate * 44n) / 10_000n, held);
  const [of, charged, back] = said(/escrow gives back ([\d,]+) − ([\d,]+) = ([\d,]+)/);
  assert.deepEqual([of, charged, back], [held, paid('the customer pays'), held - charged]);
});

it('pays a visit of ninety seconds its millionths, and its site three in a hundred of them', () => {
  const [seconds, share, gflops, perSecond] = said(/visit of (\d+) seconds at (\d+) % of a device of (\d+) Gflop\/s does (\d+) calculations a second/);
  assert.equal((gflops * 1_000n * share) / (50n * 100n), perSecond);
  const visit = [{ job: '1', payer: 'job', flops: seconds * perSecond * 50_000_000n, rate: DESKTOP, contributor: 'ann', site: 'a' }];
  const { balances } = expectedBalances({ credits: visit, requester: 'requester:1', trial: 0n, earnerOf });
  const [count, rate, visitor] = said(/(\d+) × ([\d,]+) pico-USD are \*\*([\d,]+) nano-USD\*\* for the visitor/);
  assert.deepEqual([count, rate], [seconds * perSecond, DESKTOP]);
  assert.equal(balances.get('contributor:ann'), visitor);
  assert.equal(balances.get('site:a'), said(/\*\*([\d,]+)\*\* for its site/)[0]);
});
