/** What the frame shows, and how events change it. Pure. */

import type { EmbedPhase } from '../shared/embed-port.ts';
import type { Earner, GpuStatus, HubPhase, Results } from '../shared/hub-port.ts';
import type { About } from '../wire/message.ts';
import type { Given, Uncollected } from './claim.ts';

/** Why work rests although the visitor agreed. */
export type PauseReason = 'hidden' | 'unseen' | 'battery' | 'data_saver';

/** What a visit has moved, and may move in all, both ways together. */
export interface Traffic {
  readonly bytes: number;
  readonly bytesMax: number;
}

type NotGiven = Exclude<Given, 'taken'>;

export type View =
  /** Collapsed, with its question. */
  | { readonly at: 'chip' }
  /** Collapsed after a "not now", of now or of an earlier page: only the mark is left. */
  | { readonly at: 'icon' }
  /** The question with all that belongs to it. */
  | { readonly at: 'card' }
  /** The visitor agreed. */
  | {
      readonly at: 'live';
      readonly phase: HubPhase;
      readonly tasks: number;
      readonly traffic?: Traffic | undefined;
      readonly gpu?: GpuStatus | undefined;
      readonly earner?: Earner | undefined;
      readonly about?: About | undefined;
      readonly results?: Results | undefined;
    }
  /** Work ended: by the visitor, or because it can't go on. */
  | { readonly at: 'over'; readonly phase: HubPhase; readonly tasks: number; readonly results?: Results | undefined }
  /** The visitor said "never here", and what this browser has earned is still to be collected or given away. */
  | { readonly at: 'leaving'; readonly uncollected: Uncollected | undefined; readonly isLinked: boolean; readonly failed?: NotGiven }
  /** The visitor said "never here": nothing is shown. */
  | { readonly at: 'gone' }
  /** This page can't take part at all. */
  | { readonly at: 'unavailable'; readonly reason: 'insecure' | 'not_embedded' };

export type Event =
  /** The page remembers a "not now". */
  | { readonly type: 'quiet' }
  | { readonly type: 'open' }
  | { readonly type: 'dismiss' }
  | { readonly type: 'not_now' }
  | { readonly type: 'never' }
  | { readonly type: 'agree' }
  /** A "never here" holds. `isAsked`: the visitor has the page show the frame all the same, which is then only its mark. */
  | { readonly type: 'refused'; readonly isAsked: boolean }
  /** Whoever leaves for good leaves something behind; how much is not always known. */
  | { readonly type: 'leave'; readonly uncollected: Uncollected | undefined }
  /** The link that collects was opened. */
  | { readonly type: 'linked' }
  /** The coordinator could not be told, or did not take it. */
  | { readonly type: 'not_left'; readonly why: NotGiven }
  /** Nothing of the visitor is left. */
  | { readonly type: 'left' }
  /** The visitor agreed on an earlier page of the site, and the yes still holds. */
  | { readonly type: 'recall' }
  /** Of this browser's key a result was proven wrong, on an earlier page of the site or in another tab. */
  | { readonly type: 'excluded' }
  | { readonly type: 'stop' }
  | { readonly type: 'close' }
  | {
      readonly type: 'status';
      readonly phase: HubPhase;
      readonly tasks: number;
      readonly traffic?: Traffic | undefined;
      readonly gpu?: GpuStatus | undefined;
      readonly earner?: Earner | undefined;
      readonly about?: About | undefined;
      readonly results?: Results | undefined;
    };

const EXCLUDED: HubPhase = { name: 'failed', failure: 'excluded', detail: '' };

function over(phase: HubPhase, { tasks, results }: { readonly tasks: number; readonly results?: Results | undefined }): View {
  return results ? { at: 'over', phase, tasks, results } : { at: 'over', phase, tasks };
}

export function next(view: View, event: Event): View {
  switch (event.type) {
    case 'quiet':
      return view.at === 'chip' ? { at: 'icon' } : view;
    case 'open':
      return view.at === 'chip' || view.at === 'icon' || view.at === 'over' ? { at: 'card' } : view;
    case 'dismiss':
      return view.at === 'card' ? { at: 'chip' } : view;
    case 'not_now':
    case 'never':
      // The page takes the frame away after a "never"; one with an old loader keeps the mark.
      return view.at === 'card' ? { at: 'icon' } : view;
    case 'agree':
      return view.at === 'card' ? { at: 'live', phase: { name: 'loading' }, tasks: 0 } : view;
    case 'refused':
      if (view.at !== 'chip' && view.at !== 'icon' && view.at !== 'card') return view;
      return { at: event.isAsked ? 'icon' : 'gone' };
    case 'leave':
      return view.at === 'live' || view.at === 'unavailable' ? view : { at: 'leaving', uncollected: event.uncollected, isLinked: false };
    case 'linked':
      return view.at === 'leaving' ? { ...view, isLinked: true } : view;
    case 'not_left':
      return view.at === 'leaving' ? { ...view, failed: event.why } : view;
    case 'left':
      return view.at === 'leaving' ? { at: 'icon' } : view;
    case 'recall':
      return view.at === 'chip' ? { at: 'live', phase: { name: 'loading' }, tasks: 0 } : view;
    case 'excluded':
      if (view.at === 'live') return over(EXCLUDED, view);
      return view.at === 'chip' ? { at: 'over', phase: EXCLUDED, tasks: 0 } : view;
    case 'stop':
      return view.at === 'live' ? over({ name: 'stopped' }, view) : view;
    case 'close':
      return view.at === 'over' ? { at: 'icon' } : view;
    case 'status': {
      if (view.at !== 'live') return view;
      const ended = event.phase.name === 'failed' || event.phase.name === 'stopped';
      const { phase, tasks, traffic, gpu, earner, about, results } = event;
      return ended ? over(phase, event) : { at: 'live', phase, tasks, traffic, gpu, earner, about, results };
    }
  }
}

/** What the partner's page is told. */
export function embedPhase(view: View): EmbedPhase {
  switch (view.at) {
    case 'chip':
    case 'card':
      return 'asking';
    case 'icon':
    case 'leaving':
    case 'gone':
      return 'stopped';
    case 'unavailable':
      return 'unavailable';
    case 'over':
      return view.phase.name === 'failed' ? 'unavailable' : 'stopped';
    case 'live':
      return livePhase(view.phase);
  }
}

function livePhase(phase: HubPhase): EmbedPhase {
  switch (phase.name) {
    case 'loading':
    case 'connecting':
    case 'waiting':
      return 'starting';
    case 'idle':
    case 'working':
    case 'paused':
    case 'stopped':
      return phase.name;
    // To the page it is one visitor, who is at work.
    case 'elsewhere':
      return 'paused';
    case 'failed':
      return 'unavailable';
  }
}

/** Width that a view wants, in CSS pixels; its height follows from its content, as does the width of the chip. */
export function viewWidth(view: Exclude<View, { at: 'chip' }>): number {
  switch (view.at) {
    case 'icon':
    case 'gone':
      return 44;
    case 'card':
      return 392;
    case 'live':
    case 'over':
    case 'leaving':
    case 'unavailable':
      return 300;
  }
}
