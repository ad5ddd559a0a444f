/** The wallet: a key of this page's own, which stays in this browser and cannot be copied out of it. */

import { toHex } from '../parts/hex.ts';

const DATABASE = 'raven wallet';
const STORE = 'wallet';
const KEY = 'identity';

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function transact<T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const database = await open();
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

interface Kept {
  readonly key: string;
  readonly privateKey: CryptoKey;
}

/** Keeps a key unless one is kept already, in one transaction; answers what was kept before. */
function putIfNone(store: IDBObjectStore, made: Kept): IDBRequest<Kept | undefined> {
  const request: IDBRequest<Kept | undefined> = store.get(KEY);
  request.onsuccess = () => void (request.result ?? store.put(made, KEY));
  return request;
}

export class Wallet {
  /** Ed25519, in hex. */
  readonly key: string;
  readonly #privateKey: CryptoKey;

  private constructor(key: string, privateKey: CryptoKey) {
    this.key = key;
    this.#privateKey = privateKey;
  }

  /**
   * The wallet of this browser, made where there is none.
   *
   * @throws where the browser has no Ed25519, or keeps nothing: a key that is lost is worth nothing.
   */
  static async open(): Promise<Wallet> {
    const kept = await transact<Kept | undefined>('readonly', (store) => store.get(KEY));
    if (kept) return new Wallet(kept.key, kept.privateKey);
    const pair = (await crypto.subtle.generateKey({ name: 'Ed25519' }, false, ['sign', 'verify'])) as CryptoKeyPair;
    const key = toHex(new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey)));
    const made = { key, privateKey: pair.privateKey };
    // Another tab that opened at once may have been first: what it collects with its key stays within reach.
    const first = await transact('readwrite', (store) => putIfNone(store, made));
    return first ? new Wallet(first.key, first.privateKey) : new Wallet(made.key, made.privateKey);
  }

  async sign(text: string): Promise<string> {
    const bytes = new TextEncoder().encode(text);
    return toHex(new Uint8Array(await crypto.subtle.sign({ name: 'Ed25519' }, this.#privateKey, bytes)));
  }
}
