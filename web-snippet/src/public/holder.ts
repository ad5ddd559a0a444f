/** The frame's element: where it is put, and that it stays there. */

import type { Tag } from './tag.ts';

const MARGIN_PX = 16;
/** Above a page's own layers, below what a browser reserves. */
const Z_INDEX = '2147483000';
/** Size until the frame has said which one it wants. */
const FIRST_SIZE = { width: 288, height: 44 } as const;
/** A page that changes its route may bring the next slot a moment later. */
const RETURN_AFTER_MS = 300;
/** A page that removes the frame again and again does not want it. */
const RETURNS_MAX = 20;

export interface Holder {
  readonly frame: HTMLIFrameElement;
  attach(): void;
  detach(): void;
}

function createFrame(tag: Tag): HTMLIFrameElement {
  const frame = document.createElement('iframe');
  frame.src = tag.frameUrl;
  frame.title = 'Raven: lend a little computing power';
  // No permission of the page is passed on, and the frame can't navigate it. A click in it may open the
  // coordinator's own page in a tab, which is no frame.
  frame.allow = '';
  frame.setAttribute('sandbox', 'allow-scripts allow-same-origin allow-popups allow-popups-to-escape-sandbox');
  frame.referrerPolicy = 'strict-origin';
  return frame;
}

/** Single properties, which a page's style-src does not forbid. */
function style(frame: HTMLIFrameElement, corner: Tag['corner'] | undefined): void {
  const size = `calc(100vw - ${2 * MARGIN_PX}px)`;
  Object.assign(frame.style, {
    border: '0',
    margin: '0',
    padding: '0',
    // Shown once the frame has answered: on a site that it may not be shown on there is nothing to see.
    visibility: 'hidden',
    background: 'transparent',
    // A frame is see-through only where its colour scheme is that of its element.
    colorScheme: 'normal',
    width: `${FIRST_SIZE.width}px`,
    height: `${FIRST_SIZE.height}px`,
    position: corner ? 'fixed' : 'static',
    bottom: corner ? `${MARGIN_PX}px` : '',
    left: corner === 'left' ? `${MARGIN_PX}px` : '',
    right: corner === 'right' ? `${MARGIN_PX}px` : '',
    maxWidth: corner ? size : '100%',
    maxHeight: corner ? size.replace('vw', 'vh') : '',
    zIndex: corner ? Z_INDEX : '',
  });
}

/** `placed` is called whenever the frame has been put into the page, and with it starts anew. */
export function createHolder(tag: Tag, placed: () => void): Holder {
  const frame = createFrame(tag);
  let returns = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const watcher = new MutationObserver(() => {
    if (frame.isConnected || timer !== undefined || returns >= RETURNS_MAX) return;
    returns += 1;
    timer = setTimeout(put, RETURN_AFTER_MS);
  });

  function put(): void {
    timer = undefined;
    const slot = document.querySelector('[data-raven-slot]');
    style(frame, slot ? undefined : tag.corner);
    const root = document.documentElement;
    watcher.disconnect();
    // Beside the body: a page that replaces its body on every route leaves the frame and its work alone.
    (slot || root).append(frame);
    watcher.observe(document, { childList: true, subtree: Boolean(slot) });
    if (!slot) watcher.observe(root, { childList: true });
    placed();
  }

  return {
    frame,
    attach() {
      if (!frame.isConnected && timer === undefined) put();
    },
    detach() {
      watcher.disconnect();
      clearTimeout(timer);
      timer = undefined;
      frame.remove();
    },
  };
}
