/** Runs one task at a time on a kernel, in short steps with rests between. */

import type { FromKernel, ToKernel } from '../shared/kernel-port.ts';
import { decodeFrame } from '../wire/frame.ts';
import { TO_CONTRIBUTOR } from '../wire/limits.ts';
import type { Kernel } from './kernel.ts';
import { Pacer } from './pacer.ts';
import type { Speed } from './speed.ts';

interface Task {
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

type Command = Exclude<ToKernel, { kind: 'init' }>;

export class Runner {
  readonly #kernel: Kernel;
  readonly #speed: Speed;
  readonly #pacer: Pacer;
  readonly #host: Host;
  #state: State;
  /** Time spent on messages so far: it is work, whatever the state. */
  #handledMs = 0;
  /** When the message that is being handled came. */
  #handlingSince: number | undefined;

  constructor(kernel: Kernel, speed: Speed, duty: number, host: Host) {
    this.#kernel = kernel;
    this.#speed = speed;
    this.#pacer = new Pacer(duty);
    this.#host = host;
    this.#state = { at: 'idle', since: host.now() };
  }

  /** A clock that stands still while messages are handled, for times of rest. */
  #restNow(): number {
    return (this.#handlingSince ?? this.#host.now()) - this.#handledMs;
  }

  /** Obeys one message. A trap of the kernel is reported, anything else that it throws belongs to a lease. */
  handle(command: Command): void {
    const start = this.#host.now();
    this.#handlingSince = start;
    try {
      this.#obey(command);
    } catch (error) {
      this.#fail('lease' in command ? command.lease : undefined, error);
    }
    // Weights are copied and results framed here, which takes its time as well.
    const ms = this.#host.now() - start;
    this.#handlingSince = undefined;
    this.#handledMs += ms;
    this.#pacer.worked(ms);
  }

  #obey(command: Command): void {
    switch (command.kind) {
      case 'duty':
        this.#pacer.setDuty(command.duty);
        return;
      case 'accept':
        this.#kernel.accept(new Uint8Array(command.frame));
        return;
      case 'supply':
        this.#supply(command.id, new Uint8Array(command.frame));
        return;
      case 'task':
        this.#pacer.worked(command.hubMs);
        this.#take({ lease: command.lease, frame: new Uint8Array(command.frame), since: this.#host.now() });
        return;
      case 'forget':
        if (this.#state.at === 'waiting' && this.#state.task.lease === command.lease) this.#rest();
        return;
      case 'reveal':
        this.#answer(command.lease, this.#kernel.accept(new Uint8Array(command.frame)));
        return;
      case 'cancel':
        this.#cancel(command.lease, new Uint8Array(command.frame));
        return;
      case 'abort':
        this.#abort();
        return;
    }
  }

  #rest(): void {
    this.#state = { at: 'idle', since: this.#restNow() };
  }

  #take(task: Task): void {
    if (this.#state.at !== 'idle') {
      this.#host.post({ kind: 'unable', lease: task.lease, detail: 'the worker has a task already' }, []);
      return;
    }
    const needed = new Set(this.#kernel.missing(task.frame));
    if (needed.size === 0) {
      this.#begin(task, this.#state.since);
      return;
    }
    this.#state = { at: 'waiting', task, needed, since: this.#state.since };
    this.#host.post({ kind: 'need', lease: task.lease, ids: [...needed] }, []);
  }

  #supply(id: string, frame: Uint8Array): void {
    const state = this.#state;
    try {
      this.#kernel.accept(frame);
    } catch (error) {
      if (state.at === 'waiting' && state.needed.has(id)) {
        this.#rest();
        this.#fail(state.task.lease, error);
        return;
      }
      throw error;
    }
    if (state.at !== 'waiting') return;
    state.needed.delete(id);
    if (state.needed.size === 0) this.#begin(state.task, state.since);
  }

  #begin(task: Task, idleSince: number): void {
    const refusal = this.#kernel.begin(task.frame);
    if (refusal !== undefined) {
      this.#rest();
      this.#answer(task.lease, refusal);
      return;
    }
    this.#pacer.rested(this.#restNow() - idleSince);
    this.#state = { at: 'running', task };
    void this.#loop(task);
  }

  async #loop(task: Task): Promise<void> {
    const isMine = (): boolean => this.#state.at === 'running' && this.#state.task === task;
    try {
      // The rest that an earlier task left owing comes first.
      await this.#breathe(isMine);
      while (isMine()) {
        const start = this.#host.now();
        const before = this.#kernel.flopsDone();
        const finished = this.#kernel.step(this.#speed.stepFlops());
        this.#speed.observe(this.#kernel.flopsDone() - before, this.#host.now() - start);
        const frame = finished ? this.#kernel.finish(Math.round(this.#host.now() - task.since)) : undefined;
        this.#pacer.worked(this.#host.now() - start);
        if (finished) {
          this.#rest();
          this.#answer(task.lease, frame);
          return;
        }
        await this.#breathe(isMine);
      }
    } catch (error) {
      if (isMine()) this.#rest();
      this.#fail(task.lease, error);
    }
  }

  /** Sleeps until no rest is due, and lets messages in at any rate. */
  async #breathe(isMine: () => boolean): Promise<void> {
    do {
      const start = this.#restNow();
      await this.#host.pause(this.#pacer.due());
      // After an abort the time counts as idle time of the next task instead.
      if (!isMine()) return;
      this.#pacer.rested(this.#restNow() - start);
    } while (this.#pacer.due() > 0);
  }

  #cancel(lease: string, frame: Uint8Array): void {
    if (this.#state.at !== 'idle' && this.#state.task.lease === lease) this.#rest();
    // A running task is given up by the kernel; its refusal is of no use, the lease being cancelled.
    this.#kernel.accept(frame);
  }

  #abort(): void {
    const state = this.#state;
    if (state.at === 'idle') return;
    this.#rest();
    if (state.at === 'running') {
      this.#answer(state.task.lease, this.#kernel.abort());
    } else {
      this.#host.post({ kind: 'unable', lease: state.task.lease, detail: 'paused' }, []);
    }
  }

  #answer(lease: string, frame: Uint8Array | undefined): void {
    if (frame === undefined) {
      this.#host.post({ kind: 'unable', lease, detail: 'the kernel gave no answer' }, []);
      return;
    }
    const type = decodeFrame(frame, TO_CONTRIBUTOR).header.type;
    const outcome = type === 'commit' || type === 'result' ? type : 'refuse';
    const buffer = ownBuffer(frame);
    this.#host.post({ kind: 'answer', lease, outcome, frame: buffer }, [buffer]);
  }

  #fail(lease: string | undefined, error: unknown): void {
    const detail = error instanceof Error ? error.message : String(error);
    if (error instanceof WebAssembly.RuntimeError) {
      this.#rest();
      this.#host.post({ kind: 'broken', detail }, []);
    } else if (lease !== undefined) {
      this.#host.post({ kind: 'unable', lease, detail }, []);
    }
  }
}

/** The buffer of an array that owns all of it, else a copy. */
function ownBuffer(bytes: Uint8Array): ArrayBuffer {
  const whole = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
  return whole && bytes.buffer instanceof ArrayBuffer ? bytes.buffer : bytes.slice().buffer;
}
