/** A visitor's machine rests on battery, on a data saver, and out of sight. */

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { Pauses } from '../src/frame/pauses.ts';

class FakeBattery extends EventTarget {
  charging = true;

  become(charging: boolean): void {
    this.charging = charging;
    this.dispatchEvent(new Event('chargingchange'));
  }
}

class FakeConnection extends EventTarget {
  saveData = false;

  become(saveData: boolean): void {
    this.saveData = saveData;
    this.dispatchEvent(new Event('change'));
  }
}

class FakeDocument extends EventTarget {
  hidden = false;
}

const before = { navigator: Object.getOwnPropertyDescriptor(globalThis, 'navigator'), document: Object.getOwnPropertyDescriptor(globalThis, 'document') };
afterEach(() => {
  for (const [name, descriptor] of Object.entries(before)) {
    if (descriptor) Object.defineProperty(globalThis, name, descriptor);
    else Reflect.deleteProperty(globalThis, name);
  }
});

/** Pauses in a browser with these, and the reasons that were told. */
function surround(navigator: object): { pauses: Pauses; document: FakeDocument; told: Array<string | undefined> } {
  const document = new FakeDocument();
  Object.defineProperty(globalThis, 'navigator', { value: navigator, configurable: true });
  Object.defineProperty(globalThis, 'document', { value: document, configurable: true });
  const told: Array<string | undefined> = [];
  const pauses: Pauses = new Pauses(() => told.push(pauses.reason));
  return { pauses, document, told };
}

test('work rests while the device runs on battery', async () => {
  const battery = new FakeBattery();
  const { pauses, told } = surround({ getBattery: () => Promise.resolve(battery) });
  await pauses.watch();
  assert.equal(pauses.reason, undefined);
  battery.become(false);
  battery.become(true);
  assert.deepEqual(told, ['battery', undefined]);
});

test('a device that is on battery from the start rests before anything is loaded', async () => {
  const battery = new FakeBattery();
  battery.charging = false;
  const { pauses } = surround({ getBattery: () => Promise.resolve(battery) });
  await pauses.watch();
  assert.equal(pauses.reason, 'battery');
});

test('a data saver is obeyed, and the most important reason is shown', async () => {
  const battery = new FakeBattery();
  const connection = new FakeConnection();
  const { pauses, document, told } = surround({ connection, getBattery: () => Promise.resolve(battery) });
  connection.saveData = true;
  await pauses.watch();
  assert.equal(pauses.reason, 'data_saver');
  battery.become(false);
  document.hidden = true;
  document.dispatchEvent(new Event('visibilitychange'));
  assert.equal(pauses.reason, 'hidden');
  document.hidden = false;
  document.dispatchEvent(new Event('visibilitychange'));
  connection.become(false);
  assert.deepEqual(told, ['data_saver', 'hidden', 'data_saver', 'battery']);
});

test('a page that says that it is hidden is', async () => {
  const { pauses } = surround({});
  await pauses.watch();
  pauses.setPageVisible(false);
  assert.equal(pauses.reason, 'hidden');
  pauses.setPageVisible(true);
  assert.equal(pauses.reason, undefined);
});

test('a browser that keeps its battery to itself, or never answers, is not waited for', async () => {
  const denied = surround({ getBattery: () => Promise.reject(new DOMException('', 'NotAllowedError')) });
  await denied.pauses.watch();
  const silent = surround({ getBattery: () => new Promise(() => undefined) });
  const start = performance.now();
  await silent.pauses.watch();
  assert.ok(performance.now() - start < 2_000);
  assert.deepEqual([denied.pauses.reason, silent.pauses.reason], [undefined, undefined]);
});
