// How many tasks a second the books take, each durable: groups of postings committed together, beside the same
// postings committed one by one. What `coordinator/examples/ledger_bench.rs` measures, several times.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { targetDir } from '../../tests/e2e/lib/paths.mjs';
import { conclude } from '../lib/contest.mjs';
import { machine } from '../lib/machine.mjs';

const ROUNDS = 5;
const TASKS = 50_000;
const GROUPS = [100, 500, 2000];
/// Tasks a second, each of six postings, with the chain and the auditor.
const GOAL = 5_000;

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

function run(group) {
  const program = join(targetDir, 'release/examples/ledger_bench');
  return JSON.parse(execFileSync(program, [String(TASKS), String(group)], { encoding: 'utf8' }));
}

const rows = [];
for (const group of GROUPS) {
  const runs = Array.from({ length: ROUNDS }, () => run(group));
  const of = (name) => median(runs.map((one) => one[name]));
  rows.push({
    case: `groups of ${group} tasks`, unit: 'tasks/s', ours: of('tasks_per_s_audited'),
    peers: { 'one by one': of('one_by_one_tasks_per_s') },
    without_audit: of('tasks_per_s'), slowest_group_ms: of('slowest_group_ms'),
  });
  const { case: name, ours, peers, without_audit: bare } = rows.at(-1);
  console.log(`${name.padEnd(22)} ${ours.toFixed(0)} tasks/s (${bare.toFixed(0)} without the audit)   one by one ${peers['one by one'].toFixed(0)}`);
}
const best = Math.max(...rows.map((row) => row.ours));
conclude({
  name: 'ledger', date: new Date().toISOString().slice(0, 10), machine: machine({ rounds: ROUNDS, tasks: TASKS }), rows,
  goals: [{ name: 'tasks a second, audited', value: best, goal: GOAL, met: best >= GOAL }],
});
