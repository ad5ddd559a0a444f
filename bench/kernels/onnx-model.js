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

function valueInfo(name, dims) {
  const shape = dims.flatMap((extent) => bytes(1, number(1, extent)));
  const tensor = [...number(1, FLOAT), ...bytes(2, shape)];
  return [...text(1, name), ...bytes(2, bytes(1, tensor))];
}

/** `c0 = a b`, and as many more times as asked, so that operands are copied in once for all. */
export function products([m, k, n], times) {
  const names = Array.from({ length: times }, (_, i) => `c${i}`);
  const node = (name) => [...text(1, 'a'), ...text(1, 'b'), ...text(2, name), ...text(4, 'MatMul')];
  const graph = [
    ...names.flatMap((name) => bytes(1, node(name))),
    ...text(2, 'products'),
    ...bytes(11, valueInfo('a', [m, k])),
    ...bytes(11, valueInfo('b', [k, n])),
    ...names.flatMap((name) => bytes(12, valueInfo(name, [m, n]))),
  ];
  return new Uint8Array([...number(1, 8), ...bytes(7, graph), ...bytes(8, [...text(1, ''), ...number(2, 13)])]);
}
