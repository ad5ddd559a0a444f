/** The kernel module's JavaScript door, as `wasm-worker` exports it. */

/**
 * What the kernels of processor and GPU have in common. Frames are those of
 * `protocol/PROTOCOL.md`. Methods throw `Error` for bytes that are malformed
 * or do not fit, and `WebAssembly.RuntimeError` when the instance has become
 * unusable.
 */
export interface FrameKernel {
  /** Takes a graph, blob, drop, cancel, project or reveal frame; the last two are answered. */
  accept(frame: Uint8Array): Uint8Array | undefined;
  /** Hex ids of blobs that a task names and that are not held. */
  missing(taskFrame: Uint8Array): string[];
  /** Starts a task; a frame that is returned is its refusal. */
  begin(taskFrame: Uint8Array): Uint8Array | undefined;
  /** The finished task's commit frame, or its refusal. */
  finish(elapsedMs: number): Uint8Array;
  /** Stops the running task; its refusal where there was one. */
  abort(): Uint8Array | undefined;
}

/** One instance of the processor's kernel. */
export interface Kernel extends FrameKernel {
  /** Runs whole ops until at least `flops` are done; true when the task is finished. */
  step(flops: number): boolean;
  flopsDone(): number;
  flopsTotal(): number;
}

/** What the JavaScript door exports. */
export interface KernelModule {
  default(options: { module_or_path: WebAssembly.Module }): Promise<unknown>;
  readonly Kernel: new (memoryBytes: number) => Kernel;
}
