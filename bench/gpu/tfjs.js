// The peer: TensorFlow.js on the same adapter. Exposes `prepare` and `run` to the driver.
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-webgpu';
import * as steps from '../worker/tfjs.js';

const SIZE = 512;
/** Products between two readbacks, as in our own task. */
const PRODUCTS = 5;
let once = null;

/** Builds the case on the backend and runs it twice, so that compiling is not measured. */
export async function prepare(name) {
  if (name !== 'matmul') return steps.prepare('webgpu', name);
  if (!(await tf.setBackend('webgpu'))) throw new Error('no backend webgpu');
  await tf.ready();
  const [x, w] = [tf.randomUniform([SIZE, SIZE], -0.01, 0.01), tf.randomUniform([SIZE, SIZE], -0.01, 0.01)];
  once = async () => {
    const row = tf.tidy(() => {
      let y = x;
      for (let i = 0; i < PRODUCTS; i += 1) y = tf.matMul(y, w);
      return tf.slice(y, [0, 0], [1, 8]);
    });
    await row.data();
    row.dispose();
  };
  await once();
  await once();
  return { backend: tf.getBackend() };
}

/** For at least `ms` milliseconds; images, or products, per second. */
export async function run(ms) {
  if (once === null) return steps.run(ms);
  const start = performance.now();
  let products = 0;
  let elapsed = 0;
  while (elapsed < ms) {
    await once();
    products += PRODUCTS;
    elapsed = performance.now() - start;
  }
  return (products * 1000) / elapsed;
}
