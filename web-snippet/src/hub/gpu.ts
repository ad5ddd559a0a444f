/**
 * The GPU's part of a visit: a lane of its own beside the processor's, where
 * the coordinator offers it and the visitor allows it. Whatever happens to it,
 * the processor goes on; what has failed is not tried again in this visit.
 */

import type { GpuOffer, GpuStatus } from '../shared/hub-port.ts';
import type { KernelFiles } from './kernel-files.ts';
import type { Lane, LaneEvents } from './lane.ts';

/** A driver that has not opened its device and measured it by then is given up. */
const START_MS_MAX = 20_000;

export interface GpuHost {
  /** Whether a beginning is possible now: the processor is at work, and nothing asks to rest. */
  mayStart(): boolean;
  /** Whether the module and some work fit into what the visit may still move. */
  isWorthwhile(): boolean;
  /** Fetches and compiles the module; what it moves is counted. */
  load(): Promise<KernelFiles>;
  /** Opens the device, and then a connection. */
  open(files: KernelFiles, events: LaneEvents): Lane;
  /** Whether a device of that speed is faster than the processor, or taken anyway. */
  isOfUse(flopsPerS: number): boolean;
  /** What may still be moved is too little for the GPU: ends the visit, and says so, where it is for the processor too. */
  capReached(): boolean;
  changed(): void;
}

type Stage =
  | { readonly at: 'off' }
  | { readonly at: 'loading' }
  | { readonly at: 'open'; readonly lane: Lane; readonly timer: ReturnType<typeof setTimeout> }
  /** Of no use here. */
  | { readonly at: 'none' };

export class Gpu {
  readonly #host: GpuHost;
  #offer: GpuOffer = 'no';
  #isAllowed = false;
  #files: KernelFiles | undefined;
  #stage: Stage = { at: 'off' };
  /** Of lanes that are over. */
  #committedBefore = 0;

  constructor(host: GpuHost) {
    this.#host = host;
  }

  get isAllowed(): boolean {
    return this.#isAllowed;
  }

  get lane(): Lane | undefined {
    return this.#stage.at === 'open' ? this.#stage.lane : undefined;
  }

  get committedTasks(): number {
    return this.#committedBefore + (this.lane?.committedTasks ?? 0);
  }

  get status(): GpuStatus {
    if (!this.#isAllowed || this.#offer === 'no') return 'off';
    if (this.#stage.at === 'none') return 'none';
    return this.lane?.isReady ? 'on' : 'starting';
  }

  begin(offer: GpuOffer, isAllowed: boolean): void {
    this.#offer = offer;
    this.#isAllowed = isAllowed;
  }

  /** The visitor's word: a no ends the lane at once. */
  allow(isAllowed: boolean): void {
    this.#isAllowed = isAllowed;
    if (isAllowed) this.tryStart();
    else if (this.#stage.at !== 'none') this.#close({ at: 'off' }, true);
    this.#host.changed();
  }

  /** Begins where that is possible and has not been done. */
  tryStart(): void {
    if (!this.#isAllowed || this.#offer === 'no' || this.#stage.at !== 'off' || !this.#host.mayStart()) return;
    if (this.#files) this.#open(this.#files);
    else if (this.#host.isWorthwhile()) void this.#load();
    else this.#close({ at: 'none' });
  }

  /** The visit is over, by the visitor's word or for another reason. */
  end(isVisitors: boolean): void {
    this.#close({ at: 'off' }, isVisitors);
  }

  async #load(): Promise<void> {
    const stage: Stage = { at: 'loading' };
    this.#stage = stage;
    this.#host.changed();
    try {
      this.#files = await this.#host.load();
    } catch {
      if (this.#stage === stage) this.#close({ at: 'none' });
      return;
    }
    // Meanwhile the visitor may have changed their mind or left the page. The files are here when they come back.
    if (this.#stage !== stage) return;
    this.#stage = { at: 'off' };
    this.tryStart();
  }

  #open(files: KernelFiles): void {
    const lane: Lane = this.#host.open(files, {
      measured: (flopsPerS) => {
        clearTimeout(timer);
        const isOfUse = this.#host.isOfUse(flopsPerS);
        if (!isOfUse) this.#close({ at: 'none' });
        return isOfUse;
      },
      ready: () => this.#host.changed(),
      failed: () => this.#close({ at: 'none' }),
      capReached: () => {
        if (!this.#host.capReached()) this.#close({ at: 'none' });
      },
    });
    const timer = setTimeout(() => this.#close({ at: 'none' }), START_MS_MAX);
    this.#stage = { at: 'open', lane, timer };
    this.#host.changed();
  }

  #close(stage: Stage, isVisitors = false): void {
    const before = this.#stage;
    this.#stage = stage;
    if (before.at === 'open') {
      clearTimeout(before.timer);
      this.#committedBefore += before.lane.committedTasks;
      if (isVisitors) before.lane.stop();
      else before.lane.drop();
    }
    this.#host.changed();
  }
}
