/** The frame's side of the messages with the loader. */

import { envelope, readToFrame, type ToFrame, type ToLoader } from '../shared/embed-port.ts';

export class Embed {
  /** The page around, known since its first message. */
  #origin: string | undefined;
  readonly #handle: (message: ToFrame) => void;

  constructor(handle: (message: ToFrame) => void) {
    this.#handle = handle;
    addEventListener('message', (event) => this.#receive(event));
  }

  send(message: ToLoader): void {
    if (this.#origin !== undefined) parent.postMessage(envelope(message), this.#origin);
  }

  #receive(event: MessageEvent): void {
    // Only the page that holds the frame may speak, and its origin never changes.
    if (event.source !== parent || parent === window) return;
    const ancestor = location.ancestorOrigins?.[0];
    if (ancestor !== undefined && ancestor !== event.origin) return;
    if (this.#origin !== undefined && this.#origin !== event.origin) return;
    const message = readToFrame(event.data);
    if (!message) return;
    if (message.type === 'hello') this.#origin = event.origin;
    if (this.#origin !== undefined) this.#handle(message);
  }
}
