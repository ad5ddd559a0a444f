/** Runs tasks on the GPU: each is handed to the device as a whole, with rests between. */

import { TaskRunner, type Command, type Task } from '../kernel-worker/task-runner.ts';
import { decodeFrame } from '../wire/frame.ts';
import { TO_CONTRIBUTOR } from '../wire/limits.ts';
import type { GpuKernel } from './kernel.ts';

/** A lost device is known as such a moment after its task has failed. */
const LOSS_KNOWN_MS = 100;

/** The graph that a task names. The kernel checks the rest of the spec. */
function graphOf(taskFrame: Uint8Array): unknown {
  const { spec } = decodeFrame(taskFrame, TO_CONTRIBUTOR).header as { spec?: { program?: { graph?: unknown } } };
  return spec?.program?.graph;
}

function isRefusal(frame: Uint8Array): boolean {
  return decodeFrame(frame, TO_CONTRIBUTOR).header.type === 'refuse';
}

export class GpuRunner extends TaskRunner<GpuKernel> {
  /** Why graphs cannot run here. They are not kept. */
  readonly #unsupported = new Map<unknown, string>();
  /** Resolves once the device has answered everything that it was given. */
  #device: Promise<void> = Promise.resolve();
  /** When it had, on the clock of rests. */
  #freeSince = 0;
  /** The hub has been told that this kernel is of no use any more. */
  #isBroken = false;

  override handle(command: Command): void {
    super.handle(command);
    this.#look();
  }

  protected override keep(frame: Uint8Array): void {
    const { header } = decodeFrame(frame, TO_CONTRIBUTOR);
    const unsupported = header.type === 'graph' ? this.kernel.unsupported(frame) : undefined;
    if (unsupported !== undefined) {
      this.#unsupported.set(header.id, unsupported);
      return;
    }
    if (Array.isArray(header.graphs)) header.graphs.forEach((id) => this.#unsupported.delete(id));
    try {
      super.keep(frame);
    } catch (error) {
      if (header.type !== 'graph' || error instanceof WebAssembly.RuntimeError) throw error;
      // Without the graph each of its tasks would be `missing` it, and it would be sent again.
      this.#unsupported.set(header.id, error instanceof Error ? error.message : String(error));
    }
  }

  protected override unsupported(task: Task): string | undefined {
    return this.#unsupported.size === 0 ? undefined : this.#unsupported.get(graphOf(task.frame));
  }

  protected override begin(task: Task, idleSince: number): void {
    this.state = { at: 'running', task };
    void this.#run(task, idleSince);
  }

  async #run(task: Task, idleSince: number): Promise<void> {
    let isRefused = true;
    try {
      await this.#rested(task, idleSince);
      if (!this.isRunning(task)) return;
      const refusal = await this.#execute(task);
      // Given up meanwhile, and answered: what the device has to say of it is of no use.
      if (!this.isRunning(task)) return;
      const frame = refusal ?? this.kernel.finish(Math.round(this.host.now() - task.since));
      isRefused = isRefusal(frame);
      this.rest();
      this.answer(task.lease, frame);
    } catch (error) {
      // A trap counts whatever it belongs to.
      if (!this.isRunning(task) && !(error instanceof WebAssembly.RuntimeError)) return;
      this.rest();
      this.fail(task.lease, error);
    }
    this.#look();
    if (!isRefused) return;
    await this.host.pause(LOSS_KNOWN_MS);
    this.#look();
  }

  /** Resolves once the device is free and has rested for what it did. */
  async #rested(task: Task, idleSince: number): Promise<void> {
    // It may still be at a task that was given up, and does not rest meanwhile.
    await this.#device;
    if (!this.isRunning(task)) return;
    this.pacer.rested(Math.max(0, this.restNow() - Math.max(idleSince, this.#freeSince)));
    await this.breathe(task);
  }

  /** Has the device do a task: its refusal, or nothing once there is an answer to finish with. */
  async #execute(task: Task): Promise<Uint8Array | undefined> {
    const start = this.restNow();
    const done = (): void => {
      this.#freeSince = this.restNow();
      this.pacer.worked(this.#freeSince - start);
    };
    const refusal = this.kernel.begin(task.frame);
    if (refusal === undefined) await (this.#device = this.kernel.settled().then(done, done));
    else done();
    return refusal;
  }

  /** Says where the device is lost; a task in hand is answered first. */
  #look(): void {
    const lost = this.#isBroken || this.state.at === 'running' ? undefined : this.kernel.lost();
    if (lost === undefined) return;
    this.#isBroken = true;
    this.host.post({ kind: 'broken', detail: lost }, []);
  }

  protected override fail(lease: string | undefined, error: unknown): void {
    if (error instanceof WebAssembly.RuntimeError) this.#isBroken = true;
    super.fail(lease, error);
  }
}
