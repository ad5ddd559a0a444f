// The most that this machine's browser gets out of 128-bit registers: multiplications and
// additions that depend on nothing close by, with no memory read. Gflop/s of everything else
// is a fraction of this.

/** Pairs of factors: as many sums, and with the factors no more than a browser has registers for. */
const PAIRS = [[0, 0], [0, 1], [0, 2], [0, 3], [1, 1], [1, 2], [1, 3], [2, 2]];
const FACTORS = 4;
const SUMS = PAIRS.length;

const leb = (value) => {
  const bytes = [];
  do {
    bytes.push((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    value >>>= 7;
  } while (value > 0);
  return bytes;
};
const section = (id, bytes) => [id, ...leb(bytes.length), ...bytes];
const simd = (op) => [0xfd, ...leb(op)];
const f32 = (x) => [0x43, ...new Uint8Array(new Float32Array([x]).buffer)];
const get = (local) => [0x20, ...leb(local)];
const set = (local) => [0x21, ...leb(local)];

/**
 * `run(turns) -> f32`: per turn, each sum gets the product of another pair of factors. Factors
 * change places in every turn, so that no compiler takes the products out of the loop.
 */
function moduleBytes() {
  const [spare, factors, first] = [1, 2, 2 + FACTORS];
  const splat = (x) => [...f32(x), ...simd(0x13)];
  const body = [];
  for (let i = 0; i < FACTORS; i += 1) body.push(...splat(i + 0.5), ...set(factors + i));
  body.push(0x03, 0x40);
  PAIRS.forEach(([i, j], at) => {
    const sum = first + at;
    body.push(...get(sum), ...get(factors + i), ...get(factors + j), ...simd(0xe6), ...simd(0xe4), ...set(sum));
  });
  body.push(...get(factors), ...set(spare));
  for (let i = 1; i < FACTORS; i += 1) body.push(...get(factors + i), ...set(factors + i - 1));
  body.push(...get(spare), ...set(factors + FACTORS - 1));
  body.push(...get(0), 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b);
  body.push(...get(first));
  for (let i = 1; i < SUMS; i += 1) body.push(...get(first + i), ...simd(0xe4));
  body.push(...simd(0x1f), 0, 0x0b);
  const code = [1, ...leb(first + SUMS - 1), 0x7b, ...body];
  return new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, 1, 0x7f, 1, 0x7d]),
    ...section(3, [1, 0]),
    ...section(7, [1, 3, 0x72, 0x75, 0x6e, 0, 0]),
    ...section(10, [1, ...leb(code.length), ...code]),
  ]);
}

let loop = null;

export async function prepare() {
  const { instance } = await WebAssembly.instantiate(moduleBytes());
  loop = instance.exports.run;
  // Long enough for the optimising compiler to take over.
  run(200);
  return null;
}

/** Gflop/s for at least `ms` milliseconds. */
export function run(ms) {
  const turns = 2_000_000;
  const start = performance.now();
  let rounds = 0;
  let elapsed = 0;
  while (elapsed < ms) {
    loop(turns);
    rounds += 1;
    elapsed = performance.now() - start;
  }
  return (rounds * turns * SUMS * 8) / elapsed / 1e6;
}
