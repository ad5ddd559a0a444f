/**
 * The speed test at start: a chain of matrix products, run as a task like any
 * other, so that what is measured is what will be used.
 */

import { encodeFrame } from '../wire/frame.ts';
import type { Kernel } from './kernel.ts';

const EXTENT = 192;
/** Products in the chain: 0.9 Gflop, under 100 ms on anything but an old phone. */
const PRODUCTS = 64;
const PRODUCT_FLOPS = 2 * EXTENT ** 3;
/** The test ends here however far it came. */
const MEASURE_MS_MAX = 150;
/** Products before the clock starts: engines compile the module's hot code meanwhile. */
const WARM_UP_PRODUCTS = 4;

/** Content id of {@link measureGraph}; the kernel computes it again and refuses another. */
export const MEASURE_GRAPH_ID = 'cdcff8a8ba24eb6a15859bbee6028eced912c7b122d9bfe7b5874401bee3539d';
const LEASE = `lease_${'0'.repeat(32)}`;

/** `x := x · b`, with `b` filled so that every value stays 1. */
export function measureGraph(): object {
  const shape = [EXTENT, EXTENT];
  const nodes: object[] = [
    { op: 'constant', dtype: 'f32', shape, value: 1 },
    // The negative power of two nearest to 1 / extent keeps values in range without growing a tail of bits.
    { op: 'constant', dtype: 'f32', shape, value: 1 / 256 },
  ];
  for (let product = 0; product < PRODUCTS; product += 1) {
    const previous = product === 0 ? 0 : nodes.length - 1;
    nodes.push({ op: 'matmul', transpose_lhs: false, transpose_rhs: false, inputs: [previous, 1] });
  }
  nodes.push({ op: 'reduce', function: 'sum', axes: [0, 1], keep_dims: false, inputs: [nodes.length - 1] });
  return { version: 1, nodes, outputs: [{ name: 'y', node: nodes.length - 1 }] };
}

function taskFrame(): Uint8Array {
  return encodeFrame({
    type: 'task',
    lease: LEASE,
    task: `job_${'0'.repeat(16)}/0/0/0`,
    lease_ms: 60_000,
    flops: PRODUCTS * PRODUCT_FLOPS,
    spec: {
      program: { kind: 'map', graph: MEASURE_GRAPH_ID, start: 0, count: 1 },
      seed: `0x${'0'.repeat(16)}`,
      bindings: [],
      outputs: [{ name: 'y', encoding: 'raw', reduce: 'sum' }],
      numerics: 'strict',
    },
  });
}

/**
 * Flop/s of one kernel at full speed, or `undefined` where the kernel does
 * not know the test's graph. Takes at most about 200 ms.
 */
export function measure(kernel: Kernel, now: () => number): number | undefined {
  try {
    kernel.accept(encodeFrame({ type: 'graph', id: MEASURE_GRAPH_ID, graph: measureGraph() }));
    if (kernel.begin(taskFrame()) !== undefined) return undefined;
    return timeSteps(kernel, now);
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) throw error;
    return undefined;
  } finally {
    kernel.abort();
    kernel.accept(encodeFrame({ type: 'drop', blobs: [], graphs: [MEASURE_GRAPH_ID] }));
  }
}

function timeSteps(kernel: Kernel, now: () => number): number | undefined {
  let finished = kernel.step(WARM_UP_PRODUCTS * PRODUCT_FLOPS);
  const startFlops = kernel.flopsDone();
  const start = now();
  let elapsed = 0;
  while (!finished && elapsed < MEASURE_MS_MAX) {
    finished = kernel.step(PRODUCT_FLOPS);
    elapsed = now() - start;
  }
  const flops = kernel.flopsDone() - startFlops;
  return elapsed > 0 && flops > 0 ? (flops * 1000) / elapsed : undefined;
}
