// The most that this machine's browser gets out of 128-bit registers: as many multiplications as
// additions, in chains that do not depend on each other, with no memory read. Gflop/s of
// everything else is a fraction of this.

/** Chains: half of them multiply, half add. More would not fit into the registers of a browser. */
const CHAINS = 12;

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

/** `run(turns) -> f32`: per turn, every chain takes one step by the same factor or summand. */
function moduleBytes() {
  const [operand, first] = [1, 2];
  const splat = (x) => [...f32(x), ...simd(0x13)];
  const body = [...splat(1), ...set(operand)];
  for (let i = 0; i < CHAINS; i += 1) body.push(...splat(i + 0.5), ...set(first + i));
  body.push(0x03, 0x40);
  for (let i = 0; i < CHAINS; i += 1) {
    const op = i < CHAINS / 2 ? 0xe6 : 0xe4;
    body.push(...get(first + i), ...get(operand), ...simd(op), ...set(first + i));
  }
  body.push(...get(0), 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b);
  body.push(...get(first));
  for (let i = 1; i < CHAINS; i += 1) body.push(...get(first + i), ...simd(0xe4));
  body.push(...simd(0x1f), 0, 0x0b);
  const code = [1, ...leb(CHAINS + 1), 0x7b, ...body];
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
  return (rounds * turns * CHAINS * 4) / elapsed / 1e6;
}
