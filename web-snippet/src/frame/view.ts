/** The frame's elements, and how a view is put into them. */

import type { PauseReason, View } from './state.ts';
import { HINT_PRESS_AGAIN, liveText, overText, SIGHT_HINTS, taskCount, unavailableText } from './text.ts';
import type { Sight } from './gate.ts';

function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(`raven-${id}`);
  // The page and this script come from one build.
  if (!found) throw new Error(`raven-${id} is missing`);
  return found as T;
}

export class Elements {
  readonly root = document.getElementById('raven') as HTMLElement;
  readonly open = element<HTMLButtonElement>('open');
  readonly card = element('card');
  readonly title = element('title');
  readonly share = element<HTMLInputElement>('share');
  readonly words = element('words');
  readonly foot = element('foot');
  readonly actions = element('actions');
  readonly yes = element<HTMLButtonElement>('yes');
  readonly no = element<HTMLButtonElement>('no');
  readonly stop = element<HTMLButtonElement>('stop');
  readonly again = element<HTMLButtonElement>('again');
  readonly close = element<HTMLButtonElement>('close');
  readonly #shareText = element<HTMLOutputElement>('share-text');
  readonly #shareField = element('share-field');
  readonly #shareHome = element('share-home');
  readonly #shareLive = element('share-live');
  readonly #hint = element('hint');
  readonly #live = element('live');
  readonly #status = element('status');
  readonly #tasks = element('tasks');
  readonly #over = element('over');
  readonly #overText = element('over-text');

  /** The chosen share, as a part of one. */
  get shareValue(): number {
    return Number(this.share.value) / 100;
  }

  showShare(): void {
    const text = `${this.share.value} %`;
    this.#shareText.value = text;
    this.share.setAttribute('aria-valuetext', text);
  }

  showSight(sight: Sight): void {
    this.yes.disabled = sight !== 'seen';
    setText(this.#hint, SIGHT_HINTS[sight]);
  }

  /** After a click that could have been meant for the page. */
  showPressAgain(): void {
    setText(this.#hint, HINT_PRESS_AGAIN);
  }

  show(view: View, pause: PauseReason | undefined): void {
    this.root.dataset.view = view.at;
    this.open.hidden = !(view.at === 'chip' || view.at === 'icon');
    this.open.setAttribute('aria-expanded', String(view.at === 'card'));
    this.card.hidden = view.at !== 'card';
    this.#live.hidden = view.at !== 'live';
    this.#over.hidden = !(view.at === 'over' || view.at === 'unavailable');
    const home = view.at === 'live' ? this.#shareLive : this.#shareHome;
    if (this.#shareField.parentElement !== home) home.append(this.#shareField);
    if (view.at === 'live') {
      this.root.dataset.work = view.phase.name;
      setText(this.#status, liveText(view.phase, pause));
      setText(this.#tasks, taskCount(view.tasks));
    } else if (view.at === 'over') {
      setText(this.#overText, overText(view.phase, view.tasks));
      this.again.hidden = this.close.hidden = false;
    } else if (view.at === 'unavailable') {
      setText(this.#overText, unavailableText(view.reason));
      this.again.hidden = this.close.hidden = true;
    }
  }
}

/** Writes only what changed: screen readers announce every write to a status. */
function setText(target: HTMLElement, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}
