/** Of all tabs of one browser on one site one has the pool; the others wait for their turn. */

/** The part of Web Locks that is used. */
export interface Locks {
  request<T>(
    name: string,
    options: { ifAvailable?: boolean; signal?: AbortSignal },
    callback: (lock: unknown) => T | PromiseLike<T>,
  ): Promise<unknown>;
}

export class Turn {
  readonly #locks: Locks | undefined;
  readonly #name: string;
  readonly #changed: (isMine: boolean) => void;
  #waiting: AbortController | undefined;
  #release: (() => void) | undefined;

  /**
   * @param locks `undefined` where the browser has none: then it is always this tab's turn.
   * @param changed hears once soon after `want` whose turn it is, and again when it becomes this tab's.
   */
  constructor(locks: Locks | undefined, name: string, changed: (isMine: boolean) => void) {
    this.#locks = locks;
    this.#name = name;
    this.#changed = changed;
  }

  /** Asks for the turn, and waits for it. */
  want(): void {
    if (this.#waiting || this.#release) return;
    const waiting = new AbortController();
    this.#waiting = waiting;
    void this.#ask(waiting);
  }

  /** Gives the turn back, or stops waiting for it. */
  giveUp(): void {
    this.#waiting?.abort();
    this.#waiting = undefined;
    this.#release?.();
    this.#release = undefined;
  }

  async #ask(waiting: AbortController): Promise<void> {
    const { signal } = waiting;
    const hold = (): Promise<void> | undefined => (signal.aborted ? undefined : this.#hold());
    try {
      if (!this.#locks) throw new Error('no locks');
      let isFree = false;
      const held = this.#locks.request(this.#name, { ifAvailable: true }, (lock) => {
        isFree = lock !== null;
        return isFree ? hold() : undefined;
      });
      await held;
      if (isFree || signal.aborted) return;
      this.#changed(false);
      await this.#locks.request(this.#name, { signal }, hold);
    } catch {
      // Storage is denied to this frame, and locks with it: each tab is on its own.
      if (!signal.aborted && this.#waiting === waiting) void this.#hold();
    }
  }

  /** It is this tab's turn until the promise resolves. */
  #hold(): Promise<void> {
    this.#waiting = undefined;
    return new Promise((resolve) => {
      this.#release = resolve;
      this.#changed(true);
    });
  }
}
