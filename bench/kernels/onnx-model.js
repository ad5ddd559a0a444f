// The bytes of an ONNX model of matrix products, so that no model file is needed. Field numbers
// are those of onnx.proto3.

const utf8 = new TextEncoder();

const varint = (value) => {
  const bytes = [];
  do {
    bytes.push((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    value >>>= 7;
  } while (value > 0);
  return bytes;
};
const number = (field, value) => [...varint(field << 3), ...varint(value)];
const bytes = (field, value) => [...varint((field << 3) | 2), ...varint(value.length), ...value];
const text = (field, value) => bytes(field, [...utf8.encode(value)]);

const FLOAT = 1;
const INT64 = 7;

/** A list of numbers below 256 that is part of the model. */
function constant(name, values) {
  const data = values.flatMap((value) => [value, 0, 0, 0, 0, 0, 0, 0]);
  return [...number(1, values.length), ...number(2, INT64), ...text(8, name), ...bytes(9, data)];
}

function node(op, inputs, output) {
  return [...inputs.flatMap((name) => text(1, name)), ...text(2, output), ...text(4, op)];
}

function valueInfo(name, dims) {
  const shape = dims.flatMap((extent) => bytes(1, number(1, extent)));
  const tensor = [...number(1, FLOAT), ...bytes(2, shape)];
  return [...text(1, name), ...bytes(2, bytes(1, tensor))];
}

/**
 * `c0 = a b`, and as many more times as asked, so that operands are copied in once for all. One
 * element of each product is an output, so that no product is copied out.
 */
export function products([m, k, n], times) {
  const places = Array.from({ length: times }, (_, i) => i);
  const graph = [
    ...places.flatMap((i) => [
      ...bytes(1, node('MatMul', ['a', 'b'], `c${i}`)),
      ...bytes(1, node('Slice', [`c${i}`, 'starts', 'ends'], `one${i}`)),
    ]),
    ...text(2, 'products'),
    ...bytes(5, constant('starts', [0, 0])),
    ...bytes(5, constant('ends', [1, 1])),
    ...bytes(11, valueInfo('a', [m, k])),
    ...bytes(11, valueInfo('b', [k, n])),
    ...places.flatMap((i) => bytes(12, valueInfo(`one${i}`, [1, 1]))),
  ];
  return new Uint8Array([...number(1, 8), ...bytes(7, graph), ...bytes(8, [...text(1, ''), ...number(2, 13)])]);
}
