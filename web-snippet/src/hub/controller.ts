/**
 * The hub: loads the kernel, keeps one session with the coordinator, hands
 * its work to the pool, and tells the frame how things stand.
 */

import { ELSEWHERE, type FailureKind, type FromHub, type HubConfig, type HubPhase, type ToHub } from '../shared/hub-port.ts';
import { paceFor, type Pace } from '../shared/pace.ts';
import type { GoodbyeReason, RefuseReason } from '../wire/message.ts';
import { PROTOCOL_VERSION, TEXT_BYTES_MAX, TO_COORDINATOR } from '../wire/limits.ts';
import { encodeFrame } from '../wire/frame.ts';
import { Backoff } from './backoff.ts';
import { FrameStore, ShardFetcher } from './blobs.ts';
import type { Identity } from './identity.ts';
import { KERNEL_FILES_BYTES, KernelLoadError, type KernelFiles } from './kernel-files.ts';
import { Meter } from './meter.ts';
import { Pool, type PoolHost, type Port } from './pool.ts';
import { Session, type End, type Socket, type WorkMessage } from './session.ts';
import { CountedSocket, Traffic } from './traffic.ts';

const GIB = 2 ** 30;
/** Budget of one kernel: a quarter of the machine's memory over all cores, within these bounds. */
const MEMORY_BYTES_MIN = 128 << 20;
const MEMORY_BYTES_MAX = 512 << 20;
/** Assumed where the browser does not say. */
const MEMORY_GIB_GUESS = 4;
/** A session that lasted this long shows that all is well again. */
const STABLE_MS = 30_000;
/** Between two tasks workers are idle for a moment; that is not worth a word. */
const IDLE_SHOWN_AFTER_MS = 1_500;
/** Counts are told this often at most: small tasks end many times a second. */
const COUNT_TOLD_EVERY_MS = 250;
/** So many bytes are told at once: a page that is left now must not leave them uncounted. */
const TOLD_AT_ONCE_BYTES = 64 << 10;
/** The coordinator hears of the slider this often at most; workers follow it at once. */
const PACE_TOLD_EVERY_MS = 300;
/** How often in a row our messages may be refused before we give up. */
const REJECTIONS_MAX = 3;

/** The hub's surroundings; handed in so that tests need no browser. */
export interface ControllerHost {
  /** Origin of the coordinator, as `https://…`. */
  readonly origin: string;
  now(): number;
  random(): number;
  fetch: typeof fetch;
  /** The key of the visit to a site. */
  identity(site: string): Promise<Identity>;
  connect(url: string): Socket;
  spawn(files: KernelFiles, memoryBytes: number, duty: number, flopsPerS: number | undefined): Port;
  loadKernel(filesUrl: string): Promise<KernelFiles>;
  renewTicket(frameUrl: string): Promise<string | undefined>;
  post(message: FromHub): void;
}

type State =
  | { readonly at: 'new' }
  | { readonly at: 'loading' }
  /** Paused before the kernel was there; resuming loads it. */
  | { readonly at: 'held' }
  | { readonly at: 'connecting' }
  | { readonly at: 'session'; readonly session: Session; readonly readyAt: number | undefined; readonly grant: string }
  | { readonly at: 'waiting'; readonly timer: ReturnType<typeof setTimeout>; readonly full: boolean }
  /** Paused without a connection; resuming makes one. */
  | { readonly at: 'asleep' }
  | { readonly at: 'over'; readonly phase: HubPhase };

/** What exists once the kernel is loaded. */
interface Machine {
  readonly files: KernelFiles;
  readonly pool: Pool;
  readonly memoryBytes: number;
  flopsPerS: number;
}

export class Controller {
  readonly #host: ControllerHost;
  readonly #shards: ShardFetcher;
  readonly #store = new FrameStore();
  readonly #backoff: Backoff;
  readonly #meter: Meter;
  #config: HubConfig | undefined;
  #machine: Machine | undefined;
  /**
   * One key for the visit, so that a coordinator knows after a reconnection
   * which part of a model this visitor has seen. Every session's receipt is
   * signed over that session's nonce.
   */
  #identity: Identity | undefined;
  #pace: Pace = paceFor(0, 1);
  readonly #traffic = new Traffic();
  #ticket = '';
  #ticketRenewed = false;
  #rejections = 0;
  #paused: string | undefined;
  #state: State = { at: 'new' };
  #busyUntil = 0;
  #told: Extract<FromHub, { kind: 'status' }> | undefined;
  #toldAt = 0;
  /** This hub's part of the traffic, as last told. */
  #toldOwn = 0;
  #tellTimer: ReturnType<typeof setTimeout> | undefined;
  #paceToldAt = -Infinity;
  #paceTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(host: ControllerHost) {
    this.#host = host;
    this.#backoff = new Backoff(host.random);
    this.#meter = new Meter(() => host.now());
    this.#shards = new ShardFetcher(host.origin, host.fetch, {
      reserve: (bytes) => this.#reserve(bytes),
      settle: (reserved, moved) => this.#spend(moved - reserved),
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
      case 'pause':
        this.#pause(message.detail);
        return;
      case 'resume':
        this.#resume();
        return;
      case 'traffic':
        this.noteTraffic(0, message.bytes);
        return;
      case 'stop':
        this.#finish({ name: 'stopped' });
        return;
    }
  }

  async #start(config: HubConfig, paused: string | undefined): Promise<void> {
    this.#config = config;
    this.#traffic.begin(config.bytesUsed, config.bytesMax);
    this.#paused = paused;
    this.#ticket = config.ticket;
    this.#pace = paceFor(config.share, config.cores);
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
      this.#identity ??= await this.#host.identity(config.site).catch(() => {
        throw new KernelLoadError('unsupported', 'Ed25519 keys are missing');
      });
      // Counted before they come: the page may be left meanwhile. Of a failure nobody knows what it has moved.
      this.#spend(KERNEL_FILES_BYTES);
      const files = await this.#host.loadKernel(config.filesUrl);
      this.#spend(files.bytes - KERNEL_FILES_BYTES);
      // Meanwhile the visitor may have stopped or the page been hidden. The browser keeps the files.
      if (this.#state.at !== 'loading') return;
      if (this.#paused === undefined) this.#open(files, config);
      else this.#become({ at: 'held' });
    } catch (error) {
      const unsupported = error instanceof KernelLoadError && error.kind === 'unsupported';
      this.#fail(unsupported ? 'unsupported' : 'kernel_load', error instanceof Error ? error.message : 'unknown');
    }
  }

  /** Starts the workers; the first one's measurement opens the connection. */
  #open(files: KernelFiles, config: HubConfig): void {
    const memory = ((config.memoryGib ?? MEMORY_GIB_GUESS) * GIB) / 4 / Math.max(1, config.cores);
    const memoryBytes = Math.floor(Math.min(MEMORY_BYTES_MAX, Math.max(MEMORY_BYTES_MIN, memory)));
    const poolHost: PoolHost = {
      now: () => this.#host.now(),
      spawn: (duty, flopsPerS) => this.#host.spawn(files, memoryBytes, duty, flopsPerS),
      run: (act) => this.#meter.run(act),
      ownMs: () => this.#meter.take(),
      send: (frame) => this.#sendFrame(frame),
      refuse: (lease, reason, detail) => this.#refuse(lease, reason, detail),
      shard: (shard) => this.#shards.get(shard.blob, shard.bytes, this.#grant()),
      measured: (flopsPerS) => {
        if (this.#machine) this.#machine.flopsPerS = flopsPerS;
        if (this.#paused === undefined) this.#connect();
        else this.#become({ at: 'asleep' });
      },
      changed: () => this.#report(),
      crashed: (detail) => this.#fail('kernel_crash', detail),
    };
    this.#machine = { files, memoryBytes, flopsPerS: 0, pool: new Pool(poolHost, this.#store, this.#pace) };
  }

  #connect(): void {
    const machine = this.#machine;
    const config = this.#config;
    const identity = this.#identity;
    if (!machine || !config || !identity || this.#state.at === 'over') return;
    if (!this.#traffic.isWorthwhile) {
      this.#capReached();
      return;
    }
    this.#become({ at: 'connecting' });
    const url = `${this.#host.origin.replace(/^http/, 'ws')}/v1/contribute`;
    const facts = { hello: this.#hello(machine, config), textVersion: config.textVersion, site: config.site };
    let socket: Socket;
    try {
      socket = new CountedSocket(this.#host.connect(url), (bytes) => this.#spend(bytes), (act) => this.#meter.run(act));
    } catch {
      // Some browsers throw where a policy forbids the connection, others close it later.
      this.#retry(false);
      return;
    }
    const session: Session = new Session(socket, identity, facts, {
      ready: (grant) => this.#ready(session, grant),
      message: (message, frame) => this.#work(machine.pool, message, frame),
      ended: (end) => this.#ended(end),
    });
    this.#become({ at: 'session', session, readyAt: undefined, grant: '' });
  }

  #hello(machine: Machine, config: HubConfig) {
    return {
      protocol: PROTOCOL_VERSION,
      numeric: { class: 'cpu', kernel: machine.files.kernel },
      device: {
        class: config.phone ? 'phone' : 'desktop',
        cores: config.cores,
        memory_bytes: machine.memoryBytes,
        flops_per_s: machine.flopsPerS,
      },
      share: this.#pace.share,
      workers: this.#pace.workers,
      traffic_bytes_left: this.#traffic.left,
      ...(this.#ticket === '' ? {} : { ticket: this.#ticket }),
    } as const;
  }

  #ready(session: Session, grant: string): void {
    this.#ticketRenewed = false;
    this.#become({ at: 'session', session, readyAt: this.#host.now(), grant });
    // What was changed since the hello.
    this.#tellPace();
    if (this.#paused !== undefined) session.send({ type: 'pause', detail: this.#paused });
  }

  #work(pool: Pool, message: WorkMessage, frame: ArrayBuffer): void {
    switch (message.type) {
      case 'graph':
        pool.graph(message.id, frame);
        return;
      case 'blob':
        pool.blob(message.id, frame);
        return;
      case 'drop':
        pool.drop([...message.blobs, ...message.graphs], frame);
        return;
      case 'task':
        pool.task({ lease: message.lease, frame, shards: message.shards });
        return;
      case 'reveal':
        pool.reveal(message.lease, frame);
        return;
      case 'cancel':
        pool.cancel(message.lease, frame);
        return;
    }
  }

  #ended(end: End): void {
    const readyAt = this.#state.at === 'session' ? this.#state.readyAt : undefined;
    this.#machine?.pool.endSession();
    if (readyAt !== undefined && this.#host.now() - readyAt >= STABLE_MS) {
      this.#backoff.reset();
      this.#rejections = 0;
    }
    switch (end.kind) {
      case 'lost':
        this.#retry(false);
        return;
      case 'text_changed':
        this.#fail('text_changed', '');
        return;
      case 'goodbye':
        this.#afterGoodbye(end.reason, end.detail, end.retryAfterMs);
        return;
    }
  }

  #afterGoodbye(reason: GoodbyeReason, detail: string, retryAfterMs: number | undefined): void {
    switch (reason) {
      case 'stopped':
      case 'too_slow':
        this.#retry(false);
        return;
      case 'draining':
      case 'full':
        this.#retry(true, retryAfterMs);
        return;
      case 'incompatible':
        this.#fail('incompatible', detail);
        return;
      case 'no_consent':
        this.#fail('no_consent', detail);
        return;
      case 'traffic_cap':
        this.#capReached();
        return;
      case 'bad_ticket':
        if (this.#ticketRenewed) this.#fail('bad_ticket', detail);
        else void this.#renew();
        return;
      case 'bad_frame':
      case 'out_of_turn':
      case 'broken_commitment':
        this.#rejections += 1;
        if (this.#rejections >= REJECTIONS_MAX) this.#fail('rejected', detail);
        else this.#retry(false);
        return;
    }
  }

  /** Tickets are short-lived, and the visitor may have read for an hour before saying yes. */
  async #renew(): Promise<void> {
    const config = this.#config;
    if (!config) return;
    this.#ticketRenewed = true;
    this.#become({ at: 'connecting' });
    const ticket = await this.#host.renewTicket(config.frameUrl);
    if ((this.#state as State).at !== 'connecting') return;
    if (ticket === undefined) {
      this.#fail('bad_ticket', 'no new ticket can be had');
      return;
    }
    this.#ticket = ticket;
    this.#connect();
  }

  #retry(crowded: boolean, askedMs?: number): void {
    if (this.#state.at === 'over') return;
    if (this.#paused !== undefined) {
      this.#become({ at: 'asleep' });
      return;
    }
    const timer = setTimeout(() => this.#connect(), this.#backoff.next(crowded, askedMs));
    this.#become({ at: 'waiting', timer, full: crowded });
  }

  #setShare(share: number): void {
    this.#pace = paceFor(share, this.#config?.cores ?? 1);
    this.#machine?.pool.setPace(this.#pace);
    const waitMs = this.#paceToldAt + PACE_TOLD_EVERY_MS - this.#host.now();
    if (waitMs <= 0) this.#tellPace();
    else this.#paceTimer ??= setTimeout(() => this.#tellPace(), waitMs);
  }

  /** A slider that is dragged, or an arrow key that is held down, changes many times a second. */
  #tellPace(): void {
    clearTimeout(this.#paceTimer);
    this.#paceTimer = undefined;
    this.#paceToldAt = this.#host.now();
    if (this.#state.at === 'session') void this.#state.session.pace(this.#pace.share, this.#pace.workers);
  }

  #pause(detail: string): void {
    if (this.#paused !== undefined) {
      this.#paused = detail;
      this.#report();
      return;
    }
    this.#paused = detail;
    this.#busyUntil = 0;
    // First the wish for no more tasks, then those in hand.
    this.#tell({ type: 'pause', detail });
    this.#machine?.pool.pause();
    this.#shards.abort();
    if (this.#state.at === 'waiting') {
      clearTimeout(this.#state.timer);
      this.#become({ at: 'asleep' });
    }
    this.#report();
  }

  /** Gives up a connection that is only paused: another tab has one. */
  sleep(): void {
    if (this.#paused === undefined || this.#state.at !== 'session') return;
    this.#state.session.stop();
    this.#machine?.pool.endSession();
    this.#become({ at: 'asleep' });
  }

  /** Another tab has moved so many bytes more, and knows of `total`. */
  noteTraffic(bytes: number, total: number): void {
    this.#traffic.hear(bytes, total);
    this.#report();
  }

  #spend(bytes: number): void {
    this.#traffic.spend(bytes);
    if (this.#traffic.isOver) this.#capReached();
    else this.#report();
  }

  /** Sets aside what is about to be moved, where it may be. */
  #reserve(bytes: number): boolean {
    const fits = this.#mayMove(bytes);
    if (fits) this.#spend(bytes);
    return fits;
  }

  /** Whether so much more may be moved. Where it may not, the work of this visit is over. */
  #mayMove(bytes: number): boolean {
    const fits = this.#traffic.fits(bytes);
    if (!fits) this.#capReached();
    return fits;
  }

  #capReached(): void {
    this.#fail('traffic_cap', `${this.#traffic.used} of ${this.#traffic.max} bytes`);
  }

  #resume(): void {
    if (this.#paused === undefined) return;
    this.#paused = undefined;
    this.#machine?.pool.resume();
    this.#tell({ type: 'resume' });
    if (this.#state.at === 'asleep') this.#connect();
    if (this.#state.at === 'held' && this.#config) void this.#load(this.#config);
    this.#report();
  }

  /** Sends where a session is ready; a new session says it all in its hello. */
  #tell(message: Parameters<Session['send']>[0]): void {
    if (this.#state.at === 'session' && this.#state.session.isReady) this.#state.session.send(message);
  }

  #sendFrame(frame: ArrayBuffer): void {
    const bytesMax = 32 + TO_COORDINATOR.headerBytesMax + TO_COORDINATOR.bodyBytesMax;
    if (this.#state.at !== 'session' || frame.byteLength > bytesMax || !this.#mayMove(frame.byteLength)) return;
    this.#state.session.sendFrame(frame);
  }

  #refuse(lease: string, reason: RefuseReason, detail: string): void {
    // A quarter of the limit: a character takes up to four bytes.
    const text = detail.slice(0, TEXT_BYTES_MAX / 4);
    this.#sendFrame(encodeFrame({ type: 'refuse', lease, reason, detail: text }).buffer);
  }

  #grant(): string {
    return this.#state.at === 'session' ? this.#state.grant : '';
  }

  #fail(failure: FailureKind, detail: string): void {
    this.#finish({ name: 'failed', failure, detail });
  }

  /** Ends all: workers first, so that nothing computes while goodbye is said. */
  #finish(phase: HubPhase): void {
    if (this.#state.at === 'over') return;
    this.#machine?.pool.stop();
    this.#shards.abort();
    clearTimeout(this.#paceTimer);
    if (this.#state.at === 'waiting') clearTimeout(this.#state.timer);
    if (this.#state.at === 'session') this.#state.session.stop();
    this.#store.clear();
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
    switch (state.at) {
      case 'new':
      case 'loading':
      case 'held':
        return { name: 'loading' };
      case 'waiting':
        return { name: 'waiting', full: state.full };
      case 'session':
        if (state.readyAt === undefined) return { name: 'connecting' };
        return { name: this.#isWorking() ? 'working' : 'idle' };
      case 'connecting':
      case 'asleep':
        return { name: 'connecting' };
    }
  }

  /** Busy now, or a moment ago. */
  #isWorking(): boolean {
    const now = this.#host.now();
    if (this.#machine?.pool.isBusy) this.#busyUntil = now + IDLE_SHOWN_AFTER_MS;
    return now < this.#busyUntil;
  }

  /** Tells the frame how things stand: a new phase and many bytes at once, a new count soon. */
  #report(): void {
    const message = {
      kind: 'status',
      phase: this.#phase(),
      tasks: this.#machine?.pool.committedTasks ?? 0,
      bytes: this.#traffic.used,
      bytesMax: this.#traffic.max,
      moved: this.#traffic.own - this.#toldOwn,
    } as const;
    const now = this.#host.now();
    const isNewPhase = JSON.stringify(message.phase) !== JSON.stringify(this.#told?.phase);
    const isNewCount = message.tasks !== this.#told?.tasks || message.bytes !== this.#told?.bytes || message.moved !== 0;
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
      this.#reportIn(Math.max(1, this.#busyUntil - now));
    }
  }

  /** Looks again after a while; one look is planned at a time. */
  #reportIn(ms: number | undefined): void {
    clearTimeout(this.#tellTimer);
    this.#tellTimer = ms === undefined ? undefined : setTimeout(() => this.#report(), ms);
  }
}
