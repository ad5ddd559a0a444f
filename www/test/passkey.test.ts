import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromBase64Url, toBase64Url } from '../src/parts/passkey.ts';

test('bytes are written for JSON as the coordinator reads them, and read back', () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, at) => at);
  for (let length = 250; length <= 256; length += 1) {
    const some = bytes.slice(0, length);
    const written = toBase64Url(some.buffer);
    assert.equal(written, Buffer.from(some).toString('base64url'));
    assert.deepEqual(fromBase64Url(written), some);
  }
  assert.deepEqual(fromBase64Url(undefined), new Uint8Array());
});
