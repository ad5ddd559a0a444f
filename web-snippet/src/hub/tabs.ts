/**
 * The hub among those of the other tabs on the same site: only the one whose
 * turn it is computes, what the visitor does in one tab holds for all.
 */

import { ELSEWHERE, type FromHub, type HubConfig, type ToHub } from '../shared/hub-port.ts';
import { readCategories, type JobCategory } from '../wire/message.ts';
import type { Turn } from './turn.ts';

/** Between the hubs of one site; all come from the same origin, but not from the same build. */
export type TabMessage =
  /** The visitor moved a slider. */
  | { readonly kind: 'share'; readonly share: number }
  /** The visitor allowed the GPU, or does not any more. */
  | { readonly kind: 'gpu'; readonly allowed: boolean }
  /** The same of the processor. */
  | { readonly kind: 'cpu'; readonly allowed: boolean }
  /** The visitor refuses these kinds of jobs, and no others. */
  | { readonly kind: 'refuses'; readonly refuses: readonly JobCategory[] }
  /** The visitor said stop. */
  | { readonly kind: 'stop' }
  /** The sender has the pool now: nobody else needs a connection. */
  | { readonly kind: 'leading' }
  /** The sender has come in, and may have missed what was said before. */
  | { readonly kind: 'joined' }
  /** The sender has moved so many bytes more (below zero: fewer than it had set aside), and knows of `total`. */
  | { readonly kind: 'moved'; readonly bytes: number; readonly total: number };

type Choice = Extract<TabMessage, { kind: 'share' | 'gpu' | 'cpu' | 'refuses' }>;

function changedBy(choice: Choice): Partial<HubConfig> {
  switch (choice.kind) {
    case 'share':
      return { share: choice.share };
    case 'gpu':
      return { gpuAllowed: choice.allowed };
    case 'cpu':
      return { cpuAllowed: choice.allowed };
    case 'refuses':
      return { refuses: choice.refuses };
  }
}

/** Reads what came over the channel; `undefined` where it is nothing that this build knows. */
export function readTabMessage(data: unknown): TabMessage | undefined {
  if (typeof data !== 'object' || data === null) return undefined;
  const { kind, share, allowed, refuses, bytes, total } = data as Record<string, unknown>;
  switch (kind) {
    case 'share':
      return typeof share === 'number' && share > 0 && share <= 1 ? { kind, share } : undefined;
    case 'gpu':
    case 'cpu':
      return typeof allowed === 'boolean' ? { kind, allowed } : undefined;
    case 'refuses':
      return Array.isArray(refuses) ? { kind, refuses: readCategories(refuses) } : undefined;
    case 'moved':
      return Number.isFinite(bytes) && Number.isFinite(total) ? { kind, bytes: Number(bytes), total: Number(total) } : undefined;
    case 'stop':
    case 'leading':
    case 'joined':
      return { kind };
    default:
      return undefined;
  }
}

/** The other tabs are told this often at most. */
const TRAFFIC_TOLD_EVERY_MS = 500;

/** The one tab's hub, as far as this needs it. */
export interface OwnHub {
  handle(message: ToHub): void;
  /** Gives up a connection that is only paused. */
  sleep(): void;
  /** What the visit has moved, as far as this tab knows. */
  readonly bytes: number;
  /** Another tab has moved so many bytes more, and knows of `total`. */
  noteTraffic(bytes: number, total: number): void;
}

export interface TabsHost {
  turn(name: string, changed: (isMine: boolean) => void): Turn;
  /** To the hubs of the other tabs. */
  broadcast(message: TabMessage): void;
  post(message: FromHub): void;
}

export class Tabs {
  readonly #hub: OwnHub;
  readonly #host: TabsHost;
  #turn: Turn | undefined;
  /** Until it is known whose turn it is. */
  #starting: HubConfig | undefined;
  /** Bytes moved that the other tabs do not know of, and until when they wait for them. */
  #untold = 0;
  #telling: ReturnType<typeof setTimeout> | undefined;

  constructor(hub: OwnHub, host: TabsHost) {
    this.#hub = hub;
    this.#host = host;
  }

  handle(message: ToHub): void {
    switch (message.kind) {
      case 'start':
        this.#start(message.config, message.paused);
        return;
      case 'share':
      case 'gpu':
      case 'cpu':
      case 'refuses':
        this.#change(message);
        this.#host.broadcast(message);
        return;
      case 'pause':
        this.#pause(message.detail);
        return;
      case 'resume':
        this.#turn?.want();
        return;
      case 'work_token':
      case 'traffic':
        this.#hub.handle(message);
        return;
      case 'stop':
        this.#stop();
        if (message.everywhere) this.#host.broadcast({ kind: 'stop' });
        return;
    }
  }

  hear(message: TabMessage): void {
    switch (message.kind) {
      case 'share':
      case 'gpu':
      case 'cpu':
      case 'refuses':
        this.#change(message);
        this.#host.post(message);
        return;
      case 'stop':
        this.#stop();
        return;
      case 'leading':
        this.#hub.sleep();
        return;
      case 'joined':
        this.#tell();
        if (this.#turn) this.#host.broadcast({ kind: 'moved', bytes: 0, total: this.#hub.bytes });
        return;
      case 'moved':
        this.#hub.noteTraffic(message.bytes, message.total);
        return;
    }
  }

  /**
   * Notes bytes that this tab has moved; what it heard from others they have told themselves. Every word
   * costs each of the other tabs a little, so that a few are put into one.
   */
  tellTraffic(bytes: number): void {
    this.#untold += bytes;
    if (this.#untold === 0 || this.#telling !== undefined) return;
    this.#tell();
    this.#telling = setTimeout(() => this.#tell(), TRAFFIC_TOLD_EVERY_MS);
  }

  /** Says what was not said yet. Whoever works next must know it. */
  #tell(): void {
    clearTimeout(this.#telling);
    this.#telling = undefined;
    if (this.#untold !== 0) this.#host.broadcast({ kind: 'moved', bytes: this.#untold, total: this.#hub.bytes });
    this.#untold = 0;
  }

  #start(config: HubConfig, paused: string | undefined): void {
    if (this.#turn) return;
    this.#host.broadcast({ kind: 'joined' });
    this.#turn = this.#host.turn(`raven ${config.site}`, (isMine) => this.#decided(isMine));
    if (paused !== undefined) {
      this.#hub.handle({ kind: 'start', config, paused });
    } else {
      this.#starting = config;
      this.#turn.want();
    }
  }

  /** A choice of the visitor, which may come before it is known whose turn it is. */
  #change(choice: Choice): void {
    if (this.#starting) this.#starting = { ...this.#starting, ...changedBy(choice) };
    this.#hub.handle(choice);
  }

  #decided(isMine: boolean): void {
    if (isMine) this.#host.broadcast({ kind: 'leading' });
    const config = this.#starting;
    this.#starting = undefined;
    if (config) {
      this.#hub.handle({ kind: 'start', config, paused: isMine ? undefined : ELSEWHERE });
    } else {
      this.#hub.handle(isMine ? { kind: 'resume' } : { kind: 'pause', detail: ELSEWHERE });
    }
  }

  #pause(detail: string): void {
    const config = this.#starting;
    this.#starting = undefined;
    // Work ends before another tab begins with it.
    if (config) this.#hub.handle({ kind: 'start', config, paused: detail });
    else this.#hub.handle({ kind: 'pause', detail });
    this.#tell();
    this.#turn?.giveUp();
  }

  #stop(): void {
    this.#starting = undefined;
    this.#hub.handle({ kind: 'stop' });
    this.#tell();
    this.#turn?.giveUp();
  }
}
