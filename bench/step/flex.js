// The peer: burn-flex with burn's autodiff, compiled to wasm with the flags of the kernel module.
import { BATCH, CASES } from '../worker/cases.js';

const NUMBERS = { mlp: 0, cnn: 1 };

let peer = null;

/** Builds the network and runs its step twice. */
export async function prepare(name) {
  if (!(name in CASES) || !(name in NUMBERS)) throw new Error(`no case ${name}`);
  const { default: init } = await import('/flex/flex.js');
  peer = await init({ module_or_path: '/flex/flex.wasm' });
  peer.prepare(NUMBERS[name]);
  const losses = [peer.step(), peer.step()];
  if (!losses.every(Number.isFinite) || losses[1] >= losses[0]) throw new Error(`the loss does not fall: ${losses}`);
  return { losses };
}

/** Images a second over about `ms` milliseconds. */
export async function run(ms) {
  const start = performance.now();
  let images = 0;
  let loss = 0;
  do {
    loss = peer.step();
    images += BATCH;
  } while (performance.now() - start < ms);
  const seconds = (performance.now() - start) / 1000;
  if (!Number.isFinite(loss)) throw new Error(`the loss is ${loss}`);
  return images / seconds;
}
