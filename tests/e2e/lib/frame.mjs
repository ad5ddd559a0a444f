// The frames of the protocol, read and written apart from the embed's own code.
const MAGIC = 'RAVN';
const VERSION = 1;
const PREFIX_BYTES = 16;
const ELEMENT_BYTES = { f32: 4, i32: 4, u8: 1, bool: 1 };

const align = (offset) => (offset + 15) & ~15;

/** Header and tensors of a frame. Tensor data are views into `buffer`. */
export function decode(buffer) {
  const bytes = Buffer.from(buffer.buffer ?? buffer, buffer.byteOffset ?? 0, buffer.byteLength);
  if (bytes.toString('latin1', 0, 4) !== MAGIC) throw new Error('not a frame');
  const headerBytes = bytes.readUInt32LE(8);
  const header = JSON.parse(bytes.toString('utf8', PREFIX_BYTES, PREFIX_BYTES + headerBytes));
  const body = align(PREFIX_BYTES + headerBytes);
  const tensors = {};
  let end = 0;
  for (const { name, dtype, shape } of header.tensors ?? []) {
    const start = align(end);
    end = start + shape.reduce((product, extent) => product * extent, 1) * ELEMENT_BYTES[dtype];
    tensors[name] = { dtype, shape, data: bytes.subarray(body + start, body + end) };
  }
  return { header, tensors, bytes: bytes.length };
}

/** A frame without tensors. */
export function encode(header) {
  const text = Buffer.from(JSON.stringify(header));
  const frame = Buffer.alloc(align(PREFIX_BYTES + text.length));
  frame.write(MAGIC, 0, 'latin1');
  frame.writeUInt16LE(VERSION, 4);
  frame.writeUInt32LE(text.length, 8);
  text.copy(frame, PREFIX_BYTES);
  return frame;
}
