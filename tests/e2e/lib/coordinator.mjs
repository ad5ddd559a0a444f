// Starts and stops the real coordinator binary on a free port of the loopback address.
import { spawn, execFile } from 'node:child_process';
import { createWriteStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { coordinatorBin, embedDir, kernelDir, outDir, wwwDir } from './paths.mjs';

const START_MS_MAX = 60_000;
const STOP_MS_MAX = 10_000;

export async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** A running coordinator with an empty data folder and one API key. Its log goes to `target/e2e/NAME.log`. With `www: null` it has no pages. */
export class Coordinator {
  static async start({ name = 'coordinator', embed = embedDir, www = wwwDir, visitMb = 100_000, flags = () => [] } = {}) {
    const self = new Coordinator();
    self.embed = embed;
    self.www = www;
    self.dataDir = mkdtempSync(join(tmpdir(), 'raven-e2e-'));
    self.port = await freePort();
    self.origin = `http://127.0.0.1:${self.port}`;
    /** More flags of `serve`, once the port is known. */
    self.flags = ['--visit-mb', String(visitMb), ...(await flags(self.port))];
    const { stdout } = await promisify(execFile)(coordinatorBin, ['keys', 'create', '--data', self.dataDir]);
    self.key = stdout.match(/rk_\w+/)?.[0];
    if (!self.key) throw new Error(`keys create printed no key: ${stdout}`);
    self.logFile = join(outDir('e2e'), `${name}.log`);
    writeFileSync(self.logFile, '');
    // A test that throws must not leave a server behind.
    self.onExit = () => self.child.kill('SIGKILL');
    process.once('exit', self.onExit);
    await self.#spawn();
    return self;
  }

  /** Kills it as a power cut would, and starts it again on the same data and port. */
  async crash() {
    this.child.kill('SIGKILL');
    await this.exited;
    await this.#spawn();
  }

  /** Ends it in order and starts it again on the same data and port, with another embed where one is given. */
  async restart({ embed = this.embed } = {}) {
    this.child.kill('SIGTERM');
    await this.exited;
    this.embed = embed;
    await this.#spawn();
  }

  async #spawn() {
    const log = createWriteStream(this.logFile, { flags: 'a' });
    this.child = spawn(
      coordinatorBin,
      ['serve', '--data', this.dataDir, '--listen', `127.0.0.1:${this.port}`, '--embed', this.embed,
        ...(this.www === null ? [] : ['--www', this.www]), '--kernel', join(kernelDir, 'raven_kernel.wasm'), ...this.flags],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    this.child.stdout.pipe(log);
    this.child.stderr.pipe(log);
    this.exited = new Promise((done) => this.child.once('exit', (code, signal) => done({ code, signal })));
    await this.#ready();
  }

  async #ready() {
    const deadline = Date.now() + START_MS_MAX;
    let ended = null;
    this.exited.then((result) => (ended = result));
    while (Date.now() < deadline) {
      if (ended) throw new Error(`the coordinator ended (${JSON.stringify(ended)}); see ${this.logFile}`);
      try {
        if ((await fetch(`${this.origin}/readyz`)).ok) return;
      } catch {
        // Not listening yet.
      }
      await new Promise((done) => setTimeout(done, 100));
    }
    throw new Error(`the coordinator was not ready after ${START_MS_MAX} ms; see ${this.logFile}`);
  }

  /** A request with the API key; throws with the problem document on a refusal. */
  async api(method, path, body) {
    const headers = { Authorization: `Bearer ${this.key}` };
    let payload = body;
    if (body !== undefined && !(body instanceof FormData)) {
      headers['Content-Type'] = 'application/json';
      payload = JSON.stringify(body);
    }
    const response = await fetch(this.origin + path, { method, headers, body: payload });
    if (!response.ok) {
      const error = new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
      error.status = response.status;
      throw error;
    }
    return response;
  }

  async json(method, path, body) {
    return (await this.api(method, path, body)).json();
  }

  /** Ends it in order; `SIGKILL` where that takes too long. Resolves to its exit code and signal. */
  async stop(signal = 'SIGTERM') {
    this.child.kill(signal);
    const killer = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS_MAX);
    const result = await this.exited;
    clearTimeout(killer);
    process.removeListener('exit', this.onExit);
    rmSync(this.dataDir, { recursive: true, force: true });
    return result;
  }
}
