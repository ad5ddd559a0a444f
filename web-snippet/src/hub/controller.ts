/**
 * The hub: loads the kernel, keeps a lane for the processor and, where the
 * visitor allows it, one for the GPU, counts what both move, and tells the
 * frame how things stand.
 */

import { ELSEWHERE, type Earner, type FailureKind, type FromHub, type HubConfig, type HubPhase, type ToHub, type TokenAnswer } from '../shared/hub-port.ts';
import { paceFor, type Pace } from '../shared/pace.ts';
import { ShardFetcher } from './blobs.ts';
import { Gpu } from './gpu.ts';
import type { Identity } from './identity.ts';
import type { JobCategory } from '../wire/message.ts';
import { GPU_FILES_BYTES, KERNEL_FILES_BYTES, KernelLoadError, type KernelFiles } from './kernel-files.ts';
import { IDLE_SHOWN_AFTER_MS, Lane, type LaneEvents, type Visit } from './lane.ts';
import type { Port } from './pool.ts';
import { Tally } from './results.ts';
import type { Socket } from './session.ts';
import { Traffic, WORTHWHILE_BYTES } from './traffic.ts';
import { fetchToken } from './work-token.ts';

const GIB = 2 ** 30;
/** Budget of one kernel: a quarter of the machine's memory over all cores, within these bounds. */
const MEMORY_BYTES_MIN = 128 << 20;
const MEMORY_BYTES_MAX = 512 << 20;
/** Assumed where the browser does not say. */
const MEMORY_GIB_GUESS = 4;
/** Counts are told this often at most: small tasks end many times a second. */
const COUNT_TOLD_EVERY_MS = 250;
/** So many bytes are told at once: a page that is left now must not leave them uncounted. */
const TOLD_AT_ONCE_BYTES = 64 << 10;
/** Counted for a work token: the question and the answer. */
const TOKEN_BYTES = 4 << 10;

/** The hub's surroundings; handed in so that tests need no browser. */
export interface ControllerHost {
  /** Origin of the coordinator, as `https://…`. */
  readonly origin: string;
  now(): number;
  random(): number;
  fetch: typeof fetch;
  /** The visitor's key for a site; a new one, for this page alone, where the frame's storage does not last. */
  identity(site: string, lasts: boolean): Promise<Identity>;
  connect(url: string): Socket;
  spawn(files: KernelFiles, memoryBytes: number, duty: number, flopsPerS: number | undefined): Port;
  /** A worker that opens the GPU; `software`: a software adapter will do. */
  spawnGpu(files: KernelFiles, memoryBytes: number, duty: number, software: boolean): Port;
  loadKernel(filesUrl: string): Promise<KernelFiles>;
  /** Whether there is an adapter, and a real one unless `software` may be. Nothing is fetched for that. */
  hasGpu(software: boolean): Promise<boolean>;
  loadGpu(filesUrl: string): Promise<KernelFiles>;
  renewTicket(frameUrl: string, old: string): Promise<string | undefined>;
  post(message: FromHub): void;
}

type State =
  | { readonly at: 'new' }
  | { readonly at: 'loading' }
  /** Paused before the kernel was there; resuming loads it. */
  | { readonly at: 'held' }
  | { readonly at: 'open' }
  | { readonly at: 'over'; readonly phase: HubPhase };

/** Budget of one of `workers` kernels that run at once. */
function memoryBytesOf(memoryGib: number | undefined, workers: number): number {
  const memory = ((memoryGib ?? MEMORY_GIB_GUESS) * GIB) / 4 / Math.max(1, workers);
  return Math.floor(Math.min(MEMORY_BYTES_MAX, Math.max(MEMORY_BYTES_MIN, memory)));
}

export class Controller {
  readonly #host: ControllerHost;
  readonly #shards: ShardFetcher;
  readonly #gpu: Gpu;
  readonly #traffic = new Traffic();
  readonly #results = new Tally();
  #config: HubConfig | undefined;
  #identity: Identity | undefined;
  /** The processor's lane, once its kernel is loaded and while the visitor allows it. */
  #cpu: Lane | undefined;
  #cpuFiles: KernelFiles | undefined;
  #isCpuAllowed = true;
  #refuses: readonly JobCategory[] = [];
  /** Of the processor's lanes that are over. */
  #cpuCommittedBefore = 0;
  #pace: Pace = paceFor(0, 1);
  #ticket = '';
  /** One renewal serves both lanes. */
  #renewal: Promise<boolean> | undefined;
  #paused: string | undefined;
  #state: State = { at: 'new' };
  #isEnding = false;
  #told: Extract<FromHub, { kind: 'status' }> | undefined;
  #toldAt = 0;
  /** This hub's part of the traffic, as last told. */
  #toldOwn = 0;
  #tellTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(host: ControllerHost) {
    this.#host = host;
    this.#shards = new ShardFetcher(host.origin, host.fetch, {
      reserve: (bytes) => this.#reserve(bytes),
      settle: (reserved, moved) => this.#spend(moved - reserved),
    });
    this.#gpu = new Gpu({
      mayStart: () => this.#state.at === 'open' && this.#paused === undefined && (!this.#isCpuAllowed || this.#cpu?.isReady === true),
      isWorthwhile: () => this.#traffic.fits(GPU_FILES_BYTES + WORTHWHILE_BYTES),
      load: () => this.#loadGpu(),
      open: (files, events) => this.#openGpu(files, events),
      isOfUse: (flopsPerS) => this.#isGpuOfUse(flopsPerS),
      capReached: () => this.#gpuCapReached(),
      changed: () => this.#report(),
    });
  }

  /** What the visit has moved or is about to, as far as this tab knows. */
  get bytes(): number {
    return this.#traffic.used;
  }

  handle(message: ToHub): void {
    switch (message.kind) {
      case 'start':
        if (this.#state.at === 'new') void this.#start(message.config, message.paused);
        return;
      case 'share':
        this.#setShare(message.share);
        return;
      case 'gpu':
        this.#gpu.allow(message.allowed);
        return;
      case 'cpu':
        this.#allowCpu(message.allowed);
        return;
      case 'refuses':
        this.#refuses = message.refuses;
        for (const lane of this.#lanes()) lane.tellSoon();
        return;
      case 'pause':
        this.#pause(message.detail);
        return;
      case 'resume':
        this.#resume();
        return;
      case 'work_token':
        void this.#workToken();
        return;
      case 'traffic':
        this.noteTraffic(0, message.bytes);
        return;
      case 'stop':
        this.#finish({ name: 'stopped' });
        return;
    }
  }

  /** Gives up connections that are only paused: another tab has them. */
  sleep(): void {
    for (const lane of this.#lanes()) lane.sleep();
  }

  /** Another tab has moved so many bytes more, and knows of `total`. */
  noteTraffic(bytes: number, total: number): void {
    this.#traffic.hear(bytes, total);
    this.#report();
  }

  async #start(config: HubConfig, paused: string | undefined): Promise<void> {
    this.#config = config;
    this.#traffic.begin(config.bytesUsed, config.bytesMax);
    this.#paused = paused;
    this.#ticket = config.ticket;
    this.#pace = paceFor(config.share, config.cores);
    this.#isCpuAllowed = config.cpuAllowed;
    this.#refuses = config.refuses;
    this.#gpu.begin(config.gpu, config.gpuAllowed);
    await this.#load(config);
  }

  /** Gets the kernel and starts with it; while paused neither is downloaded nor measured anything. */
  async #load(config: HubConfig): Promise<void> {
    if (this.#paused !== undefined) {
      this.#become({ at: 'held' });
      return;
    }
    if (!this.#traffic.isWorthwhile) {
      this.#capReached();
      return;
    }
    this.#become({ at: 'loading' });
    try {
      // The key is made before anything is downloaded: without Ed25519 there is no point.
      this.#identity ??= await this.#host.identity(config.site, config.lasts).catch(() => {
        throw new KernelLoadError('unsupported', 'Ed25519 keys are missing');
      });
      const files = this.#isCpuAllowed ? await this.#counted(KERNEL_FILES_BYTES, () => this.#host.loadKernel(config.filesUrl)) : undefined;
      // Meanwhile the visitor may have stopped or the page been hidden. The browser keeps the files.
      if (this.#state.at !== 'loading') return;
      this.#cpuFiles = files ?? this.#cpuFiles;
      if (this.#paused !== undefined || (this.#isCpuAllowed && !this.#cpuFiles)) {
        this.#become({ at: 'held' });
        // Allowed while there was nothing to load for it.
        if (this.#paused === undefined) await this.#load(config);
        return;
      }
      this.#become({ at: 'open' });
      if (this.#isCpuAllowed) this.#openCpu();
      else this.#gpu.tryStart();
    } catch (error) {
      const unsupported = error instanceof KernelLoadError && error.kind === 'unsupported';
      this.#fail(unsupported ? 'unsupported' : 'kernel_load', error instanceof Error ? error.message : 'unknown');
    }
  }

  /** Counts files before they come: the page may be left meanwhile. Of a failure nobody knows what it has moved. */
  async #counted(reserved: number, load: () => Promise<KernelFiles>): Promise<KernelFiles> {
    this.#spend(reserved);
    const files = await load();
    this.#spend(files.bytes - reserved);
    return files;
  }

  /** The visitor's word: a no ends the processor's session at once. */
  #allowCpu(isAllowed: boolean): void {
    this.#isCpuAllowed = isAllowed;
    const lane = this.#cpu;
    if (!isAllowed && lane) {
      this.#cpu = undefined;
      this.#cpuCommittedBefore += lane.committedTasks;
      lane.stop();
    }
    if (this.#state.at === 'open') {
      if (isAllowed && !lane) this.#reopenCpu();
      this.#gpu.tryStart();
    }
    this.#report();
  }

  /** Where the module was not needed so far it is loaded now, as at the start; the GPU goes on meanwhile. */
  #reopenCpu(): void {
    if (this.#cpuFiles) this.#openCpu();
    else if (this.#config) void this.#load(this.#config);
  }

  #openCpu(): void {
    const [files, config, identity] = [this.#cpuFiles, this.#config, this.#identity];
    if (!files || !config || !identity || this.#cpu) return;
    const memoryBytes = memoryBytesOf(config.memoryGib, config.cores);
    this.#cpu = new Lane(
      {
        backend: 'cpu',
        id: files.kernel,
        memoryBytes,
        spawn: (duty, flopsPerS) => this.#host.spawn(files, memoryBytes, duty, flopsPerS),
      },
      this.#visit(config, identity),
      this.#pace,
      {
        measured: () => true,
        // The processor's first task does not wait for the GPU's module.
        ready: () => this.#gpu.tryStart(),
        failed: (failure, detail) => this.#fail(failure, detail),
        capReached: () => this.#capReached(),
      },
    );
    // The page may rest, and only then have been allowed to.
    if (this.#paused !== undefined) this.#cpu.pause(this.#paused);
  }

  async #loadGpu(): Promise<KernelFiles> {
    const config = this.#config;
    if (!config) throw new Error('not started');
    if (!(await this.#host.hasGpu(config.gpu === 'any'))) throw new Error('there is no usable adapter');
    return this.#counted(GPU_FILES_BYTES, () => this.#host.loadGpu(config.filesUrl));
  }

  #openGpu(files: KernelFiles, events: LaneEvents): Lane {
    const [config, identity] = [this.#config, this.#identity];
    if (!config || !identity) throw new Error('not started');
    const memoryBytes = memoryBytesOf(config.memoryGib, 1);
    const software = config.gpu === 'any';
    return new Lane(
      {
        backend: 'gpu',
        id: files.kernel,
        memoryBytes,
        // A device that is lost once is not trusted again.
        crashesMax: 0,
        spawn: (duty) => this.#host.spawnGpu(files, memoryBytes, duty, software),
      },
      this.#visit(config, identity),
      paceFor(this.#pace.share, 1),
      events,
    );
  }

  /** At any share: it is that of all cores, and of the whole GPU. */
  #isGpuOfUse(flopsPerS: number): boolean {
    if (!(flopsPerS > 0) || !this.#config) return false;
    // Without the processor there is nothing that it would have to be faster than.
    if (!this.#isCpuAllowed) return true;
    return this.#config.gpu === 'any' || flopsPerS > (this.#cpu?.flopsPerS ?? 0) * this.#config.cores;
  }

  async #workToken(): Promise<void> {
    const grant = this.#lanes().find((lane) => lane.grant !== undefined)?.grant;
    const answer = grant === undefined ? ({ refusal: 'not_lending' } as const) : await this.#fetchToken(grant);
    this.#host.post({ kind: 'work_token', answer });
  }

  async #fetchToken(grant: string): Promise<TokenAnswer> {
    const refused = { refusal: 'refused' } as const;
    if (!this.#reserve(TOKEN_BYTES)) return refused;
    return fetchToken(this.#host, grant).then((token) => (token === undefined ? refused : { token }), () => refused);
  }

  /** What a lane knows of the visit. */
  #visit(config: HubConfig, identity: Identity): Visit {
    const url = `${this.#host.origin.replace(/^http/, 'ws')}/v1/contribute`;
    return {
      config,
      identity,
      shards: this.#shards,
      traffic: this.#traffic,
      results: this.#results,
      ticket: () => this.#ticket,
      allowed: () => ({ cpu: this.#isCpuAllowed, gpu: this.#gpu.isAllowed }),
      refuses: () => this.#refuses,
      now: () => this.#host.now(),
      random: () => this.#host.random(),
      connect: () => this.#host.connect(url),
      spend: (bytes) => this.#spend(bytes),
      renewTicket: () => (this.#renewal ??= this.#renewTicket(config).finally(() => (this.#renewal = undefined))),
      changed: () => this.#report(),
    };
  }

  async #renewTicket(config: HubConfig): Promise<boolean> {
    const ticket = await this.#host.renewTicket(config.frameUrl, this.#ticket);
    this.#ticket = ticket ?? this.#ticket;
    return ticket !== undefined;
  }

  #lanes(): Lane[] {
    return [this.#cpu, this.#gpu.lane].filter((lane) => lane !== undefined);
  }

  #setShare(share: number): void {
    this.#pace = paceFor(share, this.#config?.cores ?? 1);
    this.#cpu?.setPace(this.#pace);
    this.#gpu.lane?.setPace(paceFor(share, 1));
  }

  #pause(detail: string): void {
    this.#paused = detail;
    for (const lane of this.#lanes()) lane.pause(detail);
    this.#report();
  }

  #resume(): void {
    if (this.#paused === undefined) return;
    this.#paused = undefined;
    for (const lane of this.#lanes()) lane.resume();
    if (this.#state.at === 'held' && this.#config) void this.#load(this.#config);
    this.#gpu.tryStart();
    this.#report();
  }

  #spend(bytes: number): void {
    this.#traffic.spend(bytes);
    if (this.#traffic.isOver) this.#capReached();
    else this.#report();
  }

  /** Sets aside what is about to be moved, where it may be. */
  #reserve(bytes: number): boolean {
    const fits = this.#traffic.fits(bytes);
    if (fits) this.#spend(bytes);
    return fits;
  }

  /** No work that could be had fits into what may still be moved: the work of this visit is over. */
  #capReached(): void {
    this.#fail('traffic_cap', `${this.#traffic.used} of ${this.#traffic.max} bytes`);
  }

  /** The same for the GPU alone, unless the processor has nothing to go on with. */
  #gpuCapReached(): boolean {
    if (this.#cpu?.isReady || this.#traffic.isWorthwhile) return false;
    this.#capReached();
    return true;
  }

  #fail(failure: FailureKind, detail: string): void {
    this.#finish({ name: 'failed', failure, detail });
  }

  /** Ends all: workers first, so that nothing computes while goodbye is said. */
  #finish(phase: HubPhase): void {
    // A goodbye may pass the cap, which would end all once more.
    if (this.#state.at === 'over' || this.#isEnding) return;
    this.#isEnding = true;
    for (const lane of this.#lanes()) lane.halt();
    const isVisitors = phase.name === 'stopped';
    if (isVisitors) this.#cpu?.stop();
    else this.#cpu?.drop();
    this.#gpu.end(isVisitors);
    this.#become({ at: 'over', phase });
  }

  #become(state: State): void {
    this.#state = state;
    this.#report();
  }

  #phase(): HubPhase {
    const state = this.#state;
    if (state.at === 'over') return state.phase;
    if (this.#paused !== undefined) return { name: this.#paused === ELSEWHERE ? 'elsewhere' : 'paused' };
    const phases = this.#lanes().map((lane) => lane.phase);
    // The visitor allows the GPU alone, and it is of no use here. The processor's lane is about to open.
    const isOfNoUse = state.at === 'open' && !this.#isCpuAllowed && this.#gpu.status !== 'starting';
    const none: HubPhase = isOfNoUse ? { name: 'idle' } : { name: 'loading' };
    return phases.find(({ name }) => name === 'working') ?? phases[0] ?? none;
  }

  #earner(): Earner | undefined {
    if (!this.#identity) return undefined;
    return this.#identity.isKept && this.#config?.earnings !== 'site' ? 'visitor' : 'site';
  }

  #status() {
    const phase = this.#phase();
    return {
      kind: 'status',
      phase,
      tasks: this.#cpuCommittedBefore + (this.#cpu?.committedTasks ?? 0) + this.#gpu.committedTasks,
      bytes: this.#traffic.used,
      bytesMax: this.#traffic.max,
      moved: this.#traffic.own - this.#toldOwn,
      gpu: this.#gpu.status,
      earner: this.#earner(),
      // To look at a lane's phase is to note that it is busy: a lane that rests is not looked at.
      about: phase.name === 'working' ? this.#lanes().find((lane) => lane.phase.name === 'working')?.about : undefined,
      results: this.#results.counts,
    } as const;
  }

  /** Tells the frame how things stand: a new phase and many bytes at once, a new count soon. */
  #report(): void {
    // Neither at work any more nor over.
    if (this.#isEnding && this.#state.at !== 'over') return;
    const message = this.#status();
    const now = this.#host.now();
    const told = this.#told;
    const isNewPhase = JSON.stringify(message.phase) !== JSON.stringify(told?.phase) || message.gpu !== told?.gpu || message.earner !== told?.earner || message.about !== told?.about;
    const isNewCount = message.tasks !== told?.tasks || message.bytes !== told?.bytes || message.moved !== 0 || message.results !== told?.results;
    const isUrgent = isNewPhase || Math.abs(message.moved) >= TOLD_AT_ONCE_BYTES;
    const waitMs = isUrgent ? 0 : this.#toldAt + COUNT_TOLD_EVERY_MS - now;
    if ((isNewPhase || isNewCount) && waitMs <= 0) {
      this.#told = message;
      this.#toldOwn = this.#traffic.own;
      this.#toldAt = now;
      this.#host.post(message);
      this.#reportIn(message.phase.name === 'working' ? IDLE_SHOWN_AFTER_MS : undefined);
    } else if (isNewCount) {
      this.#reportIn(waitMs);
    } else if (message.phase.name === 'working') {
      // The moment in which idleness is worth a word may have moved on.
      const busyUntil = Math.max(...this.#lanes().map((lane) => lane.busyUntil));
      this.#reportIn(Math.max(1, busyUntil - now));
    }
  }

  /** Looks again after a while; one look is planned at a time. */
  #reportIn(ms: number | undefined): void {
    clearTimeout(this.#tellTimer);
    this.#tellTimer = ms === undefined ? undefined : setTimeout(() => this.#report(), ms);
  }
}
