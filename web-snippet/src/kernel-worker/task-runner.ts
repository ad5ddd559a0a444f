/** Runs one task at a time on a kernel of either kind: what it takes in, what it waits for, what it answers. */

import type { FromKernel, ToKernel } from '../shared/kernel-port.ts';
import { decodeFrame } from '../wire/frame.ts';
import { TO_CONTRIBUTOR } from '../wire/limits.ts';
import type { RefuseReason } from '../wire/message.ts';
import type { FrameKernel } from './kernel.ts';
import { Pacer, WAKE_MS } from './pacer.ts';

export interface Task {
  readonly lease: string;
  readonly frame: Uint8Array;
  /** When it came, by the host's clock. */
  readonly since: number;
}

/** What the runner is at. A loop that finds another task than its own has ended. */
type State =
  | { readonly at: 'idle'; readonly since: number }
  | { readonly at: 'waiting'; readonly task: Task; readonly needed: Set<string>; readonly since: number }
  | { readonly at: 'running'; readonly task: Task };

/** Clock, timers and the way to the hub; handed in so that tests own time. */
export interface Host {
  now(): number;
  /** Resolves after `ms`, or as soon as messages have been handled where it is 0. */
  pause(ms: number): Promise<void>;
  post(message: FromKernel, transfer: Transferable[]): void;
}

export type Command = Exclude<ToKernel, { kind: 'init' }>;

export abstract class TaskRunner<K extends FrameKernel> {
  protected readonly kernel: K;
  protected readonly pacer: Pacer;
  protected readonly host: Host;
  protected state: State;
  /** Time spent on messages so far: it is work, whatever the state. */
  #handledMs = 0;
  /** When the message that is being handled came. */
  #handlingSince: number | undefined;

  constructor(kernel: K, duty: number, host: Host) {
    this.kernel = kernel;
    this.pacer = new Pacer(duty);
    this.host = host;
    this.state = { at: 'idle', since: host.now() };
  }

  /** Begins a task whose blobs are all here, and answers for it sooner or later. */
  protected abstract begin(task: Task, idleSince: number): void;

  /** A clock that stands still while messages are handled, for times of rest. */
  protected restNow(): number {
    return (this.#handlingSince ?? this.host.now()) - this.#handledMs;
  }

  /** Obeys one message. A trap of the kernel is reported, anything else that it throws belongs to a lease. */
  handle(command: Command): void {
    const start = this.host.now();
    this.#handlingSince = start;
    try {
      this.#obey(command);
    } catch (error) {
      this.fail('lease' in command ? command.lease : undefined, error);
    }
    // Weights are copied and results framed here, which takes its time as well.
    const ms = this.host.now() - start;
    this.#handlingSince = undefined;
    this.#handledMs += ms;
    this.pacer.worked(ms + WAKE_MS);
  }

  #obey(command: Command): void {
    switch (command.kind) {
      case 'duty':
        this.pacer.setDuty(command.duty);
        return;
      case 'accept':
        this.keep(new Uint8Array(command.frame));
        return;
      case 'supply':
        try {
          this.#supply(command.id, new Uint8Array(command.frame));
        } finally {
          // The kernel has copied what it takes, and other workers may wait for the frame.
          if (command.lent) this.host.post({ kind: 'returned', id: command.id, frame: command.frame }, [command.frame]);
        }
        return;
      case 'task':
        this.pacer.worked(command.hubMs);
        this.#take({ lease: command.lease, frame: new Uint8Array(command.frame), since: this.host.now() });
        return;
      case 'forget':
        if (this.state.at === 'waiting' && this.state.task.lease === command.lease) this.rest();
        return;
      case 'project':
      case 'reveal':
        this.answer(command.lease, this.kernel.accept(new Uint8Array(command.frame)));
        return;
      case 'cancel':
        this.#cancel(command.lease, new Uint8Array(command.frame));
        return;
      case 'abort':
        this.#abort();
        return;
    }
  }

  protected rest(): void {
    this.state = { at: 'idle', since: this.restNow() };
  }

  protected isRunning(task: Task): boolean {
    return this.state.at === 'running' && this.state.task === task;
  }

  /** Takes a graph or drop frame. */
  protected keep(frame: Uint8Array): void {
    this.kernel.accept(frame);
  }

  /** Why this kernel will never run a task like that; nothing where it may. */
  protected unsupported(_task: Task): string | undefined {
    return undefined;
  }

  #take(task: Task): void {
    if (this.state.at !== 'idle') {
      this.#unable(task.lease, 'the worker has a task already');
      return;
    }
    const unsupported = this.unsupported(task);
    if (unsupported !== undefined) {
      this.#unable(task.lease, unsupported, 'unsupported');
      return;
    }
    const needed = new Set(this.kernel.missing(task.frame));
    if (needed.size === 0) {
      this.begin(task, this.state.since);
      return;
    }
    this.state = { at: 'waiting', task, needed, since: this.state.since };
    this.host.post({ kind: 'need', lease: task.lease, ids: [...needed] }, []);
  }

  #supply(id: string, frame: Uint8Array): void {
    const state = this.state;
    try {
      this.kernel.accept(frame);
    } catch (error) {
      if (state.at === 'waiting' && state.needed.has(id)) {
        this.rest();
        this.fail(state.task.lease, error);
        return;
      }
      throw error;
    }
    if (state.at !== 'waiting') return;
    state.needed.delete(id);
    if (state.needed.size === 0) this.begin(state.task, state.since);
  }

  /** Sleeps until no rest is due, and lets messages in at any rate. */
  protected async breathe(task: Task): Promise<void> {
    do {
      const start = this.restNow();
      await this.host.pause(this.pacer.due());
      // After an abort the time counts as idle time of the next task instead.
      if (!this.isRunning(task)) return;
      this.pacer.rested(this.restNow() - start);
    } while (this.pacer.due() > 0);
  }

  #cancel(lease: string, frame: Uint8Array): void {
    if (this.state.at !== 'idle' && this.state.task.lease === lease) this.rest();
    // A running task is given up by the kernel; its refusal is of no use, the lease being cancelled.
    this.kernel.accept(frame);
  }

  #abort(): void {
    const state = this.state;
    if (state.at === 'idle') return;
    this.rest();
    // Between its last blob and its beginning a task is not the kernel's yet.
    const refusal = state.at === 'running' ? this.kernel.abort() : undefined;
    if (refusal === undefined) this.#unable(state.task.lease, 'paused');
    else this.answer(state.task.lease, refusal);
  }

  protected answer(lease: string, frame: Uint8Array | undefined): void {
    if (frame === undefined) {
      this.#unable(lease, 'the kernel gave no answer');
      return;
    }
    const type = decodeFrame(frame, TO_CONTRIBUTOR).header.type;
    const outcome = type === 'commit' || type === 'projected' || type === 'result' ? type : 'refuse';
    const buffer = ownBuffer(frame);
    this.host.post({ kind: 'answer', lease, outcome, frame: buffer }, [buffer]);
  }

  protected fail(lease: string | undefined, error: unknown): void {
    const detail = error instanceof Error ? error.message : String(error);
    if (error instanceof WebAssembly.RuntimeError) {
      this.rest();
      this.host.post({ kind: 'broken', detail }, []);
    } else if (lease !== undefined) {
      // Kernels begin their words with the reason: what is too large now is so the next time.
      this.#unable(lease, detail, detail.startsWith('too_large') ? 'too_large' : undefined);
    }
  }

  #unable(lease: string, detail: string, reason?: RefuseReason): void {
    this.host.post({ kind: 'unable', lease, detail, ...(reason && { reason }) }, []);
  }
}

/** The buffer of an array that owns all of it, else a copy. */
function ownBuffer(bytes: Uint8Array): ArrayBuffer {
  const whole = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
  return whole && bytes.buffer instanceof ArrayBuffer ? bytes.buffer : bytes.slice().buffer;
}
