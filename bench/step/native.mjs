// Drives native TensorFlow, a process of its own that answers line by line.
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));

export class NativeTensorFlow {
  #process;
  #lines;

  constructor(python) {
    this.#process = spawn(python, [join(here, 'native.py')], { stdio: ['pipe', 'pipe', 'ignore'] });
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** One call: `prepare CASE` or `run MS`. */
  async ask(line) {
    this.#process.stdin.write(`${line}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('native TensorFlow ended');
    return JSON.parse(value);
  }

  end() {
    this.#process.kill();
  }
}
