// Prints what visitors download, compressed as a server would send it, beside the limits.
// With --check it exits 1 where a limit is broken or a file is missing.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');

const gzip = (bytes) => gzipSync(bytes, { level: 9 }).length;
const brotli = (bytes) =>
  brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
  }).length;

// Limits in bytes; `null` where a size is only printed.
const rows = [
  { name: 'loader', files: ['web-snippet/dist/raven.js'], how: 'gzip', limit: 6_000 },
  {
    name: 'frame: page, style, script',
    files: ['web-snippet/dist/frame.html', 'web-snippet/dist/frame.css', 'web-snippet/dist/frame.js'],
    how: 'gzip',
    limit: 20_000,
  },
  { name: 'hub worker, after a yes', files: ['web-snippet/dist/hub.js'], how: 'gzip', limit: null },
  { name: 'kernel worker, after a yes', files: ['web-snippet/dist/kernel-worker.js'], how: 'gzip', limit: null },
  { name: 'kernel glue, after a yes', files: ['dist/kernel/raven_kernel.js'], how: 'gzip', limit: null },
  { name: 'kernel module, after a yes', files: ['dist/kernel/raven_kernel.wasm'], how: 'brotli', limit: 400_000 },
  { name: 'GPU worker, if allowed', files: ['web-snippet/dist/gpu-worker.js'], how: 'gzip', limit: null },
  { name: 'GPU glue, if allowed', files: ['dist/gpu/raven_gpu.js'], how: 'gzip', limit: null },
  { name: 'GPU module, if allowed', files: ['dist/gpu/raven_gpu.wasm'], how: 'brotli', limit: 250_000 },
];

let broken = 0;
console.log('what a visitor downloads'.padEnd(30), 'bytes'.padStart(10), 'sent'.padStart(9), 'limit'.padStart(9));
for (const { name, files, how, limit } of rows) {
  const paths = files.map((file) => join(root, file));
  if (!paths.every(existsSync)) {
    console.log(name.padEnd(30), 'not built'.padStart(10));
    broken += 1;
    continue;
  }
  const contents = paths.map((path) => readFileSync(path));
  const raw = contents.reduce((sum, bytes) => sum + bytes.length, 0);
  const sent = contents.reduce((sum, bytes) => sum + (how === 'gzip' ? gzip(bytes) : brotli(bytes)), 0);
  const over = limit !== null && sent > limit;
  if (over) broken += 1;
  console.log(
    name.padEnd(30),
    String(raw).padStart(10),
    String(sent).padStart(9),
    String(limit ?? '').padStart(9),
    how,
    over ? 'OVER THE LIMIT' : '',
  );
}
if (process.argv.includes('--check') && broken > 0) process.exit(1);
