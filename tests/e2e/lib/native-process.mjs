// `coordinator contribute` as a process of its own: a contributor without a browser.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { coordinatorBin, kernelDir } from './paths.mjs';
import { until } from './world.mjs';

/** Starts one that has said yes, with its key in `folder`; resolves once it is at work. */
export async function startNative(coordinator, folder, { share = 0.5, workers = 1 } = {}) {
  const child = spawn(coordinatorBin, [
    'contribute', '--to', coordinator.origin, '--share', String(share), '--workers', String(workers), '--yes',
    '--key', join(folder, 'contributor.key'), '--cache', join(folder, 'cache'), '--kernel', join(kernelDir, 'raven_kernel.wasm'),
  ], { stdio: ['ignore', 'pipe', 'inherit'] });
  // A test that throws must not leave a process behind.
  const onExit = () => child.kill('SIGKILL');
  process.once('exit', onExit);
  const exited = new Promise((done) => child.once('exit', (code) => done(code)));
  const lines = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  const native = {
    lines,
    said: (words) => lines.filter((line) => line.includes(words)).length,
    /** Ends it in order; resolves to its exit code. */
    stop: () => {
      process.removeListener('exit', onExit);
      child.kill('SIGTERM');
      return exited;
    },
  };
  await until(() => native.said('at work') > 0, 'at work', 60_000);
  return native;
}
