// The system's Firefox, driven over WebDriver BiDi: Playwright drives only builds of its own.
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import WebSocket from 'ws';

const START_MS_MAX = 60_000;
/** Nothing of the browser's own may use the network or the processor. */
const PREFERENCES = {
  'app.normandy.enabled': false,
  'app.update.disabledForTesting': true,
  'browser.safebrowsing.update.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'extensions.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'data:,none',
};
/** That of the other tests' browser. */
const VIEWPORT = { width: 1280, height: 800 };
/** Of the screen, with room for the window's own parts: what lies below a headless window counts as out of view. */
const SCREEN = { MOZ_HEADLESS_WIDTH: '1400', MOZ_HEADLESS_HEIGHT: '1100' };
const KEYS = { Enter: '\uE007', Escape: '\uE00C', ArrowRight: '\uE014' };
/** How long the pointer rests on a target before it presses, as a person's does. */
const HOVER_MS = 500;

/** Path of a Firefox; `undefined` where there is none. */
export function firefoxPath() {
  if (process.env.RAVEN_FIREFOX) return process.env.RAVEN_FIREFOX;
  for (const name of ['firefox-esr', 'firefox']) {
    try {
      return execFileSync('/bin/sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim();
    } catch {
      // Not this one.
    }
  }
  return undefined;
}

/** A page with its frames. */
class Page {
  constructor(browser, context) {
    this.browser = browser;
    this.context = context;
  }

  goto(url) {
    return this.browser.send('browsingContext.navigate', { context: this.context, url, wait: 'complete' });
  }

  reload() {
    return this.browser.send('browsingContext.reload', { context: this.context, wait: 'complete' });
  }

  close() {
    return this.browser.send('browsingContext.close', { context: this.context });
  }

  /** Contexts of the page's frames, with their addresses. */
  async frames() {
    const { contexts } = await this.browser.send('browsingContext.getTree', { root: this.context });
    return contexts[0].children;
  }

  /** The value of an expression in the page or in one of its frames. */
  async evaluate(expression, context = this.context) {
    const answer = await this.browser.send('script.evaluate', {
      expression: `(async () => JSON.stringify(await (${expression})) ?? 'null')()`, target: { context }, awaitPromise: true,
    });
    if (answer.type !== 'success') throw new Error(`${expression}: ${answer.exceptionDetails.text}`);
    return JSON.parse(answer.result.value);
  }

  /** Presses keys one after the other, by the names that WebDriver has for them. */
  async press(context, ...keys) {
    const actions = keys.flatMap((key) => [{ type: 'keyDown', value: KEYS[key] }, { type: 'keyUp', value: KEYS[key] }]);
    await this.browser.send('input.performActions', { context, actions: [{ type: 'key', id: 'keyboard', actions }] });
  }

  /** Moves the mouse onto an element of a frame, rests, and clicks. */
  async click(selector, context) {
    const { nodes } = await this.browser.send('browsingContext.locateNodes', { context, locator: { type: 'css', value: selector } });
    if (nodes.length === 0) throw new Error(`nothing is ${selector}`);
    const origin = { type: 'element', element: { sharedId: nodes[0].sharedId } };
    const actions = [
      { type: 'pointerMove', x: 0, y: 0, origin },
      { type: 'pause', duration: HOVER_MS },
      { type: 'pointerMove', x: 1, y: 0, origin },
      { type: 'pointerDown', button: 0 },
      { type: 'pointerUp', button: 0 },
    ];
    await this.browser.send('input.performActions', {
      context, actions: [{ type: 'pointer', id: 'mouse', parameters: { pointerType: 'mouse' }, actions }],
    });
  }
}

export class Firefox {
  #waiting = new Map();
  #sent = 0;

  static async launch() {
    const self = new Firefox();
    self.profile = mkdtempSync(join(tmpdir(), 'raven-firefox-'));
    const lines = Object.entries(PREFERENCES).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`);
    writeFileSync(join(self.profile, 'user.js'), lines.join(''));
    // HOME as well: it makes folders there.
    self.child = spawn(firefoxPath(), ['--headless', '--no-remote', '--profile', self.profile, '--remote-debugging-port', '0'], {
      stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...SCREEN, HOME: self.profile, MOZ_CRASHREPORTER_DISABLE: '1' },
    });
    // A test that throws must not leave a browser behind.
    self.onExit = () => self.child.kill('SIGKILL');
    process.once('exit', self.onExit);
    try {
      await self.#connect(await self.#address());
      const { capabilities } = await self.send('session.new', { capabilities: {} });
      self.version = `${capabilities.browserName} ${capabilities.browserVersion}`;
    } catch (error) {
      await self.close();
      throw error;
    }
    return self;
  }

  #address() {
    return new Promise((done, fail) => {
      const timer = setTimeout(() => fail(new Error(`Firefox did not listen within ${START_MS_MAX} ms`)), START_MS_MAX);
      createInterface({ input: this.child.stderr }).on('line', (line) => {
        const address = /WebDriver BiDi listening on (ws:\S+)/.exec(line)?.[1];
        if (address) {
          clearTimeout(timer);
          done(address);
        }
      });
      this.child.once('exit', (code) => fail(new Error(`Firefox ended with ${code}`)));
    });
  }

  async #connect(address) {
    this.socket = new WebSocket(`${address}/session`);
    this.socket.on('message', (data) => {
      const { id, type, result, error, message } = JSON.parse(data);
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (type === 'success') waiting?.done(result);
      else if (type === 'error') waiting?.fail(new Error(`${waiting.method}: ${error}: ${message}`));
    });
    await new Promise((done, fail) => this.socket.once('open', done).once('error', fail));
  }

  /** One command of the protocol. */
  send(method, params) {
    return new Promise((done, fail) => {
      this.#sent += 1;
      this.#waiting.set(this.#sent, { method, done, fail });
      this.socket.send(JSON.stringify({ id: this.#sent, method, params }));
    });
  }

  async open(url) {
    const { context } = await this.send('browsingContext.create', { type: 'tab' });
    await this.send('browsingContext.setViewport', { context, viewport: VIEWPORT });
    const page = new Page(this, context);
    await page.goto(url);
    return page;
  }

  async close() {
    this.socket?.terminate();
    if (this.child.exitCode === null) {
      const exited = new Promise((done) => this.child.once('exit', done));
      this.child.kill('SIGKILL');
      await exited;
    }
    process.removeListener('exit', this.onExit);
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
