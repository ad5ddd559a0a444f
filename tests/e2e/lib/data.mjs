// The digits that the repository ships, and made-up images, as IDX uploads.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { root } from './paths.mjs';

/** An IDX file of unsigned bytes. */
export function idx(shape, data) {
  const head = Buffer.alloc(4 + 4 * shape.length);
  head[2] = 0x08;
  head[3] = shape.length;
  shape.forEach((extent, axis) => head.writeUInt32BE(extent, 4 + 4 * axis));
  return Buffer.concat([head, data]);
}

function form(spec, files) {
  const body = new FormData();
  body.append('spec', new Blob([JSON.stringify(spec)], { type: 'application/json' }));
  for (const [name, bytes] of Object.entries(files)) body.append(name, new Blob([bytes]), name);
  return body;
}

/** Uploads the digits with their documented split and returns the data set. */
export async function uploadDigits(coordinator) {
  const text = gunzipSync(readFileSync(join(root, 'data/digits/digits.csv.gz'))).toString('latin1');
  const rows = text.trim().split('\n').map((line) => line.split(',').map(Number));
  const split = { train: rows.filter((_, i) => i % 5 !== 4), test: rows.filter((_, i) => i % 5 === 4) };
  const files = {};
  for (const [name, part] of Object.entries(split)) {
    files[`${name}_x`] = idx([part.length, 8, 8], Buffer.from(part.flatMap((row) => row.slice(0, 64))));
    files[`${name}_y`] = idx([part.length], Buffer.from(part.map((row) => row[64])));
  }
  const spec = {
    name: 'digits', format: 'idx', target: 'classes', classes: 10, scale: 1 / 16,
    license: 'CC BY 4.0', source: 'https://doi.org/10.24432/C50P49',
  };
  return coordinator.json('POST', '/v1/datasets', form(spec, files));
}

const FASHION_FILES = {
  train_x: 'train-images-idx3-ubyte.gz', train_y: 'train-labels-idx1-ubyte.gz',
  test_x: 't10k-images-idx3-ubyte.gz', test_y: 't10k-labels-idx1-ubyte.gz',
};

/** Folder with Fashion-MNIST's four files; undefined where this machine has none. */
export function fashionMnist() {
  const folder = process.env.RAVEN_FASHION_MNIST ?? '/usr/share/datasets/fashion-mnist';
  return Object.values(FASHION_FILES).every((file) => existsSync(join(folder, file))) ? folder : undefined;
}

/** Uploads Fashion-MNIST as it is published, 60,000 images to train on and 10,000 to test. */
export async function uploadFashionMnist(coordinator, folder) {
  const files = Object.fromEntries(Object.entries(FASHION_FILES).map(([name, file]) => [name, readFileSync(join(folder, file))]));
  const spec = {
    name: 'fashion-mnist', format: 'idx', target: 'classes', classes: 10, scale: 1 / 255,
    license: 'MIT', source: 'https://github.com/zalandoresearch/fashion-mnist',
  };
  return coordinator.json('POST', '/v1/datasets', form(spec, files));
}

/** Uploads `rows` made-up 28x28 images with labels, the same on every run. */
export async function uploadNoise(coordinator, rows) {
  let state = 1;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 24;
  const make = (count) => ({
    x: idx([count, 28, 28], Buffer.from(Array.from({ length: count * 784 }, next))),
    y: idx([count], Buffer.from(Array.from({ length: count }, () => next() % 10))),
  });
  const [train, test] = [make(rows), make(64)];
  const spec = {
    name: 'noise', format: 'idx', target: 'classes', classes: 10, scale: 1 / 255,
    license: 'CC0', source: 'made up',
  };
  return coordinator.json('POST', '/v1/datasets',
    form(spec, { train_x: train.x, train_y: train.y, test_x: test.x, test_y: test.y }));
}
