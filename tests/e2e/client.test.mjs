// The requester's library, as a requester uses it.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { promisify } from 'node:util';
import { Coordinator } from './lib/coordinator.mjs';
import { joinFromNode } from './lib/node-contributor.mjs';
import { root } from './lib/paths.mjs';

let coordinator;
before(async () => {
  coordinator = await Coordinator.start({ name: 'client' });
});
after(() => coordinator?.stop());

it('uploads a table, trains, follows the events and downloads', async () => {
  const node = await joinFromNode(coordinator);
  const folder = mkdtempSync(join(tmpdir(), 'raven-client-'));
  const { stdout } = await promisify(execFile)(
    process.env.PYTHON ?? 'python3',
    [join(root, 'tests/e2e/client.py'), coordinator.origin, coordinator.key,
      join(root, 'data/digits/digits.csv.gz'), join(folder, 'model.safetensors')],
    { env: { ...process.env, PYTHONPATH: join(root, 'clients/python'), PYTHONDONTWRITEBYTECODE: '1' }, timeout: 120_000 },
  );
  rmSync(folder, { recursive: true });
  await node.leave();
  assert.equal(node.state.failure, null);
  const seen = JSON.parse(stdout);
  assert.deepEqual(seen.dataset.features, { dtype: 'f32', shape: [8, 8] });
  assert.equal(seen.dataset.train_rows + seen.dataset.test_rows, 1797);
  const { id, ...facts } = seen.dataset;
  assert.match(id, /^ds_/);
  assert.deepEqual([seen.pieces, seen.uploads], [facts, []]);
  assert.equal(seen.refusal[0] >= 400 && seen.refusal[0] < 500, true, `${seen.refusal}`);
  assert.equal(seen.names.filter((name) => name === 'evaluation').length, 3);
  assert.equal(seen.names.filter((name) => name === 'round').length, seen.job.rounds);
  assert.equal(seen.names.at(-1), 'state');
  assert.equal(seen.last.state, 'completed');
  assert.equal(new Set(seen.ids).size, seen.ids.length, 'no event comes twice');
  assert.deepEqual(seen.later, seen.ids.slice(Math.floor(seen.ids.length / 2) + 1));
  assert.equal(seen.sha256, seen.job.model_sha256);
  assert.deepEqual(seen.listed, [[seen.job.id], [seen.dataset.id]]);
});
