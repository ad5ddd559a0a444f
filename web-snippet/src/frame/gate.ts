/**
 * Whether the visitor can see what they agree to. The answer counts only where
 * the buttons are fully in view, every part of the words has been, and, where
 * the browser can tell, nothing on the card is covered, faded or transformed by
 * the page around the frame.
 */

/** The card must have been in view for this long before an answer counts. */
const SEEN_MS_MIN = 500;
/** A card that is being opened and resized counts as covered, or as unread, for a moment; that is not worth a word, which would take room. */
const HINT_AFTER_MS = 400;
/** Below this size there is no room for words above the buttons. */
const WIDTH_MIN = 240;
const HEIGHT_MIN = 320;
/** Part of the buttons that must be in view; less than one because rectangles are rounded. */
const ACTIONS_RATIO_MIN = 0.99;
/** How finely the observer tells that the words are scrolled: about a third of a line. */
const WORDS_STEPS = 64;
/** What may be missing at either end of the words: less than two lines. */
const WORDS_SLACK_PX = 24;

/** Version 2 of the observer, which the DOM's types do not know yet. */
type VisibilityEntry = IntersectionObserverEntry & { readonly isVisible?: boolean };
type VisibilityOptions = IntersectionObserverInit & { trackVisibility: boolean; delay: number };

export type Sight =
  /** Not in view, or not for long enough. */
  | 'waiting'
  | 'covered'
  /** The frame is too small for the card. */
  | 'cramped'
  /** Some of the words have not been in view yet. */
  | 'unread'
  | 'seen';

/** Words that must have been in view before an answer counts. */
export interface Reading {
  readonly words: Element;
  /** What stays in view while the words scroll below it. */
  readonly foot: Element;
}

/** The parts of a card that are watched. */
export interface GateParts {
  readonly card: Element;
  readonly actions: Element;
  /** Absent where there is nothing to read before. */
  readonly reading?: Reading;
}

export class Gate {
  readonly #parts: GateParts;
  readonly #changed: (sight: Sight) => void;
  readonly #visibility: IntersectionObserver;
  readonly #reading: IntersectionObserver;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #hintTimer: ReturnType<typeof setTimeout> | undefined;
  #sight: Sight = 'waiting';
  #areActionsInView = false;
  /** Those of card and buttons that the browser does not vouch for. */
  readonly #covered = new Set<Element>();
  /** Whether all has been in view for long enough, without a break until now. */
  #hasLasted = false;
  /** The last word of the observer on the words, and the part of them that has been in view, in pixels from their top. */
  #inView: IntersectionObserverEntry | undefined;
  #readFrom = Infinity;
  #readTo = -Infinity;

  constructor(parts: GateParts, changed: (sight: Sight) => void) {
    this.#parts = parts;
    this.#changed = changed;
    // 100 ms is the shortest delay that browsers accept with trackVisibility.
    const options: VisibilityOptions = { threshold: [0, ACTIONS_RATIO_MIN, 1], trackVisibility: true, delay: 100 };
    this.#visibility = new IntersectionObserver((entries) => this.#observeVisibility(entries), options);
    const threshold = Array.from({ length: WORDS_STEPS + 1 }, (_, step) => step / WORDS_STEPS);
    this.#reading = new IntersectionObserver((entries) => this.#observeReading(entries), { threshold });
    addEventListener('resize', () => this.#resized());
    addEventListener('scroll', () => this.#update(), { passive: true });
  }

  get isOpen(): boolean {
    return this.#sight === 'seen' && this.#isLargeEnough;
  }

  start(): void {
    this.stop();
    // Covered until the browser has spoken.
    this.#covered.add(this.#parts.card).add(this.#parts.actions);
    this.#visibility.observe(this.#parts.card);
    this.#visibility.observe(this.#parts.actions);
    if (this.#parts.reading) this.#reading.observe(this.#parts.reading.words);
  }

  stop(): void {
    this.#visibility.disconnect();
    this.#reading.disconnect();
    this.#areActionsInView = false;
    this.#covered.clear();
    this.#inView = undefined;
    this.#readFrom = Infinity;
    this.#readTo = -Infinity;
    this.#update();
  }

  get #isLargeEnough(): boolean {
    return !this.#parts.reading || (innerWidth >= WIDTH_MIN && innerHeight >= HEIGHT_MIN);
  }

  #observeVisibility(entries: readonly VisibilityEntry[]): void {
    for (const entry of entries) {
      if (entry.isVisible === false) this.#covered.add(entry.target);
      else this.#covered.delete(entry.target);
      if (entry.target === this.#parts.actions) {
        this.#areActionsInView = entry.isIntersecting && entry.intersectionRatio >= ACTIONS_RATIO_MIN;
      }
    }
    this.#update();
  }

  /** The words may be longer now while the same part of them is in view, of which the observer says nothing. */
  #resized(): void {
    const { reading } = this.#parts;
    if (this.#inView && reading) {
      this.#reading.unobserve(reading.words);
      this.#reading.observe(reading.words);
    }
    this.#update();
  }

  #observeReading(entries: readonly IntersectionObserverEntry[]): void {
    this.#inView = entries[entries.length - 1];
    this.#update();
  }

  #update(): void {
    const isShown = this.#areActionsInView && this.#covered.size === 0 && this.#isLargeEnough;
    if (!isShown) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#hasLasted = false;
    } else {
      this.#read();
      this.#timer ??= setTimeout(() => {
        this.#hasLasted = true;
        this.#update();
      }, SEEN_MS_MIN);
    }
    this.#become(this.#judge());
  }

  /** Takes note of the words that are in view now; what the foot hides is not. */
  #read(): void {
    const { reading } = this.#parts;
    if (!this.#inView?.isIntersecting || !reading) return;
    // The observer knows what the page around clips, and is silent where only the foot moves; the frame knows that.
    const { boundingClientRect: before, intersectionRect: shown } = this.#inView;
    const words = reading.words.getBoundingClientRect();
    const bottom = Math.min(innerHeight, reading.foot.getBoundingClientRect().top);
    this.#readFrom = Math.min(this.#readFrom, Math.max(shown.top - before.top, -words.top));
    this.#readTo = Math.max(this.#readTo, Math.min(shown.bottom - before.top, bottom - words.top));
  }

  #judge(): Sight {
    if (!this.#areActionsInView) return 'waiting';
    if (!this.#isLargeEnough) return 'cramped';
    if (this.#covered.size > 0) return 'covered';
    if (!this.#hasLasted) return 'waiting';
    const { reading } = this.#parts;
    if (!reading) return 'seen';
    const end = reading.words.getBoundingClientRect().height - WORDS_SLACK_PX;
    return this.#readFrom <= WORDS_SLACK_PX && this.#readTo >= end ? 'seen' : 'unread';
  }

  #become(sight: Sight): void {
    if (sight === this.#sight) return;
    this.#sight = sight;
    clearTimeout(this.#hintTimer);
    // The button is disabled at once; only the words about it wait.
    const isHint = sight === 'covered' || sight === 'cramped' || sight === 'unread';
    if (isHint) this.#changed('waiting');
    this.#hintTimer = isHint ? setTimeout(() => this.#changed(sight), HINT_AFTER_MS) : undefined;
    if (!isHint) this.#changed(sight);
  }
}
