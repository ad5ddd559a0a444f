// A whole contributor in Node: the session of native.mjs with the visitors' own kernel behind it.
// It keeps what it was sent, so that a test can say what a contributor got to see.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { decode } from './frame.mjs';
import { contribute } from './native.mjs';
import { kernelDir } from './paths.mjs';

const MEMORY_BYTES = 256 * 1024 * 1024;

let loaded = null;

/** The kernel's JavaScript door, once a process. */
function kernelModule() {
  loaded ??= (async () => {
    const glue = await import(pathToFileURL(join(kernelDir, 'raven_kernel.js')).href);
    await glue.default({ module_or_path: await readFile(join(kernelDir, 'raven_kernel.wasm')) });
    return glue;
  })();
  return loaded;
}

/**
 * Joins and works until `leave()`. `seen(frame)` gets every frame that brings tensors,
 * shards fetched over HTTP included.
 */
export async function joinFromNode(coordinator, { seen = () => {} } = {}) {
  const { Kernel } = await kernelModule();
  const kernel = new Kernel(MEMORY_BYTES);
  const state = { tasks: 0, refused: 0, failure: null };
  let session = null;
  // One frame after the other: a task may name a blob that is still being fetched.
  let queue = Promise.resolve();

  async function run(bytes) {
    for (const id of kernel.missing(bytes)) {
      const blob = await session.fetchBlob(id);
      seen(decode(blob));
      kernel.accept(blob);
    }
    const started = Date.now();
    const refused = kernel.begin(bytes);
    if (refused) {
      state.refused += 1;
      session.sendFrame(refused);
      return;
    }
    while (!kernel.step(Infinity));
    session.sendFrame(kernel.finish(Date.now() - started));
    state.tasks += 1;
  }

  async function handle(frame, bytes) {
    const { type } = frame.header;
    if (Object.keys(frame.tensors).length > 0) seen(frame);
    if (type === 'task') await run(bytes);
    else if (['graph', 'blob', 'drop', 'cancel', 'reveal'].includes(type)) {
      const answer = kernel.accept(bytes);
      if (answer) session.sendFrame(answer);
    }
  }

  session = await contribute(coordinator, {
    onFrame: (frame, bytes) => {
      queue = queue.then(() => handle(frame, bytes)).catch((error) => (state.failure ??= error));
    },
  });
  return {
    state,
    closed: session.closed,
    async leave() {
      session.send({ type: 'goodbye', reason: 'stopped' });
      session.close();
      await session.closed;
      await queue;
      kernel.free();
    },
  };
}
