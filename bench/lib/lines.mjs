// Drives a process of its own that answers each line with one line of JSON.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export class LineProcess {
  #name;
  #process;
  #lines;

  constructor(name, command, args = [], env = process.env) {
    this.#name = name;
    this.#process = spawn(command, args, { stdio: ['pipe', 'pipe', 'ignore'], env });
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  async ask(line) {
    this.#process.stdin.write(`${line}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${this.#name} ended`);
    return JSON.parse(value);
  }

  end() {
    this.#process.kill();
  }
}
