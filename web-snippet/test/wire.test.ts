import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeFrame, encodeFrame, FrameError, frameLengths, type FrameErrorKind } from '../src/wire/frame.ts';
import { TO_CONTRIBUTOR, TO_COORDINATOR } from '../src/wire/limits.ts';
import { closeCode, MessageError, parseToContributor, reasonOfCloseCode } from '../src/wire/message.ts';

const HASH = 'ab'.repeat(32);
const LEASE = `lease_${'0'.repeat(31)}7`;

/** A frame with a hand-written header and body, built apart from the codec. */
function raw(header: string, body: number[] = []): Uint8Array {
  const json = Buffer.from(header, 'utf8');
  const prefix = Buffer.alloc(16);
  prefix.write('RAVN', 'latin1');
  prefix.writeUInt16LE(1, 4);
  prefix.writeUInt32LE(json.length, 8);
  prefix.writeUInt32LE(body.length, 12);
  const padding = Buffer.alloc((16 - (json.length % 16)) % 16);
  return new Uint8Array(Buffer.concat([prefix, json, padding, Buffer.from(body)]));
}

function kindOf(bytes: Uint8Array): FrameErrorKind {
  try {
    decodeFrame(bytes, TO_COORDINATOR);
  } catch (error) {
    assert.ok(error instanceof FrameError, String(error));
    return error.kind;
  }
  return assert.fail('the frame was accepted');
}

test('a frame has these bytes', () => {
  const golden =
    '5241564e' + '0100' + '0000' + '11000000' + '00000000' + // magic, version, zero, header 17, body 0
    '7b2274797065223a22726573756d65227d' + // {"type":"resume"}
    '000000000000000000000000000000'; // up to 48
  assert.equal(Buffer.from(encodeFrame({ type: 'resume' })).toString('hex'), golden);
});

test('what is written is read again, with characters beyond ASCII', () => {
  for (const detail of ['', 'x', 'ä'.repeat(40), '🐦'.repeat(9), '"\\\n']) {
    const frame = decodeFrame(encodeFrame({ type: 'pause', detail }), TO_COORDINATOR);
    assert.deepEqual(frame.header, { type: 'pause', detail });
    assert.equal(frame.bytes.byteLength % 16, 0);
  }
});

test('a body is kept as it is', () => {
  const frame = decodeFrame(raw('{"type":"result"}', [1, 2, 3]), TO_COORDINATOR);
  assert.equal(frame.bodyBytes, 3);
  assert.deepEqual([...frame.bytes.subarray(-3)], [1, 2, 3]);
});

test('a frame is read from the middle of a buffer', () => {
  const frame = encodeFrame({ type: 'resume' });
  const larger = new Uint8Array(frame.byteLength + 5);
  larger.set(frame, 5);
  assert.deepEqual(decodeFrame(larger.subarray(5), TO_COORDINATOR).header, { type: 'resume' });
});

test('every truncation and every surplus is named', () => {
  const whole = raw('{"type":"resume"}', [1, 2, 3, 4]);
  for (let length = 0; length < whole.length; length += 1) {
    assert.equal(kindOf(whole.subarray(0, length)), 'truncated', `cut at ${length}`);
  }
  assert.equal(kindOf(new Uint8Array([...whole, 0])), 'trailing_bytes');
});

test('each field has its refusal', () => {
  const withByte = (at: number, byte: number): Uint8Array => {
    const bytes = raw('{"type":"resume"}');
    bytes[at] = byte;
    return bytes;
  };
  assert.equal(kindOf(withByte(0, 0x58)), 'bad_magic');
  assert.equal(kindOf(withByte(4, 9)), 'unsupported_version');
  assert.equal(kindOf(withByte(7, 1)), 'reserved_bits');
  assert.equal(kindOf(withByte(11, 0xff)), 'header_too_large');
  assert.equal(kindOf(withByte(15, 0xff)), 'body_too_large');
  assert.equal(kindOf(withByte(40, 1)), 'dirty_padding');
  for (const header of ['', '{', '[]', '7', 'null', '"x"']) assert.equal(kindOf(raw(header)), 'bad_header', header);
  const notUtf8 = raw('{"type":"resume"}');
  notUtf8[20] = 0xff;
  assert.equal(kindOf(notUtf8), 'bad_header');
});

test('lengths are judged by the prefix alone, before anything is allocated', () => {
  const prefix = raw('').subarray(0, 16);
  new DataView(prefix.buffer, prefix.byteOffset).setUint32(12, 256 << 20, true);
  assert.equal(frameLengths(prefix, TO_CONTRIBUTOR).total, 16 + (256 << 20));
  assert.throws(() => frameLengths(prefix, TO_COORDINATOR), FrameError);
});

test('random bytes never throw anything but a frame error', () => {
  let state = 12_345;
  const random = (): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state >>> 16;
  };
  for (let round = 0; round < 5_000; round += 1) {
    const bytes = raw('{"type":"drop","blobs":[]}', [0, 0, 0, 0]);
    for (let hits = 0; hits < 1 + (round % 4); hits += 1) bytes[random() % bytes.length] = random() & 0xff;
    try {
      decodeFrame(bytes.subarray(0, random() % (bytes.length + 1)), TO_CONTRIBUTOR);
    } catch (error) {
      assert.ok(error instanceof FrameError, String(error));
    }
  }
});

test('messages are read with their fields', () => {
  const welcome = { type: 'welcome', session: `ses_${'0'.repeat(16)}`, nonce: 'n', consent_text_version: 'v', consent_ms_max: 1, now_ms: 5 };
  assert.deepEqual(parseToContributor(welcome), {
    type: 'welcome',
    session: welcome.session,
    nonce: 'n',
    consentTextVersion: 'v',
    nowMs: 5,
  });
  const shards = [{ blob: HASH, first_row: 0, rows: 9, bytes: 100 }];
  assert.deepEqual(parseToContributor({ type: 'task', lease: LEASE, flops: 5, spec: { shards } }), {
    type: 'task',
    lease: LEASE,
    flops: 5,
    shards: [{ blob: HASH, bytes: 100 }],
  });
  const about = { type: 'about', requester: 'Amber Heron', category: 'vision' } as const;
  assert.deepEqual(parseToContributor(about), about);
  assert.deepEqual(parseToContributor({ type: 'drop' }), { type: 'drop', blobs: [], graphs: [] });
  assert.deepEqual(parseToContributor({ type: 'goodbye', reason: 'full', detail: '' }), {
    type: 'goodbye',
    reason: 'full',
    detail: '',
    retryAfterMs: undefined,
  });
  const asked = parseToContributor({ type: 'goodbye', reason: 'draining', detail: '', retry_after_ms: 5000 });
  assert.equal(asked.type === 'goodbye' && asked.retryAfterMs, 5000);
});

test('a wrong field is named', () => {
  const cases: Array<[object, RegExp]> = [
    [{}, /^type:/],
    [{ type: 'toString' }, /^type:/],
    [{ type: 'hello' }, /^type:/],
    [{ type: 'welcome', session: 'ses_1' }, /^session:/],
    [{ type: 'ready', grant: 7 }, /^grant:/],
    [{ type: 'ready', grant: 'x'.repeat(3_000) }, /^grant: 3000 characters exceed/],
    [{ type: 'graph', id: HASH.toUpperCase() }, /^id:/],
    [{ type: 'blob' }, /^id:/],
    [{ type: 'reveal', lease: 'lease_1' }, /^lease:/],
    [{ type: 'task', lease: LEASE, flops: -1, spec: {} }, /^flops:/],
    [{ type: 'task', lease: LEASE, flops: 1.5, spec: {} }, /^flops:/],
    [{ type: 'task', lease: LEASE, flops: 1, spec: null }, /^spec:/],
    [{ type: 'task', lease: LEASE, flops: 1, spec: { shards: {} } }, /^spec\.shards:/],
    [{ type: 'task', lease: LEASE, flops: 1, spec: { shards: [{ blob: HASH }] } }, /^bytes:/],
    [{ type: 'task', lease: LEASE, flops: 1, spec: { shards: Array(5_000).fill({}) } }, /^spec\.shards: 5000/],
    [{ type: 'drop', blobs: ['x'] }, /^blobs\[0\]:/],
    [{ type: 'about', requester: 'x'.repeat(41), category: 'vision' }, /^requester: 41/],
    [{ type: 'about', requester: 'Amber Heron', category: 'espionage' }, /^category:/],
    [{ type: 'about', category: 'vision' }, /^requester:/],
    [{ type: 'outcomes' }, /^results:/],
    [{ type: 'outcomes', results: Array(129).fill({ lease: LEASE, outcome: 'late' }) }, /^results: 129/],
    [{ type: 'outcomes', results: [{ lease: 'lease_1', outcome: 'late' }] }, /^lease:/],
    [{ type: 'outcomes', results: [{ lease: LEASE, outcome: 'constructor' }] }, /^results\[0\]\.outcome:/],
    [{ type: 'goodbye', reason: 'constructor', detail: '' }, /^reason:/],
    [{ type: 'goodbye', reason: 'full', detail: '', retry_after_ms: -1 }, /^retry_after_ms:/],
  ];
  for (const [header, expected] of cases) {
    assert.throws(
      () => parseToContributor(header as Record<string, unknown>),
      (error) => error instanceof MessageError && expected.test(error.message),
      JSON.stringify(header).slice(0, 100),
    );
  }
});

test('close codes are those of the protocol', () => {
  assert.equal(closeCode('stopped'), 4000);
  assert.equal(closeCode('broken_commitment'), 4009);
  assert.equal(reasonOfCloseCode(4006), 'bad_ticket');
  assert.equal(reasonOfCloseCode(1006), undefined);
  assert.equal(closeCode('traffic_cap'), 4010);
  assert.equal(closeCode('excluded'), 4011);
  assert.equal(closeCode('stale_view'), 4012);
  assert.equal(reasonOfCloseCode(4013), undefined);
});
