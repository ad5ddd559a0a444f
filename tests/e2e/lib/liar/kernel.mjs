// What a cheat puts in the place of the kernel's JavaScript door: it computes as everybody does, turns the sign of a
// gradient, and commits to that. Commitment and payload agree, so that only computing the task again tells.
import { blake3 } from './liar-blake3.mjs';
import { HONEST_TASKS } from './liar-plan.mjs';
import open, { Kernel as Honest } from './raven_kernel.js?honest';

export default open;

const PREFIX_BYTES = 16;
const ELEMENT_BYTES = { f32: 4, i32: 4, u8: 1, bool: 1 };
const SIGN = 0x80;
const align = (offset) => (offset + 15) & ~15;
const encoder = new TextEncoder();

/** Header and tensors of a frame; `data` is a view of the frame's bytes. */
function read(frame) {
  const headerBytes = new DataView(frame.buffer, frame.byteOffset).getUint32(8, true);
  const header = JSON.parse(new TextDecoder().decode(frame.subarray(PREFIX_BYTES, PREFIX_BYTES + headerBytes)));
  let end = align(PREFIX_BYTES + headerBytes);
  const tensors = (header.tensors ?? []).map((tensor) => {
    const start = align(end);
    end = start + tensor.shape.reduce((product, extent) => product * extent, 1) * ELEMENT_BYTES[tensor.dtype];
    return { ...tensor, data: frame.subarray(start, end) };
  });
  return { header, tensors };
}

/** Little-endian. */
const u32 = (number) => new Uint8Array(Uint32Array.of(number).buffer);
const u64 = (number) => new Uint8Array(BigUint64Array.of(BigInt(number)).buffer);

/** The protocol's digest of a result. */
function digestOf(task, tensors) {
  const parts = [];
  const field = (bytes) => parts.push(u64(bytes.length), bytes);
  const text = (string) => field(encoder.encode(string));
  text('raven result 1');
  text(task);
  for (const { name, dtype, shape, data } of tensors) {
    text('raw');
    text(name);
    text(dtype);
    parts.push(u64(shape.length), ...shape.map(u32));
    field(data);
  }
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return blake3(whole);
}

/** A frame without tensors. */
function write(header) {
  const text = encoder.encode(JSON.stringify(header));
  const frame = new Uint8Array(align(PREFIX_BYTES + text.length));
  frame.set(encoder.encode('RAVN'));
  const view = new DataView(frame.buffer);
  view.setUint16(4, 1, true);
  view.setUint32(8, text.length, true);
  frame.set(text, PREFIX_BYTES);
  return frame;
}

/** Tells the test of a lie before anybody else hears it. */
function tell(digest) {
  const request = new XMLHttpRequest();
  request.open('GET', new URL(`liar-told?${digest}`, import.meta.url), false);
  request.send();
}

export class Kernel {
  #honest;
  #task = '';
  #gradients = 0;
  /** Results by lease, false and right ones, until they are asked for. */
  #kept = new Map();

  constructor(memoryBytes) {
    this.#honest = new Honest(memoryBytes);
  }

  accept(frame) {
    const { type, lease } = read(frame).header;
    const result = this.#kept.get(lease);
    if (type === 'reveal' || type === 'cancel') this.#kept.delete(lease);
    return type === 'reveal' && result ? result : this.#honest.accept(frame);
  }

  begin(frame) {
    this.#task = read(frame).header.task;
    return this.#honest.begin(frame);
  }

  /** The commitment to a lie, where the task yields a gradient. */
  finish(elapsedMs) {
    const answer = this.#honest.finish(elapsedMs);
    const { header: commit } = read(answer);
    if (commit.type !== 'commit') return answer;
    const result = this.#honest.accept(write({ type: 'reveal', lease: commit.lease }));
    this.#kept.set(commit.lease, result);
    const { tensors } = read(result);
    // A digest that is wrong by mistake would be taken for no lie.
    if (this.#gradients === 0 && digestOf(this.#task, tensors) !== commit.digest) throw new Error('the digest is another one than the kernel’s');
    const gradient = tensors.find(({ dtype, shape }) => dtype === 'f32' && shape.length === 2);
    if (!gradient) return answer;
    this.#gradients += 1;
    if (this.#gradients <= HONEST_TASKS) return answer;
    for (let at = 3; at < gradient.data.length; at += 4) gradient.data[at] ^= SIGN;
    const digest = digestOf(this.#task, tensors);
    tell(digest);
    return write({ ...commit, digest });
  }

  missing(frame) {
    return this.#honest.missing(frame);
  }

  step(flops) {
    return this.#honest.step(flops);
  }

  flopsDone() {
    return this.#honest.flopsDone();
  }

  flopsTotal() {
    return this.#honest.flopsTotal();
  }

  abort() {
    return this.#honest.abort();
  }
}
