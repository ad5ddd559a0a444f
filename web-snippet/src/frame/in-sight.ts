/**
 * Whether the visitor's Stop is in sight while work goes on. A page can fade, move or cover the frame without a word; then
 * work rests until the button can be seen again.
 *
 * It is looked at now and then: on a frame that is watched for being covered and has just moved, browsers drop presses for a
 * while, and Stop must not wait for that. A look ends as soon as the button is seen.
 */

/** From one look that has seen the button to the next one. */
const LOOK_EVERY_MS = 2_000;
/** A button that is not seen for so long is out of sight: a page that scrolls, or a menu that is open for a moment, is no reason. */
export const UNSEEN_MS_MAX = 4_000;
/** Part of the button that must be in view; less than one because rectangles are rounded. */
const RATIO_MIN = 0.9;

/** Version 2 of the observer, which the DOM's types do not know yet. */
type VisibilityEntry = IntersectionObserverEntry & { readonly isVisible?: boolean };
type VisibilityOptions = IntersectionObserverInit & { trackVisibility: boolean; delay: number };

export class InSight {
  readonly #button: Element;
  readonly #changed: (isInSight: boolean) => void;
  readonly #observer: IntersectionObserver;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isLooking = false;

  constructor(button: Element, changed: (isInSight: boolean) => void) {
    this.#button = button;
    this.#changed = changed;
    // Browsers without version 2 take no notice of what they do not know, and tell of what is out of view.
    const options: VisibilityOptions = { threshold: [0, RATIO_MIN, 1], trackVisibility: true, delay: 100 };
    this.#observer = new IntersectionObserver((entries) => this.#see(entries), options);
  }

  /** @param isInSight whether the visitor has just pressed something beside the button; otherwise work waits for the first look. */
  start(isInSight: boolean): void {
    this.#end();
    this.#changed(isInSight);
    this.#look();
  }

  /** Nothing is at work any more, so that nothing has to be in sight. */
  stop(): void {
    this.#end();
    this.#changed(true);
  }

  /** A tab that is hidden rests anyway, and is not looked at: what was seen before counts when it is back. */
  again(): void {
    if (this.#isLooking) this.#look();
  }

  #end(): void {
    clearTimeout(this.#timer);
    this.#observer.disconnect();
    this.#isLooking = false;
  }

  #look(): void {
    this.#end();
    this.#isLooking = true;
    this.#observer.observe(this.#button);
    this.#timer = setTimeout(() => this.#miss(), UNSEEN_MS_MAX);
  }

  /** The look goes on until the button is seen. */
  #miss(): void {
    if (!document.hidden) this.#changed(false);
  }

  #see(entries: readonly VisibilityEntry[]): void {
    const last = entries[entries.length - 1];
    if (!this.#isLooking || !last?.isIntersecting || last.intersectionRatio < RATIO_MIN || last.isVisible === false) return;
    this.#end();
    this.#changed(true);
    this.#timer = setTimeout(() => this.#look(), LOOK_EVERY_MS);
  }
}
