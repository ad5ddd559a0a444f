// Hostile and mistaken peers against the real binary: each gets a typed answer, and everybody else goes on.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import WebSocket from 'ws';
import { Coordinator } from './lib/coordinator.mjs';
import { uploadDigits } from './lib/data.mjs';
import { encode } from './lib/frame.mjs';
import { digitsJob } from './lib/jobs.mjs';
import { contribute } from './lib/native.mjs';
import { random } from './lib/seed.mjs';

const BAD_FRAME = 4003;
const INCOMPATIBLE = 4002;
const OUT_OF_TURN = 4004;
const CLOSE_MS_MAX = 5_000;

let coordinator;
let dataset;
before(async () => {
  coordinator = await Coordinator.start({ name: 'refusals' });
  dataset = await uploadDigits(coordinator);
});
after(() => coordinator?.stop());

/** Sends one message on a new socket and resolves to the code that it is closed with. */
function closeCode(message, { headers = {} } = {}) {
  return new Promise((done, fail) => {
    const socket = new WebSocket(`${coordinator.origin.replace('http', 'ws')}/v1/contribute`, { headers });
    const timer = setTimeout(() => fail(new Error(`not closed within ${CLOSE_MS_MAX} ms`)), CLOSE_MS_MAX);
    socket.once('open', () => socket.send(message));
    socket.once('error', fail);
    socket.once('close', (code) => {
      clearTimeout(timer);
      done(code);
    });
  });
}

/** A prefix that declares lengths, with nothing behind it. */
function prefix({ magic = 'RAVN', version = 1, reserved = 0, header = 0, body = 0 }) {
  const bytes = Buffer.alloc(16);
  bytes.write(magic, 0, 'latin1');
  bytes.writeUInt16LE(version, 4);
  bytes.writeUInt16LE(reserved, 6);
  bytes.writeUInt32LE(header, 8);
  bytes.writeUInt32LE(body, 12);
  return bytes;
}

const resume = encode({ type: 'resume' });

describe('frames', () => {
  const cases = [
    ['shorter than a prefix', Buffer.from('RAV'), [BAD_FRAME]],
    ['another magic', prefix({ magic: 'EVIL' }), [BAD_FRAME]],
    ['another version', prefix({ version: 99, header: 2 }), [INCOMPATIBLE, BAD_FRAME]],
    ['a header of four gigabytes', prefix({ header: 0xffff_ffff }), [BAD_FRAME]],
    ['a body of four gigabytes', prefix({ header: 2, body: 0xffff_ffff }), [BAD_FRAME]],
    ['cut off in the header', resume.subarray(0, 20), [BAD_FRAME]],
    ['bytes behind its end', Buffer.concat([resume, Buffer.alloc(16)]), [BAD_FRAME]],
    ['a header that is no JSON', Buffer.concat([prefix({ header: 16 }), Buffer.alloc(16, 0x7b)]), [BAD_FRAME]],
    ['a tensor of 10^12 elements', encode({ type: 'resume', tensors: [{ name: 'w', dtype: 'f32', shape: [1000000, 1000000] }] }), [BAD_FRAME]],
    ['a tensor of rank 40', encode({ type: 'resume', tensors: [{ name: 'w', dtype: 'f32', shape: Array(40).fill(1) }] }), [BAD_FRAME]],
    ['a text message', 'hello', [BAD_FRAME, OUT_OF_TURN, 1003]],
    ['random bytes', random('one message')(4096), [BAD_FRAME]],
    ['a result before a hello', encode({ type: 'result', lease: '0'.repeat(32) }), [OUT_OF_TURN, BAD_FRAME]],
  ];
  for (const [what, bytes, codes] of cases) {
    it(`with ${what}`, async () => {
      const code = await closeCode(bytes);
      assert.ok(codes.includes(code), `closed with ${code}, expected ${codes}`);
    });
  }

  it('from a page of another origin are not even read', async () => {
    await assert.rejects(closeCode(resume, { headers: { Origin: 'http://evil.localhost' } }), /403/);
  });

  it('in a long run of noise harm nobody', async () => {
    const noise = random('noise');
    for (let n = 0; n < 200; n += 1) {
      const bytes = noise(1 + ((n * 37) % 600));
      await closeCode(bytes).catch((error) => assert.fail(`message ${n}, ${bytes.toString('hex')}: ${error.message}`));
    }
  });
});

describe('jobs', () => {
  const refused = async (change) => {
    const body = digitsJob(dataset.id);
    change(body);
    const response = await fetch(`${coordinator.origin}/v1/jobs`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${coordinator.key}`, 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    });
    assert.ok(response.status >= 400 && response.status < 500, `status ${response.status}`);
    assert.match(response.headers.get('content-type'), /^application\/problem\+json/);
    return response.json();
  };

  // What is too large or does not fit: exactly this field, and exactly this limit where it is one.
  const ELEMENTS_MAX = 2 ** 28;
  const exact = [
    ['a layer of 10^12 units', (job) => (job.model.layers[1].units = 1e12), 'model.layers[1].units', ELEMENTS_MAX, 1e12],
    ['a layer of 4 * 10^9 units', (job) => (job.model.layers[1].units = 4e9), 'model.layers[1].units', ELEMENTS_MAX, 4e9],
    ['a weight of more elements than a tensor may have', (job) => (job.model.layers[1].units = 2e8), 'model.layers[1].units', ELEMENTS_MAX, 64 * 2e8],
    ['an input of 10^12 elements', (job) => (job.model.input_shape = [1e6, 1e6]), 'model.input_shape', ELEMENTS_MAX, 1e12],
    ['an input of rank 40 with the right elements', (job) => (job.model.input_shape = [...Array(39).fill(1), 64]), 'model.input_shape', 7, 40],
    ['a body of a million layers', (job) => (job.model.layers = Array(1e6).fill({ type: 'flatten' })), 'body', 2 ** 20, undefined],
    ['more layers than any graph holds', (job) => (job.model.layers = Array(20_000).fill({ type: 'flatten' })), 'model.layers', 1024, 20_000],
    ['an input that does not hold the data', (job) => (job.model.input_shape = [3, 8, 8]), 'model.input_shape', undefined, undefined],
    ['logits that do not fit the classes', (job) => (job.model.layers[3].units = 7), 'model.layers[3].units', undefined, undefined],
    ['a window larger than the image', (job) => job.model.layers.unshift({ type: 'max_pool2d', size: 9 }), 'model.layers[0].size', undefined, undefined],
    ['a loss for numbers', (job) => (job.model.loss = 'mse'), 'model.loss', undefined, undefined],
  ];
  for (const [what, change, field, limit, found] of exact) {
    it(`with ${what}`, async () => {
      const problem = await refused(change);
      assert.deepEqual([problem.field, problem.limit, problem.found], [field, limit, found], JSON.stringify(problem));
    });
  }

  const cases = [
    ['no units', (job) => (job.model.layers[1].units = 0), /layers\[1\]\.units/],
    ['an unknown layer', (job) => (job.model.layers[1].type = 'attention'), /layers/],
    ['dense before flatten', (job) => job.model.layers.shift(), /layers\[0\]/],
    ['no layers', (job) => (job.model.layers = []), /layers/],
    ['no epochs', (job) => (job.training.epochs = 0), /epochs/],
    ['a micro-batch larger than the batch', (job) => (job.training.micro_batch = 1000), /micro_batch/],
    ['a negative learning rate', (job) => (job.training.schedule.learning_rate = -1), /learning_rate/],
    ['an unknown data set', (job) => (job.dataset = 'ds_0000000000000000'), /data ?set/],
    ['an unknown field', (job) => (job.gpu = true), /gpu/],
  ];
  for (const [what, change, field] of cases) {
    it(`with ${what}`, async () => {
      const problem = await refused(change);
      assert.match(`${problem.field} ${problem.title} ${problem.detail}`, field, JSON.stringify(problem));
    });
  }

  it('without a key, or with a wrong one', async () => {
    for (const headers of [{}, { Authorization: 'Bearer rk_test_wrong' }]) {
      const response = await fetch(`${coordinator.origin}/v1/jobs`, { method: 'POST', headers, body: '{}' });
      assert.equal(response.status, 401);
    }
  });
});

describe('data sets', () => {
  const upload = async (parts) => {
    const form = new FormData();
    for (const [name, value] of Object.entries(parts)) {
      form.append(name, new Blob([value], name === 'spec' ? { type: 'application/json' } : {}), name);
    }
    const response = await fetch(`${coordinator.origin}/v1/datasets`, {
      method: 'POST', headers: { Authorization: `Bearer ${coordinator.key}` }, body: form,
    });
    return { status: response.status, problem: await response.json() };
  };
  const garbage = random('garbage');
  const spec = JSON.stringify({ name: 'x', format: 'idx', target: 'classes', classes: 10, scale: 1, license: 'CC0', source: 'x' });

  it('of garbage are refused by name', async () => {
    const { status, problem } = await upload({ spec, train_x: garbage(64), train_y: garbage(64) });
    assert.ok(status >= 400 && status < 500, `status ${status}`);
    assert.match(`${problem.field} ${problem.detail}`, /train_x/);
  });

  it('that declare more rows than they bring are refused', async () => {
    const huge = Buffer.from([0, 0, 8, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    const { status } = await upload({ spec, train_x: huge, train_y: garbage(8) });
    assert.ok(status >= 400 && status < 500, `status ${status}`);
  });
});

it('after all that it is alive, ready, and takes contributors', async () => {
  assert.equal((await fetch(`${coordinator.origin}/healthz`)).status, 200);
  assert.equal((await fetch(`${coordinator.origin}/readyz`)).status, 200);
  assert.equal(coordinator.child.exitCode, null);
  const session = await contribute(coordinator);
  assert.ok(session.grant);
  session.close();
});
