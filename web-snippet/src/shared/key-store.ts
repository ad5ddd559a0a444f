/**
 * The visit's key, in a database of the frame's own for each site: pages of one
 * host may belong to several. The hub uses the key, the frame only has it
 * forgotten, and the database with it.
 */

const STORE = 'visit';
const KEY = 'identity';
/** A database that takes longer to answer is done without. */
const ANSWER_MS_MAX = 500;

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

function soon<T>(answer: Promise<T>): Promise<T | undefined> {
  return Promise.race([answer.catch(() => undefined), new Promise<undefined>((done) => setTimeout(done, ANSWER_MS_MAX, undefined))]);
}

/** The kept key of a site; one that has run out is forgotten. */
export async function keptKey(site: string, now: number): Promise<KeptKey | undefined> {
  const kept = await soon(transact<KeptKey | undefined>(site, 'readonly', (store) => store.get(KEY)));
  if (!kept || kept.until > now) return kept;
  await forgetKey(site);
  return undefined;
}

/** Whether the key is kept. */
export async function keepKey(site: string, key: KeptKey): Promise<boolean> {
  return (await soon(transact(site, 'readwrite', (store) => store.put(key, KEY)))) !== undefined;
}

/** Waits for a transaction that is under way, so that a key which is just being kept goes too. */
export async function forgetKey(site: string): Promise<void> {
  const gone = new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase(`raven ${site}`);
    request.onsuccess = resolve;
    request.onerror = reject;
  });
  await soon(gone);
}
