// How many tasks a second the books take, each durable: groups of postings committed together, beside the same
// postings committed one by one (`coordinator/examples/ledger_bench.rs`); and whole records of rounds, with their
// credits, holds and totals (`record_bench.rs`). Each several times.
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

/// Records of each job, tasks of each record, jobs whose records are committed together.
const RECORDS = [[64, 512, 1], [32, 100, 8], [32, 1, 64]];

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

function run(example, ...args) {
  const program = join(targetDir, 'release/examples', example);
  return JSON.parse(execFileSync(program, args.map(String), { encoding: 'utf8' }));
}

const rows = [];

function add(name, example, ...args) {
  const runs = Array.from({ length: ROUNDS }, () => run(example, ...args));
  const of = (value) => median(runs.map((one) => one[value]));
  const row = {
    case: name, unit: 'tasks/s', ours: of('tasks_per_s_audited'), peers: { 'one by one': of('one_by_one_tasks_per_s') },
    without_audit: of('tasks_per_s'), ...(runs[0].slowest_group_ms && { slowest_group_ms: of('slowest_group_ms') }),
  };
  rows.push(row);
  console.log(`${name.padEnd(44)} ${row.ours.toFixed(0)} tasks/s (${row.without_audit.toFixed(0)} without the audit)   one by one ${row.peers['one by one'].toFixed(0)}`);
}

for (const group of GROUPS) add(`postings, groups of ${group} tasks`, 'ledger_bench', TASKS, group);
for (const [records, tasks, jobs] of RECORDS) {
  add(`whole records of ${tasks} tasks, ${jobs} together`, 'record_bench', records, tasks, jobs);
}
conclude({
  name: 'ledger', date: new Date().toISOString().slice(0, 10), machine: machine({ rounds: ROUNDS, tasks: TASKS }), rows,
  goals: rows.map(({ case: name, ours }) => ({ name: `${name}: tasks a second, audited`, value: ours, goal: GOAL, met: ours >= GOAL })),
});
