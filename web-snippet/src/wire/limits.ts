/**
 * Bounds of what crosses the wire; the same numbers as in `protocol/src/limits.rs`.
 * They are checked on a frame's prefix, before anything is read or kept.
 */

/** The version of the messages that this client speaks. */
export const PROTOCOL_VERSION = 4;

/** The version of the frames around them. */
export const FRAME_VERSION = 1;

/** Bounds of one frame. */
export interface FrameLimits {
  readonly headerBytesMax: number;
  readonly bodyBytesMax: number;
  readonly tensorsMax: number;
}

/** From the coordinator: a graph in the header, or a shard or weights in the body. */
export const TO_CONTRIBUTOR: FrameLimits = {
  headerBytesMax: 8 << 20,
  bodyBytesMax: 256 << 20,
  tensorsMax: 4096,
};

/** To the coordinator: headers are short, a result is at most a job's weights. */
export const TO_COORDINATOR: FrameLimits = {
  headerBytesMax: 64 << 10,
  bodyBytesMax: 64 << 20,
  tensorsMax: 4096,
};

/** Bytes of a free text that is sent (refusal details, reasons of a pause). */
export const TEXT_BYTES_MAX = 512;

/** Shards that one task may draw rows from. */
export const SHARDS_MAX = 4096;

/** Workers that one session may declare. */
export const WORKERS_MAX = 256;
/** Leases in one message about their outcomes. */
export const OUTCOMES_MAX = 128;

/** Of the pseudonym of whoever a job is for. */
export const REQUESTER_CHARACTERS_MAX = 40;
