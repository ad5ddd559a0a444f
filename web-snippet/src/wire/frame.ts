/**
 * Frames: 16 bytes of prefix, a JSON header, raw tensors. The layout is
 * described in `protocol/PROTOCOL.md`. Tensors are opaque on this side of the
 * kernel, which checks and reads them; here only prefix and header are read,
 * so that a message can be routed.
 */

import { FRAME_VERSION, type FrameLimits } from './limits.ts';

/** Bytes before the header. */
export const PREFIX_BYTES = 16;
const ALIGNMENT = 16;
/** "RAVN", read as a little-endian u32. */
const MAGIC = 0x4e564152;

export type FrameErrorKind =
  | 'truncated'
  | 'trailing_bytes'
  | 'bad_magic'
  | 'unsupported_version'
  | 'reserved_bits'
  | 'header_too_large'
  | 'body_too_large'
  | 'dirty_padding'
  | 'bad_header';

/** Why bytes are not a frame. */
export class FrameError extends Error {
  readonly kind: FrameErrorKind;

  constructor(kind: FrameErrorKind, message: string) {
    super(message);
    this.name = 'FrameError';
    this.kind = kind;
  }
}

/** A frame whose prefix and header have been checked. */
export interface Frame {
  /** The header's JSON object. */
  readonly header: Readonly<Record<string, unknown>>;
  /** The whole frame as it came. */
  readonly bytes: Uint8Array;
  /** Bytes of the tensor section. */
  readonly bodyBytes: number;
}

function align(offset: number): number {
  return Math.ceil(offset / ALIGNMENT) * ALIGNMENT;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Lengths that a prefix declares. */
export interface FrameLengths {
  readonly headerBytes: number;
  readonly bodyBytes: number;
  /** Length of the whole frame. */
  readonly total: number;
}

/**
 * Judges a frame by its first 16 bytes alone.
 *
 * @throws {FrameError} for whatever the prefix already shows to be wrong.
 */
export function frameLengths(bytes: Uint8Array, limits: FrameLimits): FrameLengths {
  if (bytes.byteLength < PREFIX_BYTES) {
    throw new FrameError('truncated', `frame: ${bytes.byteLength} bytes, at least ${PREFIX_BYTES} needed`);
  }
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== MAGIC) {
    throw new FrameError('bad_magic', 'frame.magic: not a frame of this protocol');
  }
  const version = view.getUint16(4, true);
  if (version !== FRAME_VERSION) {
    throw new FrameError('unsupported_version', `frame.version: ${version} is not supported, ${FRAME_VERSION} is`);
  }
  if (view.getUint16(6, true) !== 0) {
    throw new FrameError('reserved_bits', 'frame.reserved: must be zero');
  }
  const headerBytes = view.getUint32(8, true);
  const bodyBytes = view.getUint32(12, true);
  if (headerBytes > limits.headerBytesMax) {
    throw new FrameError(
      'header_too_large',
      `frame.header_bytes: ${headerBytes} exceeds the limit of ${limits.headerBytesMax}`,
    );
  }
  if (bodyBytes > limits.bodyBytesMax) {
    throw new FrameError('body_too_large', `frame.body_bytes: ${bodyBytes} exceeds the limit of ${limits.bodyBytesMax}`);
  }
  return { headerBytes, bodyBytes, total: align(PREFIX_BYTES + headerBytes) + bodyBytes };
}

/**
 * Checks prefix, lengths and header of exactly one frame.
 *
 * @throws {FrameError} naming the first field that is wrong.
 */
export function decodeFrame(bytes: Uint8Array, limits: FrameLimits): Frame {
  const { headerBytes, bodyBytes, total } = frameLengths(bytes, limits);
  if (bytes.byteLength < total) {
    throw new FrameError('truncated', `frame: ${bytes.byteLength} bytes, at least ${total} needed`);
  }
  if (bytes.byteLength > total) {
    throw new FrameError('trailing_bytes', `frame: ${bytes.byteLength} bytes, ${total} declared`);
  }
  const headerEnd = PREFIX_BYTES + headerBytes;
  for (let at = headerEnd; at < align(headerEnd); at += 1) {
    if (bytes[at] !== 0) throw new FrameError('dirty_padding', `frame.padding: byte ${at} is not zero`);
  }
  return { header: parseHeader(bytes.subarray(PREFIX_BYTES, headerEnd)), bytes, bodyBytes };
}

function parseHeader(utf8: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(utf8));
  } catch (error) {
    throw new FrameError('bad_header', `frame.header: ${error instanceof Error ? error.message : 'not JSON'}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new FrameError('bad_header', 'frame.header: not a JSON object');
  }
  return value as Record<string, unknown>;
}

/**
 * Writes a frame without tensors. Results, which carry some, are written by
 * the kernel.
 */
export function encodeFrame(header: object): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(align(PREFIX_BYTES + json.byteLength));
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC, true);
  view.setUint16(4, FRAME_VERSION, true);
  view.setUint32(8, json.byteLength, true);
  bytes.set(json, PREFIX_BYTES);
  return bytes;
}
