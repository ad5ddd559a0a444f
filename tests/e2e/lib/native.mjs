// A contributor without a browser: keeps the session's rules and records every frame.
// It computes nothing: what to answer to a task is the caller's.
import { webcrypto } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import WebSocket from 'ws';
import { decode, encode } from './frame.mjs';
import { kernelDir } from './paths.mjs';

const hex = (bytes) => Buffer.from(bytes).toString('hex');

/**
 * Opens a session and resolves once it is ready for tasks. `onFrame(frame, bytes)` sees every
 * frame that follows. `grant` fetches shards, `send(header)` answers.
 */
export async function contribute(coordinator, { share = 1, workers = 1, onFrame = () => {} } = {}) {
  const kernel = JSON.parse(readFileSync(join(kernelDir, 'kernel.json'), 'utf8'));
  const keys = await webcrypto.subtle.generateKey('Ed25519', false, ['sign', 'verify']);
  const sessionKey = hex(await webcrypto.subtle.exportKey('raw', keys.publicKey));
  const socket = new WebSocket(coordinator.origin.replace('http', 'ws') + '/v1/contribute');
  socket.binaryType = 'nodebuffer';
  const session = {
    grant: null,
    send: (header) => socket.send(encode(header)),
    sendFrame: (bytes) => socket.send(bytes),
    close: () => socket.close(),
    closed: new Promise((done) => socket.once('close', (code) => done(code))),
    fetchBlob: async (id) => {
      const response = await fetch(`${coordinator.origin}/v1/blobs/${id}`, {
        headers: { Authorization: `Bearer ${session.grant}` },
      });
      if (!response.ok) throw new Error(`blob ${id}: ${response.status}`);
      return Buffer.from(await response.arrayBuffer());
    },
  };
  const answerWelcome = async (welcome) => {
    const receipt = JSON.stringify({
      text_version: welcome.consent_text_version, share, nonce: welcome.nonce, session_key: sessionKey,
      time_ms: welcome.now_ms,
    });
    const signature = hex(await webcrypto.subtle.sign('Ed25519', keys.privateKey, Buffer.from(receipt)));
    session.send({ type: 'consent', receipt, signature });
  };
  await new Promise((ready, fail) => {
    socket.once('error', fail);
    socket.once('close', (code) => fail(new Error(`closed with ${code} before it was ready`)));
    socket.once('open', () =>
      session.send({
        type: 'hello', protocol: 4, numeric: { class: 'cpu', kernel: kernel.kernel },
        device: { class: 'server', cores: 2, memory_bytes: 1 << 29, flops_per_s: 10_000_000_000 },
        share, workers, session_key: sessionKey,
      }));
    socket.on('message', (bytes) => {
      const frame = decode(bytes);
      if (frame.header.type === 'welcome') answerWelcome(frame.header).catch(fail);
      if (frame.header.type === 'ready') {
        session.grant = frame.header.grant;
        ready();
      }
      onFrame(frame, bytes);
    });
  });
  return session;
}
