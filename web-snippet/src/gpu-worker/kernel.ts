/** The GPU module's JavaScript door, as `gpu-worker` exports it. */

import type { FrameKernel } from '../kernel-worker/kernel.ts';

/** The kernel of one device. A task that has begun is on the device until it has settled. */
export interface GpuKernel extends FrameKernel {
  /** Operations per second, measured in at most 300 ms; 0 where the device did not do the work. */
  measure(): Promise<number>;
  /** Why the graph of a graph frame cannot run here; nothing where it can. */
  unsupported(graphFrame: Uint8Array): string | undefined;
  /** Resolves once the device has answered the running task, well or not; to be asked for once. */
  settled(): Promise<void>;
  /** Why the device is gone; nothing while it is there. */
  lost(): string | undefined;
}

/** What the JavaScript door exports. */
export interface GpuModule {
  default(options: { module_or_path: WebAssembly.Module }): Promise<unknown>;
  readonly GpuKernel: {
    /** Throws where there is no adapter, or only a software one and that is not asked for. */
    open(memoryBytes: number, software: boolean): Promise<GpuKernel>;
  };
}
