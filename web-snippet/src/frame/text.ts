/** The frame's sentences that are not in its page. */

import type { FailureKind, HubPhase } from '../shared/hub-port.ts';
import type { Sight } from './gate.ts';
import type { PauseReason, View } from './state.ts';

const PAUSES: Record<PauseReason, string> = {
  hidden: 'Paused: page hidden',
  battery: 'Paused: on battery',
  data_saver: 'Paused: saving data',
};

export function liveText(phase: HubPhase, pause: PauseReason | undefined): string {
  switch (phase.name) {
    case 'loading':
    case 'connecting':
      return 'Starting';
    case 'idle':
      return 'Idle, no work now';
    case 'working':
      return 'Working';
    case 'paused':
      return pause ? PAUSES[pause] : 'Paused';
    case 'waiting':
      return phase.full ? 'Waiting for a place' : 'Reconnecting';
    case 'failed':
    case 'stopped':
      return 'Stopped';
  }
}

const FAILURES: Record<FailureKind, string> = {
  kernel_load: 'The program could not be loaded. Please try again later.',
  unsupported: 'This browser is too old to take part.',
  incompatible: 'There is a newer version. Please reload the page.',
  text_changed: 'The terms have changed. Please reload the page and read them again.',
  no_consent: 'Your consent could not be recorded, so nothing is computed.',
  bad_ticket: 'This site is not registered any more, or the page is too old. Please reload it.',
  kernel_crash: 'The program stopped repeatedly on this device, perhaps for lack of memory.',
  rejected: 'The server and this browser do not understand each other. Please reload the page.',
};

export function taskCount(tasks: number): string {
  return tasks === 1 ? '1 task done' : `${tasks.toLocaleString('en')} tasks done`;
}

export function overText(phase: HubPhase, tasks: number): string {
  if (phase.name === 'failed') return FAILURES[phase.failure];
  return tasks > 0 ? `Stopped. Thank you: ${taskCount(tasks)}.` : 'Stopped. Nothing is running.';
}

export function unavailableText(reason: Extract<View, { at: 'unavailable' }>['reason']): string {
  switch (reason) {
    case 'insecure':
      return 'Lending computing power needs a page served over https.';
    case 'not_embedded':
      return 'This page is a part of other sites and does nothing by itself.';
  }
}

/** What keeps the visitor from agreeing, where they can do something about it. */
export const SIGHT_HINTS: Record<Sight, string> = {
  waiting: '',
  covered: 'Something covers this card. Please uncover it before you agree.',
  cramped: 'There is too little room for this card. Please enlarge or turn the window.',
  unread: 'Please scroll through the text before you agree.',
  seen: '',
};

export const HINT_PRESS_AGAIN = 'Please press once more.';
