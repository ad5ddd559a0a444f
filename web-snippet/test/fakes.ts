/** The parts of a browser that the frame and the loader use, as far as their tests need them. */

/** Puts values in place of globals; the answer puts back what was there. */
export function stub(values: Record<string, unknown>): () => void {
  const before = Object.keys(values).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const);
  for (const [name, value] of Object.entries(values)) {
    Object.defineProperty(globalThis, name, { configurable: true, writable: true, value });
  }
  return () => {
    for (const [name, descriptor] of before) {
      if (descriptor) Object.defineProperty(globalThis, name, descriptor);
      else Reflect.deleteProperty(globalThis, name);
    }
  };
}

/** A site's storage, and what it holds. */
export function fakeStorage(held = new Map<string, string>()): { readonly storage: Storage; readonly held: Map<string, string> } {
  const storage = {
    getItem: (key: string) => held.get(key) ?? null,
    setItem: (key: string, value: string) => void held.set(key, value),
    removeItem: (key: string) => void held.delete(key),
  };
  return { storage: storage as unknown as Storage, held };
}

/** An element that is laid out nowhere and keeps what is written to it. */
export class FakeElement extends EventTarget {
  readonly style: Record<string, string> = {};
  readonly dataset: Record<string, string> = {};
  readonly children: FakeElement[] = [];
  hidden = false;
  disabled = false;
  checked = false;
  value = '20';
  textContent = '';
  scrollWidth = 0;
  parentElement: FakeElement | undefined;

  setAttribute(): void {}
  replaceChildren(): void {}
  focus(): void {}
  append(child: FakeElement): void {
    child.parentElement = this;
    this.children.push(child);
  }
  remove(): void {
    this.parentElement = undefined;
  }
  get isConnected(): boolean {
    return this.parentElement !== undefined;
  }
  getBoundingClientRect(): object {
    return { top: 0, bottom: 0, width: 0, height: 0 };
  }
  click(): void {
    this.dispatchEvent(new Event('click'));
  }
}

/** Watches nothing. */
export class FakeObserver {
  observe(): void {}
  disconnect(): void {}
}

/** Everything that is watched is whole in view, or nothing is. */
export class FakeSight {
  static readonly #all = new Set<FakeSight>();
  static #isSeen = true;
  readonly #targets = new Set<unknown>();
  constructor(readonly changed: (entries: object[]) => void) {
    FakeSight.#all.add(this);
  }
  observe(target: unknown): void {
    this.#targets.add(target);
    setTimeout(() => this.#tell(), 0);
  }
  disconnect(): void {
    this.#targets.clear();
  }
  /** The page is gone. */
  static forget(): void {
    for (const each of FakeSight.#all) each.disconnect();
    FakeSight.#all.clear();
    FakeSight.#isSeen = true;
  }
  static get watched(): number {
    return [...FakeSight.#all].reduce((sum, { length }) => sum + length, 0);
  }
  get length(): number {
    return this.#targets.size;
  }
  static become(isSeen: boolean): void {
    FakeSight.#isSeen = isSeen;
    for (const each of FakeSight.#all) each.#tell();
  }
  #tell(): void {
    const rectangle = { top: 0, bottom: 0 };
    const entry = { isIntersecting: true, intersectionRatio: 1, isVisible: FakeSight.#isSeen, boundingClientRect: rectangle, intersectionRect: rectangle };
    if (this.#targets.size > 0) this.changed([...this.#targets].map((target) => ({ target, ...entry })));
  }
}

/** An event that the visitor has caused, as Node lets only its own code make one. */
export function trusted(type: string, fields: object = {}): Event {
  const asOwn = new Proxy({}, { get: (_, name) => typeof name === 'symbol' });
  return Object.assign(new Event(type, asOwn), fields);
}

type Request = { result?: unknown; onsuccess?: () => void; onupgradeneeded?: () => void };
type Stores = Map<string, Map<unknown, unknown>>;

/** Databases of object stores; each request is answered a moment later. */
export class FakeIndexedDb {
  readonly databases = new Map<string, Stores>();
  /** How long each answer takes; for ever where it is infinite. */
  delayMs = 0;
  /** How often it was reached for. */
  uses = 0;

  open(name: string): Request {
    this.uses += 1;
    const isNew = !this.databases.has(name);
    const stores = this.databases.get(name) ?? new Map();
    this.databases.set(name, stores);
    const request: Request = { result: database(stores) };
    if (this.delayMs === Infinity) return request;
    setTimeout(() => {
      if (isNew) request.onupgradeneeded?.();
      request.onsuccess?.();
    }, this.delayMs);
    return request;
  }

  deleteDatabase(name: string): Request {
    this.uses += 1;
    const request: Request = {};
    setTimeout(() => {
      this.databases.delete(name);
      request.onsuccess?.();
    }, 0);
    return request;
  }
}

function database(stores: Stores): object {
  return {
    createObjectStore: (name: string) => void stores.set(name, new Map()),
    close: () => undefined,
    transaction: (name: string) => {
      const transaction: { oncomplete?: () => void; objectStore?: () => object } = {};
      const entries = stores.get(name);
      if (!entries) throw new Error(`no store ${name}`);
      const answer = (look: () => unknown): Request => {
        const request: Request = {};
        // What is asked for in an answer belongs to the same transaction: no other one comes between.
        setTimeout(() => {
          request.result = look();
          request.onsuccess?.();
          transaction.oncomplete?.();
        }, 0);
        return request;
      };
      transaction.objectStore = () => ({
        get: (key: unknown) => answer(() => entries.get(key)),
        put: (value: unknown, key: unknown) => {
          entries.set(key, value);
          return answer(() => key);
        },
        delete: (key: unknown) => {
          entries.delete(key);
          return answer(() => undefined);
        },
      });
      return transaction;
    },
  };
}
