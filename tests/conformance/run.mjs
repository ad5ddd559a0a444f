// Runs the conformance suite on the compiled kernel, in Node or in a browser's worker.
//
// In Node:    node tests/conformance/run.mjs [KERNEL_DIR] [SUITE_DIR] [--seeds N] [--json FILE]
// In a page:  import { runSeeds, runSuite } from '.../run.mjs';
//             const report = await runSuite(Kernel, suiteJson, suiteBytes);
// with `Kernel` from an initialised raven_kernel.js, `suiteJson` the parsed
// suite.json and `suiteBytes` a Uint8Array of suite.bin.

const CANONICAL_NAN = 0x7fc00000;

/** A frame's header and its tensors, as PROTOCOL.md lays them out. */
export function parseFrame(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerBytes = view.getUint32(8, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(16, 16 + headerBytes)));
  const align = (at) => (at + 15) & ~15;
  const width = { f32: 4, i32: 4, u8: 1, bool: 1 };
  let at = align(16 + headerBytes);
  const tensors = (header.tensors ?? []).map(({ name, dtype, shape }) => {
    at = align(at);
    const length = shape.reduce((n, d) => n * d, 1) * width[dtype];
    const data = bytes.slice(at, at + length);
    at += length;
    return { name, dtype, shape, data };
  });
  return { header, tensors };
}

/** The greatest error as a fraction of what is tolerated, or a reason why the case fails. */
function compare(entry, expected, found) {
  if (found.name !== expected.name || found.dtype !== expected.dtype
    || found.shape.join() !== expected.shape.join()) {
    return { reason: `${found.name} is ${found.dtype}[${found.shape}], expected ${expected.dtype}[${expected.shape}]` };
  }
  if (found.dtype !== 'f32') {
    const at = found.data.findIndex((byte, i) => byte !== expected.data[i]);
    return at < 0 ? { error: 0 } : { reason: `${found.name} differs at byte ${at}` };
  }
  const floats = (data) => new Float32Array(data.slice().buffer);
  const [x, y, bits] = [floats(found.data), floats(expected.data), new Uint32Array(found.data.slice().buffer)];
  let worst = 0;
  for (let i = 0; i < y.length; i += 1) {
    if (Number.isNaN(x[i]) && bits[i] !== CANONICAL_NAN) return { reason: `${found.name} holds another NaN at ${i}` };
    // Infinities and NaN must be the same; -0 and 0 are one number.
    if (x[i] !== y[i] && !(Number.isNaN(x[i]) && Number.isNaN(y[i]))) {
      const tolerated = entry.abs + entry.rel * Math.abs(y[i]);
      const difference = Math.abs(x[i] - y[i]);
      if (!(difference <= tolerated)) return { reason: `${found.name} is ${x[i]} at ${i}, expected ${y[i]} within ${tolerated}` };
      worst = Math.max(worst, difference / tolerated);
    }
  }
  return { error: worst };
}

function runCase(Kernel, entry, span) {
  const kernel = new Kernel(512 * 2 ** 20);
  try {
    for (const frame of entry.setup) kernel.accept(span(frame));
    const refused = kernel.begin(span(entry.task));
    if (refused) return { reason: parseFrame(refused).header.detail };
    // Small steps, so that pausing between ops is part of what is tested.
    while (!kernel.step(1)) { /* one op at a time */ }
    const { lease, digest } = parseFrame(kernel.finish(0)).header;
    const reveal = frameOf({ type: 'reveal', lease });
    const { tensors } = parseFrame(kernel.accept(reveal));
    let error = 0;
    for (const [i, expected] of entry.expected.entries()) {
      const verdict = compare(entry, { ...expected, data: span([expected.offset, expected.bytes]) }, tensors[i]);
      if (verdict.reason) return { digest, reason: verdict.reason };
      error = Math.max(error, verdict.error);
    }
    return { digest, error };
  } finally {
    kernel.free();
  }
}

/** A frame without tensors. */
export function frameOf(header) {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array((16 + text.length + 15) & ~15);
  bytes.set([0x52, 0x41, 0x56, 0x4e, 1, 0]);
  new DataView(bytes.buffer).setUint32(8, text.length, true);
  bytes.set(text, 16);
  return bytes;
}

/**
 * Runs every case. The report holds per case its greatest error (as a fraction
 * of the tolerance), the kernel's digest of all output bits, and the reason
 * where it failed; and one digest over all cases, which must be the same
 * wherever the same module runs.
 */
export async function runSuite(Kernel, suite, file) {
  // Node's Buffer is a Uint8Array whose slices share memory; this one copies.
  const bytes = new Uint8Array(file.buffer, file.byteOffset, file.byteLength);
  const span = ([offset, length]) => bytes.subarray(offset, offset + length);
  const cases = suite.cases.map((entry) => {
    try {
      return { name: entry.name, family: entry.family, ...runCase(Kernel, entry, span) };
    } catch (error) {
      return { name: entry.name, family: entry.family, reason: String(error) };
    }
  });
  const digest = await sha256(cases.map((result) => result.digest ?? result.reason).join('\n'));
  return { cases, failed: cases.filter((result) => result.reason), digest };
}

/** The `i`-th random word of a seed. */
function word(seed, i) {
  let x = (Math.imul(i, 0x9e3779b9) + Math.imul(seed, 0x85ebca6b)) >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** The bits of an element that is drawn, by its number; src/reseed.rs counts on the same. */
const DRAWS = {
  /** From -4 to 4, and among them words taken as they are: infinities, NaN of all kinds, numbers next to nothing. */
  any(view, at, seed, i) {
    const x = word(seed, i);
    if (x % 61 === 0) view.setUint32(at, word(seed ^ 0x5bd1e995, i + 1), true);
    else view.setFloat32(at, ((x >>> 8) - 2 ** 23) * 2 ** -21, true);
  },
  /** From -1/4 to 1/4: what training stays finite with. */
  small(view, at, seed, i) {
    view.setFloat32(at, ((word(seed, i) >>> 8) - 2 ** 23) * 2 ** -25, true);
  },
  /** Row numbers of a data set, or -1 for padding. */
  rows(view, at, seed, i, { count }) {
    view.setInt32(at, (word(seed, i) % (count + 1)) - 1, true);
  },
};

/** A task's frame with other operands: those that `draws` names, or any f32. */
export function reseeded(task, seed, draws) {
  const bytes = task.slice();
  const view = new DataView(bytes.buffer);
  const align = (at) => (at + 15) & ~15;
  const width = { f32: 4, i32: 4, u8: 1, bool: 1 };
  const headerBytes = view.getUint32(8, true);
  const { tensors = [] } = JSON.parse(new TextDecoder().decode(bytes.subarray(16, 16 + headerBytes)));
  let at = align(16 + headerBytes);
  let count = 0;
  for (const { name, dtype, shape } of tensors) {
    at = align(at);
    const end = at + shape.reduce((n, d) => n * d, 1) * width[dtype];
    const how = draws ? draws[name] : { kind: dtype === 'f32' ? 'any' : null };
    const draw = DRAWS[how?.kind];
    for (; draw && at < end; at += 4, count += 1) draw(view, at, seed, count, how);
    at = end;
  }
  return bytes;
}

const sha256 = async (text) => {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)));
  return [...hash].map((byte) => byte.toString(16).padStart(2, '0')).join('');
};

/**
 * Runs every case and every task of training on other operands, once per seed. The report holds per case one digest over
 * the digests of all seeds: bits only, nobody says what is right.
 */
export async function runSeeds(Kernel, suite, file, seeds) {
  const bytes = new Uint8Array(file.buffer, file.byteOffset, file.byteLength);
  const span = ([offset, length]) => bytes.subarray(offset, offset + length);
  const cases = [];
  for (const { name, setup, task, draws } of [...suite.cases, ...suite.training]) {
    const kernel = new Kernel(512 * 2 ** 20);
    const digests = [];
    try {
      for (const frame of setup) kernel.accept(span(frame));
      for (let seed = 1; seed <= seeds; seed += 1) {
        const refused = kernel.begin(reseeded(span(task), seed, draws));
        if (refused) throw new Error(parseFrame(refused).header.detail);
        while (!kernel.step(Infinity)) { /* whole */ }
        const { lease, digest } = parseFrame(kernel.finish(0)).header;
        kernel.accept(frameOf({ type: 'reveal', lease }));
        digests.push(digest);
      }
    } finally {
      kernel.free();
    }
    cases.push({ name, digest: await sha256(digests.join('\n')) });
  }
  return { cases, digest: await sha256(cases.map(({ digest }) => digest).join('\n')) };
}

async function main() {
  const { readFileSync, writeFileSync } = await import('node:fs');
  const { resolve } = await import('node:path');
  const { pathToFileURL } = await import('node:url');
  const words = process.argv.slice(2);
  const option = (name) => (words.includes(name) ? words.splice(words.indexOf(name), 2)[1] : undefined);
  const json = option('--json');
  const seeds = Number(option('--seeds') ?? 0);
  const kernelDir = resolve(words[0] ?? 'dist/kernel');
  const suiteDir = resolve(words[1] ?? 'target/conformance');
  const { default: init, Kernel } = await import(pathToFileURL(`${kernelDir}/raven_kernel.js`));
  await init({ module_or_path: readFileSync(`${kernelDir}/raven_kernel.wasm`) });
  const suite = JSON.parse(readFileSync(`${suiteDir}/suite.json`, 'utf8'));
  const file = readFileSync(`${suiteDir}/suite.bin`);
  const report = await runSuite(Kernel, suite, file);
  if (seeds > 0) report.seeds = await runSeeds(Kernel, suite, file, seeds);
  for (const { name, reason } of report.failed) console.error(`FAILED ${name}: ${reason}`);
  console.log(`node: ${report.cases.length} cases, ${report.failed.length} failed, digest ${report.digest.slice(0, 16)}`);
  if (json) writeFileSync(json, JSON.stringify(report));
  if (report.failed.length > 0 || report.cases.length === 0) process.exitCode = 1;
}

const isMain = typeof process !== 'undefined' && process.argv?.[1]
  && import.meta.url === (await import('node:url')).pathToFileURL(process.argv[1]).href;
if (isMain) await main();
