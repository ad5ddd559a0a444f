// The two networks that are measured, in the words of the HTTP API.

/** Images per training step. */
export const BATCH = 64;

const mlp = [
  { type: 'flatten' },
  { type: 'dense', units: 256, activation: 'relu' },
  { type: 'dense', units: 128, activation: 'relu' },
  { type: 'dense', units: 10 },
];

const cnn = [
  { type: 'conv2d', filters: 16, kernel: 5, padding: 'same', activation: 'relu' },
  { type: 'max_pool2d', size: 2 },
  { type: 'conv2d', filters: 32, kernel: 5, padding: 'same', activation: 'relu' },
  { type: 'max_pool2d', size: 2 },
  { type: 'flatten' },
  { type: 'dense', units: 128, activation: 'relu' },
  { type: 'dense', units: 10 },
];

export const CASES = {
  mlp: { title: 'MLP 784-256-128-10', layers: mlp, goal: 2 },
  cnn: { title: 'CNN 28x28: conv5x5x16, pool, conv5x5x32, pool, fc128, fc10', layers: cnn, goal: 10 },
};
