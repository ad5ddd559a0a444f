/** Entry of the hub worker. */

import { channelName, type FromHub, type ToHub } from '../shared/hub-port.ts';
import type { FromKernel, KernelSource, ToKernel } from '../shared/kernel-port.ts';
import { Controller } from './controller.ts';
import { loadGpu, loadKernel } from './kernel-files.ts';
import type { Port } from './pool.ts';
import { readTabMessage, Tabs, type TabMessage } from './tabs.ts';
import { renewTicket } from './ticket.ts';
import { Turn } from './turn.ts';
import { visitIdentity } from './visit.ts';

/** The part of a dedicated worker's scope that is used; the DOM's types describe windows. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ToHub>) => void) | null;
  postMessage(message: FromHub): void;
}
const scope = globalThis as unknown as WorkerScope;

/** The parts of WebGPU that tell whether there is any use in it. */
interface WebGpu {
  requestAdapter(options: object): Promise<{ readonly info?: { readonly isFallbackAdapter?: boolean } } | null>;
}

async function hasGpu(software: boolean): Promise<boolean> {
  const { gpu } = navigator as { gpu?: WebGpu };
  const adapter = await gpu?.requestAdapter({ powerPreference: 'high-performance' });
  return adapter != null && (software || adapter.info?.isFallbackAdapter !== true);
}

function spawn(script: 'kernel-worker.js' | 'gpu-worker.js', source: KernelSource, duty: number): Port {
  const worker = new Worker(new URL(script, import.meta.url), { type: 'module' });
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

/** To the hubs of the site's other tabs. Some browsers refuse a channel where storage is denied. */
function openChannel(site: string): BroadcastChannel | undefined {
  try {
    return new BroadcastChannel(channelName(site));
  } catch {
    return undefined;
  }
}

/** The hub of one site among those of its other tabs; all that they share is named after the site. */
class Hub {
  readonly #channel: BroadcastChannel | undefined;
  readonly #tabs: Tabs;

  constructor(site: string) {
    this.#channel = openChannel(site);
    this.#tabs = new Tabs(this.#control(), {
      turn: (name, changed) => new Turn(navigator.locks as LockManager | undefined, name, changed),
      broadcast: (message: TabMessage) => this.#channel?.postMessage(message),
      post: (message) => scope.postMessage(message),
    });
    if (!this.#channel) return;
    this.#channel.onmessage = (event: MessageEvent<unknown>) => {
      const message = readTabMessage(event.data);
      if (message) this.#tabs.hear(message);
    };
  }

  handle(message: ToHub): void {
    // With a channel the other tabs tell themselves, sooner and more exactly.
    if (message.kind === 'traffic' && this.#channel) return;
    this.#tabs.handle(message);
  }

  #control(): Controller {
    return new Controller({
      origin: new URL(import.meta.url).origin,
      now: () => performance.now(),
      random: () => Math.random(),
      fetch: (input, init) => fetch(input, init),
      identity: visitIdentity,
      connect: (url) => new WebSocket(url),
      spawn: (files, memoryBytes, duty, flopsPerS) => {
        const source = { glueUrl: files.glueUrl, module: files.module, memoryBytes };
        return spawn('kernel-worker.js', flopsPerS === undefined ? source : { ...source, flopsPerS }, duty);
      },
      spawnGpu: ({ glueUrl, module }, memoryBytes, duty, software) =>
        spawn('gpu-worker.js', { glueUrl, module, memoryBytes, software }, duty),
      loadKernel,
      hasGpu,
      loadGpu,
      renewTicket,
      post: (message) => {
        scope.postMessage(message);
        if (message.kind === 'status') this.#tabs.tellTraffic(message.moved);
      },
    });
  }
}

let hub: Hub | undefined;
scope.onmessage = ({ data }) => {
  if (data.kind === 'start') hub ??= new Hub(data.config.site);
  hub?.handle(data);
};
