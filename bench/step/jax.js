// The peer: jax-js on its wasm back end, compiled with `jit`, one thread: pages of partners are
// not cross-origin isolated, so it has no threads there either.
//
// Its arrays are used up by the functions that take them; `ref` keeps one for another use.
import { defaultDevice, init, jit, lax, nn, numpy as np, random, valueAndGrad } from '@jax-js/jax';
import { BATCH, CASES } from '../worker/cases.js';

const LEARNING_RATE = 0.01;
let key = 1;

function glorot(shape, fanIn, fanOut) {
  const limit = Math.sqrt(6 / (fanIn + fanOut));
  key += 1;
  return random.uniform(random.key(key), shape).mul(2 * limit).sub(limit);
}

const dense = (inputs, units) => ({ w: glorot([inputs, units], inputs, units), b: np.zeros([units]) });

const conv = (channels, filters, size) => ({
  w: glorot([filters, channels, size, size], channels * size * size, filters * size * size), b: np.zeros([filters, 1, 1]),
});

const apply = (x, { w, b }) => np.matmul(x, w).add(b);

const convolve = (x, { w, b }) => nn.relu(lax.conv(x, w, [1, 1], 'SAME').add(b));

const pool = (x) => {
  const [n, c, h, w] = x.shape;
  return np.max(x.reshape([n, c, h / 2, 2, w / 2, 2]), [3, 5]);
};

const MODELS = {
  mlp: {
    shape: [BATCH, 784],
    params: () => [dense(784, 256), dense(256, 128), dense(128, 10)],
    logits: ([first, second, last], x) => apply(nn.relu(apply(nn.relu(apply(x, first)), second)), last),
  },
  cnn: {
    shape: [BATCH, 1, 28, 28],
    params: () => [conv(1, 16, 5), conv(16, 32, 5), dense(7 * 7 * 32, 128), dense(128, 10)],
    logits: ([first, second, third, last], x) => {
      const images = pool(convolve(pool(convolve(x, first)), second));
      return apply(nn.relu(apply(images.reshape([BATCH, 7 * 7 * 32]), third)), last);
    },
  },
};

let step = null;

/** Builds the model, compiles its step and runs it twice. */
export async function prepare(name) {
  if (!(name in CASES)) throw new Error(`no case ${name}`);
  await init('wasm');
  defaultDevice('wasm');
  const { shape, params: initial, logits } = MODELS[name];
  key += 1;
  const x = random.uniform(random.key(key), shape);
  const labels = nn.oneHot(np.array(Array.from({ length: BATCH }, (_, i) => i % 10), { dtype: np.int32 }), 10);
  const loss = (params, images, classes) => nn.logSoftmax(logits(params, images), -1).mul(classes).sum().mul(-1 / BATCH);
  const update = jit((params, images, classes) => {
    const kept = params.map(({ w, b }) => ({ w: w.ref, b: b.ref }));
    const [value, grads] = valueAndGrad(loss)(params, images, classes);
    const next = kept.map(({ w, b }, i) => ({
      w: w.sub(grads[i].w.mul(LEARNING_RATE)), b: b.sub(grads[i].b.mul(LEARNING_RATE)),
    }));
    return [value, next];
  });
  let params = initial();
  step = async () => {
    const [value, next] = update(params, x.ref, labels.ref);
    params = next;
    const [number] = await value.data();
    if (!Number.isFinite(number)) throw new Error(`the loss is ${number}`);
    return number;
  };
  const first = await step();
  const second = await step();
  if (!(second < first)) throw new Error(`training does not lower the loss: ${first}, then ${second}`);
  return { shared: typeof SharedArrayBuffer !== 'undefined' };
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
