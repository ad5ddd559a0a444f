/** `window.raven`: what the page may know and do. */

import type { EmbedPhase, TokenRefusal } from '../shared/embed-port.ts';

/** What the page may know. */
export interface RavenState {
  /** `off`: nothing is shown, because the page waits for a consent manager or the visitor said "never here". */
  readonly phase: EmbedPhase | 'off';
  /** Tasks done since the page was opened. */
  readonly tasks: number;
}

export type Listener = (state: RavenState) => void;

export interface RavenApi {
  /**
   * Shows the frame, collapsed. Within a click of the visitor it also takes back a "never here"; without one it
   * does not: no page asks again by itself.
   */
  show(): void;
  /** Hides the frame. Work pauses meanwhile: the visitor's Stop must be in reach. */
  hide(): void;
  /** Ends the work at once. */
  stop(): void;
  /**
   * The word of the page's consent manager. `true` lets the frame appear where the tag has `data-consent="manual"`;
   * `false` ends the work, removes the frame and forgets the remembered answer, a yes that the frame remembers too.
   */
  consent(given: boolean): void;
  /** Calls `listener` with every new state; the answer ends that. */
  on(event: 'state', listener: Listener): () => void;
  readonly state: RavenState;
  /**
   * The coordinator's signed word for what this visitor has computed on this site, good for five minutes: for the
   * site's server, which checks it. Rejects with a `WorkTokenError`.
   */
  workToken(): Promise<string>;
}

/** Why there is no work token. */
export interface WorkTokenError extends Error {
  /**
   * `not_lending`: nothing is lent in this tab, or there is no connection yet. `refused`: the coordinator gives none
   * or can't be reached, or the visit may move no more. `timeout`: no answer came.
   */
  readonly reason: TokenRefusal | 'timeout';
}

declare global {
  interface Window {
    raven?: RavenApi;
  }
}
