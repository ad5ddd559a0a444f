/**
 * One session with the coordinator, of the processor or of the GPU: the
 * workers that compute for it, the connection, and what is tried when that
 * breaks.
 */

import type { FailureKind, HubConfig, HubPhase } from '../shared/hub-port.ts';
import type { Pace } from '../shared/pace.ts';
import { encodeFrame } from '../wire/frame.ts';
import { PROTOCOL_VERSION, TEXT_BYTES_MAX, TO_COORDINATOR } from '../wire/limits.ts';
import type { About, Backend, GoodbyeReason, JobCategory, RefuseReason, ShardRef } from '../wire/message.ts';
import { Backoff } from './backoff.ts';
import { CapError, FrameStore, type ShardFetcher } from './blobs.ts';
import type { Identity } from './identity.ts';
import { Meter } from './meter.ts';
import { Pool, type PoolHost, type Port } from './pool.ts';
import type { Tally } from './results.ts';
import { Session, type Allowed, type End, type Socket, type WorkMessage } from './session.ts';
import { CountedSocket, type Traffic } from './traffic.ts';

/** A session that lasted this long shows that all is well again. */
const STABLE_MS = 30_000;
/** Between two tasks workers are idle for a moment; that is not worth a word. */
export const IDLE_SHOWN_AFTER_MS = 1_500;
/** The coordinator hears of the slider this often at most; workers follow it at once. */
const PACE_TOLD_EVERY_MS = 300;
/** How often in a row our messages may be refused before we give up. */
const REJECTIONS_MAX = 3;

/** What a lane computes with. */
export interface LaneKernel {
  readonly backend: Backend;
  /** Content id of the module. */
  readonly id: string;
  /** Budget of one worker. */
  readonly memoryBytes: number;
  /** Crashes within a minute that are made good; absent: as many as the pool thinks right. */
  readonly crashesMax?: number;
  spawn(duty: number, flopsPerS: number | undefined): Port;
}

/** What the visit's lanes share. */
export interface Visit {
  readonly config: HubConfig;
  /**
   * One key for the visit, so that a coordinator knows after a reconnection
   * which part of a model this visitor has seen. Every session's receipt is
   * signed over that session's nonce.
   */
  readonly identity: Identity;
  readonly shards: ShardFetcher;
  /** What may still be moved; bytes are counted with `spend`. */
  readonly traffic: Pick<Traffic, 'left' | 'isWorthwhile' | 'fits'>;
  /** What became of what was computed. */
  readonly results: Pick<Tally, 'add'>;
  /** The ticket as it was last renewed. */
  ticket(): string;
  allowed(): Allowed;
  /** Kinds of jobs that the visitor refuses. */
  refuses(): readonly JobCategory[];
  now(): number;
  random(): number;
  connect(): Socket;
  spend(bytes: number): void;
  /** Whether there is a fresh ticket now. */
  renewTicket(): Promise<boolean>;
  /** Something that the visitor is shown has changed. */
  changed(): void;
}

export interface LaneEvents {
  /** The first worker has measured; whether that is of use. */
  measured(flopsPerS: number): boolean;
  /** A session is ready. */
  ready(): void;
  /** Nothing more will come of this lane. */
  failed(failure: FailureKind, detail: string): void;
  /** There is no work that fits into what the visit may still move. */
  capReached(): void;
}

type State =
  /** The first worker is starting. */
  | { readonly at: 'measuring' }
  | { readonly at: 'connecting' }
  | { readonly at: 'session'; readonly session: Session; readonly readyAt: number | undefined; readonly grant: string }
  | { readonly at: 'waiting'; readonly timer: ReturnType<typeof setTimeout>; readonly full: boolean }
  /** Paused without a connection; resuming makes one. */
  | { readonly at: 'asleep' }
  | { readonly at: 'ended' };

export class Lane {
  readonly #kernel: LaneKernel;
  readonly #visit: Visit;
  readonly #events: LaneEvents;
  readonly #store = new FrameStore();
  readonly #backoff: Backoff;
  readonly #meter: Meter;
  readonly #pool: Pool;
  #pace: Pace;
  #paused: string | undefined;
  #state: State = { at: 'measuring' };
  #flopsPerS = 0;
  /** Ends the downloads of this lane. */
  #downloads = new AbortController();
  #ticketRenewed = false;
  #rejections = 0;
  #busyUntil = 0;
  /** Of the tasks that came last. */
  #about: About | undefined;
  #paceToldAt = -Infinity;
  #paceTimer: ReturnType<typeof setTimeout> | undefined;

  /** Starts the workers; the first one's measurement opens the connection. */
  constructor(kernel: LaneKernel, visit: Visit, pace: Pace, events: LaneEvents) {
    this.#kernel = kernel;
    this.#visit = visit;
    this.#pace = pace;
    this.#events = events;
    this.#backoff = new Backoff(() => visit.random());
    this.#meter = new Meter(() => visit.now());
    this.#pool = new Pool(this.#poolHost(), this.#store, pace, kernel.crashesMax);
  }

  /** Operations per second of one worker, once that has been measured. */
  get flopsPerS(): number {
    return this.#flopsPerS;
  }

  get committedTasks(): number {
    return this.#pool.committedTasks;
  }

  get isMeasuring(): boolean {
    return this.#state.at === 'measuring';
  }

  /** Whether tasks can come. */
  get isReady(): boolean {
    return this.#state.at === 'session' && this.#state.readyAt !== undefined;
  }

  /** What the session may fetch with, while there is one. */
  get grant(): string | undefined {
    return this.#state.at === 'session' && this.#state.readyAt !== undefined ? this.#state.grant : undefined;
  }

  /** For whom it computes, once it has a task. */
  get about(): About | undefined {
    return this.#about;
  }

  /** Until when the lane counts as working if nothing more comes. */
  get busyUntil(): number {
    return this.#busyUntil;
  }

  /** How things stand, pauses aside. */
  get phase(): HubPhase {
    const state = this.#state;
    switch (state.at) {
      case 'measuring':
        return { name: 'loading' };
      case 'waiting':
        return { name: 'waiting', full: state.full };
      case 'session':
        if (state.readyAt === undefined) return { name: 'connecting' };
        return { name: this.#isWorking() ? 'working' : 'idle' };
      case 'connecting':
      case 'asleep':
        return { name: 'connecting' };
      case 'ended':
        return { name: 'stopped' };
    }
  }

  setPace(pace: Pace): void {
    this.#pace = pace;
    this.#pool.setPace(pace);
    this.tellSoon();
  }

  /** Tells what the visitor wishes now: pace, and what is refused. */
  tellSoon(): void {
    const waitMs = this.#paceToldAt + PACE_TOLD_EVERY_MS - this.#visit.now();
    if (waitMs <= 0) this.#tellPace();
    else this.#paceTimer ??= setTimeout(() => this.#tellPace(), waitMs);
  }

  pause(detail: string): void {
    const isPaused = this.#paused !== undefined;
    this.#paused = detail;
    if (isPaused) return;
    this.#busyUntil = 0;
    // First the wish for no more tasks, then those in hand.
    this.#tell({ type: 'pause', detail });
    this.#pool.pause();
    this.#downloads.abort();
    if (this.#state.at === 'waiting') {
      clearTimeout(this.#state.timer);
      this.#become({ at: 'asleep' });
    }
  }

  resume(): void {
    if (this.#paused === undefined) return;
    this.#paused = undefined;
    this.#downloads = new AbortController();
    this.#pool.resume();
    this.#tell({ type: 'resume' });
    if (this.#state.at === 'asleep') this.#connect();
  }

  /** Gives up a connection that is only paused: another tab has one. */
  sleep(): void {
    if (this.#paused === undefined || this.#state.at !== 'session') return;
    this.#state.session.close();
    this.#pool.endSession();
    this.#become({ at: 'asleep' });
  }

  /** Ends workers and downloads, at once. */
  halt(): void {
    this.#pool.stop();
    this.#downloads.abort();
    this.#store.clear();
    clearTimeout(this.#paceTimer);
    if (this.#state.at === 'waiting') clearTimeout(this.#state.timer);
  }

  /** The visitor's word: ends all, and says goodbye once nothing computes any more. */
  stop(): void {
    this.#over()?.stop();
  }

  /** Ends all for any other reason: nobody has taken anything back. */
  drop(): void {
    this.#over()?.close();
  }

  /** Ends what computes; answers the session that is left. */
  #over(): Session | undefined {
    const state = this.#state;
    if (state.at === 'ended') return undefined;
    this.halt();
    this.#state = { at: 'ended' };
    return state.at === 'session' ? state.session : undefined;
  }

  #poolHost(): PoolHost {
    return {
      now: () => this.#visit.now(),
      spawn: (duty, flopsPerS) => this.#kernel.spawn(duty, flopsPerS),
      run: (act) => this.#meter.run(act),
      ownMs: () => this.#meter.take(),
      send: (frame) => this.#sendFrame(frame),
      refuse: (lease, reason, detail) => this.#refuse(lease, reason, detail),
      shard: (shard) => this.#shard(shard),
      measured: (flopsPerS) => {
        this.#flopsPerS = flopsPerS;
        if (!this.#events.measured(flopsPerS)) return;
        if (this.#paused === undefined) this.#connect();
        else this.#become({ at: 'asleep' });
      },
      changed: () => this.#visit.changed(),
      crashed: (detail) => this.#events.failed('kernel_crash', detail),
    };
  }

  #connect(): void {
    if (this.#state.at === 'ended') return;
    const visit = this.#visit;
    if (!visit.traffic.isWorthwhile) {
      this.#events.capReached();
      return;
    }
    this.#become({ at: 'connecting' });
    const { textVersion, site, view } = visit.config;
    const facts = { hello: this.#hello(), textVersion, site, view, allowed: () => visit.allowed(), refuses: () => visit.refuses(), now: () => visit.now() };
    let socket: Socket;
    try {
      socket = new CountedSocket(visit.connect(), (bytes) => visit.spend(bytes), (act) => this.#meter.run(act));
    } catch {
      // Some browsers throw where a policy forbids the connection, others close it later.
      this.#retry(false);
      return;
    }
    const session: Session = new Session(socket, visit.identity, facts, {
      ready: (grant) => this.#ready(session, grant),
      message: (message, frame) => this.#work(message, frame),
      ended: (end) => this.#ended(end),
    });
    this.#become({ at: 'session', session, readyAt: undefined, grant: '' });
  }

  #hello() {
    const { config, identity, traffic } = this.#visit;
    const ticket = this.#visit.ticket();
    return {
      protocol: PROTOCOL_VERSION,
      numeric: { class: this.#kernel.backend, kernel: this.#kernel.id },
      device: {
        class: config.phone ? 'phone' : 'desktop',
        cores: config.cores,
        memory_bytes: this.#kernel.memoryBytes,
        flops_per_s: this.#flopsPerS,
      },
      share: this.#pace.share,
      workers: this.#pace.workers,
      traffic_bytes_left: traffic.left,
      ...(ticket === '' ? {} : { ticket }),
      ...(identity.isKept ? {} : { keeps: 'visit' as const }),
      ...(config.earnings === 'site' ? { earnings: 'site' as const } : {}),
    } as const;
  }

  #ready(session: Session, grant: string): void {
    this.#ticketRenewed = false;
    this.#become({ at: 'session', session, readyAt: this.#visit.now(), grant });
    // What was changed since the hello.
    this.#tellPace();
    if (this.#paused !== undefined) session.send({ type: 'pause', detail: this.#paused });
    this.#events.ready();
  }

  #work(message: WorkMessage, frame: ArrayBuffer): void {
    const pool = this.#pool;
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
      case 'about':
        this.#about = { requester: message.requester, category: message.category };
        this.#visit.changed();
        return;
      case 'task':
        pool.task({ lease: message.lease, frame, shards: message.shards });
        return;
      case 'project':
        pool.project(message.lease, frame);
        return;
      case 'reveal':
        pool.reveal(message.lease, frame);
        return;
      case 'cancel':
        pool.cancel(message.lease, frame);
        return;
      case 'outcomes':
        this.#visit.results.add(message.results);
        this.#visit.changed();
        return;
    }
  }

  #ended(end: End): void {
    const readyAt = this.#state.at === 'session' ? this.#state.readyAt : undefined;
    this.#pool.endSession();
    if (readyAt !== undefined && this.#visit.now() - readyAt >= STABLE_MS) {
      this.#backoff.reset();
      this.#rejections = 0;
    }
    switch (end.kind) {
      case 'lost':
        this.#retry(false);
        return;
      case 'text_changed':
        this.#events.failed('text_changed', '');
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
      case 'excluded':
        // The result that led to it is told by this alone.
        this.#visit.results.add([{ outcome: 'wrong' }]);
        this.#events.failed(reason, detail);
        return;
      case 'incompatible':
      case 'no_consent':
        this.#events.failed(reason, detail);
        return;
      case 'stale_view':
        // Whoever agreed did so too long ago: they are to read again what holds now.
        this.#events.failed('text_changed', detail);
        return;
      case 'traffic_cap':
        this.#events.capReached();
        return;
      case 'bad_ticket':
        if (this.#ticketRenewed) this.#events.failed('bad_ticket', detail);
        else void this.#renew();
        return;
      case 'bad_frame':
      case 'out_of_turn':
      case 'broken_commitment':
        this.#rejections += 1;
        if (this.#rejections >= REJECTIONS_MAX) this.#events.failed('rejected', detail);
        else this.#retry(false);
        return;
    }
  }

  /** Tickets are short-lived, and the visitor may have read for an hour before saying yes. */
  async #renew(): Promise<void> {
    this.#ticketRenewed = true;
    this.#become({ at: 'connecting' });
    const isFresh = await this.#visit.renewTicket();
    if ((this.#state as State).at !== 'connecting') return;
    if (isFresh) this.#connect();
    else this.#events.failed('bad_ticket', 'no new ticket can be had');
  }

  #retry(crowded: boolean, askedMs?: number): void {
    if (this.#state.at === 'ended') return;
    if (this.#paused !== undefined) {
      this.#become({ at: 'asleep' });
      return;
    }
    const timer = setTimeout(() => this.#connect(), this.#backoff.next(crowded, askedMs));
    this.#become({ at: 'waiting', timer, full: crowded });
  }

  /** A slider that is dragged, or an arrow key that is held down, changes many times a second. */
  #tellPace(): void {
    clearTimeout(this.#paceTimer);
    this.#paceTimer = undefined;
    this.#paceToldAt = this.#visit.now();
    if (this.#state.at === 'session') void this.#state.session.pace(this.#pace.share, this.#pace.workers);
  }

  /** Sends where a session is ready; a new session says it all in its hello. */
  #tell(message: Parameters<Session['send']>[0]): void {
    if (this.#state.at === 'session' && this.#state.session.isReady) this.#state.session.send(message);
  }

  #sendFrame(frame: ArrayBuffer): void {
    const bytesMax = 32 + TO_COORDINATOR.headerBytesMax + TO_COORDINATOR.bodyBytesMax;
    if (this.#state.at !== 'session' || frame.byteLength > bytesMax) return;
    if (this.#visit.traffic.fits(frame.byteLength)) this.#state.session.sendFrame(frame);
    else this.#events.capReached();
  }

  #refuse(lease: string, reason: RefuseReason, detail: string): void {
    // A quarter of the limit: a character takes up to four bytes.
    const text = detail.slice(0, TEXT_BYTES_MAX / 4);
    this.#sendFrame(encodeFrame({ type: 'refuse', lease, reason, detail: text }).buffer);
  }

  async #shard({ blob, bytes }: ShardRef): Promise<ArrayBuffer> {
    const grant = this.#state.at === 'session' ? this.#state.grant : '';
    const { signal } = this.#downloads;
    try {
      return await this.#visit.shards.get(blob, bytes, grant, signal);
    } catch (error) {
      if (error instanceof CapError && !signal.aborted) this.#events.capReached();
      throw error;
    }
  }

  /** Busy now, or a moment ago. */
  #isWorking(): boolean {
    const now = this.#visit.now();
    if (this.#pool.isBusy) this.#busyUntil = now + IDLE_SHOWN_AFTER_MS;
    return now < this.#busyUntil;
  }

  #become(state: State): void {
    // To say goodbye may have used up the cap, and ended all.
    if (this.#state.at === 'ended') return;
    this.#state = state;
    this.#visit.changed();
  }
}
