/** Runs tasks on the processor's kernel, in short steps with rests between. */

import type { Kernel } from './kernel.ts';
import type { Speed } from './speed.ts';
import { WAKE_MS } from './pacer.ts';
import { TaskRunner, type Host, type Task } from './task-runner.ts';

export class Runner extends TaskRunner<Kernel> {
  readonly #speed: Speed;

  constructor(kernel: Kernel, speed: Speed, duty: number, host: Host) {
    super(kernel, duty, host);
    this.#speed = speed;
  }

  protected override begin(task: Task, idleSince: number): void {
    const refusal = this.kernel.begin(task.frame);
    if (refusal !== undefined) {
      this.rest();
      this.answer(task.lease, refusal);
      return;
    }
    this.pacer.rested(this.restNow() - idleSince);
    this.state = { at: 'running', task };
    void this.#loop(task);
  }

  async #loop(task: Task): Promise<void> {
    try {
      // The rest that an earlier task left owing comes first.
      await this.breathe(task);
      while (this.isRunning(task)) {
        const start = this.host.now();
        const before = this.kernel.flopsDone();
        const finished = this.kernel.step(this.#speed.stepFlops());
        this.#speed.observe(this.kernel.flopsDone() - before, this.host.now() - start);
        const frame = finished ? this.kernel.finish(Math.round(this.host.now() - task.since)) : undefined;
        this.pacer.worked(this.host.now() - start + WAKE_MS);
        if (finished) {
          this.rest();
          this.answer(task.lease, frame);
          return;
        }
        await this.breathe(task);
      }
    } catch (error) {
      if (this.isRunning(task)) this.rest();
      this.fail(task.lease, error);
    }
  }
}
