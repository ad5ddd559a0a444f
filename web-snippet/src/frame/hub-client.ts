/** Starts and ends the hub worker. */

import { channelName, type FromHub, type HubConfig, type ToHub } from '../shared/hub-port.ts';
import { SHARE_MIN } from '../shared/pace.ts';
import type { PageConfig } from './config.ts';
import type { Choices } from './memory.ts';

/** Time for the hub to say goodbye; its workers are ended before that. */
const GOODBYE_MS_MAX = 300;

interface NavigatorExtras {
  readonly deviceMemory?: number;
  readonly userAgentData?: { readonly mobile?: boolean };
}

/** What the visitor said, and what the visit has moved so far. */
export interface VisitSoFar extends Choices {
  /** What the card showed when they said it. */
  readonly view: string;
  readonly bytes: number;
}

function hubConfig(page: PageConfig, { share, cpu, gpu, give, refuses, view, bytes }: VisitSoFar): HubConfig {
  const extras = navigator as NavigatorExtras;
  return {
    ticket: page.ticket,
    site: page.site,
    textVersion: page.textVersion,
    view,
    frameUrl: location.href,
    filesUrl: new URL('.', import.meta.url).href,
    share: Math.max(SHARE_MIN, share),
    gpu: page.gpu,
    gpuAllowed: gpu,
    cpuAllowed: cpu,
    refuses,
    earnings: give ? 'site' : 'mine',
    // What such a frame stores is gone with its page.
    lasts: (window as { credentialless?: boolean }).credentialless !== true,
    cores: navigator.hardwareConcurrency || 1,
    phone: extras.userAgentData?.mobile ?? /Mobi|Android/.test(navigator.userAgent),
    memoryGib: extras.deviceMemory,
    bytesUsed: bytes,
    bytesMax: page.visitBytesMax,
  };
}

export class HubClient {
  #worker: Worker;
  #ended = false;

  /**
   * @param receive also hears the last counts of a hub that was stopped.
   */
  constructor(
    page: PageConfig,
    visit: VisitSoFar,
    paused: string | undefined,
    receive: (message: FromHub) => void,
  ) {
    this.#worker = new Worker(new URL('hub.js', import.meta.url), { type: 'module' });
    const start = hubConfig(page, visit);
    let bytes = start.bytesUsed;
    this.#worker.onmessage = ({ data }: MessageEvent<FromHub>) => {
      if (data.kind === 'status') bytes = data.bytes;
      receive(data);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      if (this.#ended) return;
      const detail = event.message || 'the hub could not be started';
      const { bytesMax } = start;
      const phase = { name: 'failed', failure: 'kernel_load', detail } as const;
      receive({ kind: 'status', phase, tasks: 0, bytes, bytesMax, moved: 0, gpu: 'off' });
    };
    this.post({ kind: 'start', config: start, paused });
  }

  post(message: ToHub): void {
    if (!this.#ended) this.#worker.postMessage(message);
  }

  /** @param everywhere whether the visitor said so, for the site's other tabs too. */
  stop(everywhere: boolean): void {
    this.post({ kind: 'stop', everywhere });
    this.#ended = true;
    setTimeout(() => this.#worker.terminate(), GOODBYE_MS_MAX);
  }
}

/** Says stop to the hubs of the site's other tabs, where this tab has none that would. */
export function stopOtherTabs(site: string): void {
  try {
    const channel = new BroadcastChannel(channelName(site));
    channel.postMessage({ kind: 'stop' });
    channel.close();
  } catch {
    // Where storage is denied no tab hears another.
  }
}
