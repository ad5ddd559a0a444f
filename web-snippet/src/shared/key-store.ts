/**
 * The visitor's key, in a database of the frame's own for each site: pages of one
 * host may belong to several. It stays for as long as the browser keeps it, since
 * whoever has it has what it has earned. The hub uses the key; the frame has it
 * retired, and forgotten only where the visitor says so, and the database with it.
 */

const STORE = 'visit';
const KEY = 'identity';
/** Keys that get no more work, and have earned. */
const RETIRED = 'retired';
/** Of more of them the first are let go: each took a wrong result. */
const RETIRED_MAX = 15;
/**
 * A database is waited for so long, as one that is busy while a browser starts: without its key a visitor
 * would earn nothing. What waits is a worker, and never the page.
 */
export const PATIENCE_MS_MAX = 5_000;
/** To have a key forgotten may take so long; it is forgotten later all the same, before anybody reads it. */
const FORGET_MS_MAX = 500;

export interface KeptKey {
  readonly publicKey: string;
  readonly privateKey: CryptoKey;
  /** Whether a result was accepted under it for the visitor: there is something to collect. */
  readonly hasEarned?: true;
}

function open(site: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    // Throws where storage is denied.
    const request = indexedDB.open(`raven ${site}`, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function transact<T>(site: string, mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const database = await open(site);
  try {
    return await new Promise<T>((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

/** `undefined` where a database is denied, fails, or takes longer. */
async function within<T>(ms: number, answer: Promise<T>): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((done) => (timer = setTimeout(done, ms, undefined)));
  try {
    return await Promise.race([answer.catch(() => undefined), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The kept key of a site. */
export function keptKey(site: string, waitMs = PATIENCE_MS_MAX): Promise<KeptKey | undefined> {
  return within(waitMs, transact<KeptKey | undefined>(site, 'readonly', (store) => store.get(KEY)));
}

/** The key of a site and those that were retired, the newest last. */
export async function keptKeys(site: string): Promise<readonly KeptKey[]> {
  const kept = await keptKey(site);
  const retired = await within(PATIENCE_MS_MAX, transact<KeptKey[] | undefined>(site, 'readonly', (store) => store.get(RETIRED)));
  return [...(retired ?? []), ...(kept ? [kept] : [])];
}

/**
 * Keeps a key, unless one is kept already, by another tab that was first or by a visit that was only slow to be read.
 *
 * @returns the key that is kept now, where one is.
 */
export async function keepKey(site: string, key: KeptKey, waitMs = PATIENCE_MS_MAX): Promise<KeptKey | undefined> {
  const putIfNone = (store: IDBObjectStore): IDBRequest<KeptKey | undefined> => {
    const request: IDBRequest<KeptKey | undefined> = store.get(KEY);
    request.onsuccess = () => void (request.result || store.put(key, KEY));
    return request;
  };
  const stored = transact(site, 'readwrite', putIfNone).then((before) => before ?? key);
  return within(waitMs, stored);
}

/** Notes that there is something to collect under the kept key. */
export async function noteEarned(site: string): Promise<void> {
  const note = (store: IDBObjectStore): IDBRequest<KeptKey | undefined> => {
    const request: IDBRequest<KeptKey | undefined> = store.get(KEY);
    request.onsuccess = () => {
      const kept = request.result;
      if (kept && !kept.hasEarned) store.put({ ...kept, hasEarned: true }, KEY);
    };
    return request;
  };
  await within(PATIENCE_MS_MAX, transact(site, 'readwrite', note));
}

/** Sets the key aside, so that the next visit begins as somebody new; what it has earned can be collected all the same. */
export async function retireKey(site: string): Promise<void> {
  const kept = await keptKeys(site);
  const retired = kept.filter(({ hasEarned }) => hasEarned).slice(-RETIRED_MAX);
  const retire = (store: IDBObjectStore): IDBRequest<undefined> => {
    store.put(retired, RETIRED);
    return store.delete(KEY);
  };
  await within(FORGET_MS_MAX, transact(site, 'readwrite', retire));
}

/** Waits for a transaction that is under way, so that a key which is just being kept goes too. */
export async function forgetKeys(site: string): Promise<void> {
  const gone = new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase(`raven ${site}`);
    request.onsuccess = resolve;
    request.onerror = reject;
  });
  await within(FORGET_MS_MAX, gone);
}
