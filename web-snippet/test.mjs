// Runs a workspace's TypeScript unit tests: bundles test/*.test.ts and hands
// them to Node's test runner. `node test.mjs [FOLDER]`, by default this one.
import { spawnSync } from 'node:child_process';
import { readdir, rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = `${root}${process.argv[2] ?? 'web-snippet'}/`;
const out = `${root}node_modules/.cache/raven-tests/${process.argv[2] ?? 'web-snippet'}/`;

const tests = (await readdir(`${folder}test`)).filter((file) => file.endsWith('.test.ts'));
await rm(out, { recursive: true, force: true });
await build({
  entryPoints: tests.map((file) => `${folder}test/${file}`),
  outdir: out,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  sourcemap: 'inline',
  logLevel: 'warning',
});
const files = tests.map((file) => `${out}${file.replace(/\.ts$/, '.mjs')}`);
const { status } = spawnSync(process.execPath, ['--enable-source-maps', '--test', ...files], {
  stdio: 'inherit',
  // Tests that need the kernel module are skipped where it has not been built.
  env: { ...process.env, RAVEN_KERNEL_DIR: `${root}dist/kernel`, RAVEN_SOURCE: folder },
});
process.exit(status ?? 1);
