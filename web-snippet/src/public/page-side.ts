/** The page's side of the frame: what is shown when, and what the page is told. */

import { envelope, readToLoader, type ToFrame, type ToLoader } from '../shared/embed-port.ts';
import type { Listener, RavenState } from './api.ts';
import { createHolder, type Holder } from './holder.ts';
import { createMemory, type Memory } from './memory.ts';
import type { Tag } from './tag.ts';
import { Tokens } from './tokens.ts';
import { explain, INSECURE, readViolation, warn } from './trouble.ts';

/** A frame that has loaded answers within a few milliseconds; one that was blocked has loaded too, and never does. */
export const SILENCE_AFTER_LOAD_MS = 3_000;
/** A frame that has not even loaded by now is worth a word. */
const SILENCE_MS = 20_000;
/** A frame that is to forget a yes may take so long; then it is removed at any rate, and told again when it is back. */
const FORGET_MS_MAX = 1_000;

/** Runs once the page has loaded, so that the frame never delays it. */
function afterLoad(run: () => void): void {
  const whenIdle = (): void => {
    if ('requestIdleCallback' in window) window.requestIdleCallback(run, { timeout: 1_000 });
    else setTimeout(run, 50);
  };
  if (document.readyState === 'complete') whenIdle();
  else window.addEventListener('load', whenIdle, { once: true });
}

/** Whether the visitor has just done something; where the browser does not tell, the page is believed. */
function isVisitorActing(): boolean {
  const activation = (navigator as { userActivation?: { isActive: boolean } }).userActivation;
  return !activation || activation.isActive;
}

// `private` and not `#`: for old browsers the latter becomes a map per field.
export class PageSide {
  state: RavenState = { phase: 'off', tasks: 0 };
  readonly tokens = new Tokens((id) => this.askToken(id));
  private readonly tag: Tag;
  private readonly memory: Memory = createMemory(() => localStorage, Date.now);
  private readonly holder: Holder;
  private readonly listeners = new Set<Listener>();
  private isPermitted: boolean;
  private isHidden = false;
  /** The visitor has had the page show the frame: one that holds a "never here" then shows its mark. */
  private isAsked = false;
  private isLoaded = false;
  /** Whether the frame that is in the page now has answered. */
  private isReady = false;
  /** The yes was taken back, and the frame has not confirmed it yet. */
  private owesForget = false;
  /** Runs while a frame is still in the page only to forget. */
  private forgetting: ReturnType<typeof setTimeout> | undefined;
  /** Runs while the frame owes its first word. */
  private silence: ReturnType<typeof setTimeout> | undefined;
  private hasComplained = false;

  constructor(tag: Tag) {
    this.tag = tag;
    this.isPermitted = !tag.waits;
    this.holder = createHolder(tag, () => this.placed());
    if (!isSecureContext) {
      this.complain(INSECURE);
      return;
    }
    this.listen();
    afterLoad(() => {
      this.isLoaded = true;
      this.apply();
    });
  }

  show(): void {
    this.isPermitted = true;
    this.isHidden = false;
    this.isAsked = isVisitorActing();
    if (this.isAsked && this.memory.recall() === 'never') this.memory.forget();
    this.apply();
  }

  hide(): void {
    this.isHidden = true;
    this.apply();
  }

  stop(): void {
    if (this.canHear()) this.send({ type: 'stop' });
    // A frame that is not there yet would miss the word. A stop is the end of a yes, so that it may hear it like this.
    else this.owesForget = true;
  }

  consent(given: boolean): void {
    this.isPermitted = given;
    if (given) this.endForgetting();
    else this.withdraw();
    this.apply();
  }

  on(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  private listen(): void {
    const { frame } = this.holder;
    window.addEventListener('message', (event) => {
      if (event.origin !== this.tag.origin || !frame.contentWindow || event.source !== frame.contentWindow) return;
      const message = readToLoader(event.data);
      if (message) this.receive(message);
    });
    frame.addEventListener('load', () => {
      if (this.silence !== undefined) this.expectAnswer(SILENCE_AFTER_LOAD_MS);
      const answer = this.memory.recall();
      this.send({ type: 'hello', quiet: answer === 'not_now', forget: this.owesForget || answer === 'withdrawn', asked: this.isAsked });
    });
    document.addEventListener('visibilitychange', () => this.sendVisibility());
    document.addEventListener('securitypolicyviolation', (event) => {
      const text = readViolation(event, this.tag.origin);
      if (text) this.complain(text);
    });
  }

  private receive(message: ToLoader): void {
    const { frame } = this.holder;
    if (message.type === 'forgotten') {
      this.forgotten();
      return;
    }
    // A frame that is going has nothing else to say.
    if (this.forgetting !== undefined) return;
    switch (message.type) {
      case 'ready':
        this.endSilence();
        this.isReady = true;
        // Wished since the frame was greeted.
        if (this.owesForget) this.send({ type: 'forget' });
        frame.style.visibility = 'visible';
        this.sendVisibility();
        return;
      case 'resize':
        frame.style.width = `${message.width}px`;
        frame.style.height = `${message.height}px`;
        return;
      case 'state':
        this.become({ phase: message.phase, tasks: message.tasks });
        return;
      case 'work_token':
        this.tokens.answer(message);
        return;
      case 'answer':
        // A new yes is not the one that was taken back.
        if (message.answer === 'yes') this.owesForget = false;
        this.memory.remember(message.answer);
        this.apply();
        return;
    }
  }

  /** Has the frame forget a yes before it is removed; one that is not here hears of it when it is. */
  private withdraw(): void {
    this.owesForget = true;
    // Also on the site's next pages. Of a visitor who never agreed nothing is kept.
    const answer = this.memory.recall();
    if (answer === 'yes') this.memory.remember('withdrawn');
    else if (answer !== 'withdrawn') this.memory.forget();
    if (!this.canHear() || this.forgetting !== undefined) return;
    this.send({ type: 'forget' });
    this.forgetting = setTimeout(() => {
      this.endForgetting();
      this.apply();
    }, FORGET_MS_MAX);
  }

  private forgotten(): void {
    this.owesForget = false;
    if (this.memory.recall() === 'withdrawn') this.memory.forget();
    this.endForgetting();
    this.apply();
  }

  /** Removes a frame that was to forget. One that comes after it starts anew. */
  private endForgetting(): void {
    if (this.forgetting === undefined) return;
    clearTimeout(this.forgetting);
    this.forgetting = undefined;
    this.remove();
  }

  private remove(): void {
    this.isReady = false;
    this.tokens.clear();
    this.endSilence();
    // With the frame its workers end.
    this.holder.detach();
  }

  /** Brings the page to what is permitted now. */
  private apply(): void {
    if (!this.isLoaded) return;
    const isForgetting = this.forgetting !== undefined;
    this.holder.frame.style.display = this.isHidden || isForgetting ? 'none' : 'block';
    if (this.isPermitted && this.memory.recall() !== 'never') {
      this.holder.attach();
      this.sendVisibility();
    } else {
      if (!isForgetting) this.remove();
      this.become({ phase: 'off', tasks: 0 });
    }
  }

  /** The frame is in the page, or in it again, and starts anew. */
  private placed(): void {
    this.isReady = false;
    this.tokens.clear();
    this.become({ phase: 'asking', tasks: 0 });
    this.expectAnswer(SILENCE_MS);
  }

  /** A page may have removed the frame, which comes back a moment later. */
  private canHear(): boolean {
    return this.isReady && this.holder.frame.isConnected;
  }

  private askToken(id: number): boolean {
    const canHear = this.canHear();
    if (canHear) this.send({ type: 'work_token', id });
    return canHear;
  }

  private send(message: ToFrame): void {
    const { contentWindow } = this.holder.frame;
    if (contentWindow) contentWindow.postMessage(envelope(message), this.tag.origin);
  }

  private sendVisibility(): void {
    this.send({ type: 'visibility', visible: !document.hidden && !this.isHidden });
  }

  private become(state: RavenState): void {
    if (state.phase === this.state.phase && state.tasks === this.state.tasks) return;
    this.state = state;
    this.listeners.forEach((listener) => {
      try {
        listener(state);
      } catch (error) {
        // A listener of the page must not keep the others from hearing.
        console.error(error);
      }
    });
  }

  private expectAnswer(ms: number): void {
    this.endSilence();
    const timer = setTimeout(() => {
      void explain(this.tag).then((text) => {
        // It may have answered meanwhile.
        if (this.silence === timer) this.complain(text);
      });
    }, ms);
    this.silence = timer;
  }

  private endSilence(): void {
    clearTimeout(this.silence);
    this.silence = undefined;
  }

  private complain(text: string): void {
    this.endSilence();
    this.become({ phase: 'unavailable', tasks: 0 });
    // Once a page: what is wrong stays wrong.
    if (!this.hasComplained) warn(text);
    this.hasComplained = true;
  }
}
