/** Messages between the frame's document and the hub worker; both come from one build. */

import type { About, JobCategory } from '../wire/message.ts';
import type { TokenRefusal } from './embed-port.ts';

/** What the coordinator makes of GPUs: nothing, real ones, or a software adapter too, however slow (for tests). */
export type GpuOffer = 'no' | 'hardware' | 'any';

/** What the hub needs to know before it starts. */
export interface HubConfig {
  /** Ticket that the frame was served with. */
  readonly ticket: string;
  /** Publishable key of the site. */
  readonly site: string;
  /** Version of the consent text that was shown. */
  readonly textVersion: string;
  /** What the card showed beside it when the visitor said yes, as the coordinator named it. */
  readonly view: string;
  /** Address of the frame's own page, for a fresh ticket. */
  readonly frameUrl: string;
  /** Folder of the immutable files of this version. */
  readonly filesUrl: string;
  readonly share: number;
  readonly gpu: GpuOffer;
  /** Whether the visitor allows it. */
  readonly gpuAllowed: boolean;
  /** Whether the visitor allows the processor. */
  readonly cpuAllowed: boolean;
  /** Kinds of jobs that the visitor refuses. */
  readonly refuses: readonly JobCategory[];
  /** Whom the visitor wants the earnings to go to. */
  readonly earnings: 'mine' | 'site';
  /** Whether the frame's storage outlives the page, and with it a key. */
  readonly lasts: boolean;
  readonly cores: number;
  readonly phone: boolean;
  /** Gibibytes of memory where the browser says so, else `undefined`. */
  readonly memoryGib: number | undefined;
  /** Bytes that the visit has moved before, and may move in all. */
  readonly bytesUsed: number;
  readonly bytesMax: number;
}

/** Where the hubs of a site's tabs hear each other. Pages of one host may belong to several sites, which stay apart. */
export function channelName(site: string): string {
  return `raven hub ${site}`;
}

/** A reason to rest that the hub itself finds: another tab of the site has the pool. */
export const ELSEWHERE = 'elsewhere';

export type ToHub =
  /** With `paused`, the reason to rest from the start: nothing is downloaded before the first resume. */
  | { readonly kind: 'start'; readonly config: HubConfig; readonly paused?: string | undefined }
  | { readonly kind: 'share'; readonly share: number }
  /** The visitor allows the GPU from now on, or does not any more. */
  | { readonly kind: 'gpu'; readonly allowed: boolean }
  /** The same of the processor. */
  | { readonly kind: 'cpu'; readonly allowed: boolean }
  /** The visitor refuses these kinds of jobs from now on, and no others. */
  | { readonly kind: 'refuses'; readonly refuses: readonly JobCategory[] }
  | { readonly kind: 'pause'; readonly detail: string }
  | { readonly kind: 'resume' }
  /** The page wants the coordinator's word for what its visitor did on the site. */
  | { readonly kind: 'work_token' }
  /** What the visit has moved at least, where the hub can't hear it from the other tabs. */
  | { readonly kind: 'traffic'; readonly bytes: number }
  /** `everywhere`: the visitor said stop, which holds for the site's other tabs too. */
  | { readonly kind: 'stop'; readonly everywhere?: boolean };

/** Why the hub gave up; each has its own sentence in the frame. */
export type FailureKind =
  /** The kernel module could not be loaded or compiled. */
  | 'kernel_load'
  /** This browser lacks something that is needed. */
  | 'unsupported'
  /** The coordinator speaks another version. */
  | 'incompatible'
  /** Another consent text is in force than the one that was shown, or what was shown is too old. */
  | 'text_changed'
  /** The coordinator refused the receipt. */
  | 'no_consent'
  /** The site's key is unknown or revoked, or the ticket cannot be renewed. */
  | 'bad_ticket'
  /** The visit has moved as much as it may. */
  | 'traffic_cap'
  /** A result of this browser was proven false. */
  | 'excluded'
  /** The kernel crashed too often. */
  | 'kernel_crash'
  /** The coordinator refused our messages too often. */
  | 'rejected';

export type HubPhase =
  | { readonly name: 'loading' }
  | { readonly name: 'connecting' }
  | { readonly name: 'idle' }
  | { readonly name: 'working' }
  | { readonly name: 'paused' }
  /** Another tab of the site has the pool; this one waits for its turn. */
  | { readonly name: 'elsewhere' }
  /** The coordinator can't be reached or is full; the next try is near. */
  | { readonly name: 'waiting'; readonly full: boolean }
  | { readonly name: 'failed'; readonly failure: FailureKind; readonly detail: string }
  | { readonly name: 'stopped' };

export type GpuStatus =
  /** Not offered, or not allowed. */
  | 'off'
  /** Not at work yet, or not connected at the moment. */
  | 'starting'
  | 'on'
  /** Allowed, but there is no usable adapter, or the processor is faster, or it has failed. */
  | 'none';

/** How many results of this page came to what, as far as that was told. */
export interface Results {
  readonly accepted: number;
  /** Others were faster. */
  readonly notNeeded: number;
  readonly late: number;
  /** Nobody looked at them: a round was begun again, or a job ended. */
  readonly withdrawn: number;
  /** Not what the task yields, or not counted because another one was not. */
  readonly wrong: number;
}

/** What came of a wish for a work token. */
export type TokenAnswer = { readonly token: string } | { readonly refusal: TokenRefusal };

/** Whose the earnings of a visit are. */
export type Earner = 'visitor' | 'site';

export type FromHub =
  | {
      readonly kind: 'status';
      readonly phase: HubPhase;
      readonly tasks: number;
      /** Bytes that the visit has moved or is about to, both ways together and in all tabs, and may move in all. */
      readonly bytes: number;
      readonly bytesMax: number;
      /** Those that this hub has added since its last status: below zero where less was moved than was set aside. */
      readonly moved: number;
      readonly gpu: GpuStatus;
      /** Whose the earnings are; absent before there is a key. */
      readonly earner?: Earner | undefined;
      /** For whom, and for what, it computes at the moment. */
      readonly about?: About | undefined;
      /** Absent before anything was told of them. */
      readonly results?: Results | undefined;
    }
  /** The visitor moved the slider in another tab of the site. */
  | { readonly kind: 'share'; readonly share: number }
  /** The same of the switches for GPU and processor. */
  | { readonly kind: 'gpu'; readonly allowed: boolean }
  | { readonly kind: 'cpu'; readonly allowed: boolean }
  /** The same of what is refused. */
  | { readonly kind: 'refuses'; readonly refuses: readonly JobCategory[] }
  /** Of every wish one. */
  | { readonly kind: 'work_token'; readonly answer: TokenAnswer };
