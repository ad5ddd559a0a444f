/**
 * Whether a click was meant for this frame. The page around can move the frame
 * under a pointer that is about to click something else; the frame then sees
 * the pointer for the first time at the click, or a moment before.
 * The same holds for a control that is changed: its change follows a press.
 */

/** A mouse must have been in the frame for this long before it is pressed. */
const PRESENT_MS_MIN = 300;

export class Presence {
  /** When the mouse came into the frame, on the clock of events. */
  #since: number | undefined;
  /** Whether the mouse was here for long enough when it was last pressed. */
  #wasPresent = false;
  /** Whether what came last, a press or a key, was meant for this frame. Devices that help people need neither. */
  #wasMeant = true;
  /** Whether a script clicked last: the change that follows counts as trusted. */
  #isForged = false;

  constructor(target: Document) {
    const here = (event: PointerEvent): void => {
      if (event.isTrusted && event.pointerType === 'mouse') this.#since ??= event.timeStamp;
    };
    target.addEventListener('pointerover', here, true);
    target.addEventListener('pointermove', here, true);
    target.addEventListener('pointerdown', (event) => this.#press(event), true);
    target.addEventListener('keydown', (event) => this.#keyed(event), true);
    target.addEventListener('click', (event) => void (this.#isForged = !event.isTrusted), true);
    // Out of the frame, not only out of an element. Some browsers say only one of the two.
    const gone = (): void => void (this.#since = undefined);
    target.documentElement.addEventListener('pointerleave', gone);
    target.addEventListener('pointerout', (event) => event.relatedTarget === null && !this.#isInside(event) && gone(), true);
  }

  /** Keys have no place that could be moved, and a finger is not seen before it touches. */
  vouchesFor(click: MouseEvent): boolean {
    return click.detail === 0 || this.#wasPresent;
  }

  /** Of a control that was changed: its change tells nothing of the press or the key before it. */
  vouchesForChange(change: Event): boolean {
    return change.isTrusted && !this.#isForged && this.#wasMeant;
  }

  /** An element that vanishes below the mouse also sends it out of itself to nothing. */
  #isInside({ clientX, clientY }: PointerEvent): boolean {
    return clientX >= 0 && clientY >= 0 && clientX < innerWidth && clientY < innerHeight;
  }

  #press(event: PointerEvent): void {
    if (!event.isTrusted) return;
    const isMouse = event.pointerType === 'mouse';
    this.#wasPresent = !isMouse || (this.#since !== undefined && event.timeStamp - this.#since >= PRESENT_MS_MIN);
    if (isMouse) this.#since ??= event.timeStamp;
    this.#wasMeant = this.#wasPresent;
    this.#isForged = false;
  }

  #keyed(event: KeyboardEvent): void {
    if (!event.isTrusted) return;
    this.#wasMeant = true;
    this.#isForged = false;
  }
}
