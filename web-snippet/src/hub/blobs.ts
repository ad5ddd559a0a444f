/** Blobs and graphs of a session, and shards from the coordinator's HTTP side. */

import { TO_CONTRIBUTOR } from '../wire/limits.ts';
import { transferred } from './traffic.ts';

/** Headers of a request and its answer. */
const EXCHANGE_BYTES = 1 << 10;

/** Bytes kept for handing to workers: some generations of one job's weights, and graphs. */
const STORE_BYTES_MAX = 320 << 20;
/** A shard that takes longer than this leaves its task to someone else. */
const FETCH_MS_MAX = 30_000;

/** A kept frame, and who waits for it while it is lent. */
interface Kept {
  readonly bytes: number;
  /** Nothing while it is lent. */
  frame: ArrayBuffer | undefined;
  readonly waiters: Array<{ lend(frame: ArrayBuffer): void; fail(error: BlobError): void }>;
}

/** A kept frame in the hands of one who must give it back: its bytes move, none is copied. */
export interface Loan {
  readonly frame: ArrayBuffer;
  giveBack(frame: ArrayBuffer): void;
  /** It will not come back. */
  lose(): void;
}

/** Frames that came over the socket, kept while the coordinator wants them kept. */
export class FrameStore {
  readonly #kept = new Map<string, Kept>();
  #bytes = 0;
  readonly #bytesMax: number;

  constructor(bytesMax = STORE_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  /** Keeps a frame; the oldest ones go when the store would grow over its bound. */
  put(id: string, frame: ArrayBuffer): void {
    this.drop(id);
    const bytes = frame.byteLength;
    for (const oldest of this.#kept.keys()) {
      if (this.#bytes + bytes <= this.#bytesMax) break;
      this.drop(oldest);
    }
    this.#kept.set(id, { bytes, frame, waiters: [] });
    this.#bytes += bytes;
  }

  /** A copy of a frame that is never lent. */
  copy(id: string): ArrayBuffer | undefined {
    return this.#kept.get(id)?.frame?.slice(0);
  }

  /**
   * Lends a frame, once whoever has it gave it back; nothing where it is not kept.
   *
   * @throws {BlobError} where it does not come back.
   */
  async lend(id: string): Promise<Loan | undefined> {
    const kept = this.#kept.get(id);
    if (!kept) return undefined;
    const { frame } = kept;
    kept.frame = undefined;
    if (frame) return this.#loan(id, kept, frame);
    return new Promise((resolve, reject) => {
      kept.waiters.push({ lend: (back) => resolve(this.#loan(id, kept, back)), fail: reject });
    });
  }

  /** Who waits for a frame gets it even if it is dropped meanwhile, as they asked before. */
  #loan(id: string, kept: Kept, frame: ArrayBuffer): Loan {
    return {
      frame,
      giveBack: (back) => {
        const next = kept.waiters.shift();
        if (next) next.lend(back);
        else kept.frame = back;
      },
      lose: () => {
        for (const { fail } of kept.waiters.splice(0)) fail(new BlobError(`blob ${id} was lost with a worker`));
        if (this.#kept.get(id) === kept) this.drop(id);
      },
    };
  }

  drop(id: string): void {
    this.#bytes -= this.#kept.get(id)?.bytes ?? 0;
    this.#kept.delete(id);
  }

  ids(): string[] {
    return [...this.#kept.keys()];
  }

  get bytes(): number {
    return this.#bytes;
  }

  clear(): void {
    this.#kept.clear();
    this.#bytes = 0;
  }
}

export class BlobError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'BlobError';
  }
}

/** A shard was not asked for: it would pass the visit's cap. */
export class CapError extends BlobError {}

/** What a download asks before, and says after. */
export interface ShardTraffic {
  /** Sets so much aside; `false` where the visit may not move it. */
  reserve(bytes: number): boolean;
  /** Of what was set aside so much was moved. */
  settle(reserved: number, moved: number): void;
}

interface Download {
  waiters: number;
  readonly answer: Promise<ArrayBuffer>;
  readonly abort: () => void;
}

/**
 * Fetches shards. Nothing is kept here: a shard goes to the worker that asked,
 * and the browser's cache has it for the next one. Requests for a shard that
 * is on its way share one answer, whichever session they are for.
 */
export class ShardFetcher {
  readonly #origin: string;
  readonly #fetch: typeof fetch;
  readonly #traffic: ShardTraffic;
  readonly #underway = new Map<string, Download>();

  constructor(origin: string, fetchFunction: typeof fetch, traffic: ShardTraffic) {
    this.#origin = origin;
    this.#fetch = fetchFunction;
    this.#traffic = traffic;
  }

  /**
   * The frame of a shard, owned by the caller.
   *
   * @param bytes its length as the task states it.
   * @param signal ends the wait, and the download where nobody else waits for it.
   * @throws {BlobError}
   */
  async get(id: string, bytes: number, grant: string, signal?: AbortSignal): Promise<ArrayBuffer> {
    signal?.throwIfAborted();
    const shared = this.#underway.get(id) ?? this.#begin(id, bytes, grant);
    shared.waiters += 1;
    const leave = (): void => this.#leave(id, shared);
    signal?.addEventListener('abort', leave);
    try {
      const frame = await shared.answer;
      signal?.throwIfAborted();
      // All but the last get a copy, so that each may hand its own on.
      return shared.waiters === 1 ? frame : frame.slice(0);
    } finally {
      signal?.removeEventListener('abort', leave);
      if (!signal?.aborted) leave();
    }
  }

  #leave(id: string, shared: Download): void {
    shared.waiters -= 1;
    if (shared.waiters > 0) return;
    // Who asks from now on gets a download that has not been aborted.
    if (this.#underway.get(id) === shared) this.#underway.delete(id);
    shared.abort();
  }

  #begin(id: string, bytes: number, grant: string): Download {
    const aborting = new AbortController();
    const answer = this.#download(id, bytes, grant, aborting);
    const download = { waiters: 0, answer, abort: () => aborting.abort() };
    this.#underway.set(id, download);
    return download;
  }

  async #download(id: string, bytes: number, grant: string, aborting: AbortController): Promise<ArrayBuffer> {
    const bytesMax = 32 + TO_CONTRIBUTOR.headerBytesMax + TO_CONTRIBUTOR.bodyBytesMax;
    if (bytes > bytesMax) throw new BlobError(`spec.shards.bytes: ${bytes} exceeds the limit of ${bytesMax}`);
    const reserved = bytes + EXCHANGE_BYTES;
    // Before the first byte: several shards are on their way at once, and a page may be left in the middle of one.
    if (!this.#traffic.reserve(reserved)) throw new CapError('blob: more than the visit may still move');
    // Without a body only headers have moved.
    let moved = EXCHANGE_BYTES;
    const timer = setTimeout(() => aborting.abort(), FETCH_MS_MAX);
    try {
      const url = `${this.#origin}/v1/blobs/${id}`;
      const headers = { authorization: `Bearer ${grant}` };
      const response = await this.#fetch(url, { headers, credentials: 'omit', signal: aborting.signal });
      if (!response.ok || !response.body) {
        void response.body?.cancel().catch(() => undefined);
        throw new BlobError(`blob: the coordinator answered ${response.status}`);
      }
      // Of a body that breaks off nobody knows how much has come.
      moved = reserved;
      const frame = await readExactly(response.body, bytes);
      moved = transferred(url, reserved);
      return frame;
    } finally {
      clearTimeout(timer);
      this.#traffic.settle(reserved, moved);
    }
  }
}

/** Reads a body that must have exactly `bytes` bytes into one buffer of that size. */
export async function readExactly(body: ReadableStream<Uint8Array>, bytes: number): Promise<ArrayBuffer> {
  const whole = new Uint8Array(bytes);
  const reader = body.getReader();
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.byteLength > bytes) {
      await reader.cancel();
      throw new BlobError(`blob: longer than the ${bytes} bytes that the task states`);
    }
    whole.set(value, at);
    at += value.byteLength;
  }
  if (at !== bytes) throw new BlobError(`blob: ${at} bytes, ${bytes} stated`);
  return whole.buffer;
}
