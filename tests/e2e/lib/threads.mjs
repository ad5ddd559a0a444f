// Processor time of the worker threads of the browsers that this process started, as the system counts it.
import { readdirSync, readFileSync } from 'node:fs';

/** As Chromium names the thread of a dedicated worker; the system keeps 15 letters. */
const WORKER = 'DedicatedWorker';

function read(path) {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    // It has ended meanwhile.
    return undefined;
  }
}

function list(path) {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

/** Processes that descend from this one. */
export function descendants() {
  const parents = new Map();
  for (const pid of list('/proc').filter((name) => /^\d+$/.test(name))) {
    // The name of the program is in brackets and may hold anything.
    const parent = read(`/proc/${pid}/stat`)?.replace(/^.*\)/s, '').trim().split(' ')[1];
    if (parent) parents.set(pid, parent);
  }
  const isOurs = (pid) => pid !== undefined && (parents.get(pid) === String(process.pid) || isOurs(parents.get(pid)));
  return [...parents.keys()].filter(isOurs);
}

/** What a process was started with; empty once it has ended. */
export const commandLine = (pid) => (read(`/proc/${pid}/cmdline`) ?? '').replaceAll('\0', ' ');

/**
 * Paths of the worker threads' counters, `[]` where the system has no such counters. In a frame with work the hub's
 * thread is the oldest; it has started those of the kernels.
 */
export function workerThreads() {
  const threads = descendants().flatMap((pid) => list(`/proc/${pid}/task`)
    .map(Number)
    .sort((a, b) => a - b)
    .map((tid) => `/proc/${pid}/task/${tid}`));
  return threads.filter((thread) => read(`${thread}/comm`)?.trim() === WORKER && read(`${thread}/schedstat`) !== undefined);
}

/** Milliseconds that a thread has computed; `undefined` once it has ended. */
export function computedMs(thread) {
  const text = read(`${thread}/schedstat`);
  return text === undefined ? undefined : Number(text.split(' ')[0]) / 1e6;
}
