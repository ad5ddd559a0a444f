import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { GpuKernel } from '../src/gpu-worker/kernel.ts';
import { GpuRunner } from '../src/gpu-worker/runner.ts';
import { WAKE_MS } from '../src/kernel-worker/pacer.ts';
import type { Host } from '../src/kernel-worker/task-runner.ts';
import type { FromKernel } from '../src/shared/kernel-port.ts';
import { decodeFrame, encodeFrame } from '../src/wire/frame.ts';
import { TO_CONTRIBUTOR } from '../src/wire/limits.ts';

const GRAPH = 'cd'.repeat(32);

/** A kernel whose device answers when the test says so. */
class FakeGpu implements GpuKernel {
  readonly log: string[] = [];
  lacks: string[] = [];
  refuses = false;
  traps = false;
  lostFor: string | undefined;
  cannotRun: string | undefined;
  tooLarge: string | undefined;
  /** The device's answers that are due, oldest first. */
  readonly #due: Array<() => void> = [];
  #lease: string | undefined;

  measure(): Promise<number> {
    return Promise.resolve(1);
  }
  accept(frame: Uint8Array): Uint8Array | undefined {
    const { type, id, lease } = decodeFrame(frame, TO_CONTRIBUTOR).header;
    this.log.push(`accept ${String(type)}`);
    if (this.tooLarge === type) throw new Error(`too_large: ${String(type)} needs more than there is`);
    if (type === 'blob') this.lacks = this.lacks.filter((lacked) => lacked !== id);
    if (type === 'cancel' && lease === this.#lease) this.#lease = undefined;
    return type === 'reveal' ? encodeFrame({ type: 'result', lease }) : undefined;
  }
  unsupported(): string | undefined {
    return this.cannotRun;
  }
  missing(): string[] {
    return [...this.lacks];
  }
  begin(frame: Uint8Array): Uint8Array | undefined {
    assert.equal(this.#lease, undefined, 'busy');
    if (this.traps) throw new WebAssembly.RuntimeError('unreachable');
    const lease = String(decodeFrame(frame, TO_CONTRIBUTOR).header.lease);
    this.log.push(`begin ${lease}`);
    if (this.refuses || this.lostFor) return encodeFrame({ type: 'refuse', lease, reason: 'failed' });
    this.#lease = lease;
    return undefined;
  }
  settled(): Promise<void> {
    return new Promise((resolve) => this.#due.push(resolve));
  }
  /** The device answers the oldest task that it was given. */
  answer(): void {
    this.#due.shift()?.();
  }
  finish(elapsedMs: number): Uint8Array {
    const lease = this.#lease;
    assert.ok(lease, 'idle');
    this.#lease = undefined;
    return encodeFrame(this.lostFor ? { type: 'refuse', lease, reason: 'failed' } : { type: 'commit', lease, elapsed_ms: elapsedMs });
  }
  abort(): Uint8Array | undefined {
    const lease = this.#lease;
    this.#lease = undefined;
    return lease === undefined ? undefined : encodeFrame({ type: 'refuse', lease, reason: 'stopping' });
  }
  lost(): string | undefined {
    return this.lostFor;
  }
}

function setUp(duty: number) {
  const clock = { now: 0 };
  const posted: FromKernel[] = [];
  const sleeps: number[] = [];
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
  const kernel = new FakeGpu();
  const runner = new GpuRunner(kernel, duty, host);
  /** Has the device compute for `ms` and answer. */
  const compute = async (ms: number): Promise<void> => {
    await settle();
    clock.now += ms;
    kernel.answer();
    await settle();
  };
  return { clock, posted, sleeps, hooks, kernel, runner, compute };
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 2));
const frame = (header: object): ArrayBuffer => encodeFrame(header).buffer;
const task = (lease: string) =>
  ({ kind: 'task', lease, frame: frame({ type: 'task', lease, spec: { program: { graph: GRAPH } } }), hubMs: 0 }) as const;
const answers = (posted: FromKernel[]): string[] =>
  posted.map((message) => (message.kind === 'answer' ? `${message.outcome} ${message.lease}` : message.kind));

test('a task goes to the device as a whole and is committed, frames are taken meanwhile', async () => {
  const { posted, kernel, runner, compute } = setUp(1);
  kernel.lacks = ['x'];
  runner.handle(task('a'));
  assert.deepEqual(posted, [{ kind: 'need', lease: 'a', ids: ['x'] }]);
  runner.handle({ kind: 'supply', id: 'x', frame: frame({ type: 'blob', id: 'x' }), lent: false });
  await settle();
  runner.handle({ kind: 'reveal', lease: 'old', frame: frame({ type: 'reveal', lease: 'old' }) });
  runner.handle(task('b'));
  await compute(40);
  assert.deepEqual(answers(posted), ['need', 'result old', 'unable', 'commit a']);
  const last = posted.at(-1);
  assert.ok(last?.kind === 'answer');
  assert.equal(decodeFrame(new Uint8Array(last.frame), TO_CONTRIBUTOR).header.elapsed_ms, 40);
});

test('the share is kept over time by rests between tasks', async () => {
  const { clock, posted, runner, compute } = setUp(0.2);
  for (let at = 0; at < 20; at += 1) {
    runner.handle({ ...task(`${at}`), hubMs: 1 });
    await compute(30);
  }
  assert.equal(posted.length, 20);
  // What the last one did is still to be rested for.
  const duty = (20 * 31) / (clock.now + 30 * 4);
  assert.ok(Math.abs(duty - 0.2) < 0.01, `${duty}`);
});

test('an abort is answered at once, and the next task waits until the device is free', async () => {
  const { clock, posted, kernel, runner, compute, sleeps } = setUp(0.5);
  runner.handle(task('a'));
  await settle();
  clock.now += 10;
  runner.handle({ kind: 'abort' });
  assert.deepEqual(answers(posted), ['refuse a']);
  runner.handle(task('b'));
  await settle();
  assert.deepEqual(kernel.log, ['begin a'], 'the device is at the first one still');
  await compute(50);
  assert.deepEqual(answers(posted), ['refuse a'], 'what it says of it is of no use');
  assert.deepEqual(kernel.log, ['begin a', 'begin b']);
  assert.equal(Math.max(...sleeps), 60 + 3 * WAKE_MS, 'all that it computed is rested for');
  await compute(5);
  assert.deepEqual(answers(posted), ['refuse a', 'commit b']);
});

test('an abort or a cancel while a task waits for its turn leaves the device alone', async () => {
  const { posted, hooks, kernel, runner, compute } = setUp(0.5);
  runner.handle(task('a'));
  await compute(100);
  hooks.onPause = () => {
    delete hooks.onPause;
    runner.handle({ kind: 'abort' });
  };
  runner.handle(task('b'));
  await settle();
  assert.deepEqual(posted.at(-1), { kind: 'unable', lease: 'b', detail: 'paused' });
  runner.handle(task('c'));
  runner.handle({ kind: 'cancel', lease: 'c', frame: frame({ type: 'cancel', lease: 'c' }) });
  runner.handle(task('d'));
  await compute(1);
  assert.deepEqual(kernel.log.filter((line) => line.startsWith('begin')), ['begin a', 'begin d']);
  assert.deepEqual(answers(posted), ['commit a', 'unable', 'commit d']);
});

test('a cancelled task says nothing, however late the device answers', async () => {
  const { posted, runner, compute } = setUp(1);
  runner.handle(task('a'));
  await settle();
  runner.handle({ kind: 'cancel', lease: 'a', frame: frame({ type: 'cancel', lease: 'a' }) });
  await compute(10);
  assert.deepEqual(posted, []);
});

test('a device that is lost in mid-task: first the lease goes back, then the worker is broken, once', async () => {
  const { posted, kernel, runner, compute } = setUp(1);
  runner.handle(task('a'));
  await settle();
  kernel.lostFor = 'unknown';
  runner.handle({ kind: 'duty', duty: 0.5 });
  assert.deepEqual(posted, [], 'the task is answered first');
  await compute(5);
  assert.deepEqual(answers(posted), ['refuse a', 'broken']);
  runner.handle(task('b'));
  await settle();
  assert.deepEqual(answers(posted), ['refuse a', 'broken', 'refuse b']);
});

test('a loss that is known a moment after its task is told without another task', async () => {
  const { posted, hooks, kernel, runner } = setUp(1);
  kernel.refuses = true;
  runner.handle(task('a'));
  await settle();
  assert.deepEqual(answers(posted), ['refuse a'], 'a refusal alone is no loss');
  let pauses = 0;
  hooks.onPause = () => {
    pauses += 1;
    if (pauses === 2) kernel.lostFor = 'unknown';
  };
  runner.handle(task('b'));
  await settle();
  assert.deepEqual(answers(posted), ['refuse a', 'refuse b', 'broken']);
});

test('a graph that the device cannot run is not kept, and its tasks are refused as such', async () => {
  const { posted, kernel, runner, compute } = setUp(1);
  kernel.cannotRun = 'conv2d: too wide';
  runner.handle({ kind: 'accept', frame: frame({ type: 'graph', id: GRAPH }) });
  kernel.cannotRun = undefined;
  runner.handle({ kind: 'accept', frame: frame({ type: 'graph', id: 'ef'.repeat(32) }) });
  assert.deepEqual(kernel.log, ['accept graph']);
  runner.handle(task('a'));
  assert.deepEqual(posted, [{ kind: 'unable', lease: 'a', detail: 'conv2d: too wide', reason: 'unsupported' }]);
  runner.handle({ kind: 'accept', frame: frame({ type: 'drop', blobs: [], graphs: [GRAPH] }) });
  runner.handle(task('b'));
  await compute(1);
  assert.deepEqual(answers(posted), ['unable', 'commit b']);
});

test('what is too large is said to be, so that it is not offered again', async () => {
  const { posted, kernel, runner } = setUp(1);
  kernel.tooLarge = 'graph';
  runner.handle({ kind: 'accept', frame: frame({ type: 'graph', id: GRAPH, graph: {} }) });
  runner.handle(task('a'));
  kernel.tooLarge = 'blob';
  runner.handle({ kind: 'accept', frame: frame({ type: 'drop', blobs: [], graphs: [GRAPH] }) });
  kernel.lacks = ['x'];
  runner.handle(task('b'));
  runner.handle({ kind: 'supply', id: 'x', frame: frame({ type: 'blob', id: 'x' }), lent: false });
  const refusals = posted.flatMap((message) => (message.kind === 'unable' ? [[message.lease, message.reason]] : []));
  assert.deepEqual(refusals, [['a', 'unsupported'], ['b', 'too_large']]);
});

test('a trap is reported as the end of the instance', async () => {
  const { posted, kernel, runner } = setUp(1);
  kernel.traps = true;
  runner.handle(task('a'));
  await settle();
  assert.deepEqual(posted, [{ kind: 'broken', detail: 'unreachable' }]);
});
