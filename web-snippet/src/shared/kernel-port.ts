/** Messages between the hub and a kernel worker, of the CPU or the GPU; all come from one build. */

import type { RefuseReason } from '../wire/message.ts';

/** What a worker needs to start its kernel. */
export interface KernelSource {
  /** Address of the module's JavaScript door. */
  readonly glueUrl: string;
  /** The module, compiled once for all workers. */
  readonly module: WebAssembly.Module;
  /** Budget of one kernel, in bytes. */
  readonly memoryBytes: number;
  /** Speed that another worker has measured; the first one measures. */
  readonly flopsPerS?: number;
  /** Whether the GPU's worker takes a software adapter, which only tests want. */
  readonly software?: boolean;
}

export type ToKernel =
  | { readonly kind: 'init'; readonly source: KernelSource; readonly duty: number }
  | { readonly kind: 'duty'; readonly duty: number }
  /** A graph or drop frame, kept or obeyed without an answer. */
  | { readonly kind: 'accept'; readonly frame: ArrayBuffer }
  /** A blob that the worker said it needs; one that is lent goes back once the kernel has it. */
  | { readonly kind: 'supply'; readonly id: string; readonly frame: ArrayBuffer; readonly lent: boolean }
  /** With `hubMs`, what the hub has computed itself: the worker rests for that too. */
  | { readonly kind: 'task'; readonly lease: string; readonly frame: ArrayBuffer; readonly hubMs: number }
  /** Forget a task whose blobs cannot be had; the hub has answered for it. */
  | { readonly kind: 'forget'; readonly lease: string }
  /** A committed result is projected, and stays. */
  | { readonly kind: 'project'; readonly lease: string; readonly frame: ArrayBuffer }
  | { readonly kind: 'reveal'; readonly lease: string; readonly frame: ArrayBuffer }
  /** The lease's work is not needed: stop it, drop its payload. */
  | { readonly kind: 'cancel'; readonly lease: string; readonly frame: ArrayBuffer }
  /** Hand the running task back now. */
  | { readonly kind: 'abort' };

export type FromKernel =
  | { readonly kind: 'ready'; readonly flopsPerS: number }
  | { readonly kind: 'need'; readonly lease: string; readonly ids: readonly string[] }
  /** The frame of a blob that was lent. */
  | { readonly kind: 'returned'; readonly id: string; readonly frame: ArrayBuffer }
  | {
      readonly kind: 'answer';
      readonly lease: string;
      readonly outcome: 'commit' | 'projected' | 'refuse' | 'result';
      readonly frame: ArrayBuffer;
    }
  /** The task could not be handed to the kernel; no frame exists for it. Without a reason it has failed. */
  | { readonly kind: 'unable'; readonly lease: string; readonly detail: string; readonly reason?: RefuseReason }
  /** The instance is unusable. */
  | { readonly kind: 'broken'; readonly detail: string };
