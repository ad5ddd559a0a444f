/** A hub without a browser: its sockets, workers and clocks are the test's. */

import assert from 'node:assert/strict';
import { Controller, type ControllerHost } from '../src/hub/controller.ts';
import { Identity } from '../src/hub/identity.ts';
import type { Port } from '../src/hub/pool.ts';
import type { Socket } from '../src/hub/session.ts';
import type { FromHub, HubConfig } from '../src/shared/hub-port.ts';
import type { FromKernel, ToKernel } from '../src/shared/kernel-port.ts';
import { decodeFrame, encodeFrame } from '../src/wire/frame.ts';
import { TO_COORDINATOR } from '../src/wire/limits.ts';

export const GRAPH = 'cd'.repeat(32);
/** The id of the GPU module. */
export const GPU_KERNEL = 'ab'.repeat(32);
export const LEASE = `lease_${'1'.repeat(32)}`;

export class FakeSocket implements Socket {
  binaryType = '';
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  readonly sent: Array<Record<string, unknown>> = [];
  closedWith: number | undefined;

  send(data: ArrayBuffer | Uint8Array<ArrayBuffer>): void {
    this.sent.push(decodeFrame(new Uint8Array(data), TO_COORDINATOR).header);
  }
  close(code?: number): void {
    this.closedWith ??= code;
  }
  open(): void {
    this.onopen?.({} as Event);
  }
  say(header: object): void {
    this.receive(encodeFrame(header).buffer);
  }
  receive(data: unknown): void {
    this.onmessage?.({ data } as MessageEvent);
  }
  lose(code = 1006): void {
    this.onclose?.({ code, reason: '' } as CloseEvent);
  }
  types(): unknown[] {
    return this.sent.map((header) => header.type);
  }
}

export class FakeWorker implements Port {
  onmessage: ((message: FromKernel) => void) | undefined;
  onerror: ((detail: string) => void) | undefined;
  readonly got: ToKernel[] = [];
  isTerminated = false;
  /** Whether a software adapter would do, of a GPU's worker. */
  software: boolean | undefined;
  post(message: ToKernel): void {
    this.got.push(message);
  }
  terminate(): void {
    this.isTerminated = true;
  }
}

export const CONFIG: HubConfig = {
  ticket: 'ticket-1',
  site: 'pk_test_x',
  textVersion: 'text-1',
  view: '0a'.repeat(32),
  frameUrl: 'http://c/embed/frame.html?site=pk_test_x',
  filesUrl: 'http://c/embed/v/1/',
  lasts: true,
  share: 0.5,
  gpu: 'no',
  gpuAllowed: false,
  cpuAllowed: true,
  refuses: [],
  earnings: 'mine',
  cores: 2,
  phone: false,
  memoryGib: undefined,
  bytesUsed: 0,
  bytesMax: 25_000_000,
};

/** What the hub tells its frame. */
export type Status = Extract<FromHub, { kind: 'status' }>;

/** Lets promises and, with `ms`, timers run. */
export const settle = (ms = 0): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export async function until(what: () => boolean): Promise<void> {
  for (let tries = 0; tries < 200 && !what(); tries += 1) await settle(5);
  assert.ok(what(), 'it did not happen in a second');
}

export interface World {
  readonly controller: Controller;
  readonly sockets: FakeSocket[];
  readonly workers: FakeWorker[];
  readonly gpuWorkers: FakeWorker[];
  readonly statuses: Status[];
  readonly renewals: string[];
  readonly last: () => Status['phase'] | undefined;
}

/** What a GPU's worker says once it has started. */
const FAST_GPU: FromKernel = { kind: 'ready', flopsPerS: 90e9 };

export function setUp(overrides: Partial<ControllerHost> = {}, gpuSays = FAST_GPU): World {
  const sockets: FakeSocket[] = [];
  const workers: FakeWorker[] = [];
  const gpuWorkers: FakeWorker[] = [];
  const statuses: Status[] = [];
  const renewals: string[] = [];
  const controller = new Controller({
    origin: 'http://c',
    now: () => performance.now(),
    // Tries come after the shortest wait: half a second.
    random: () => 0,
    fetch: () => Promise.reject(new Error('no network')),
    connect: (url) => {
      assert.equal(url, 'ws://c/v1/contribute');
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    spawn: () => {
      const worker = new FakeWorker();
      workers.push(worker);
      setTimeout(() => worker.onmessage?.({ kind: 'ready', flopsPerS: 7e9 }), 0);
      return worker;
    },
    spawnGpu: (_files, _memoryBytes, _duty, software) => {
      const worker = new FakeWorker();
      worker.software = software;
      gpuWorkers.push(worker);
      setTimeout(() => worker.onmessage?.(gpuSays), 0);
      return worker;
    },
    hasGpu: async () => true,
    loadGpu: async () => ({ kernel: GPU_KERNEL, glueUrl: 'http://c/g.js', module: {} as WebAssembly.Module, bytes: 250_000 }),
    loadKernel: async () => ({ kernel: 'ef'.repeat(32), glueUrl: 'http://c/k.js', module: {} as WebAssembly.Module, bytes: 300_000 }),
    renewTicket: async (frameUrl, old) => {
      renewals.push(`${frameUrl} ${old}`);
      return 'ticket-2';
    },
    identity: () => Identity.generate(),
    post: (message) => {
      if (message.kind === 'status') statuses.push(message);
    },
    ...overrides,
  });
  return { controller, sockets, workers, gpuWorkers, statuses, renewals, last: () => statuses.at(-1)?.phase };
}

/** The coordinator's clock at every welcome. */
export const NOW_MS = 1_800_000_000_000;

export const welcome = (nonce: string, text = 'text-1') => ({
  type: 'welcome',
  session: `ses_${'0'.repeat(16)}`,
  nonce,
  consent_text_version: text,
  consent_ms_max: 10_000,
  now_ms: NOW_MS,
});

export async function connected(world: World, at = 0): Promise<FakeSocket> {
  await until(() => world.sockets.length > at);
  const socket = world.sockets[at] as FakeSocket;
  socket.open();
  return socket;
}

export async function ready(world: World, at = 0): Promise<FakeSocket> {
  const socket = await connected(world, at);
  socket.say(welcome(`nonce-${at}`));
  await until(() => socket.types().includes('consent'));
  socket.say({ type: 'ready', grant: 'grant-1' });
  return socket;
}

export function fromHex(hex: unknown): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(String(hex), 'hex'));
}

export function body(...chunks: number[][]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(new Uint8Array(chunk));
      controller.close();
    },
  });
}
