/** Starts and ends the hub worker. */

import type { FromHub, HubConfig, ToHub } from '../shared/hub-port.ts';
import { SHARE_MIN } from '../shared/pace.ts';
import type { PageConfig } from './config.ts';

/** Time for the hub to say goodbye; its workers are ended before that. */
const GOODBYE_MS_MAX = 300;

interface NavigatorExtras {
  readonly deviceMemory?: number;
  readonly userAgentData?: { readonly mobile?: boolean };
}

function hubConfig(page: PageConfig, share: number): HubConfig {
  const extras = navigator as NavigatorExtras;
  return {
    ...page,
    frameUrl: location.href,
    filesUrl: new URL('.', import.meta.url).href,
    share: Math.max(SHARE_MIN, share),
    cores: navigator.hardwareConcurrency || 1,
    phone: extras.userAgentData?.mobile ?? /Mobi|Android/.test(navigator.userAgent),
    memoryGib: extras.deviceMemory,
  };
}

export class HubClient {
  #worker: Worker;
  #ended = false;

  constructor(page: PageConfig, share: number, paused: string | undefined, status: (message: FromHub) => void) {
    this.#worker = new Worker(new URL('hub.js', import.meta.url), { type: 'module' });
    this.#worker.onmessage = (event: MessageEvent<FromHub>) => {
      if (!this.#ended) status(event.data);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      if (this.#ended) return;
      const detail = event.message || 'the hub could not be started';
      status({ kind: 'status', phase: { name: 'failed', failure: 'kernel_load', detail }, tasks: 0 });
    };
    this.post({ kind: 'start', config: hubConfig(page, share), paused });
  }

  post(message: ToHub): void {
    if (!this.#ended) this.#worker.postMessage(message);
  }

  stop(): void {
    this.post({ kind: 'stop' });
    this.#ended = true;
    setTimeout(() => this.#worker.terminate(), GOODBYE_MS_MAX);
  }
}
