import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readNodes, readStats } from '../src/api.ts';
import { count, duration, percent, rate, withPrefix, words } from '../src/format.ts';

test('numbers keep three digits and their unit', () => {
  const cases: Array<[number, string]> = [
    [0, '0 flop'],
    [950, '950 flop'],
    [12_345, '12.3 kflop'],
    [1.5e9, '1.50 Gflop'],
    [2.345e15, '2.35 Pflop'],
    [7e20, '700 Eflop'],
  ];
  for (const [value, expected] of cases) assert.equal(withPrefix(value, 'flop'), expected);
});

test('rates, counts, parts and times read well', () => {
  assert.deepEqual([0, 0.124, 12.34, 1234.5].map(rate), ['0', '0.12', '12.3', '1,235']);
  assert.equal(count(1_234_567), '1,234,567');
  assert.equal(percent(0.8812, 1), '88.1 %');
  assert.deepEqual([0, 59.9, 60, 3_599, 3_600, 7_325].map(duration), ['0 s', '59 s', '1 min', '59 min', '1 h 0 min', '2 h 2 min']);
  assert.equal(words('waiting_for_contributors'), 'Waiting for contributors');
});

test('answers are read as API.md states them', () => {
  const stats = readStats({
    contributors: 3,
    workers: 5,
    tasks_accepted: 12,
    tasks_per_s: 1.5,
    flops_done: 1e12,
    jobs: [
      {
        id: 'job_1',
        name: 'demo',
        state: 'running',
        epoch: 2,
        epochs: 5,
        round: 470,
        rounds: 1175,
        images_per_s: 812.5,
        contributors: 3,
        loss: [[1, 2.3], [2, null], [3, 1.9]],
        evaluation: [[1, 0.5, 0.8], [2, 0.4, null]],
      },
    ],
  });
  const [job] = stats.jobs;
  assert.ok(job);
  assert.deepEqual(job.loss, [[1, 2.3], [3, 1.9]]);
  assert.deepEqual(job.evaluation, [
    { epoch: 1, loss: 0.5, accuracy: 0.8 },
    { epoch: 2, loss: 0.4, accuracy: undefined },
  ]);
  assert.equal(job.imagesPerS, 812.5);
});

test('an answer of another shape shows as nothing', () => {
  for (const answer of [null, 7, 'x', [], {}, { jobs: 3, nodes: {} }]) {
    assert.deepEqual(readStats(answer).jobs, []);
    assert.deepEqual(readNodes(answer), []);
  }
  assert.equal(readNodes({ nodes: [{ device: { class: 'phone' } }] })[0]?.device, 'phone');
});
