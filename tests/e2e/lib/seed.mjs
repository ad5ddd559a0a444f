// Randomness that can be had again: every run prints its seed, RAVEN_SEED repeats it.
import { randomInt } from 'node:crypto';

const given = process.env.RAVEN_SEED;
if (given !== undefined && !/^\d{1,10}$/.test(given)) throw new Error(`RAVEN_SEED is a number, not ${given}`);

/** Of this run, below 2^32. */
export const seed = given === undefined ? randomInt(2 ** 32) : Number(given) % 2 ** 32;
console.log(`seed ${seed} (RAVEN_SEED=${seed} repeats it)`);

/** `bytes(n)`: the next bytes of the sequence that `name` has in this run, whatever other sequences were asked for. */
export function random(name) {
  let state = seed;
  for (const letter of name) state = mix(state ^ letter.codePointAt(0));
  return (count) => {
    const bytes = Buffer.alloc(count);
    for (let at = 0; at < count; at += 1) {
      state = (state + 0x9e37_79b9) >>> 0;
      bytes[at] = mix(state) >>> 24;
    }
    return bytes;
  };
}

/** The finalizer of MurmurHash3: every bit of the input reaches every bit of the result. */
function mix(word) {
  let hash = word >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
