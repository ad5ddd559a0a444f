/**
 * What is kept of a yes, so that the next page of the same site need not ask
 * again: in the frame's own storage, which browsers keep apart for each site
 * around the frame. Where storage is denied nothing is kept.
 */

import { isView, readCategories, type JobCategory } from '../wire/message.ts';

/** A yes holds for a day. */
const CONSENT_MS = 24 * 60 * 60 * 1000;
/** A visit ends after half an hour without a page of the site. */
const VISIT_GAP_MS = 30 * 60 * 1000;

/** What a yes is for. */
export interface Choices {
  readonly share: number;
  /** Whether it is for the processor. */
  readonly cpu: boolean;
  /** Whether it is for the GPU. */
  readonly gpu: boolean;
  /** Whether the site gets what is earned. */
  readonly give: boolean;
  /** Kinds of jobs that it is not for. */
  readonly refuses: readonly JobCategory[];
}

/** A yes that still holds. */
export interface Remembered extends Choices {
  /** What the card showed when it was said, as the coordinator named it. */
  readonly view: string;
  /** Bytes that the visit has moved so far. */
  readonly bytes: number;
  /** Whether a result under the visit's key was proven wrong: the key gets no more work. */
  readonly excluded?: true;
}

interface Record extends Remembered {
  readonly text: string;
  readonly until: number;
  readonly seen: number;
}

/** What a `storage` event says. */
export type StorageChange = Pick<StorageEvent, 'key' | 'oldValue' | 'newValue'>;

function choicesOf({ share, cpu, gpu, give, refuses }: Choices): Choices {
  return { share, cpu, gpu, give, refuses };
}

function excludedOf({ excluded }: { readonly excluded?: unknown }): { excluded?: true } {
  return excluded === true ? { excluded } : {};
}

export class Memory {
  readonly #storage: () => Storage;
  readonly #now: () => number;
  readonly #key: string;
  readonly #text: string;

  /**
   * @param storage is called each time, because reaching for denied storage throws.
   */
  constructor(storage: () => Storage, now: () => number, site: string, textVersion: string) {
    this.#storage = storage;
    this.#now = now;
    this.#key = `raven ${site}`;
    this.#text = textVersion;
  }

  /** Whether a yes was kept and not taken back, to whatever text and however long ago. */
  get isThere(): boolean {
    try {
      return this.#storage().getItem(this.#key) !== null;
    } catch {
      return false;
    }
  }

  /** The yes to this very text, if it was less than a day ago. Anything else is removed: it is of no use any more. */
  recall(): Remembered | undefined {
    const record = this.#read();
    if (!record) this.forget();
    return record && { ...choicesOf(record), view: record.view, bytes: this.#bytesOf(record), ...excludedOf(record) };
  }

  /**
   * Keeps a new yes. A visit that goes on keeps its count of bytes.
   *
   * @param view what the card showed.
   * @param known bytes that the visit has moved, as far as this page knows.
   */
  agree(choices: Choices, view: string, known: number): Remembered {
    const before = this.#read();
    const bytes = Math.max(known, before ? this.#bytesOf(before) : 0);
    this.#write({ text: this.#text, view, ...choices, bytes, until: this.#now() + CONSENT_MS, seen: this.#now() });
    return { ...choices, view, bytes };
  }

  /** Notes a new share; without a yes there is nothing to change. */
  noteShare(share: number): void {
    this.#note({ share });
  }

  /** Notes whether the yes is for the GPU too. */
  noteGpu(gpu: boolean): void {
    this.#note({ gpu });
  }

  /** Notes whether the yes is for the processor. */
  noteCpu(cpu: boolean): void {
    this.#note({ cpu });
  }

  /** Notes which kinds of jobs the yes is not for. */
  noteRefuses(refuses: readonly JobCategory[]): void {
    this.#note({ refuses });
  }

  /** Notes that the visit's key gets no more work. A new yes begins with a new key. */
  noteExcluded(): void {
    this.#note({ excluded: true });
  }

  /**
   * Adds what this page has moved: other pages of the visit add theirs, and none may write over what another has added.
   *
   * @param total what this page knows of the whole visit; it may have heard of more than is kept.
   * @returns what the visit has moved, where a yes is kept.
   */
  addBytes(moved: number, total: number): number | undefined {
    const record = this.#read();
    if (!record) return undefined;
    const bytes = Math.max(0, this.#bytesOf(record) + moved, total);
    this.#write({ ...record, bytes, seen: this.#now() });
    return bytes;
  }

  /** Whether another page of the site has taken the yes back, as a `storage` event tells. One that has run out was not. */
  isTakenBack({ key, oldValue, newValue }: StorageChange): boolean {
    // All of the storage was cleared.
    if (key === null) return this.#read() === undefined;
    const before = key === this.#key && newValue === null ? this.#parse(oldValue) : undefined;
    if (!before) return false;
    // A count that this page wrote at that moment is not a new yes, which would hold for longer.
    const now = this.#read();
    return !now || now.until <= before.until;
  }

  /** The yes is over. The key under which it earned is another matter: it stays. */
  forget(): void {
    try {
      this.#storage().removeItem(this.#key);
    } catch {
      // Then nothing was kept either.
    }
  }

  #note(change: Partial<Remembered>): void {
    const record = this.#read();
    if (record) this.#write({ ...record, ...change, seen: this.#now() });
  }

  #bytesOf(record: Record): number {
    return this.#now() - record.seen < VISIT_GAP_MS ? record.bytes : 0;
  }

  #read(): Record | undefined {
    try {
      return this.#parse(this.#storage().getItem(this.#key));
    } catch {
      return undefined;
    }
  }

  /** A yes that holds now, to this very text. */
  #parse(kept: string | null): Record | undefined {
    try {
      const { text, view, share, cpu, gpu, give, refuses, bytes, until, seen, excluded } = JSON.parse(kept ?? '{}');
      const isWhole = [share, bytes, until, seen].every((value) => typeof value === 'number' && value >= 0);
      const holds = isWhole && isView(view) && text === this.#text && share <= 1 && until > this.#now() && until <= this.#now() + CONSENT_MS;
      // What is not said of the GPU is no yes, and what is not said of the processor is one.
      const choices = { share, cpu: cpu !== false, gpu: gpu === true, give: give === true, refuses: readCategories(refuses) };
      return holds ? { text, view, ...choices, bytes, until, seen, ...excludedOf({ excluded }) } : undefined;
    } catch {
      return undefined;
    }
  }

  #write({ cpu, gpu, give, refuses, ...record }: Record): void {
    const unusual = { ...(cpu ? {} : { cpu }), ...(gpu ? { gpu } : {}), ...(give ? { give } : {}), ...(refuses.length > 0 ? { refuses } : {}) };
    try {
      this.#storage().setItem(this.#key, JSON.stringify({ ...record, ...unusual }));
    } catch {
      // The yes holds for this page.
    }
  }
}
