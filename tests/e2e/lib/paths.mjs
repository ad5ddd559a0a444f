// Where things are in the repository, and where runs leave what they made.
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '../../..');
export const targetDir = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
export const coordinatorBin = join(targetDir, 'release/coordinator');
export const kernelDir = join(root, 'dist/kernel');
export const embedDir = join(root, 'web-snippet/dist');
export const wwwDir = join(root, 'www/dist');

/** A folder for reports and screenshots of one kind of run. */
export function outDir(name) {
  const folder = join(root, 'target', name);
  mkdirSync(folder, { recursive: true });
  return folder;
}
