// The peer: ONNX Runtime Web, wasm, one thread. Its calls take operands from JavaScript, so that
// several products share one call's copying; one element of each goes back.
import * as ort from 'onnxruntime-web/wasm';
import { SHAPES, flopsOf, nameOf } from './cases.js';
import { products } from './onnx-model.js';

const TIMES = 8;
let sessions = null;

export async function prepare() {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = '/ort/';
  sessions = {};
  for (const shape of SHAPES) {
    const [m, k, n] = shape;
    // Without optimisation: equal products would be computed once.
    const session = await ort.InferenceSession.create(products(shape, TIMES), {
      executionProviders: ['wasm'], graphOptimizationLevel: 'disabled',
    });
    const operand = (rows, columns) =>
      new ort.Tensor('float32', Float32Array.from({ length: rows * columns }, (_, i) => ((i * 7919) % 1001) / 1001), [rows, columns]);
    sessions[nameOf(shape)] = { session, feeds: { a: operand(m, k), b: operand(k, n) }, flops: TIMES * flopsOf(shape) };
  }
  return null;
}

/** Gflop/s of a case for at least `ms` milliseconds. */
export async function run(name, ms) {
  const { session, feeds, flops } = sessions[name];
  await session.run(feeds);
  const start = performance.now();
  let calls = 0;
  let elapsed = 0;
  while (elapsed < ms) {
    await session.run(feeds);
    calls += 1;
    elapsed = performance.now() - start;
  }
  return (calls * flops) / elapsed / 1e6;
}
