/** The page's wishes for work tokens, and the frame's answers. */

import type { ToLoader } from '../shared/embed-port.ts';
import type { WorkTokenError } from './api.ts';

/** The frame asks the coordinator, which may be far away. */
export const TOKEN_MS_MAX = 10_000;

type TokenMessage = Extract<ToLoader, { type: 'work_token' }>;

function failure(reason: WorkTokenError['reason']): WorkTokenError {
  return Object.assign(new Error(`raven: no work token: ${reason}`), { reason });
}

// `private` and not `#`, as in PageSide.
export class Tokens {
  private readonly send: (id: number) => boolean;
  private readonly waiting = new Map<number, (message: TokenMessage) => void>();
  private last = 0;

  /** @param send asks the frame; answers whether there is one that can hear. */
  constructor(send: (id: number) => boolean) {
    this.send = send;
  }

  ask(): Promise<string> {
    return new Promise((resolve, reject) => {
      const id = (this.last += 1);
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        reject(failure('timeout'));
      }, TOKEN_MS_MAX);
      this.waiting.set(id, (message) => {
        clearTimeout(timer);
        this.waiting.delete(id);
        if ('token' in message) resolve(message.token);
        else reject(failure(message.refusal));
      });
      if (!this.send(id)) this.answer({ type: 'work_token', id, refusal: 'not_lending' });
    });
  }

  answer(message: TokenMessage): void {
    const answer = this.waiting.get(message.id);
    if (answer) answer(message);
  }

  /** The frame is gone, and its answers with it. */
  clear(): void {
    this.waiting.forEach((answer, id) => answer({ type: 'work_token', id, refusal: 'not_lending' }));
  }
}
