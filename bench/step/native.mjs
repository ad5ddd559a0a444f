// Drives native TensorFlow: `prepare CASE` or `run MS`.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LineProcess } from '../lib/lines.mjs';

const here = dirname(fileURLToPath(import.meta.url));

export class NativeTensorFlow extends LineProcess {
  constructor(python) {
    super('native TensorFlow', python, [join(here, 'native.py')]);
  }
}
