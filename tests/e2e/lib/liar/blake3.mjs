// BLAKE3 as its paper has it, for pages and Node: whoever wants to lie commits to the lie with a digest of their own.
const IV = Uint32Array.of(
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
);
const CHUNK_START = 1;
const CHUNK_END = 2;
const PARENT = 4;
const ROOT = 8;
const BLOCK_BYTES = 64;
const CHUNK_BYTES = 1024;
const ROUNDS = 7;
/** Where each word of a block goes between two rounds. */
const ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
/** Words of the state that are mixed together: columns, then diagonals. */
const QUARTERS = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];

const rotated = (word, bits) => (word >>> bits) | (word << (32 - bits));

function mix(state, [a, b, c, d], x, y) {
  state[a] += state[b] + x;
  state[d] = rotated(state[d] ^ state[a], 16);
  state[c] += state[d];
  state[b] = rotated(state[b] ^ state[c], 12);
  state[a] += state[b] + y;
  state[d] = rotated(state[d] ^ state[a], 8);
  state[c] += state[d];
  state[b] = rotated(state[b] ^ state[c], 7);
}

/** The chaining value after a block of 16 words. */
function compress(chain, block, counter, bytes, flags) {
  const state = new Uint32Array(16);
  state.set(chain);
  state.set(IV.subarray(0, 4), 8);
  state.set([counter, 0, bytes, flags], 12);
  let words = block;
  for (let round = 0; round < ROUNDS; round += 1) {
    QUARTERS.forEach((quarter, at) => mix(state, quarter, words[2 * at], words[2 * at + 1]));
    words = ORDER.map((from) => words[from]);
  }
  return state.subarray(0, 8).map((word, at) => word ^ state[at + 8]);
}

function chunkChain(bytes, counter, root) {
  let chain = IV;
  const blocks = Math.max(1, Math.ceil(bytes.length / BLOCK_BYTES));
  for (let at = 0; at < blocks; at += 1) {
    const part = bytes.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES);
    const padded = new Uint8Array(BLOCK_BYTES);
    padded.set(part);
    const view = new DataView(padded.buffer);
    const words = Array.from({ length: 16 }, (_, word) => view.getUint32(4 * word, true));
    const flags = (at === 0 ? CHUNK_START : 0) | (at === blocks - 1 ? CHUNK_END | root : 0);
    chain = compress(chain, words, counter, part.length, flags);
  }
  return chain;
}

function chainOf(bytes, counter, root) {
  const chunks = Math.ceil(bytes.length / CHUNK_BYTES);
  if (chunks <= 1) return chunkChain(bytes, counter, root);
  const left = 2 ** Math.floor(Math.log2(chunks - 1));
  const middle = left * CHUNK_BYTES;
  const children = [chainOf(bytes.subarray(0, middle), counter, 0), chainOf(bytes.subarray(middle), counter + left, 0)];
  return compress(IV, children.flatMap((child) => [...child]), 0, BLOCK_BYTES, PARENT | root);
}

/** Of fewer than 2^32 chunks, in hex. */
export function blake3(bytes) {
  const words = chainOf(bytes, 0, ROOT);
  const digest = new DataView(new ArrayBuffer(32));
  words.forEach((word, at) => digest.setUint32(4 * at, word, true));
  return Array.from(new Uint8Array(digest.buffer), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
