/** Reasons to rest: the page is hidden, the visitor's Stop is out of sight, the device runs on battery, the visitor saves data. */

import type { PauseReason } from './state.ts';

/** A browser that takes longer to tell of its battery is not waited for. */
const BATTERY_MS_MAX = 500;

/** What some browsers offer beyond the DOM's types. */
interface Battery extends EventTarget {
  readonly charging: boolean;
}
interface Connection extends EventTarget {
  readonly saveData?: boolean;
}
interface NavigatorExtras {
  getBattery?: () => Promise<Battery>;
  readonly connection?: Connection;
}

/** Offered where the browser will tell when the device runs on battery. */
const SHARE_OFFERED = 0.2;
/** Where it will not, work goes on on battery: less of it. */
const SHARE_OFFERED_BLIND = 0.1;

/** The part of a frame's surroundings that says what it may learn of the battery. */
export interface BatteryRules {
  readonly getBattery?: unknown;
  /** The page's rules for the frame, where the browser has them; it may have none for the battery. */
  readonly featurePolicy?: { features(): readonly string[]; allowsFeature(name: string): boolean } | undefined;
}

/** The share that the card offers. */
export function offeredShare(rules: BatteryRules): number {
  const policy = rules.featurePolicy;
  const isForbidden = policy?.features().includes('battery') === true && !policy.allowsFeature('battery');
  const tells = typeof rules.getBattery === 'function' && !isForbidden;
  return tells ? SHARE_OFFERED : SHARE_OFFERED_BLIND;
}

export class Pauses {
  readonly #reasons = new Set<PauseReason>();
  readonly #changed: () => void;
  #watching: Promise<void> | undefined;
  /** Whether the page around the frame is visible, as the loader says. */
  #pageVisible = true;

  constructor(changed: () => void) {
    this.#changed = changed;
  }

  /** The reason that is shown, the most important first. */
  get reason(): PauseReason | undefined {
    return (['hidden', 'unseen', 'data_saver', 'battery'] as const).find((reason) => this.#reasons.has(reason));
  }

  /** Begins to watch, once the visitor has agreed; resolves when the first state of all reasons is known. */
  watch(): Promise<void> {
    this.#watching ??= this.#watch();
    return this.#watching;
  }

  async #watch(): Promise<void> {
    const extras = navigator as NavigatorExtras;
    document.addEventListener('visibilitychange', () => this.#watchVisibility());
    this.#watchVisibility();
    const connection = extras.connection;
    const saver = (): void => this.#set('data_saver', connection?.saveData === true);
    connection?.addEventListener?.('change', saver);
    saver();
    // Where the browser keeps the battery from frames, nothing is known of it.
    const known = extras.getBattery?.().then(
      (battery) => {
        const charge = (): void => this.#set('battery', !battery.charging);
        battery.addEventListener('chargingchange', charge);
        charge();
      },
      () => undefined,
    );
    await Promise.race([known, new Promise((resolve) => setTimeout(resolve, BATTERY_MS_MAX))]);
  }

  setPageVisible(visible: boolean): void {
    this.#pageVisible = visible;
    this.#watchVisibility();
  }

  /** Whether the visitor can see the button that ends the work. */
  setInSight(isInSight: boolean): void {
    this.#set('unseen', !isInSight);
  }

  #watchVisibility(): void {
    this.#set('hidden', document.hidden || !this.#pageVisible);
  }

  #set(reason: PauseReason, holds: boolean): void {
    const before = this.reason;
    if (holds) this.#reasons.add(reason);
    else this.#reasons.delete(reason);
    if (this.reason !== before) this.#changed();
  }
}
