// Our side: drives one worker with the kernel module, and waits for its answers.
let worker = null;
let waiting = null;

function ask(message, transfer = []) {
  return new Promise((resolve, reject) => {
    waiting = { resolve, reject };
    worker.postMessage(message, transfer);
  });
}

/** Loads the kernel in a worker, gives it the session's frames and runs two tasks. */
export async function prepare(name) {
  worker = new Worker('/worker/ours-worker.js', { type: 'module' });
  worker.onmessage = ({ data }) => ('error' in data ? waiting.reject(new Error(data.error)) : waiting.resolve(data.value));
  worker.onerror = (event) => waiting?.reject(new Error(event.message || 'the worker failed to load'));
  const { before, weights, task } = await (await fetch(`/frames/${name}.json`)).json();
  const load = async (file) => new Uint8Array(await (await fetch(`/frames/${file}`)).arrayBuffer());
  return ask({
    prepare: {
      before: await Promise.all(before.map(load)),
      weights: await Promise.all(weights.map(load)),
      task: await load(task),
    },
  });
}

/** Tasks for at least `ms` milliseconds; tasks per second. */
export const run = (ms) => ask({ run: ms });
