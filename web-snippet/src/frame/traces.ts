/**
 * Words of the frame's own about a visitor, beside the yes (`memory.ts`): that there is a key, that they said
 * "never here", and that they were asked who is to have what they earned. The page can reach neither. Before an answer nothing is kept.
 */

/** What is said of a key. */
const KEPT = '1';
const GIVING = '0';

export class Traces {
  readonly #storage: () => Storage;
  readonly #now: () => number;
  readonly #key: string;
  readonly #never: string;
  readonly #asked: string;

  /** @param storage is called each time, because reaching for denied storage throws. */
  constructor(storage: () => Storage, now: () => number, site: string) {
    this.#storage = storage;
    this.#now = now;
    this.#key = `raven ${site} key`;
    this.#never = `raven ${site} never`;
    this.#asked = `raven ${site} asked`;
  }

  /** Whether a key may be kept: a database that is only looked into would be one that is kept. */
  get hasKey(): boolean {
    return this.#read(this.#key) !== null;
  }

  noteKey(): void {
    this.#write(this.#key, KEPT);
  }

  /** Whether the site was to get what the key has earned, and earns: whoever agrees anew needs another key. */
  get isGiving(): boolean {
    return this.#read(this.#key) === GIVING;
  }

  /** Before the coordinator is told, since its answer may be lost. */
  noteGiving(): void {
    this.#write(this.#key, GIVING);
  }

  forgetKey(): void {
    this.#remove(this.#key);
    this.#remove(this.#asked);
  }

  /** Since when the visitor wants to be asked never, in milliseconds since 1970. */
  get neverSince(): number | undefined {
    // Whatever it says, it was written by a no.
    return this.#since(this.#never);
  }

  noteNever(): void {
    this.#write(this.#never, String(this.#now()));
  }

  /** Only a yes takes it back. */
  forgetNever(): void {
    this.#remove(this.#never);
    this.#remove(this.#asked);
  }

  /** Since when the visitor has known what they leave behind, or has had a link to collect it. */
  get askedSince(): number | undefined {
    return this.#since(this.#asked);
  }

  noteAsked(): void {
    this.#write(this.#asked, String(this.#now()));
  }

  /** Whether a `storage` event says that another tab was told "never here". */
  isNever({ key, newValue }: Pick<StorageEvent, 'key' | 'newValue'>): boolean {
    return key === this.#never && newValue !== null;
  }

  #since(name: string): number | undefined {
    const kept = this.#read(name);
    return kept === null ? undefined : Math.min(Number(kept) || 0, this.#now());
  }

  #read(name: string): string | null {
    try {
      return this.#storage().getItem(name);
    } catch {
      return null;
    }
  }

  #write(name: string, value: string): void {
    try {
      this.#storage().setItem(name, value);
    } catch {
      // Then the page alone remembers a no, and no key is kept either.
    }
  }

  #remove(name: string): void {
    try {
      this.#storage().removeItem(name);
    } catch {
      // Nothing was kept.
    }
  }
}
