/**
 * The script that partners paste. It adds one frame, served by the
 * coordinator, and passes a few small messages. It reads nothing of the page
 * but its own tag and slot, and keeps nothing but a visitor's answer: a word
 * and the day.
 *
 * `<script async src="https://…/embed/raven.js?site=pk_…"></script>`
 *
 * The attributes of the tag and what a page can do are in PARTNERS.md.
 */

import type { RavenApi } from './api.ts';
import { PageSide } from './page-side.ts';
import { readTag } from './tag.ts';
import { NO_KEY, warn } from './trouble.ts';

function main(): void {
  // Read first: later there is no current script.
  const tag = readTag();
  // A page may have the tag twice, and one that changes its route may run it again.
  const marker = Symbol.for('raven.loader');
  const page = window as unknown as Record<symbol, boolean | undefined>;
  if (page[marker]) return;
  if (!tag) {
    warn(NO_KEY);
    return;
  }
  page[marker] = true;
  const side = new PageSide(tag);
  const api: RavenApi = {
    show: () => side.show(),
    hide: () => side.hide(),
    stop: () => side.stop(),
    consent: (given) => side.consent(given),
    on: (event, listener) => (event === 'state' ? side.on(listener) : () => undefined),
    workToken: () => side.tokens.ask(),
    get state() {
      return side.state;
    },
  };
  window.raven = Object.freeze(api);
  window.dispatchEvent(new Event('raven:ready'));
}

main();
