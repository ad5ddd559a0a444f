// Training jobs that are small enough for a test and real enough to mean something.

const DIGITS_MLP = [
  { type: 'flatten' },
  { type: 'dense', units: 128, activation: 'relu' },
  { type: 'dense', units: 64, activation: 'relu' },
  { type: 'dense', units: 10 },
];

/** The body of a job that trains the digits MLP. */
export function digitsJob(dataset, { seed = 7, epochs = 4, batch = 64, microBatch = 16, placement = 'replica', name = 'digits', ...terms } = {}) {
  return {
    ...terms, name, dataset, listed: true, seed, numerics: 'strict', placement,
    model: { layers: structuredClone(DIGITS_MLP), loss: 'cross_entropy' },
    optimizer: { kind: 'adam' },
    training: {
      epochs, batch, micro_batch: microBatch,
      schedule: { kind: 'constant', learning_rate: 0.002 },
    },
  };
}

/** States that a job does not leave. */
export const TERMINAL = new Set(['completed', 'failed', 'cancelled']);

/** Polls a job until it has ended; throws unless it completed. `onProgress(job)` sees every state. */
export async function finish(coordinator, id, { ms = 180_000, onProgress = () => {} } = {}) {
  const deadline = Date.now() + ms;
  for (;;) {
    const job = await coordinator.json('GET', `/v1/jobs/${id}`);
    await onProgress(job);
    if (job.state === 'completed') return job;
    if (TERMINAL.has(job.state)) throw new Error(`job ${id} ${job.state}: ${job.reason}`);
    if (Date.now() > deadline) throw new Error(`job ${id} is still ${job.state} after ${ms} ms: ${JSON.stringify(job)}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}
