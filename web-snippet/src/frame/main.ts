/** Entry of the frame: asks, and after a yes shows how the work goes. */

import type { ToFrame } from '../shared/embed-port.ts';
import type { FromHub } from '../shared/hub-port.ts';
import { readConfig } from './config.ts';
import { Embed } from './embed.ts';
import { Gate } from './gate.ts';
import { HubClient } from './hub-client.ts';
import { Pauses } from './pauses.ts';
import { Presence } from './presence.ts';
import { embedPhase, next, viewWidth, type Event as FrameEvent, type View } from './state.ts';
import { Elements } from './view.ts';

const config = readConfig(document);
const elements = new Elements();
const gate = new Gate(elements, (sight) => elements.showSight(sight));
const presence = new Presence(document);
const pauses = new Pauses(() => applyPause());
const embed = new Embed((message) => obeyPage(message));
let view: View = firstView();
let hub: HubClient | undefined;
let lastSent = '';

function firstView(): View {
  if (parent === window) return { at: 'unavailable', reason: 'not_embedded' };
  if (!isSecureContext) return { at: 'unavailable', reason: 'insecure' };
  return { at: 'chip' };
}

function dispatch(event: FrameEvent): void {
  const before = view;
  const after = next(before, event);
  view = after;
  if (before.at === 'card' && after.at !== 'card') gate.stop();
  elements.show(after, pauses.reason);
  if (before.at !== 'card' && after.at === 'card') gate.start();
  // What had the focus may be hidden now. Focus elsewhere in the page is left alone.
  if (before.at !== after.at && document.hasFocus()) focusTarget(after)?.focus({ preventScroll: true });
  if (after.at !== 'live' && hub) {
    hub.stop();
    hub = undefined;
  }
  tellPage();
}

/** Where the keyboard goes on in a view that the visitor has just opened. */
function focusTarget(opened: View): HTMLElement | undefined {
  switch (opened.at) {
    case 'chip':
    case 'icon':
      return elements.open;
    case 'card':
      return elements.title;
    case 'live':
      return elements.stop;
    case 'over':
      return elements.again;
    case 'unavailable':
      return undefined;
  }
}

/** Tells the page the phase and the wanted size, if they are new. */
function tellPage(): void {
  const tasks = view.at === 'live' || view.at === 'over' ? view.tasks : 0;
  const height = Math.max(44, Math.ceil(elements.root.getBoundingClientRect().height));
  const size = { type: 'resize', width: viewWidth(view), height } as const;
  const state = { type: 'state', phase: embedPhase(view), tasks } as const;
  const text = JSON.stringify([size, state]);
  if (text === lastSent) return;
  lastSent = text;
  embed.send(size);
  embed.send(state);
}

function obeyPage(message: ToFrame): void {
  switch (message.type) {
    case 'hello':
      lastSent = '';
      embed.send({ type: 'ready' });
      tellPage();
      return;
    case 'visibility':
      pauses.setPageVisible(message.visible);
      return;
    case 'stop':
      dispatch({ type: 'stop' });
      return;
  }
}

function applyPause(): void {
  if (!hub) return;
  if (pauses.reason) hub.post({ kind: 'pause', detail: pauses.reason });
  else hub.post({ kind: 'resume' });
  elements.show(view, pauses.reason);
}

function agree(event: MouseEvent): void {
  // A script of the page can't click here, but one of an extension could.
  if (!event.isTrusted || !gate.isOpen || view.at !== 'card') return;
  if (!presence.vouchesFor(event)) {
    elements.showPressAgain();
    return;
  }
  dispatch({ type: 'agree' });
  void startHub();
}

/** Starts the hub once it is known whether it may work now: where it may not, it downloads nothing yet. */
async function startHub(): Promise<void> {
  await pauses.watch();
  // The visitor may have stopped meanwhile, and even agreed again.
  if (view.at !== 'live' || hub) return;
  hub = new HubClient(config, elements.shareValue, pauses.reason, receive);
  elements.show(view, pauses.reason);
}

function receive(message: FromHub): void {
  dispatch({ type: 'status', phase: message.phase, tasks: message.tasks });
}

elements.open.addEventListener('click', () => dispatch({ type: 'open' }));
elements.again.addEventListener('click', () => dispatch({ type: 'open' }));
elements.close.addEventListener('click', () => dispatch({ type: 'close' }));
elements.no.addEventListener('click', () => dispatch({ type: 'not_now' }));
elements.stop.addEventListener('click', () => dispatch({ type: 'stop' }));
elements.yes.addEventListener('click', agree);
elements.share.addEventListener('input', () => elements.showShare());
elements.share.addEventListener('change', () => hub?.post({ kind: 'share', share: elements.shareValue }));
addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && view.at === 'card') dispatch({ type: 'dismiss' });
});
new ResizeObserver(() => tellPage()).observe(elements.root);

elements.showShare();
elements.showSight('waiting');
elements.show(view, undefined);
