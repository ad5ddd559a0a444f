/** Entry of the hub worker. */

import type { FromHub, ToHub } from '../shared/hub-port.ts';
import type { FromKernel, KernelSource, ToKernel } from '../shared/kernel-port.ts';
import { Controller } from './controller.ts';
import { loadKernel } from './kernel-files.ts';
import type { Port } from './pool.ts';
import { renewTicket } from './ticket.ts';

/** The part of a dedicated worker's scope that is used; the DOM's types describe windows. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ToHub>) => void) | null;
  postMessage(message: FromHub): void;
}
const scope = globalThis as unknown as WorkerScope;

function spawn(source: KernelSource, duty: number): Port {
  const worker = new Worker(new URL('kernel-worker.js', import.meta.url), { type: 'module' });
  const port: Port = {
    onmessage: undefined,
    onerror: undefined,
    post: (message: ToKernel, transfer) => worker.postMessage(message, transfer),
    terminate: () => worker.terminate(),
  };
  worker.onmessage = (event: MessageEvent<FromKernel>) => port.onmessage?.(event.data);
  worker.onerror = (event) => {
    event.preventDefault();
    port.onerror?.(event.message || 'the worker could not be started');
  };
  port.post({ kind: 'init', source, duty }, []);
  return port;
}

const controller = new Controller({
  origin: new URL(import.meta.url).origin,
  now: () => performance.now(),
  random: () => Math.random(),
  fetch: (input, init) => fetch(input, init),
  connect: (url) => new WebSocket(url),
  spawn: (files, memoryBytes, duty, flopsPerS) => {
    const source = { glueUrl: files.glueUrl, module: files.module, memoryBytes };
    return spawn(flopsPerS === undefined ? source : { ...source, flopsPerS }, duty);
  },
  loadKernel,
  renewTicket,
  post: (message) => scope.postMessage(message),
});

scope.onmessage = (event) => controller.handle(event.data);
