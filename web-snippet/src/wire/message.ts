/**
 * Messages: the headers of frames, one union per direction, as in
 * `protocol/src/message.rs`. What arrives is checked field by field; a field
 * that is missing or of another type is named in the error.
 */

import { OUTCOMES_MAX, REQUESTER_CHARACTERS_MAX, SHARDS_MAX, TEXT_BYTES_MAX } from './limits.ts';

export type GoodbyeReason =
  | 'stopped'
  | 'draining'
  | 'incompatible'
  | 'bad_frame'
  | 'out_of_turn'
  | 'no_consent'
  | 'bad_ticket'
  | 'too_slow'
  | 'full'
  | 'broken_commitment'
  | 'traffic_cap'
  | 'excluded'
  | 'stale_view';

/** In the order of their WebSocket close codes, which start at 4000. */
const GOODBYE_REASONS: readonly GoodbyeReason[] = [
  'stopped',
  'draining',
  'incompatible',
  'bad_frame',
  'out_of_turn',
  'no_consent',
  'bad_ticket',
  'too_slow',
  'full',
  'broken_commitment',
  'traffic_cap',
  'excluded',
  'stale_view',
];
const CLOSE_CODE_FIRST = 4000;

export function closeCode(reason: GoodbyeReason): number {
  return CLOSE_CODE_FIRST + GOODBYE_REASONS.indexOf(reason);
}

/** The reason that a close code stands for, if it is one of this protocol's. */
export function reasonOfCloseCode(code: number): GoodbyeReason | undefined {
  return GOODBYE_REASONS[code - CLOSE_CODE_FIRST];
}

export type DeviceClass = 'phone' | 'desktop' | 'server';
/** What executes the tasks of a session. */
export type Backend = 'cpu' | 'gpu';
export type RefuseReason = 'too_large' | 'missing' | 'unsupported' | 'invalid' | 'stopping' | 'failed';

const VIEW = /^[0-9a-f]{64}$/;

/** Whether something names what a card has shown. */
export function isView(value: unknown): value is string {
  return typeof value === 'string' && VIEW.test(value);
}

/** What the visitor agreed to; its exact text is signed. */
export interface Receipt {
  readonly text_version: string;
  readonly site?: string;
  /** What the card showed, as the coordinator named it. */
  readonly view?: string;
  readonly share: number;
  /** Absent where the visitor allows the processor. */
  readonly cpu?: false;
  /** Absent where the visitor does not allow the GPU. */
  readonly gpu?: true;
  /** Kinds of jobs that nothing is computed of; absent where there are none. */
  readonly refuses?: readonly JobCategory[];
  /** When it was signed, in milliseconds since 1970 on the coordinator's clock. */
  readonly time_ms: number;
  /** The hello's. */
  readonly keeps?: 'visit';
  readonly earnings?: 'site';
  readonly nonce: string;
  readonly session_key: string;
  /** Absent in a session's first receipt; each later one's is above all before it. */
  readonly counter?: number;
}

/** Messages that the hub itself writes; `commit`, `projected` and `result` come from the kernel as frames. */
export type FromContributor =
  | {
      readonly type: 'hello';
      readonly protocol: number;
      readonly numeric: { readonly class: Backend; readonly kernel: string };
      readonly device: {
        readonly class: DeviceClass;
        readonly cores: number;
        readonly memory_bytes: number;
        readonly flops_per_s: number;
      };
      readonly share: number;
      readonly workers: number;
      readonly session_key: string;
      readonly ticket?: string;
      readonly traffic_bytes_left?: number;
      /** Absent where the key stays after the visit. */
      readonly keeps?: 'visit';
      /** Absent where the visitor wants the earnings. */
      readonly earnings?: 'site';
    }
  | { readonly type: 'consent'; readonly receipt: string; readonly signature: string }
  | { readonly type: 'refuse'; readonly lease: string; readonly reason: RefuseReason; readonly detail: string }
  | {
      readonly type: 'pace';
      readonly share: number;
      readonly workers: number;
      /** All that is refused from now on; absent where there is nothing. */
      readonly refuses?: readonly JobCategory[];
      /** With a share above the present one, or less that is refused: what was agreed to, and its signature. */
      readonly receipt?: string;
      readonly signature?: string;
    }
  | { readonly type: 'pause'; readonly detail: string }
  | { readonly type: 'resume' }
  | { readonly type: 'goodbye'; readonly reason: GoodbyeReason };

/** What became of a result that was committed to. */
export type ResultOutcome =
  | 'accepted'
  | 'undone'
  | 'not_needed'
  | 'late'
  | 'withdrawn'
  | 'wrong'
  | 'broken_commitment'
  | 'void';

const RESULT_OUTCOMES: readonly ResultOutcome[] = [
  'accepted',
  'undone',
  'not_needed',
  'late',
  'withdrawn',
  'wrong',
  'broken_commitment',
  'void',
];

export interface LeaseOutcome {
  readonly lease: string;
  readonly outcome: ResultOutcome;
}

/** What a job is for, by its owner's word. */
export type JobCategory = 'vision' | 'language' | 'tabular' | 'science' | 'finance' | 'other';

export const JOB_CATEGORIES: readonly JobCategory[] = ['vision', 'language', 'tabular', 'science', 'finance', 'other'];

/** Those of a list that are categories, each once and in one order; a list from elsewhere may be anything. */
export function readCategories(list: unknown): JobCategory[] {
  return Array.isArray(list) ? JOB_CATEGORIES.filter((category) => list.includes(category)) : [];
}

/** For whom tasks are, and for what kind of job. */
export interface About {
  /** A pseudonym. */
  readonly requester: string;
  readonly category: JobCategory;
}

/** A shard that a task draws rows from. */
export interface ShardRef {
  readonly blob: string;
  /** Bytes of its frame. */
  readonly bytes: number;
}

export type ToContributor =
  | {
      readonly type: 'welcome';
      readonly session: string;
      readonly nonce: string;
      readonly consentTextVersion: string;
      /** The coordinator's clock, in milliseconds since 1970. */
      readonly nowMs: number;
    }
  | { readonly type: 'ready'; readonly grant: string }
  | { readonly type: 'graph'; readonly id: string }
  | { readonly type: 'blob'; readonly id: string }
  | ({ readonly type: 'about' } & About)
  | { readonly type: 'task'; readonly lease: string; readonly flops: number; readonly shards: readonly ShardRef[] }
  | { readonly type: 'project'; readonly lease: string }
  | { readonly type: 'reveal'; readonly lease: string }
  | { readonly type: 'cancel'; readonly lease: string }
  | { readonly type: 'drop'; readonly blobs: readonly string[]; readonly graphs: readonly string[] }
  | { readonly type: 'outcomes'; readonly results: readonly LeaseOutcome[] }
  | { readonly type: 'goodbye'; readonly reason: GoodbyeReason; readonly detail: string; readonly retryAfterMs: number | undefined };

/** Why a header is not a message of the expected direction. */
export class MessageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'MessageError';
  }
}

type Fields = Readonly<Record<string, unknown>>;

const HASH = /^[0-9a-f]{64}$/;
const LEASE = /^lease_[0-9a-f]{32}$/;
const SESSION = /^ses_[0-9a-f]{16}$/;

function text(fields: Fields, field: string, charactersMax = TEXT_BYTES_MAX): string {
  const value = fields[field];
  if (typeof value !== 'string') throw new MessageError(`${field}: expected a text`);
  if (value.length > charactersMax) {
    throw new MessageError(`${field}: ${value.length} characters exceed the limit of ${charactersMax}`);
  }
  return value;
}

function id(fields: Fields, field: string, form: RegExp): string {
  const value = text(fields, field);
  if (!form.test(value)) throw new MessageError(`${field}: not an id of the form ${form.source}`);
  return value;
}

function natural(fields: Fields, field: string): number {
  const value = fields[field];
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw new MessageError(`${field}: expected a whole number`);
  }
  return value;
}

function object(value: unknown, field: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new MessageError(`${field}: expected an object`);
  }
  return value as Fields;
}

function hashes(fields: Fields, field: string): string[] {
  const value = fields[field] ?? [];
  if (!Array.isArray(value)) throw new MessageError(`${field}: expected a list`);
  return value.map((entry: unknown, index) => {
    if (typeof entry !== 'string' || !HASH.test(entry)) throw new MessageError(`${field}[${index}]: not an id`);
    return entry;
  });
}

function shards(spec: Fields): ShardRef[] {
  const value = spec.shards ?? [];
  if (!Array.isArray(value)) throw new MessageError('spec.shards: expected a list');
  if (value.length > SHARDS_MAX) {
    throw new MessageError(`spec.shards: ${value.length} exceeds the limit of ${SHARDS_MAX}`);
  }
  return value.map((entry: unknown, index) => {
    const shard = object(entry, `spec.shards[${index}]`);
    return { blob: id(shard, 'blob', HASH), bytes: natural(shard, 'bytes') };
  });
}

function outcomes(header: Fields): LeaseOutcome[] {
  const value = header.results;
  if (!Array.isArray(value)) throw new MessageError('results: expected a list');
  if (value.length > OUTCOMES_MAX) throw new MessageError(`results: ${value.length} exceeds the limit of ${OUTCOMES_MAX}`);
  return value.map((entry: unknown, index) => {
    const result = object(entry, `results[${index}]`);
    const outcome = RESULT_OUTCOMES.find((known) => known === result.outcome);
    if (outcome === undefined) throw new MessageError(`results[${index}].outcome: not an outcome of this protocol`);
    return { lease: id(result, 'lease', LEASE), outcome };
  });
}

function about(header: Fields): ToContributor {
  const category = JOB_CATEGORIES.find((known) => known === header.category);
  if (category === undefined) throw new MessageError('category: not a category of this protocol');
  return { type: 'about', requester: text(header, 'requester', REQUESTER_CHARACTERS_MAX), category };
}

function goodbye(header: Fields): ToContributor {
  const reason = GOODBYE_REASONS.find((known) => known === header.reason);
  if (reason === undefined) throw new MessageError('reason: not a reason of this protocol');
  const retryAfterMs = header.retry_after_ms === undefined ? undefined : natural(header, 'retry_after_ms');
  return { type: 'goodbye', reason, detail: text(header, 'detail'), retryAfterMs };
}

/**
 * Reads the header of a coordinator's frame.
 *
 * @throws {MessageError} naming the field.
 */
export function parseToContributor(header: Fields): ToContributor {
  switch (header.type) {
    case 'welcome':
      return {
        type: 'welcome',
        session: id(header, 'session', SESSION),
        nonce: text(header, 'nonce'),
        consentTextVersion: text(header, 'consent_text_version'),
        nowMs: natural(header, 'now_ms'),
      };
    case 'ready':
      return { type: 'ready', grant: text(header, 'grant', 2048) };
    case 'graph':
    case 'blob':
      return { type: header.type, id: id(header, 'id', HASH) };
    case 'about':
      return about(header);
    case 'task':
      return {
        type: 'task',
        lease: id(header, 'lease', LEASE),
        flops: natural(header, 'flops'),
        shards: shards(object(header.spec, 'spec')),
      };
    case 'project':
    case 'reveal':
    case 'cancel':
      return { type: header.type, lease: id(header, 'lease', LEASE) };
    case 'drop':
      return { type: 'drop', blobs: hashes(header, 'blobs'), graphs: hashes(header, 'graphs') };
    case 'outcomes':
      return { type: 'outcomes', results: outcomes(header) };
    case 'goodbye':
      return goodbye(header);
    default:
      throw new MessageError('type: not a message of this protocol');
  }
}
