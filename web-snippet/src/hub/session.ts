/**
 * One WebSocket session: the handshake in its order, then messages. A session
 * is used once; after its end the controller makes a new one with the same key.
 */

import { decodeFrame, encodeFrame, FrameError } from '../wire/frame.ts';
import { TO_CONTRIBUTOR } from '../wire/limits.ts';
import {
  closeCode,
  MessageError,
  parseToContributor,
  reasonOfCloseCode,
  type FromContributor,
  type GoodbyeReason,
  type JobCategory,
  type Receipt,
  type ToContributor,
} from '../wire/message.ts';
import type { Identity, SignedReceipt } from './identity.ts';

/** A coordinator that has not got as far as `ready` by then is given up. */
const HANDSHAKE_MS_MAX = 20_000;

/** The part of a WebSocket that is used. */
export interface Socket {
  binaryType: string;
  onopen: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  send(data: ArrayBuffer | Uint8Array<ArrayBuffer>): void;
  close(code?: number): void;
}

/** Messages that come once a session is ready. */
export type WorkMessage = Extract<
  ToContributor,
  { type: 'graph' | 'blob' | 'about' | 'task' | 'project' | 'reveal' | 'cancel' | 'drop' | 'outcomes' }
>;

/** Why a session is over. */
export type End =
  | { readonly kind: 'goodbye'; readonly reason: GoodbyeReason; readonly detail: string; readonly retryAfterMs?: number | undefined }
  /** The connection failed or broke without a word. */
  | { readonly kind: 'lost' }
  /** Another consent text is in force than the one that the visitor saw. */
  | { readonly kind: 'text_changed' };

export interface SessionEvents {
  ready(grant: string): void;
  message(message: WorkMessage, frame: ArrayBuffer): void;
  ended(end: End): void;
}

/** What may compute. */
export interface Allowed {
  readonly cpu: boolean;
  readonly gpu: boolean;
}

/** What this session says of itself. */
export interface SessionFacts {
  readonly hello: Omit<Extract<FromContributor, { type: 'hello' }>, 'type' | 'session_key'>;
  readonly textVersion: string;
  readonly site: string;
  /** What the card showed when the visitor said yes. */
  readonly view: string;
  /** What the visitor allows, at the moment of asking. */
  allowed(): Allowed;
  /** Kinds of jobs that the visitor refuses, the same. */
  refuses(): readonly JobCategory[];
  /** Milliseconds on a clock that only counts on. */
  now(): number;
}

type Stage = 'opening' | 'greeting' | 'signing' | 'consenting' | 'ready' | 'ended';

export class Session {
  readonly #socket: Socket;
  readonly #identity: Identity;
  readonly #facts: SessionFacts;
  readonly #events: SessionEvents;
  readonly #timer: ReturnType<typeof setTimeout>;
  #stage: Stage = 'opening';
  #nonce = '';
  /** The coordinator's clock when the welcome came, and ours. */
  #welcomed = { nowMs: 0, at: 0 };
  /** The share that the coordinator knows; a higher one is signed anew. */
  #share: number;
  #workers: number;
  /** What the coordinator knows to be refused; less is signed anew. */
  #refuses: readonly JobCategory[] = [];
  /** Receipts signed after the first. */
  #raises = 0;
  /** The newest wish for a pace: one that is being signed when it comes is not sent any more. */
  #paceTurn = 0;

  constructor(socket: Socket, identity: Identity, facts: SessionFacts, events: SessionEvents) {
    this.#socket = socket;
    this.#identity = identity;
    this.#facts = facts;
    this.#events = events;
    this.#share = facts.hello.share;
    this.#workers = facts.hello.workers;
    this.#timer = setTimeout(() => this.#leave('too_slow', { kind: 'lost' }), HANDSHAKE_MS_MAX);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => this.#open();
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#closed(event.code, event.reason);
  }

  get isReady(): boolean {
    return this.#stage === 'ready';
  }

  /** Sends a message; dropped where the session is over. */
  send(message: FromContributor): void {
    if (this.#stage !== 'ended') this.#socket.send(encodeFrame(message));
  }

  /** Tells a new pace, and what is refused, once the session is ready; what is more than the last one goes with a receipt. */
  async pace(share: number, workers: number): Promise<void> {
    const turn = (this.#paceTurn += 1);
    const isNewest = (): boolean => this.#stage === 'ready' && turn === this.#paceTurn;
    const refuses = this.#facts.refuses();
    const isAllowedAgain = this.#refuses.some((kind) => !refuses.includes(kind));
    const isSame = share === this.#share && workers === this.#workers && !isAllowedAgain && refuses.length === this.#refuses.length;
    if (!isNewest() || isSame) return;
    let signed: SignedReceipt | undefined;
    if (share > this.#share || isAllowedAgain) {
      this.#raises += 1;
      try {
        signed = await this.#identity.sign({ ...this.#receipt(share, refuses), counter: this.#raises });
      } catch {
        // Without a receipt the coordinator keeps the share that it knows.
        return;
      }
      if (!isNewest()) return;
    }
    this.#share = share;
    this.#workers = workers;
    this.#refuses = refuses;
    this.send({ type: 'pace', share, workers, ...(refuses.length > 0 ? { refuses } : {}), ...signed });
  }

  /** Sends a frame that the kernel has written; dropped where the session is not ready. */
  sendFrame(frame: ArrayBuffer): void {
    if (this.#stage === 'ready') this.#socket.send(frame);
  }

  /** The visitor stops: says goodbye and closes; no event follows. */
  stop(): void {
    this.#leave('stopped', undefined);
  }

  /** Closes without a goodbye, which would say that the visitor has taken the consent back; no event follows. */
  close(): void {
    if (this.#stage === 'ended') return;
    this.#end(undefined);
    this.#socket.close(1000);
  }

  #open(): void {
    if (this.#stage !== 'opening') return;
    this.#stage = 'greeting';
    this.send({ type: 'hello', ...this.#facts.hello, session_key: this.#identity.publicKey });
  }

  #receive(data: unknown): void {
    if (this.#stage === 'ended') return;
    if (!(data instanceof ArrayBuffer)) {
      this.#leave('bad_frame', { kind: 'lost' });
      return;
    }
    let message: ToContributor;
    try {
      message = parseToContributor(decodeFrame(new Uint8Array(data), TO_CONTRIBUTOR).header);
    } catch (error) {
      if (!(error instanceof FrameError || error instanceof MessageError)) throw error;
      const incompatible = error instanceof FrameError && error.kind === 'unsupported_version';
      const reason = incompatible ? 'incompatible' : 'bad_frame';
      this.#leave(reason, { kind: 'goodbye', reason, detail: error.message });
      return;
    }
    this.#dispatch(message, data);
  }

  #dispatch(message: ToContributor, frame: ArrayBuffer): void {
    switch (message.type) {
      case 'goodbye':
        this.#end({ kind: 'goodbye', reason: message.reason, detail: message.detail, retryAfterMs: message.retryAfterMs });
        this.#socket.close(1000);
        return;
      case 'welcome':
        if (this.#stage !== 'greeting') break;
        this.#welcomed = { nowMs: message.nowMs, at: this.#facts.now() };
        this.#consent(message.nonce, message.consentTextVersion);
        return;
      case 'ready':
        if (this.#stage !== 'consenting') break;
        this.#stage = 'ready';
        clearTimeout(this.#timer);
        this.#events.ready(message.grant);
        return;
      default:
        if (this.#stage !== 'ready') break;
        this.#events.message(message, frame);
        return;
    }
    this.#leave('out_of_turn', { kind: 'goodbye', reason: 'out_of_turn', detail: `unexpected ${message.type}` });
  }

  #consent(nonce: string, textVersion: string): void {
    if (textVersion !== this.#facts.textVersion) {
      // The visitor agreed to other words; nothing is signed in their name.
      this.#leave('stopped', { kind: 'text_changed' });
      return;
    }
    this.#stage = 'signing';
    this.#nonce = nonce;
    this.#refuses = this.#facts.refuses();
    this.#identity.sign(this.#receipt(this.#share, this.#refuses)).then(
      (signed) => {
        if (this.#stage !== 'signing') return;
        this.#stage = 'consenting';
        this.send({ type: 'consent', ...signed });
      },
      () => this.#leave('stopped', { kind: 'lost' }),
    );
  }

  /** What the visitor agrees to with `share`, now. */
  #receipt(share: number, refuses: readonly JobCategory[]): Receipt {
    const { cpu, gpu } = this.#facts.allowed();
    const { keeps, earnings } = this.#facts.hello;
    return {
      text_version: this.#facts.textVersion,
      site: this.#facts.site,
      view: this.#facts.view,
      share,
      ...(cpu ? {} : { cpu: false as const }),
      ...(gpu ? { gpu: true as const } : {}),
      ...(refuses.length > 0 ? { refuses } : {}),
      // The coordinator's clock: that of the device may be anything.
      time_ms: Math.round(this.#welcomed.nowMs + this.#facts.now() - this.#welcomed.at),
      ...(keeps ? { keeps } : {}),
      ...(earnings ? { earnings } : {}),
      nonce: this.#nonce,
      session_key: this.#identity.publicKey,
    };
  }

  #closed(code: number, detail: string): void {
    const reason = reasonOfCloseCode(code);
    this.#end(reason ? { kind: 'goodbye', reason, detail } : { kind: 'lost' });
  }

  /** Ends the session from this side. */
  #leave(reason: GoodbyeReason, end: End | undefined): void {
    if (this.#stage === 'ended') return;
    if (this.#stage !== 'opening') this.send({ type: 'goodbye', reason });
    this.#end(end);
    this.#socket.close(closeCode(reason));
  }

  #end(end: End | undefined): void {
    if (this.#stage === 'ended') return;
    this.#stage = 'ended';
    clearTimeout(this.#timer);
    if (end) this.#events.ended(end);
  }
}
