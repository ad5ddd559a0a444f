/** What the entries of kernel workers share: the way to the hub, and the order of their start. */

import type { FromKernel, KernelSource, ToKernel } from '../shared/kernel-port.ts';
import type { Command, Host } from './task-runner.ts';

/** The part of a dedicated worker's scope that is used; the DOM's types describe windows. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ToKernel>) => void) | null;
  postMessage(message: FromKernel, transfer: Transferable[]): void;
}

/** What obeys the hub once the kernel is there. */
export interface Served {
  handle(command: Command): void;
}

type Stage = { at: 'empty' } | { at: 'loading'; early: Command[] } | { at: 'ready'; served: Served };

/** Clock and messages of this worker. */
function workerHost(scope: WorkerScope): Host {
  // Resolves once the messages that are queued now have been handled; timers would wait 4 ms.
  const turns = new MessageChannel();
  const waiting: Array<() => void> = [];
  turns.port1.onmessage = () => waiting.shift()?.();
  return {
    now: () => performance.now(),
    pause: (ms) =>
      new Promise((resolve) => {
        if (ms > 0) {
          setTimeout(resolve, ms);
        } else {
          waiting.push(resolve);
          turns.port2.postMessage(0);
        }
      }),
    post: (message, transfer) => scope.postMessage(message, transfer),
  };
}

/**
 * Serves the hub from now on.
 *
 * @param start opens the kernel, says how fast it is, and resolves to what obeys; where it fails the worker is broken.
 */
export function serve(start: (source: KernelSource, duty: number, host: Host) => Promise<Served>): void {
  const scope = globalThis as unknown as WorkerScope;
  const host = workerHost(scope);
  let stage: Stage = { at: 'empty' };

  const init = (source: KernelSource, duty: number): void => {
    const early: Command[] = [];
    stage = { at: 'loading', early };
    start(source, duty, host).then(
      (served) => {
        stage = { at: 'ready', served };
        early.forEach((command) => served.handle(command));
      },
      (error: unknown) => host.post({ kind: 'broken', detail: error instanceof Error ? error.message : String(error) }, []),
    );
  };

  scope.onmessage = ({ data }) => {
    if (data.kind === 'init') {
      if (stage.at === 'empty') init(data.source, data.duty);
    } else if (stage.at === 'loading') {
      stage.early.push(data);
    } else if (stage.at === 'ready') {
      stage.served.handle(data);
    }
  };
}
