/**
 * The kernel workers of one browser: which exist, what each is at, and the
 * tasks that wait for one. The hub copies no tensor: frames that it keeps are lent.
 */

import type { Pace } from '../shared/pace.ts';
import type { FromKernel, ToKernel } from '../shared/kernel-port.ts';
import { decodeFrame, encodeFrame } from '../wire/frame.ts';
import { TO_COORDINATOR } from '../wire/limits.ts';
import type { RefuseReason, ShardRef } from '../wire/message.ts';
import type { FrameStore, Loan } from './blobs.ts';

/** Tasks that wait at most; a coordinator pushes a few per worker. */
const QUEUE_TASKS_MAX = 512;
/** Bytes of waiting tasks at most: their attachments are row numbers, mostly. */
const QUEUE_BYTES_MAX = 256 << 20;
/** A worker that is no longer wanted keeps its unrevealed results for this long. */
const RETIRE_MS_MAX = 15_000;
/** A worker that is in the middle of one very long operation does not hear; after this it is ended instead. */
const ABORT_MS_MAX = 2_000;
/** More crashes than this within the window, and the visitor is told instead. */
const CRASHES_MAX = 3;
const CRASH_WINDOW_MS = 60_000;

/** One kernel worker as the pool sees it. */
export interface Port {
  onmessage: ((message: FromKernel) => void) | undefined;
  onerror: ((detail: string) => void) | undefined;
  post(message: ToKernel, transfer: Transferable[]): void;
  terminate(): void;
}

/** What the pool asks of the hub. */
export interface PoolHost {
  now(): number;
  /** A new worker, with its kernel on the way; `flopsPerS` where a worker has measured already. */
  spawn(duty: number, flopsPerS: number | undefined): Port;
  /** Runs what counts as the hub's own computing. */
  run(act: () => void): void;
  /** Milliseconds of it that no worker has rested for yet. */
  ownMs(): number;
  /** Sends a frame of a kernel to the coordinator. */
  send(frame: ArrayBuffer): void;
  refuse(lease: string, reason: RefuseReason, detail: string): void;
  /** The frame of a shard, to be owned by the caller. */
  shard(shard: ShardRef): Promise<ArrayBuffer>;
  /** The first worker is ready and has measured. */
  measured(flopsPerS: number): void;
  /** Something that the visitor is shown has changed. */
  changed(): void;
  /** Workers crash so often that nothing will come of it. */
  crashed(detail: string): void;
}

export interface PoolTask {
  readonly lease: string;
  readonly frame: ArrayBuffer;
  readonly shards: readonly ShardRef[];
}

interface Slot {
  readonly port: Port;
  stage:
    | { readonly at: 'starting' }
    | { readonly at: 'free' }
    | { readonly at: 'busy'; readonly task: PoolTask }
    /** The worker is gone, and so is what it owed: what still arrives for it is of no use. */
    | { readonly at: 'ended' };
  /** Leases whose payload this worker's kernel holds until it is revealed. */
  readonly committed: Set<string>;
  /** Frames of the store that the worker is to give back. */
  readonly loans: Map<string, Loan>;
  /** When to end the worker at the latest, once it is no longer wanted. */
  retireAt: ReturnType<typeof setTimeout> | undefined;
}

export class Pool {
  readonly #host: PoolHost;
  readonly #store: FrameStore;
  readonly #crashesMax: number;
  /** Which of the stored frames are graphs. */
  readonly #graphs = new Set<string>();
  #slots: Slot[] = [];
  #queue: PoolTask[] = [];
  #queuedBytes = 0;
  #pace: Pace;
  #paused = false;
  #stopped = false;
  #flopsPerS: number | undefined;
  #committedTasks = 0;
  #crashes: number[] = [];

  /** @param crashesMax crashes within a minute that are made good by a new worker. */
  constructor(host: PoolHost, store: FrameStore, pace: Pace, crashesMax = CRASHES_MAX) {
    this.#host = host;
    this.#store = store;
    this.#crashesMax = crashesMax;
    this.#pace = pace;
    this.#fill();
  }

  /** Tasks that were committed since the start. */
  get committedTasks(): number {
    return this.#committedTasks;
  }

  get isBusy(): boolean {
    return this.#queue.length > 0 || this.#slots.some((slot) => slot.stage.at === 'busy');
  }

  setPace(pace: Pace): void {
    this.#pace = pace;
    for (const slot of this.#slots) slot.port.post({ kind: 'duty', duty: pace.duty }, []);
    this.#fill();
    this.#feed();
  }

  /** Hands every task back, now; those that wait by the hub, those that run by their workers. */
  pause(): void {
    this.#paused = true;
    for (const task of this.#takeQueue()) this.#host.refuse(task.lease, 'stopping', 'paused');
    for (const slot of this.#slots) this.#abort(slot);
    this.#host.changed();
  }

  resume(): void {
    this.#paused = false;
    this.#feed();
    this.#host.changed();
  }

  /** Ends all workers at once. */
  stop(): void {
    this.#stopped = true;
    this.#takeQueue();
    for (const slot of this.#slots) this.#terminate(slot);
    this.#slots = [];
  }

  /** Keeps a graph and gives it to every worker: a kernel needs it before the task comes. */
  graph(id: string, frame: ArrayBuffer): void {
    this.#store.put(id, frame);
    for (const slot of this.#slots) post(slot, { kind: 'accept', frame: frame.slice(0) });
    this.#graphs.add(id);
  }

  /** Keeps a blob; workers ask for it when a task names it. */
  blob(id: string, frame: ArrayBuffer): void {
    this.#store.put(id, frame);
  }

  drop(ids: readonly string[], frame: ArrayBuffer): void {
    for (const id of ids) {
      this.#store.drop(id);
      this.#graphs.delete(id);
    }
    for (const slot of this.#slots) post(slot, { kind: 'accept', frame: frame.slice(0) });
  }

  task(task: PoolTask): void {
    if (this.#paused || this.#stopped) {
      this.#host.refuse(task.lease, 'stopping', 'paused');
      return;
    }
    const bytes = this.#queuedBytes + task.frame.byteLength;
    if (this.#queue.length >= QUEUE_TASKS_MAX || bytes > QUEUE_BYTES_MAX) {
      this.#host.refuse(task.lease, 'failed', `more than ${QUEUE_TASKS_MAX} tasks or ${QUEUE_BYTES_MAX} bytes wait`);
      return;
    }
    this.#queue.push(task);
    this.#queuedBytes = bytes;
    this.#feed();
  }

  /** Asks for projections of a result that is kept. */
  project(lease: string, frame: ArrayBuffer): void {
    this.#ask('project', lease, frame);
  }

  reveal(lease: string, frame: ArrayBuffer): void {
    this.#ask('reveal', lease, frame);
  }

  #ask(kind: 'project' | 'reveal', lease: string, frame: ArrayBuffer): void {
    const slot = this.#slots.find((candidate) => candidate.committed.has(lease));
    if (slot) post(slot, { kind, lease, frame });
    else this.#host.refuse(lease, 'missing', 'no result is kept under this lease');
  }

  cancel(lease: string, frame: ArrayBuffer): void {
    const at = this.#queue.findIndex((task) => task.lease === lease);
    const [queued] = at < 0 ? [] : this.#queue.splice(at, 1);
    if (queued) {
      this.#queuedBytes -= queued.frame.byteLength;
      return;
    }
    const slot = this.#slots.find((candidate) => isAt(candidate, lease) || candidate.committed.has(lease));
    if (!slot) return;
    slot.committed.delete(lease);
    if (isAt(slot, lease)) slot.stage = { at: 'free' };
    post(slot, { kind: 'cancel', lease, frame });
    this.#settle(slot);
  }

  /** Forgets a session: its leases, graphs and weights. Shards stay, they are known by content. */
  endSession(): void {
    this.#takeQueue();
    for (const slot of this.#slots) {
      const leases = [...slot.committed];
      if (slot.stage.at === 'busy') {
        leases.push(slot.stage.task.lease);
        slot.stage = { at: 'free' };
      }
      slot.committed.clear();
      for (const lease of leases) post(slot, { kind: 'cancel', lease, frame: encodeFrame({ type: 'cancel', lease }).buffer });
    }
    const graphs = [...this.#graphs];
    const blobs = this.#store.ids().filter((id) => !this.#graphs.has(id));
    this.drop([...graphs, ...blobs], encodeFrame({ type: 'drop', blobs, graphs }).buffer);
    for (const slot of [...this.#slots]) this.#settle(slot);
    this.#host.changed();
  }

  /** Brings the number of workers to the wanted one. */
  #fill(): void {
    if (this.#stopped) return;
    const wanted = this.#slots.filter((slot) => slot.retireAt === undefined);
    const retired = this.#slots.filter((slot) => slot.retireAt !== undefined);
    // The first worker measures alone, so that it measures one worker.
    const target = this.#flopsPerS === undefined ? 1 : this.#pace.workers;
    for (let missing = target - wanted.length; missing > 0; missing -= 1) {
      const back = retired.pop();
      if (back) {
        clearTimeout(back.retireAt);
        back.retireAt = undefined;
      } else {
        this.#spawn();
      }
    }
    const surplus = wanted.length - target;
    if (surplus > 0) {
      const idleFirst = wanted.sort((a, b) => Number(a.stage.at === 'busy') - Number(b.stage.at === 'busy'));
      idleFirst.slice(0, surplus).forEach((slot) => this.#retire(slot));
    }
  }

  #spawn(): void {
    const port = this.#host.spawn(this.#pace.duty, this.#flopsPerS);
    const slot: Slot = { port, stage: { at: 'starting' }, committed: new Set(), loans: new Map(), retireAt: undefined };
    port.onmessage = (message) => this.#host.run(() => this.#receive(slot, message));
    port.onerror = (detail) => this.#crash(slot, detail);
    this.#slots.push(slot);
    this.#giveGraphs(slot);
  }

  #giveGraphs(slot: Slot): void {
    for (const id of this.#graphs) {
      const frame = this.#store.copy(id);
      if (frame) post(slot, { kind: 'accept', frame });
    }
  }

  #retire(slot: Slot): void {
    slot.retireAt = setTimeout(() => {
      this.#refuseAll(slot, 'stopping', 'the visitor lowered the share');
      this.#remove(slot);
    }, RETIRE_MS_MAX);
    this.#abort(slot);
    this.#settle(slot);
  }

  /** Asks a busy worker to hand its task back, and ends the worker if it does not. */
  #abort(slot: Slot): void {
    if (slot.stage.at !== 'busy') return;
    const { task } = slot.stage;
    slot.port.post({ kind: 'abort' }, []);
    setTimeout(() => {
      if (!isAt(slot, task.lease)) return;
      this.#refuseAll(slot, 'stopping', 'the worker was ended');
      this.#remove(slot);
      // A worker that may not crash is not replaced either.
      if (this.#crashesMax === 0) {
        this.#host.crashed('the worker does not hear');
        return;
      }
      this.#fill();
      this.#host.changed();
    }, ABORT_MS_MAX);
  }

  /** Ends a worker that is not wanted and owes nothing, or gives the worker its next task. */
  #settle(slot: Slot): void {
    if (slot.retireAt !== undefined) {
      if (slot.stage.at !== 'busy' && slot.committed.size === 0) this.#remove(slot);
    } else {
      this.#feed();
    }
  }

  #feed(): void {
    if (this.#paused || this.#stopped) return;
    for (const slot of this.#slots) {
      if (slot.stage.at !== 'free' || slot.retireAt !== undefined) continue;
      const task = this.#queue.shift();
      if (!task) return;
      this.#queuedBytes -= task.frame.byteLength;
      slot.stage = { at: 'busy', task };
      post(slot, { kind: 'task', lease: task.lease, frame: task.frame, hubMs: this.#host.ownMs() });
      this.#host.changed();
    }
  }

  #receive(slot: Slot, message: FromKernel): void {
    if (!this.#slots.includes(slot)) return;
    switch (message.kind) {
      case 'ready':
        slot.stage = { at: 'free' };
        if (this.#flopsPerS === undefined) {
          this.#flopsPerS = message.flopsPerS;
          this.#host.measured(message.flopsPerS);
          this.#fill();
        }
        this.#settle(slot);
        return;
      case 'need':
        void this.#supply(slot, message.lease, message.ids);
        return;
      case 'returned':
        slot.loans.get(message.id)?.giveBack(message.frame);
        slot.loans.delete(message.id);
        return;
      case 'answer':
        this.#answer(slot, message.lease, message.outcome, message.frame);
        return;
      case 'unable':
        this.#unable(slot, message.lease, message.reason ?? 'failed', message.detail);
        return;
      case 'broken':
        this.#crash(slot, message.detail);
        return;
    }
  }

  #answer(slot: Slot, lease: string, outcome: 'commit' | 'projected' | 'refuse' | 'result', frame: ArrayBuffer): void {
    const wasRunning = isAt(slot, lease);
    // An answer to a lease that was cancelled meanwhile is of no use to anyone.
    if (!wasRunning && !slot.committed.has(lease)) return;
    // What was projected is kept for its reveal.
    if (outcome !== 'projected') slot.committed.delete(lease);
    if (wasRunning) slot.stage = { at: 'free' };
    if (outcome === 'commit') {
      slot.committed.add(lease);
      this.#committedTasks += 1;
    }
    // A kernel short of memory may have given up a graph that it now needs again.
    if (outcome === 'refuse' && decodeFrame(new Uint8Array(frame), TO_COORDINATOR).header.reason === 'missing') {
      this.#giveGraphs(slot);
    }
    this.#host.send(frame);
    this.#settle(slot);
    this.#host.changed();
  }

  #unable(slot: Slot, lease: string, reason: RefuseReason, detail: string): void {
    if (!isAt(slot, lease) && !slot.committed.delete(lease)) return;
    if (isAt(slot, lease)) slot.stage = { at: 'free' };
    this.#host.refuse(lease, this.#paused || slot.retireAt !== undefined ? 'stopping' : reason, detail);
    this.#settle(slot);
    this.#host.changed();
  }

  /** Gets a worker the blobs that its task names: from the store, or over HTTP. */
  async #supply(slot: Slot, lease: string, ids: readonly string[]): Promise<void> {
    if (slot.stage.at !== 'busy' || slot.stage.task.lease !== lease) return;
    const shards = new Map(slot.stage.task.shards.map((shard) => [shard.blob, shard]));
    const supplies = ids.map(async (id) => {
      const loan = await this.#store.lend(id);
      if (loan) {
        this.#lend(slot, lease, id, loan);
        return;
      }
      const shard = shards.get(id);
      if (!shard) throw new Error(`blob ${id} was not sent`);
      const frame = await this.#host.shard(shard);
      if (isAt(slot, lease)) post(slot, { kind: 'supply', id, frame, lent: false });
    });
    try {
      await Promise.all(supplies);
    } catch (error) {
      if (!isAt(slot, lease)) return;
      slot.stage = { at: 'free' };
      slot.port.post({ kind: 'forget', lease }, []);
      // A pause ends downloads; that is no fault of theirs.
      this.#host.refuse(lease, this.#paused ? 'stopping' : 'missing', error instanceof Error ? error.message : 'a blob cannot be had');
      this.#settle(slot);
      this.#host.changed();
    }
  }

  /** Lends a worker a frame, unless the worker does not need it any more. */
  #lend(slot: Slot, lease: string, id: string, loan: Loan): void {
    const { frame } = loan;
    if (!isAt(slot, lease)) {
      loan.giveBack(frame);
      return;
    }
    slot.loans.set(id, loan);
    post(slot, { kind: 'supply', id, frame, lent: true });
  }

  #crash(slot: Slot, detail: string): void {
    if (!this.#slots.includes(slot)) return;
    this.#refuseAll(slot, 'failed', 'the kernel crashed');
    this.#remove(slot);
    const now = this.#host.now();
    this.#crashes = this.#crashes.filter((at) => now - at < CRASH_WINDOW_MS);
    this.#crashes.push(now);
    if (this.#crashes.length > this.#crashesMax) {
      this.#host.crashed(detail);
      return;
    }
    this.#fill();
    this.#host.changed();
  }

  #refuseAll(slot: Slot, reason: RefuseReason, detail: string): void {
    const running = slot.stage.at === 'busy' ? [slot.stage.task.lease] : [];
    for (const lease of [...running, ...slot.committed]) this.#host.refuse(lease, reason, detail);
  }

  #remove(slot: Slot): void {
    this.#terminate(slot);
    this.#slots = this.#slots.filter((other) => other !== slot);
  }

  #terminate(slot: Slot): void {
    clearTimeout(slot.retireAt);
    slot.port.terminate();
    slot.stage = { at: 'ended' };
    slot.committed.clear();
    // Who waits for these is refused as `missing` them, and the coordinator sends them again.
    for (const loan of slot.loans.values()) loan.lose();
    slot.loans.clear();
  }

  #takeQueue(): PoolTask[] {
    const queue = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    return queue;
  }
}

function isAt(slot: Slot, lease: string): boolean {
  return slot.stage.at === 'busy' && slot.stage.task.lease === lease;
}

/** Posts a message and hands its frame over. */
function post(slot: Slot, message: Extract<ToKernel, { frame: ArrayBuffer }>): void {
  slot.port.post(message, [message.frame]);
}
