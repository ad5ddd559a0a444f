// What a figure was measured on, in words that say nothing about whose machine it is.
import os from 'node:os';

export function machine(extra = {}) {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model ?? 'unknown',
    cores: cpus.length,
    memory_gib: Math.round(os.totalmem() / 2 ** 30),
    node: process.versions.node,
    ...extra,
  };
}
