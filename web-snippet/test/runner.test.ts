import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { Meter } from '../src/hub/meter.ts';
import type { Kernel, KernelModule } from '../src/kernel-worker/kernel.ts';
import { measure } from '../src/kernel-worker/measure.ts';
import { WAKE_MS } from '../src/kernel-worker/pacer.ts';
import { Runner } from '../src/kernel-worker/runner.ts';
import { Speed } from '../src/kernel-worker/speed.ts';
import type { Host } from '../src/kernel-worker/task-runner.ts';
import type { FromKernel } from '../src/shared/kernel-port.ts';
import { decodeFrame, encodeFrame } from '../src/wire/frame.ts';
import { TO_CONTRIBUTOR } from '../src/wire/limits.ts';

/** A kernel whose steps and frames take the test's time, and that keeps a log. */
class FakeKernel implements Kernel {
  stepMs = 10;
  acceptMs = 0;
  worked = 0;
  readonly log: string[] = [];
  lacks: string[] = [];
  refuses = false;
  trapAt = Infinity;
  #left = 0;
  #done = 0;
  #lease = '';
  readonly #clock: { now: number };
  readonly #steps: number;

  constructor(clock: { now: number }, steps: number) {
    this.#clock = clock;
    this.#steps = steps;
  }

  accept(frame: Uint8Array): Uint8Array | undefined {
    this.#spend(this.acceptMs);
    const { header } = decodeFrame(frame, TO_CONTRIBUTOR);
    this.log.push(`accept ${String(header.type)}`);
    if (header.type === 'bad') throw new Error('not for me');
    if (header.type === 'blob') this.lacks = this.lacks.filter((id) => id !== header.id);
    if (header.type === 'cancel' && header.lease === this.#lease) this.#left = 0;
    if (header.type === 'project') return encodeFrame({ type: 'projected', lease: header.lease });
    return header.type === 'reveal' ? encodeFrame({ type: 'result', lease: header.lease }) : undefined;
  }
  #spend(ms: number): void {
    this.#clock.now += ms;
    this.worked += ms;
  }
  missing(): string[] {
    return [...this.lacks];
  }
  begin(frame: Uint8Array): Uint8Array | undefined {
    this.#lease = String(decodeFrame(frame, TO_CONTRIBUTOR).header.lease);
    this.log.push(`begin ${this.#lease}`);
    if (this.refuses) return encodeFrame({ type: 'refuse', lease: this.#lease, reason: 'too_large' });
    this.#left = this.#steps;
    this.#done = 0;
    return undefined;
  }
  step(): boolean {
    assert.ok(this.#left > 0, 'stepped without a task');
    this.#spend(this.stepMs);
    this.#done += 1e7;
    this.#left -= 1;
    this.trapAt -= 1;
    if (this.trapAt <= 0) throw new WebAssembly.RuntimeError('unreachable');
    return this.#left === 0;
  }
  flopsDone(): number {
    return this.#done;
  }
  flopsTotal(): number {
    return this.#steps * 1e7;
  }
  finish(elapsedMs: number): Uint8Array {
    return encodeFrame({ type: 'commit', lease: this.#lease, elapsed_ms: elapsedMs });
  }
  abort(): Uint8Array | undefined {
    this.#left = 0;
    return encodeFrame({ type: 'refuse', lease: this.#lease, reason: 'stopping' });
  }
}

function setUp(duty: number, steps = 5) {
  const clock = { now: 0 };
  const posted: FromKernel[] = [];
  const sleeps: number[] = [];
  /** Called at every pause, before time goes on. */
  const hooks: { onPause?: () => void } = {};
  const host: Host = {
    now: () => clock.now,
    pause: async (ms) => {
      sleeps.push(ms);
      await Promise.resolve();
      clock.now += ms;
      hooks.onPause?.();
    },
    post: (message) => posted.push(message),
  };
  const kernel = new FakeKernel(clock, steps);
  const runner = new Runner(kernel, new Speed(1e9), duty, host);
  return { clock, posted, sleeps, hooks, kernel, runner };
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
const frame = (header: object): ArrayBuffer => encodeFrame(header).buffer;
const task = (lease: string) => ({ kind: 'task', lease, frame: frame({ type: 'task', lease }), hubMs: 0 }) as const;
const answers = (posted: FromKernel[]): string[] =>
  posted.map((message) => (message.kind === 'answer' ? `${message.outcome} ${message.lease}` : message.kind));

test('a task is run in steps, rested for, and committed', async () => {
  const { clock, posted, sleeps, runner } = setUp(0.5);
  runner.handle(task('a'));
  await settle();
  assert.deepEqual(answers(posted), ['commit a']);
  // Four rests between five steps of 10 ms; the fifth is owed by the next task.
  assert.deepEqual(sleeps.filter((ms) => ms > 0), [10 + 2 * WAKE_MS, ...Array(3).fill(10 + WAKE_MS)]);
  assert.equal(clock.now, 90 + 5 * WAKE_MS);
  const [answer] = posted;
  assert.ok(answer?.kind === 'answer');
  assert.equal(decodeFrame(new Uint8Array(answer.frame), TO_CONTRIBUTOR).header.elapsed_ms, Math.round(90 + 5 * WAKE_MS));
});

test('the rest owed by one task comes before the next', async () => {
  const { sleeps, posted, runner } = setUp(0.5, 1);
  runner.handle(task('a'));
  await settle();
  runner.handle(task('b'));
  await settle();
  assert.deepEqual(answers(posted), ['commit a', 'commit b']);
  assert.deepEqual(sleeps.filter((ms) => ms > 0), [10 + 2 * WAKE_MS]);
});

test('a step that is longer than any sleep is rested for in full', async () => {
  const { clock, kernel, posted, runner, sleeps } = setUp(0.1, 3);
  kernel.stepMs = 900;
  runner.handle(task('a'));
  await settle();
  runner.handle(task('b'));
  await settle();
  assert.deepEqual(answers(posted), ['commit a', 'commit b']);
  assert.ok(sleeps.every((ms) => ms <= 2_000), 'a change of the share is felt soon');
  // The last step's rest is still owed.
  const duty = kernel.worked / (clock.now + 900 * 9);
  assert.ok(Math.abs(duty - 0.1) < 0.001, `${duty}`);
});

test('frames that are taken count as work', async () => {
  const { clock, kernel, posted, runner } = setUp(0.25, 1);
  kernel.acceptMs = 40;
  for (let at = 0; at < 50; at += 1) {
    runner.handle({ kind: 'accept', frame: frame({ type: 'graph' }) });
    runner.handle(task(`${at}`));
    await settle();
  }
  assert.equal(posted.length, 50);
  const duty = kernel.worked / clock.now;
  assert.ok(Math.abs(duty - 0.25) < 0.01, `${duty}`);
});

test('what the hub has computed is rested for with the next task', async () => {
  const { sleeps, posted, runner } = setUp(0.5, 1);
  runner.handle({ ...task('a'), hubMs: 30 });
  await settle();
  assert.deepEqual(answers(posted), ['commit a']);
  assert.deepEqual(sleeps.filter((ms) => ms > 0), [30]);
});

test('time within time counts once', () => {
  let now = 0;
  const meter = new Meter(() => now);
  meter.run(() => {
    now += 2;
    meter.run(() => void (now += 3));
  });
  assert.throws(() => meter.run(() => {
    now += 5;
    throw new Error('counted too');
  }));
  assert.equal(meter.take(), 10 + 2 * WAKE_MS);
  assert.equal(meter.take(), 0);
});

test('blobs that are missing are asked for, and the task begins with the last one', async () => {
  const { posted, kernel, runner } = setUp(1);
  kernel.lacks = ['x', 'y'];
  runner.handle(task('a'));
  assert.deepEqual(posted, [{ kind: 'need', lease: 'a', ids: ['x', 'y'] }]);
  const lent = frame({ type: 'blob', id: 'x' });
  runner.handle({ kind: 'supply', id: 'x', frame: lent, lent: true });
  const back = posted[1];
  assert.ok(back?.kind === 'returned' && back.frame === lent, 'what is lent goes back as it is');
  assert.ok(!kernel.log.includes('begin a'));
  runner.handle({ kind: 'supply', id: 'y', frame: frame({ type: 'blob', id: 'y' }), lent: false });
  await settle();
  assert.deepEqual(answers(posted), ['need', 'returned', 'commit a']);
});

test('a blob that the kernel does not take costs the lease, not the worker', async () => {
  const { posted, kernel, runner } = setUp(1);
  kernel.lacks = ['x'];
  runner.handle(task('a'));
  runner.handle({ kind: 'supply', id: 'x', frame: frame({ type: 'bad' }), lent: true });
  assert.equal(posted[1]?.kind === 'unable' && posted[1].detail, 'not for me');
  assert.equal(posted[2]?.kind, 'returned');
  kernel.lacks = [];
  runner.handle(task('b'));
  await settle();
  assert.deepEqual(answers(posted).at(-1), 'commit b');
});

test('a refusal at the start is passed on', () => {
  const { posted, kernel, runner } = setUp(1);
  kernel.refuses = true;
  runner.handle(task('a'));
  assert.deepEqual(answers(posted), ['refuse a']);
});

test('an abort is obeyed at the next step', async () => {
  const { posted, hooks, runner, clock } = setUp(0.5, 1_000);
  let pauses = 0;
  hooks.onPause = () => {
    pauses += 1;
    if (pauses === 4) runner.handle({ kind: 'abort' });
  };
  runner.handle(task('a'));
  await settle();
  assert.deepEqual(answers(posted), ['refuse a']);
  assert.ok(clock.now < 100, `stopped at ${clock.now} ms`);
});

test('a cancelled task says nothing, and the next one runs alone', async () => {
  const { posted, hooks, kernel, runner } = setUp(1, 20);
  let pauses = 0;
  hooks.onPause = () => {
    pauses += 1;
    if (pauses !== 3) return;
    runner.handle({ kind: 'cancel', lease: 'a', frame: frame({ type: 'cancel', lease: 'a' }) });
    runner.handle(task('b'));
  };
  runner.handle(task('a'));
  await settle();
  assert.deepEqual(answers(posted), ['commit b']);
  assert.deepEqual(kernel.log, ['begin a', 'accept cancel', 'begin b']);
});

test('projections and a reveal are answered while a task runs', async () => {
  const { posted, hooks, runner } = setUp(1, 5);
  let asked = false;
  hooks.onPause = () => {
    if (!asked) runner.handle({ kind: 'project', lease: 'old', frame: frame({ type: 'project', lease: 'old' }) });
    if (!asked) runner.handle({ kind: 'reveal', lease: 'old', frame: frame({ type: 'reveal', lease: 'old' }) });
    asked = true;
  };
  runner.handle(task('a'));
  await settle();
  assert.deepEqual(answers(posted), ['projected old', 'result old', 'commit a']);
});

test('a trap is reported as the end of the instance', async () => {
  const { posted, kernel, runner } = setUp(1, 5);
  kernel.trapAt = 2;
  runner.handle(task('a'));
  await settle();
  assert.deepEqual(posted, [{ kind: 'broken', detail: 'unreachable' }]);
});

test('one task at a time', async () => {
  const { posted, runner } = setUp(1, 3);
  runner.handle(task('a'));
  runner.handle(task('b'));
  await settle();
  assert.deepEqual(posted[0], { kind: 'unable', lease: 'b', detail: 'the worker has a task already' });
  assert.deepEqual(answers(posted).at(-1), 'commit a');
});

/** Set by the test script: the folder of the built kernel module. */
const kernelFolder = process.env.RAVEN_KERNEL_DIR ?? '';

test('the speed test runs on the built kernel', { skip: !existsSync(`${kernelFolder}/raven_kernel.js`) }, async () => {
  const glue = (await import(pathToFileURL(`${kernelFolder}/raven_kernel.js`).href)) as KernelModule;
  await glue.default({ module_or_path: new WebAssembly.Module(readFileSync(`${kernelFolder}/raven_kernel.wasm`)) });
  const kernel = new glue.Kernel(64 << 20);
  const start = performance.now();
  const flopsPerS = measure(kernel, () => performance.now());
  const tookMs = performance.now() - start;
  assert.ok(flopsPerS !== undefined, 'the graph’s content id has changed: see MEASURE_GRAPH_ID');
  assert.ok(flopsPerS > 1e7 && flopsPerS < 1e12, `${flopsPerS} flop/s`);
  assert.ok(tookMs < 2_000, `took ${tookMs} ms`);
  // The kernel is left as it was.
  assert.equal(kernel.abort(), undefined);
  assert.equal(measure(kernel, () => performance.now()) !== undefined, true);
});
