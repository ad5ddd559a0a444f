// What whoever runs a coordinator does on its command line, beside the running one.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { coordinatorBin } from './paths.mjs';

/** Runs a command on the coordinator's data folder; answers what it prints. */
export async function operate(coordinator, ...command) {
  const [verb, ...rest] = command;
  const hasPart = ['keys', 'withdrawals', 'token-rate'].includes(verb);
  const words = hasPart ? [verb, rest.shift()] : [verb];
  const { stdout } = await promisify(execFile)(coordinatorBin, [...words, '--data', coordinator.dataDir, ...rest]);
  return stdout;
}

/** An account of real money, into which so much was paid: a coordinator as its key sees it. */
export async function liveAccount(coordinator, nanoUsd) {
  const key = (await operate(coordinator, 'keys', 'create', '--live')).match(/rk_live_\w+/)?.[0];
  if (!key) throw new Error('keys create printed no live key');
  await operate(coordinator, 'deposit', '--nano-usd', String(nanoUsd), '--payment', key.slice(-8), key);
  return Object.create(coordinator, { key: { value: key } });
}

/** The id of the one withdrawal that waits. */
export async function waiting(coordinator) {
  const ids = (await operate(coordinator, 'withdrawals', 'list')).match(/wd_[0-9a-f]{16}/g) ?? [];
  if (ids.length !== 1) throw new Error(`${ids.length} withdrawals wait`);
  return ids[0];
}

/** Lets real money be earned in seconds: a thousand times the usual rate, and paid out from little on. */
export function dear() {
  Object.assign(process.env, { RAVEN_RATE_DESKTOP: '16000000', RAVEN_WITHDRAWAL_NANO_USD_MIN: '100' });
}
