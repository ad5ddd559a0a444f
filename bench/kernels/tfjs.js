// The peer: TensorFlow.js on its wasm back end. Operands stay in its memory between calls.
import * as tf from '@tensorflow/tfjs-core';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import { SHAPES, flopsOf, nameOf } from './cases.js';

let operands = null;

export async function prepare() {
  setWasmPaths('/tfjs-wasm/');
  if (!(await tf.setBackend('wasm'))) throw new Error('no wasm back end');
  await tf.ready();
  const simd = await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT');
  if (simd !== true) throw new Error('its wasm back end would run without SIMD');
  operands = Object.fromEntries(SHAPES.map((shape) => {
    const [m, k, n] = shape;
    return [nameOf(shape), { a: tf.randomUniform([m, k]), b: tf.randomUniform([k, n]), flops: flopsOf(shape) }];
  }));
  return { simd };
}

/** Gflop/s of a case for at least `ms` milliseconds. */
export function run(name, ms) {
  const { a, b, flops } = operands[name];
  const call = () => tf.matMul(a, b).dispose();
  call();
  const start = performance.now();
  let calls = 0;
  let elapsed = 0;
  while (elapsed < ms) {
    call();
    calls += 1;
    elapsed = performance.now() - start;
  }
  return (calls * flops) / elapsed / 1e6;
}
