/** What a visit moves over the network, both ways together, and its cap. */

import type { Socket } from './session.ts';

/** What a WebSocket adds to a message at most, with a client's mask. */
const MESSAGE_EXTRA_BYTES = 14;
/** Room for what must always be possible: a handshake, refusals, a goodbye. */
const KEPT_BACK_BYTES = 32 << 10;
/** With less than this left no work is begun: no kernel and no job's weights fit. */
export const WORTHWHILE_BYTES = 512 << 10;

export class Traffic {
  /** Until the visit's cap is known nothing is moved. */
  #max = Infinity;
  #used = 0;
  #own = 0;
  /** What other tabs have told of since this hub listens. */
  #heard = 0;

  /** @param used what the visit had moved when the page was asked; what was heard meanwhile comes on top. */
  begin(used: number, max: number): void {
    this.#max = max;
    this.#used = Math.max(this.#used, used + this.#heard);
  }

  get max(): number {
    return this.#max;
  }

  /** What the visit has moved or is about to, in all tabs. */
  get used(): number {
    return this.#used;
  }

  /** This hub's part of it. */
  get own(): number {
    return this.#own;
  }

  /** What may still be planned with. */
  get left(): number {
    return Math.max(0, this.#max - this.#used - KEPT_BACK_BYTES);
  }

  get isWorthwhile(): boolean {
    return this.left >= WORTHWHILE_BYTES;
  }

  get isOver(): boolean {
    return this.#used > this.#max;
  }

  fits(bytes: number): boolean {
    return bytes <= this.left;
  }

  /** Counts what was moved, or sets aside what is about to be. Below zero: it was less than was set aside. */
  spend(bytes: number): void {
    this.#used += bytes;
    this.#own += bytes;
  }

  /**
   * Another tab has moved `bytes` more, and knows of `total` in all. Two tabs move bytes at once while one takes over
   * from the other, so what each adds is added up; the total makes good what was said before this hub listened.
   */
  hear(bytes: number, total: number): void {
    this.#heard += bytes;
    this.#used = Math.max(this.#used + bytes, total);
  }
}

/** A socket whose messages are counted, and its handler's time with them. */
export class CountedSocket implements Socket {
  readonly #socket: Socket;
  readonly #spend: (bytes: number) => void;
  readonly #run: (act: () => void) => void;

  constructor(socket: Socket, spend: (bytes: number) => void, run: (act: () => void) => void) {
    this.#socket = socket;
    this.#spend = spend;
    this.#run = run;
  }

  set binaryType(type: string) {
    this.#socket.binaryType = type;
  }
  set onopen(handler: Socket['onopen']) {
    this.#socket.onopen = handler;
  }
  set onclose(handler: Socket['onclose']) {
    this.#socket.onclose = handler;
  }
  set onmessage(handler: Socket['onmessage']) {
    this.#socket.onmessage = (event) => {
      const data: unknown = event.data;
      this.#spend(MESSAGE_EXTRA_BYTES + (data instanceof ArrayBuffer ? data.byteLength : String(data).length));
      this.#run(() => handler?.(event));
    };
  }
  send(data: ArrayBuffer | Uint8Array<ArrayBuffer>): void {
    this.#spend(MESSAGE_EXTRA_BYTES + data.byteLength);
    this.#socket.send(data);
  }
  close(code?: number): void {
    this.#socket.close(code);
  }
}

/**
 * Bytes that a finished request moved, headers included: none where the
 * browser's cache answered. `otherwise` where the browser does not say.
 */
export function transferred(url: string, otherwise: number): number {
  const entries = performance.getEntriesByName(url, 'resource') as PerformanceResourceTiming[];
  const last = entries[entries.length - 1];
  // The buffer is small; each request is asked about once.
  performance.clearResourceTimings();
  return last?.transferSize ?? otherwise;
}
