import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../src/hub/backoff.ts';
import { Pacer } from '../src/kernel-worker/pacer.ts';
import { Speed } from '../src/kernel-worker/speed.ts';
import { paceFor } from '../src/shared/pace.ts';

test('a share becomes the fewest workers and an equal duty', () => {
  const cases: Array<[share: number, cores: number, workers: number, duty: number]> = [
    [0.05, 1, 1, 0.05],
    [0.2, 2, 1, 0.4],
    [0.5, 2, 1, 1],
    [0.55, 2, 2, 0.55],
    [0.2, 8, 2, 0.8],
    [1, 8, 8, 1],
    [0.07, 100, 7, 1],
    [1, 1_000, 256, 1],
  ];
  for (const [share, cores, workers, duty] of cases) {
    const pace = paceFor(share, cores);
    assert.equal(pace.workers, workers, `${share} of ${cores}`);
    assert.ok(Math.abs(pace.duty - duty) < 1e-9, `${share} of ${cores}: ${pace.duty}`);
  }
});

test('shares out of range are bounded', () => {
  assert.equal(paceFor(0, 4).share, 0.05);
  assert.equal(paceFor(7, 4).share, 1);
  assert.equal(paceFor(Number.NaN, 4).share, 0.05);
  assert.equal(paceFor(0.5, 0).workers, 1);
});

/** Works in steps of `stepMs` with sleeps that last `late` ms longer than asked; gives the duty that came out. */
function simulate(duty: number, stepMs: number, late: number): number {
  const pacer = new Pacer(duty);
  let worked = 0;
  let clock = 0;
  while (clock < 60_000) {
    clock += stepMs;
    worked += stepMs;
    pacer.worked(stepMs);
    const due = pacer.due();
    const slept = due === 0 ? 0 : due + late;
    clock += slept;
    pacer.rested(slept);
  }
  return worked / clock;
}

test('the duty is kept over a window, though timers are late', () => {
  for (const duty of [0.05, 0.2, 0.4, 0.75, 0.95]) {
    for (const stepMs of [1, 12, 20]) {
      for (const late of [0, 1, 7]) {
        const kept = simulate(duty, stepMs, late);
        // Lateness is taken off the next rest, as far as a rest is long enough.
        assert.ok(kept <= duty * 1.02 + 1e-3, `${duty} ${stepMs} ${late}: ${kept}`);
        if (late === 0) assert.ok(kept >= duty * 0.97, `${duty} ${stepMs}: ${kept}`);
      }
    }
  }
});

test('full duty never rests', () => {
  const pacer = new Pacer(1);
  pacer.worked(10_000);
  assert.equal(pacer.due(), 0);
});

test('idle time earns only a small burst', () => {
  const pacer = new Pacer(0.5);
  pacer.rested(60_000);
  pacer.worked(50);
  assert.equal(pacer.due(), 0);
  pacer.worked(50);
  assert.equal(pacer.due(), 50);
});

test('a new duty rescales the rest that is owed', () => {
  const pacer = new Pacer(0.5);
  pacer.worked(100);
  assert.equal(pacer.due(), 100);
  pacer.setDuty(0.2);
  assert.ok(Math.abs(pacer.due() - 400) < 1e-9);
  pacer.setDuty(1);
  assert.equal(pacer.due(), 0);
});

test('steps follow the measured speed', () => {
  assert.equal(new Speed(10e9).stepFlops(), 120e6);
  assert.equal(new Speed(undefined).stepFlops(), 12e6);
  assert.equal(new Speed(0).flopsPerS, 1e9);
  const speed = new Speed(1e9);
  for (let step = 0; step < 100; step += 1) speed.observe(5e7, 10);
  assert.ok(Math.abs(speed.flopsPerS - 5e9) < 1e7);
  speed.observe(1e9, 0.01);
  assert.ok(speed.flopsPerS < 6e9, 'a reading below the clock is ignored');
});

test('tries spread out, double and end at a minute', () => {
  const soon = new Backoff(() => 0);
  assert.deepEqual([1, 2, 3, 4].map(() => soon.next(false)), [500, 1_000, 2_000, 4_000]);
  const late = new Backoff(() => 0.999999);
  let last = 0;
  for (let tries = 0; tries < 30; tries += 1) last = late.next(false);
  assert.ok(last <= 60_000 && last > 59_000);
  late.reset();
  assert.ok(late.next(false) <= 1_000);
  assert.ok(new Backoff(() => 0).next(true) >= 7_500, 'a crowded coordinator is given time');
  const asked = [0, 0.999999].map((random) => new Backoff(() => random).next(true, 5_000));
  assert.ok(asked[0] === 5_000 && asked[1]! < 8_000, `${asked}: not before it asked for, and soon after`);
  assert.ok(new Backoff(() => 0.5).next(true, Number.MAX_SAFE_INTEGER) <= 90_000, 'nor at the end of days');
});
