/**
 * The script that partners paste. It adds one frame, served by the
 * coordinator, and passes a few small messages. It reads nothing of the page
 * but its own tag and slot, and stores nothing.
 *
 * `<script async src="https://…/embed/raven.js?site=pk_…"></script>`
 *
 * Optional: an element with `data-raven-slot` to hold the frame, and
 * `data-corner="left"` on the tag to put the frame into the other corner.
 */

import { envelope, readToLoader, type EmbedPhase, type ToFrame } from '../shared/embed-port.ts';

/** What the page may know. */
export interface RavenState {
  readonly phase: EmbedPhase;
  /** Tasks done since the page was opened. */
  readonly tasks: number;
}

type Listener = (state: RavenState) => void;

/** `window.raven`. */
export interface RavenApi {
  show(): void;
  /** Hides the frame. Work pauses meanwhile: the visitor's Stop must be in reach. */
  hide(): void;
  /** Ends the work at once. */
  stop(): void;
  /** Calls `listener` with every new state; the answer ends that. */
  on(event: 'state', listener: Listener): () => void;
  readonly state: RavenState;
}

declare global {
  interface Window {
    raven?: RavenApi;
  }
}

const SITE_KEY = /^pk_[A-Za-z0-9_-]{1,128}$/;
const MARGIN_PX = 16;
/** Above a page's own layers, below what a browser reserves. */
const Z_INDEX = '2147483000';
/** Size until the frame has said which one it wants. */
const FIRST_SIZE = { width: 288, height: 44 } as const;

interface Tag {
  readonly frameUrl: URL;
  readonly corner: 'left' | 'right';
}

function findScript(): HTMLScriptElement | undefined {
  const current = document.currentScript;
  if (current instanceof HTMLScriptElement && current.src) return current;
  // A module or a tag manager leaves no current script.
  const own = [...document.scripts].filter((script) => /\/embed\/raven[^/]*\.js\?(.*&)?site=/.test(script.src));
  return own[own.length - 1];
}

function readTag(script: HTMLScriptElement | undefined): Tag | undefined {
  if (!script) return undefined;
  const source = new URL(script.src, document.baseURI);
  const site = source.searchParams.get('site') ?? '';
  if (!SITE_KEY.test(site)) return undefined;
  const frameUrl = new URL('frame.html', source);
  frameUrl.search = new URLSearchParams({ site }).toString();
  return { frameUrl, corner: script.dataset.corner === 'left' ? 'left' : 'right' };
}

function createFrame(tag: Tag): HTMLIFrameElement {
  const frame = document.createElement('iframe');
  frame.src = tag.frameUrl.href;
  frame.title = 'Raven: lend a little computing power';
  // No permission of the page is passed on, and the frame can't navigate it.
  frame.allow = '';
  frame.setAttribute('sandbox', 'allow-scripts allow-same-origin');
  frame.referrerPolicy = 'strict-origin';
  Object.assign(frame.style, {
    border: '0',
    margin: '0',
    padding: '0',
    display: 'block',
    // Shown once the frame has answered: on a site that it may not be shown on there is nothing to see.
    visibility: 'hidden',
    maxWidth: '100%',
    background: 'transparent',
    // A frame is see-through only where its colour scheme is that of its element.
    colorScheme: 'normal',
    width: `${FIRST_SIZE.width}px`,
    height: `${FIRST_SIZE.height}px`,
  });
  return frame;
}

/** Puts the frame into the page's slot, or into a corner of the window. */
function attach(frame: HTMLIFrameElement, corner: Tag['corner']): void {
  const slot = document.querySelector('[data-raven-slot]');
  if (!slot) {
    Object.assign(frame.style, {
      position: 'fixed',
      bottom: `${MARGIN_PX}px`,
      [corner]: `${MARGIN_PX}px`,
      maxWidth: `calc(100vw - ${2 * MARGIN_PX}px)`,
      maxHeight: `calc(100vh - ${2 * MARGIN_PX}px)`,
      zIndex: Z_INDEX,
    });
  }
  (slot ?? document.body).append(frame);
}

/** Connects page and frame; returns the page's side of it. */
function connect(frame: HTMLIFrameElement, origin: string): RavenApi {
  const listeners = new Set<Listener>();
  let state: RavenState = { phase: 'asking', tasks: 0 };

  const send = (message: ToFrame): void => frame.contentWindow?.postMessage(envelope(message), origin);
  const sendVisibility = (): void =>
    send({ type: 'visibility', visible: !document.hidden && frame.style.display !== 'none' });
  const display = (value: 'block' | 'none'): void => {
    frame.style.display = value;
    sendVisibility();
  };

  window.addEventListener('message', (event) => {
    if (event.origin !== origin || event.source !== frame.contentWindow) return;
    const message = readToLoader(event.data);
    if (message?.type === 'ready') {
      frame.style.visibility = 'visible';
      sendVisibility();
    } else if (message?.type === 'resize') {
      frame.style.width = `${message.width}px`;
      frame.style.height = `${message.height}px`;
    } else if (message?.type === 'state') {
      state = { phase: message.phase, tasks: message.tasks };
      for (const listener of listeners) {
        try {
          listener(state);
        } catch (error) {
          // A listener of the page must not keep the others from hearing.
          console.error(error);
        }
      }
    }
  });
  frame.addEventListener('load', () => send({ type: 'hello' }));
  document.addEventListener('visibilitychange', sendVisibility);

  return {
    show: () => display('block'),
    hide: () => display('none'),
    stop: () => send({ type: 'stop' }),
    on: (event, listener) => {
      if (event === 'state') listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    get state() {
      return state;
    },
  };
}

/** Runs once the page has loaded, so that the frame never delays it. */
function afterLoad(run: () => void): void {
  const whenIdle = (): void => {
    if ('requestIdleCallback' in window) window.requestIdleCallback(run, { timeout: 1_000 });
    else setTimeout(run, 50);
  };
  if (document.readyState === 'complete') whenIdle();
  else window.addEventListener('load', whenIdle, { once: true });
}

function main(): void {
  // Found now: later there is no current script.
  const tag = readTag(findScript());
  if (!tag) {
    console.warn('raven: the script tag has no ?site=pk_… key');
    return;
  }
  const marker = Symbol.for('raven.loader');
  const page = window as unknown as Record<symbol, boolean | undefined>;
  if (page[marker]) return;
  page[marker] = true;
  const frame = createFrame(tag);
  window.raven = Object.freeze(connect(frame, tag.frameUrl.origin));
  afterLoad(() => attach(frame, tag.corner));
}

main();
