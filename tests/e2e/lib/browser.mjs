// Starts the system's Chromium through Playwright, with the flags that a closed network needs.
import { execFileSync } from 'node:child_process';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--disable-gpu-sandbox',
  // A page that is not in front must compute as one that is: several contributors share one browser.
  '--disable-background-timer-throttling', '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
];

/** WebGPU on Chromium's software adapter: slow, and the same code as on a real one. */
export const SOFTWARE_GPU = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'];

export function chromiumPath() {
  if (process.env.RAVEN_CHROMIUM) return process.env.RAVEN_CHROMIUM;
  for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
    try {
      return execFileSync('/bin/sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim();
    } catch {
      // Not this one.
    }
  }
  throw new Error('no Chromium found: install it or set RAVEN_CHROMIUM to its path');
}

function options(extraFlags) {
  // Chromium's sandbox does not run as root.
  const sandbox = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  return { executablePath: chromiumPath(), headless: true, args: [...FLAGS, ...sandbox, ...extraFlags] };
}

/** A headless browser. Its contexts are private windows, which deny storage to frames of other sites. */
export function launch(extraFlags = []) {
  return chromium.launch(options(extraFlags));
}

/**
 * What Playwright turns off and a test's browser needs off, too. The last list counts, and this one leaves on what people have on:
 * the storage of a frame is another one on each site that shows it (`ThirdPartyStoragePartitioning`).
 */
const AS_PEOPLE_HAVE_IT = '--disable-features=AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,PaintHolding,OptimizationHints';

/** The one context of a headless browser with a profile in `folder`, where frames of other sites have storage, apart for each. */
export function launchProfile(folder, extraFlags = []) {
  return chromium.launchPersistentContext(folder, { ...options([AS_PEOPLE_HAVE_IT, ...extraFlags]), viewport: { width: 1280, height: 800 } });
}
