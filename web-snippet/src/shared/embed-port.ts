/**
 * Messages between the loader on the partner's page and the frame. Both ends
 * are released apart from each other, hence the version in every message;
 * unknown types are ignored, so that either may learn new ones first.
 */

/** Version of these messages. */
export const EMBED_VERSION = 1;

/** What the partner's page may know of the frame: nothing of the visitor but whether it works. */
export type EmbedPhase = 'asking' | 'starting' | 'working' | 'idle' | 'paused' | 'stopped' | 'unavailable';

const PHASES: readonly EmbedPhase[] = ['asking', 'starting', 'working', 'idle', 'paused', 'stopped', 'unavailable'];

export type ToFrame =
  /**
   * First message: from now on the frame knows the page's origin. `quiet`: the visitor has lately said "not now".
   * `forget`: the page took a yes back while there was no frame to tell. `asked`: the visitor has just had the page show the frame.
   */
  | { readonly type: 'hello'; readonly quiet: boolean; readonly forget: boolean; readonly asked: boolean }
  /** Whether the page is visible. */
  | { readonly type: 'visibility'; readonly visible: boolean }
  | { readonly type: 'stop' }
  /** The page wants the coordinator's word for what its visitor did on the site; answered under the same number. */
  | { readonly type: 'work_token'; readonly id: number }
  /** The page takes the yes back: the frame ends its work, forgets, and says so. */
  | { readonly type: 'forget' };

/** What the visitor said to the card. */
export type Answer = 'yes' | 'not_now' | 'never';

const ANSWERS: readonly Answer[] = ['yes', 'not_now', 'never'];

/** Why there is no work token. */
export type TokenRefusal =
  /** Nothing is lent in this tab, or there is no connection yet. */
  | 'not_lending'
  /** The coordinator gives none or can't be reached, or the visit may not move as much any more. */
  | 'refused';

/** As the coordinator writes them. */
const TOKEN = /^[\w.]{1,2048}$/;

export type ToLoader =
  | { readonly type: 'ready' }
  /** Size that the frame wants, in CSS pixels. */
  | { readonly type: 'resize'; readonly width: number; readonly height: number }
  | { readonly type: 'state'; readonly phase: EmbedPhase; readonly tasks: number }
  | { readonly type: 'answer'; readonly answer: Answer }
  | { readonly type: 'work_token'; readonly id: number; readonly token: string }
  | { readonly type: 'work_token'; readonly id: number; readonly refusal: TokenRefusal }
  /** Nothing of a yes is left; the frame may be removed. */
  | { readonly type: 'forgotten' };

type Enveloped<T> = T & { readonly raven: number };

/** A message ready for `postMessage`. */
export function envelope<T extends ToFrame | ToLoader>(message: T): Enveloped<T> {
  return { raven: EMBED_VERSION, ...message };
}

function fields(data: unknown): Record<string, unknown> | undefined {
  if (typeof data !== 'object' || data === null) return undefined;
  const record = data as Record<string, unknown>;
  return record.raven === EMBED_VERSION ? record : undefined;
}

/** Reads a message that arrived in the frame; `undefined` where it is none of ours. */
export function readToFrame(data: unknown): ToFrame | undefined {
  const message = fields(data);
  switch (message?.type) {
    case 'hello':
      // Loaders that were pinned before the fields existed leave them out.
      return { type: 'hello', quiet: message.quiet === true, forget: message.forget === true, asked: message.asked === true };
    case 'stop':
    case 'forget':
      return { type: message.type };
    case 'work_token': {
      const id = count(message.id);
      return id === undefined ? undefined : { type: 'work_token', id };
    }
    case 'visibility':
      return typeof message.visible === 'boolean' ? { type: 'visibility', visible: message.visible } : undefined;
    default:
      return undefined;
  }
}

function count(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : undefined;
}

function size(value: unknown): number | undefined {
  return typeof value === 'number' && value >= 1 && value <= 4096 ? Math.ceil(value) : undefined;
}

/** Reads a message that arrived in the loader; `undefined` where it is none of ours. */
export function readToLoader(data: unknown): ToLoader | undefined {
  const message = fields(data);
  switch (message?.type) {
    case 'ready':
    case 'forgotten':
      return { type: message.type };
    case 'resize': {
      const width = size(message.width);
      const height = size(message.height);
      return width && height ? { type: 'resize', width, height } : undefined;
    }
    case 'state': {
      const phase = PHASES.find((known) => known === message.phase);
      const tasks = message.tasks;
      return phase && typeof tasks === 'number' && tasks >= 0 ? { type: 'state', phase, tasks } : undefined;
    }
    case 'work_token': {
      const { token, refusal } = message;
      const id = count(message.id);
      if (id === undefined) return undefined;
      if (typeof token === 'string' && TOKEN.test(token)) return { type: 'work_token', id, token };
      return refusal === 'not_lending' || refusal === 'refused' ? { type: 'work_token', id, refusal } : undefined;
    }
    case 'answer': {
      const answer = ANSWERS.find((known) => known === message.answer);
      return answer && { type: 'answer', answer };
    }
    default:
      return undefined;
  }
}
