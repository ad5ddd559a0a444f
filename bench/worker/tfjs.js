// The peer: TensorFlow.js, one backend per page. Exposes `prepare` and `run` to the driver.
//
// A step is what a user of the library would write: fused layers, soft-max cross-entropy,
// gradients of every weight, one plain SGD update. Plain SGD because our contributor
// leaves the update to the coordinator: an Adam step here would only slow the peer down.
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-core/dist/register_all_gradients';
import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-backend-webgl';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import { BATCH, CASES } from './cases.js';

const LEARNING_RATE = 0.01;

function glorot(shape, fanIn, fanOut) {
  const limit = Math.sqrt(6 / (fanIn + fanOut));
  return tf.variable(tf.randomUniform(shape, -limit, limit));
}

function dense(inputs, units, activation) {
  const kernel = glorot([inputs, units], inputs, units);
  const bias = tf.variable(tf.zeros([units]));
  return (x) => tf.fused.matMul({ a: x, b: kernel, bias, activation });
}

function conv(channels, filters, size) {
  const kernel = glorot([size, size, channels, filters], channels * size * size, filters * size * size);
  const bias = tf.variable(tf.zeros([filters]));
  return (x) =>
    tf.fused.conv2d({ x, filter: kernel, strides: 1, pad: 'same', bias, activation: 'relu' });
}

const pool = (x) => tf.maxPool(x, 2, 2, 'valid');

const MODELS = {
  mlp: () => {
    const layers = [dense(784, 256, 'relu'), dense(256, 128, 'relu'), dense(128, 10, 'linear')];
    return { shape: [BATCH, 784], layers };
  },
  cnn: () => {
    const flatten = (x) => tf.reshape(x, [BATCH, 7 * 7 * 32]);
    const layers = [
      conv(1, 16, 5), pool, conv(16, 32, 5), pool, flatten, dense(7 * 7 * 32, 128, 'relu'), dense(128, 10, 'linear'),
    ];
    return { shape: [BATCH, 28, 28, 1], layers };
  },
};

let step = null;

/** Builds the model on the backend and runs two steps, so that compiling is not measured. */
export async function prepare(backend, name) {
  if (!(name in CASES)) throw new Error(`no case ${name}`);
  setWasmPaths('/tfjs-wasm/');
  if (!(await tf.setBackend(backend))) throw new Error(`no backend ${backend}`);
  await tf.ready();
  const simd = backend === 'wasm' ? await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT') : null;
  if (backend === 'wasm' && simd !== true) throw new Error('its wasm back end would run without SIMD');
  const { shape, layers } = MODELS[name]();
  const x = tf.randomUniform(shape);
  const labels = tf.cast(tf.oneHot(tf.tensor1d(Array.from({ length: BATCH }, (_, i) => i % 10), 'int32'), 10), 'float32');
  const optimizer = tf.train.sgd(LEARNING_RATE);
  step = async () => {
    const loss = optimizer.minimize(
      () => tf.losses.softmaxCrossEntropy(labels, layers.reduce((value, layer) => layer(value), x)),
      true,
    );
    // Reading the loss waits for everything that was queued before, the update included.
    const [value] = await loss.data();
    loss.dispose();
    if (!Number.isFinite(value)) throw new Error(`the loss is ${value}`);
    return value;
  };
  const first = await step();
  const second = await step();
  if (!(second < first)) throw new Error(`training does not lower the loss: ${first}, then ${second}`);
  return { backend: tf.getBackend(), simd };
}

/** Steps for at least `ms` milliseconds; images per second. */
export async function run(ms) {
  const start = performance.now();
  let steps = 0;
  let elapsed = 0;
  while (elapsed < ms) {
    await step();
    steps += 1;
    elapsed = performance.now() - start;
  }
  return (steps * BATCH * 1000) / elapsed;
}
