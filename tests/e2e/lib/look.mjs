// What is wrong with how a page looks, as far as programs see it.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { outDir } from './paths.mjs';

const require = createRequire(import.meta.url);
const { source: AXE } = require('axe-core');
// It reads codes from pixels, and shares no code with what draws them.
const jsQR = require('jsqr');
const folder = outDir('e2e');

/** Widths and colour schemes in which every page must be good. */
export const LOOKS = [[360, 'light'], [360, 'dark'], [1280, 'light'], [1280, 'dark']];

/** axe finds nothing, also by rules that it leaves out unless they are named, and nothing is wider than the window. */
export async function assertClean(page, what, more = []) {
  await page.evaluate(AXE);
  const rules = Object.fromEntries(more.map((rule) => [rule, { enabled: true }]));
  const { violations } = await page.evaluate((rules) => globalThis.axe.run(document, { resultTypes: ['violations'], rules }), rules);
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`), [], what);
  const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= window, `${what} is ${wide} px wide in a window of ${window}`);
}

export const shot = (page, name) => page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });

/** What the QR code on the page says, read from its pixels. */
export async function readQr(page) {
  const png = (await page.locator('svg.qr').screenshot()).toString('base64');
  const { data, width, height } = await page.evaluate(async (source) => {
    const image = new Image();
    image.src = `data:image/png;base64,${source}`;
    await image.decode();
    const context = Object.assign(document.createElement('canvas'), { width: image.width, height: image.height }).getContext('2d');
    context.drawImage(image, 0, 0);
    return { data: Array.from(context.getImageData(0, 0, image.width, image.height).data), width: image.width, height: image.height };
  }, png);
  const found = jsQR(Uint8ClampedArray.from(data), width, height);
  assert.ok(found, 'a QR code is found in the picture');
  return found.data;
}
