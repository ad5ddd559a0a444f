/**
 * The visit's key, in a database of the frame's own for each site: pages of one
 * host may belong to several. The hub uses the key, the frame only has it
 * forgotten, and the database with it.
 */

const STORE = 'visit';
const KEY = 'identity';
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
  /** Milliseconds since 1970; later the key is not used any more. */
  readonly until: number;
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

/** The kept key of a site; one that has run out is forgotten. */
export async function keptKey(site: string, now: number, waitMs = PATIENCE_MS_MAX): Promise<KeptKey | undefined> {
  const kept = await within(waitMs, transact<KeptKey | undefined>(site, 'readonly', (store) => store.get(KEY)));
  if (!kept || kept.until > now) return kept;
  await forgetKey(site);
  return undefined;
}

/**
 * Keeps a key, unless one is kept already, by another tab that was first or by a visit that was only slow to be read.
 *
 * @returns the key that is kept now, where one is.
 */
export async function keepKey(site: string, key: KeptKey, now: number, waitMs = PATIENCE_MS_MAX): Promise<KeptKey | undefined> {
  const holds = (kept: KeptKey | undefined): kept is KeptKey => kept !== undefined && kept.until > now;
  const putIfNone = (store: IDBObjectStore): IDBRequest<KeptKey | undefined> => {
    const request: IDBRequest<KeptKey | undefined> = store.get(KEY);
    request.onsuccess = () => void (holds(request.result) || store.put(key, KEY));
    return request;
  };
  const stored = transact(site, 'readwrite', putIfNone).then((before) => (holds(before) ? before : key));
  return within(waitMs, stored);
}

/** Waits for a transaction that is under way, so that a key which is just being kept goes too. */
export async function forgetKey(site: string): Promise<void> {
  const gone = new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase(`raven ${site}`);
    request.onsuccess = resolve;
    request.onerror = reject;
  });
  await within(FORGET_MS_MAX, gone);
}
