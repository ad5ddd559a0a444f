// Our side: drives a worker with the kernel module.
let current = null;

function start() {
  const worker = new Worker('/step/ours-worker.js', { type: 'module' });
  return {
    ask: (call, argument) => new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => ('error' in data ? reject(new Error(data.error)) : resolve(data.value));
      worker.onerror = (event) => reject(new Error(event.message || 'the worker failed to load'));
      worker.postMessage({ call, argument });
    }),
    end: () => worker.terminate(),
  };
}

const load = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());

async function frames(name) {
  const entry = (await (await fetch('/frames/frames.json')).json())[name];
  const file = (part) => load(`/frames/${part}`);
  return {
    steps: entry.steps,
    scan: { graph: await file(entry.graph), task: await file(entry.task) },
    round: {
      graph: await file(entry.round.graph), weights: await file(entry.round.weights), task: await file(entry.round.task),
    },
  };
}

/** Loads the kernel in a worker and runs both kinds of work once. */
export async function prepare(name) {
  current = start();
  return current.ask('prepare', await frames(name));
}

/** Steps per second. */
export const run = (kind, ms) => current.ask('run', { kind, ms });

/** Milliseconds from a fresh module's bytes to the first op of its first task, in a new worker. */
export async function firstTask(name) {
  const fresh = start();
  const module = await load('/kernel/raven_kernel.wasm');
  const { round } = await frames(name);
  try {
    return await fresh.ask('firstTask', { module, round });
  } finally {
    fresh.end();
  }
}
