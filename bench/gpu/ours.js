// Our side: the GPU module in a Web Worker, driven as the embed will drive it.
let worker = null;
let waiting = null;

function ask(message) {
  return new Promise((resolve, reject) => {
    waiting = { resolve, reject };
    worker.postMessage(message);
  });
}

/** Opens the adapter, measures it, and runs the case's task twice. */
export async function prepare(name) {
  worker = new Worker('/gpu-bench/ours-worker.js', { type: 'module' });
  worker.onmessage = ({ data }) => ('error' in data ? waiting.reject(new Error(data.error)) : waiting.resolve(data.value));
  worker.onerror = (event) => waiting?.reject(new Error(event.message || 'the worker failed to load'));
  const load = async (file) => new Uint8Array(await (await fetch(`/frames/${file}`)).arrayBuffer());
  const [graph, task] = await Promise.all([load(`${name}.graph.frame`), load(`${name}.task.frame`)]);
  return ask({ prepare: { graph, task } });
}

/** Tasks for at least `ms` milliseconds; tasks per second. */
export const run = (ms) => ask({ run: ms });
