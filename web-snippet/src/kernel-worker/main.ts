/** Entry of a kernel worker: loads the module, measures it, then runs tasks. */

import type { FromKernel, KernelSource, ToKernel } from '../shared/kernel-port.ts';
import type { KernelModule } from './kernel.ts';
import { measure } from './measure.ts';
import { Runner, type Host } from './runner.ts';
import { Speed } from './speed.ts';

/** The part of a dedicated worker's scope that is used; the DOM's types describe windows. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ToKernel>) => void) | null;
  postMessage(message: FromKernel, transfer: Transferable[]): void;
}
const scope = globalThis as unknown as WorkerScope;

/** Resolves once the messages that are queued now have been handled; timers would wait 4 ms. */
const turns = new MessageChannel();
const waiting: Array<() => void> = [];
turns.port1.onmessage = () => waiting.shift()?.();

const host: Host = {
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

type Stage = { at: 'empty' } | { at: 'loading'; early: ToKernel[] } | { at: 'ready'; runner: Runner };
let stage: Stage = { at: 'empty' };

async function start(source: KernelSource, duty: number): Promise<Runner> {
  const glue = (await import(source.glueUrl)) as KernelModule;
  await glue.default({ module_or_path: source.module });
  const kernel = new glue.Kernel(source.memoryBytes);
  const speed = new Speed(source.flopsPerS ?? measure(kernel, host.now));
  host.post({ kind: 'ready', flopsPerS: Math.round(speed.flopsPerS) }, []);
  return new Runner(kernel, speed, duty, host);
}

function init(source: KernelSource, duty: number): void {
  const early: ToKernel[] = [];
  stage = { at: 'loading', early };
  start(source, duty).then(
    (runner) => {
      stage = { at: 'ready', runner };
      early.forEach(handle);
    },
    (error: unknown) => host.post({ kind: 'broken', detail: error instanceof Error ? error.message : String(error) }, []),
  );
}

function handle(message: ToKernel): void {
  if (message.kind === 'init') {
    if (stage.at === 'empty') init(message.source, message.duty);
  } else if (stage.at === 'loading') {
    stage.early.push(message);
  } else if (stage.at === 'ready') {
    stage.runner.handle(message);
  }
}

scope.onmessage = (event) => handle(event.data);
