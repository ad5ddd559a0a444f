// Reads what a running coordinator has stored, where no route shows it.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const SCRIPT = `
import json, sqlite3, sys
store = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True)
print(json.dumps(store.execute(sys.argv[2], json.loads(sys.argv[3])).fetchone()))
`;

/** The first row that `query` yields. */
export async function firstRow(coordinator, query, ...values) {
  const store = join(coordinator.dataDir, 'raven.sqlite');
  const python = process.env.PYTHON ?? 'python3';
  const { stdout } = await promisify(execFile)(python, ['-c', SCRIPT, store, query, JSON.stringify(values)]);
  return JSON.parse(stdout);
}
