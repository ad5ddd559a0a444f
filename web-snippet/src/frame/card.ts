/** The frame at work: its view, the hub behind it, and the page around it. */

import type { Answer, ToFrame } from '../shared/embed-port.ts';
import type { FromHub, TokenAnswer } from '../shared/hub-port.ts';
import { forgetKeys, retireKey } from '../shared/key-store.ts';
import { Earned, LINK_MS } from './claim.ts';
import type { PageConfig } from './config.ts';
import type { Embed } from './embed.ts';
import { Gate, type Sight } from './gate.ts';
import { HubClient, stopOtherTabs } from './hub-client.ts';
import { InSight } from './in-sight.ts';
import { Memory, type Choices } from './memory.ts';
import { offeredShare, Pauses, type BatteryRules } from './pauses.ts';
import { Presence } from './presence.ts';
import { fetchQueue, tellShown } from './queue.ts';
import { embedPhase, next, viewWidth, type Event as FrameEvent, type View } from './state.ts';
import type { Text } from './text.ts';
import { Traces } from './traces.ts';
import { Elements } from './view.ts';

/** A question that is not laid out yet has no width. */
const CHIP_WIDTH_MIN = 120;
/** Counts of tasks and bytes are shown this often at most. */
const COUNT_SHOWN_EVERY_MS = 500;
/** How long after the visitor was last at the controls of the panel it is watched. */
const WATCHED_MS = 10_000;
/** A yes is to what holds now: what the card was told longer ago than this is asked for again. */
const FRESH_MS = 10 * 60 * 1000;
/** What says that the visitor is about to change something; that a control has come to be below the pointer does not. */
const APPROACHES = ['pointermove', 'pointerdown', 'focusin', 'keydown'] as const;

type StatusEvent = Extract<FrameEvent, { type: 'status' }>;

function firstView(): View {
  if (parent === window) return { at: 'unavailable', reason: 'not_embedded' };
  if (!isSecureContext) return { at: 'unavailable', reason: 'insecure' };
  return { at: 'chip' };
}

export class Card {
  readonly #config: PageConfig;
  readonly #embed: Embed;
  readonly #elements: Elements;
  readonly #gate: Gate;
  /** What raises a yes needs what a yes needs. */
  readonly #liveGate: Gate;
  /** Nothing is given unasked before the visitor has seen the question. */
  readonly #leavingGate: Gate;
  /** Runs while the gate of the panel watches. */
  #watching: ReturnType<typeof setTimeout> | undefined;
  readonly #presence = new Presence(document);
  /** What the card shows, as the coordinator named it, and when it did. */
  #shown: { readonly view: string; readonly at: number };
  /** What it showed when the visitor said yes. */
  #agreedTo = '';
  /** Whether it was told that the card has come into view. */
  #isShown = false;
  readonly #pauses: Pauses;
  /** Whether Stop can be seen while there is something to stop. */
  readonly #inSight: InSight;
  #view: View = firstView();
  #hub: HubClient | undefined;
  #lastSent = '';
  readonly #memory: Memory;
  readonly #traces: Traces;
  /** Counts the answers: one that comes after a "never" ends what was begun for that. */
  #answers = 0;
  /** Bytes that the visit has moved, as far as this page knows. */
  #bytes = 0;
  /** The page's wishes for a work token that are not answered yet. */
  readonly #asking: number[] = [];
  /** What holds while work goes on. */
  #chosen: Choices;
  readonly #earned: Earned;
  /** The hub whose key is noted there. */
  #noted: HubClient | undefined;
  /** What is not shown yet, because something has just been. */
  #unshown: StatusEvent | undefined;
  #countTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(config: PageConfig, text: Text, embed: Embed) {
    this.#config = config;
    const { site, textVersion, view } = config;
    this.#shown = { view, at: Date.now() };
    this.#memory = new Memory(() => localStorage, () => Date.now(), site, textVersion);
    this.#traces = new Traces(() => localStorage, () => Date.now(), site);
    this.#earned = new Earned(site, location.origin);
    this.#embed = embed;
    const { siteName, visitBytesMax, unclaimedDays } = config;
    this.#elements = new Elements(text, { site: siteName, cap: text.megabytes(visitBytesMax), days: String(unclaimedDays) });
    this.#chosen = this.#elements.choices;
    this.#gate = new Gate(this.#elements.asked, (sight) => this.#see(sight));
    this.#liveGate = new Gate(this.#elements.changed, () => undefined);
    this.#leavingGate = new Gate(this.#elements.left, (sight) => this.#noteAsked(sight));
    this.#pauses = new Pauses(() => this.#applyPause());
    this.#inSight = new InSight(this.#elements.stop, (isInSight) => this.#pauses.setInSight(isInSight));
    this.#listen();
    const { getBattery } = navigator as BatteryRules;
    this.#elements.setShare(offeredShare({ getBattery, featurePolicy: (document as BatteryRules).featurePolicy }));
    // Of the adapter nothing is asked before a yes.
    this.#elements.offerGpu(config.gpu !== 'no' && 'gpu' in navigator);
    this.#elements.showSight('waiting');
    this.#elements.show(this.#view, undefined);
  }

  /** What the gate sees of the card. One that can be read is in view. */
  #see(sight: Sight): void {
    this.#elements.showSight(sight);
    if (this.#isShown || !(sight === 'seen' || sight === 'unread')) return;
    this.#isShown = true;
    tellShown(this.#config.ticket);
  }

  obeyPage(message: ToFrame): void {
    switch (message.type) {
      case 'hello':
        this.#greet(message);
        return;
      case 'visibility':
        this.#pauses.setPageVisible(message.visible);
        return;
      case 'stop':
        this.#stop();
        return;
      case 'work_token':
        this.#askToken(message.id);
        return;
      case 'forget':
        this.#forget();
        return;
    }
  }

  /** The page has loaded the frame, and says what it remembers. */
  #greet({ quiet, asked, forget }: Extract<ToFrame, { type: 'hello' }>): void {
    // A frame of before kept a key with the yes and no word of it.
    const isUnnoted = this.#memory.isThere && !this.#traces.hasKey;
    if (quiet) this.#dispatch({ type: 'quiet' });
    if (this.#traces.neverSince !== undefined) this.#refuse(asked);
    this.#lastSent = '';
    this.#embed.send({ type: 'ready' });
    this.#tellPage();
    if (forget) this.#forget();
    // Before the card is opened: nothing moves in it for that.
    void this.#offerEarned();
    if (this.#traces.neverSince === undefined) this.#recall();
    // Whoever has the mark shown may open it; what they left behind is asked about at the next no.
    else if (!asked) void this.#hold();
    // A yes that has run out is gone by now.
    if (isUnnoted) this.#traces.noteKey();
  }

  /** However often the page asks, the coordinator is asked once at a time. */
  #askToken(id: number): void {
    if (!this.#hub) {
      this.#embed.send({ type: 'work_token', id, refusal: 'not_lending' });
      return;
    }
    if (this.#asking.push(id) === 1) this.#hub.post({ kind: 'work_token' });
  }

  #tellToken(answer: TokenAnswer): void {
    for (const id of this.#asking.splice(0)) this.#embed.send({ type: 'work_token', id, ...answer });
  }

  #listen(): void {
    const { open, again, close, no, never, stop, yes, share, cpu, gpu, root } = this.#elements;
    open.addEventListener('click', () => this.#dispatch({ type: 'open' }));
    again.addEventListener('click', () => this.#dispatch({ type: 'open' }));
    close.addEventListener('click', () => this.#dispatch({ type: 'close' }));
    no.addEventListener('click', () => this.#answer('not_now'));
    never.addEventListener('click', () => this.#answer('never'));
    stop.addEventListener('click', () => this.#stop());
    yes.addEventListener('click', (event) => this.#agree(event));
    share.addEventListener('input', () => this.#elements.showShare());
    const kinds = this.#elements.kinds.values();
    for (const control of [share, cpu, gpu, ...kinds]) control.addEventListener('change', (event) => this.#choose(event));
    for (const type of APPROACHES) this.#elements.changed.actions.addEventListener(type, () => this.#watch());
    const { keep, overKeep, cardKeep, leavingKeep, leavingGive } = this.#elements;
    for (const button of [keep, overKeep, cardKeep, leavingKeep]) button.addEventListener('click', () => void this.#keep());
    leavingGive.addEventListener('click', () => void this.#leave());
    addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.#view.at === 'card') this.#dispatch({ type: 'dismiss' });
    });
    // In another tab of the site the visitor said stop, or no. A hub hears that too, but not before it has started.
    addEventListener('storage', (event) => {
      if (this.#traces.isNever(event)) this.#refuse(false);
      if (this.#memory.isTakenBack(event)) this.#end();
      else if (this.#memory.recall()?.excluded && this.#view.at === 'live') this.#dispatch({ type: 'excluded' });
    });
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.#inSight.again();
    });
    new ResizeObserver(() => this.#tellPage()).observe(root);
  }

  /**
   * Watches the panel around a change only: on a frame that is watched and has just moved, as it does when a line is
   * added, browsers drop presses for a while, and Stop must not wait for that.
   */
  #watch(): void {
    if (this.#view.at !== 'live') return;
    if (this.#watching === undefined) this.#liveGate.start();
    clearTimeout(this.#watching);
    this.#watching = setTimeout(() => this.#unwatch(), WATCHED_MS);
  }

  #unwatch(): void {
    clearTimeout(this.#watching);
    this.#watching = undefined;
    this.#liveGate.stop();
  }

  /**
   * The visitor changed a control. On a card that is not answered that says nothing yet. While work goes on
   * less holds at once, and more only from a visitor who sees it: it is signed, as a yes is.
   */
  #choose(event: Event): void {
    this.#elements.showSwitches();
    if (this.#view.at !== 'live') return;
    const [before, { share, cpu, gpu, refuses }] = [this.#chosen, this.#elements.choices];
    const isAllowedAgain = before.refuses.some((kind) => !refuses.includes(kind));
    const isMore = share > before.share || (cpu && !before.cpu) || (gpu && !before.gpu) || isAllowedAgain;
    const isRefused = isMore && !(this.#liveGate.isOpen && this.#presence.vouchesForChange(event));
    this.#elements.showChangeAgain(isRefused);
    if (isRefused) {
      this.#elements.setChoices(before);
      return;
    }
    this.#chosen = this.#elements.choices;
    if (share !== before.share) {
      this.#hub?.post({ kind: 'share', share });
      this.#memory.noteShare(share);
      this.#elements.show(this.#view, this.#pauses.reason);
    }
    if (cpu !== before.cpu) {
      this.#hub?.post({ kind: 'cpu', allowed: cpu });
      this.#memory.noteCpu(cpu);
    }
    if (gpu !== before.gpu) {
      this.#hub?.post({ kind: 'gpu', allowed: gpu });
      this.#memory.noteGpu(gpu);
    }
    if (isAllowedAgain || refuses.length !== before.refuses.length) {
      this.#hub?.post({ kind: 'refuses', refuses });
      this.#memory.noteRefuses(refuses);
    }
  }

  #dispatch(event: FrameEvent): void {
    const before = this.#view;
    // A count that is still to be shown came first.
    const known = this.#unshown ? next(before, this.#unshown) : before;
    this.#unshown = undefined;
    const after = next(known, event);
    this.#view = after;
    if (before.at === 'card' && after.at !== 'card') this.#gate.stop();
    if (before.at === 'live' && after.at !== 'live') this.#unwatch();
    this.#elements.show(after, this.#pauses.reason);
    if (before.at !== 'card' && after.at === 'card') {
      // Asked again, nothing is ticked beforehand either but the processor, which is what is asked for.
      const { shareValue: share, refuses } = this.#elements;
      this.#elements.setChoices({ share, cpu: true, gpu: false, give: false, refuses });
      this.#elements.showPressAgain(false);
      this.#gate.start();
      // Not before: most visitors never open it.
      void this.#offerEarned();
      void this.#learn();
    }
    if (before.at === 'leaving' && after.at !== 'leaving') this.#leavingGate.stop();
    if (before.at !== 'leaving' && after.at === 'leaving') this.#leavingGate.start();
    if (before.at === 'live' && after.at !== 'live') this.#inSight.stop();
    if (before.at !== 'live' && after.at === 'live') {
      // On the site's next pages nobody has pressed anything.
      this.#inSight.start(event.type !== 'recall');
      void this.#offerEarned();
      this.#chosen = this.#elements.choices;
      this.#elements.showChangeAgain(false);
    }
    // What had the focus may be hidden now. Focus elsewhere in the page is left alone.
    if (before.at !== after.at && document.hasFocus()) this.#focusTarget(after)?.focus({ preventScroll: true });
    if (after.at !== 'live') this.#stopHub(false);
    this.#tellPage();
  }

  /** Asks what waits, and shows it. Where nobody answers the card says what every card does, and no more than is known. */
  async #learn(): Promise<void> {
    const queue = await fetchQueue(this.#config.site);
    if (this.#view.at !== 'card') return;
    const isNew = this.#elements.showQueue(queue);
    this.#shown = { view: queue?.view ?? this.#config.view, at: Date.now() };
    // What the visitor has seen so far was something else.
    if (isNew) this.#gate.start();
  }

  /** @param everywhere whether the visitor said so, for the site's other tabs too. */
  #stopHub(everywhere: boolean): void {
    this.#tellToken({ refusal: 'not_lending' });
    this.#hub?.stop(everywhere);
    this.#hub = undefined;
  }

  /** The visitor's word, or the page's, against a yes: nothing goes on, in no tab of the site. The key stays: what it has earned is the visitor's. */
  #takeBack(): void {
    if (this.#hub) this.#stopHub(true);
    else stopOtherTabs(this.#config.site);
    this.#memory.forget();
  }

  #stop(): void {
    this.#takeBack();
    this.#dispatch({ type: 'stop' });
  }

  /** Ends the work of this tab, whose yes was taken back in another one. */
  #end(): void {
    this.#memory.forget();
    this.#dispatch({ type: 'stop' });
  }

  /** The page took the yes back. It removes the frame once nothing is left. */
  #forget(): void {
    this.#takeBack();
    this.#dispatch({ type: 'stop' });
    this.#embed.send({ type: 'forgotten' });
  }

  /** Where the keyboard goes on in a view that the visitor has just opened. */
  #focusTarget(opened: View): HTMLElement | undefined {
    switch (opened.at) {
      case 'chip':
      case 'icon':
        return this.#elements.open;
      case 'card':
        return this.#elements.title;
      case 'live':
        return this.#elements.stop;
      case 'over':
        return this.#elements.again;
      case 'leaving':
        return this.#elements.leavingText;
      case 'gone':
      case 'unavailable':
        return undefined;
    }
  }

  /** Tells the page the phase and the wanted size, if they are new. */
  #tellPage(): void {
    const view = this.#view;
    const tasks = view.at === 'live' || view.at === 'over' ? view.tasks : 0;
    const height = Math.max(44, Math.ceil(this.#elements.root.getBoundingClientRect().height));
    const width = view.at === 'chip' ? Math.max(CHIP_WIDTH_MIN, this.#elements.chipWidth) : viewWidth(view);
    const size = { type: 'resize', width, height } as const;
    const state = { type: 'state', phase: embedPhase(view), tasks } as const;
    const text = JSON.stringify([size, state]);
    if (text === this.#lastSent) return;
    this.#lastSent = text;
    this.#embed.send(size);
    this.#embed.send(state);
  }

  #applyPause(): void {
    const { reason } = this.#pauses;
    if (!this.#hub) return;
    if (reason) this.#hub.post({ kind: 'pause', detail: reason });
    else this.#hub.post({ kind: 'resume' });
    this.#elements.show(this.#view, reason);
  }

  /** A no of either kind. The page remembers it. */
  #answer(answer: Exclude<Answer, 'yes'>): void {
    if (this.#view.at !== 'card') return;
    // The card may be open in one tab while work goes on in another.
    this.#takeBack();
    // "Not now" to a card that the visitor had shown takes no "never" back.
    const isNever = answer === 'never' || this.#traces.neverSince !== undefined;
    this.#answers += 1;
    if (answer === 'never') this.#traces.noteNever();
    this.#dispatch({ type: answer });
    if (isNever) void this.#sayGoodbye();
    else this.#embed.send({ type: 'answer', answer });
  }

  /** A "never here" holds, whatever the page remembers. */
  #refuse(isAsked: boolean): void {
    this.#elements.showRefused(true);
    this.#dispatch({ type: 'refused', isAsked });
  }

  /** The visitor said "never here" on an earlier page, and may not have answered what is to become of the earnings. */
  async #hold(): Promise<void> {
    const { hasKey, askedSince } = this.#traces;
    // A link that was opened then may still be used. Who has not seen the question is asked now.
    if (!hasKey || (askedSince !== undefined && Date.now() - askedSince > LINK_MS)) await this.#leave();
    else await this.#sayGoodbye();
  }

  /** What the gate sees of the question. From then on silence is an answer, and on the next pages it stays so. */
  #noteAsked(sight: Sight): void {
    if (sight !== 'seen') return;
    if (this.#traces.askedSince === undefined) this.#traces.noteAsked();
    this.#leavingGate.stop();
  }

  /** After a "never": the key goes too, once the visitor has said to whom its earnings go, where there are any. */
  async #sayGoodbye(): Promise<void> {
    const answers = this.#answers;
    const uncollected = this.#traces.hasKey ? await this.#earned.uncollected() : { live: 0, test: 0 };
    const isSomething = uncollected !== undefined && uncollected.live + uncollected.test > 0;
    // Results that were accepted after their page was left are something to collect as well.
    const isThere = await (isSomething ? this.#earned.note() : uncollected === undefined && this.#earned.load());
    if (this.#isTakenBack(answers)) return;
    if (isThere) this.#dispatch({ type: 'leave', uncollected });
    else await this.#leave();
  }

  /** Whether the visitor has answered again, here or by a yes in another tab, since a goodbye began after `answers`. */
  #isTakenBack(answers: number): boolean {
    return answers !== this.#answers || (this.#traces.hasKey && this.#traces.neverSince === undefined);
  }

  /** Erases the keys. What nobody has collected is the site's then, as the card says. */
  async #leave(): Promise<void> {
    const answers = this.#answers;
    // A question may still stand here while another tab works under the key by a new yes.
    if (this.#traces.hasKey && !this.#isTakenBack(answers)) {
      this.#traces.noteGiving();
      const given = await this.#earned.give();
      if (this.#isTakenBack(answers)) return;
      if (given !== 'taken') {
        // The next page of the site tries again.
        this.#dispatch({ type: 'not_left', why: given });
        return;
      }
      await forgetKeys(this.#config.site);
      if (this.#isTakenBack(answers)) return;
      this.#traces.forgetKey();
    }
    this.#dispatch({ type: 'left' });
    if (this.#isTakenBack(answers)) return;
    // Only now: the page removes the frame.
    this.#embed.send({ type: 'answer', answer: 'never' });
  }

  /** A yes on an earlier page of the site holds for a day. */
  #recall(): void {
    // Looked at in any case: what has run out is removed.
    const remembered = this.#memory.recall();
    if (!remembered || this.#view.at !== 'chip') return;
    this.#bytes = Math.max(this.#bytes, remembered.bytes);
    if (remembered.excluded) {
      // It would be sent away again, after loading the kernel for nothing.
      this.#dispatch({ type: 'excluded' });
      return;
    }
    // It was to the GPU alone: work of the processor is another question.
    if (!remembered.cpu && !this.#elements.offersGpu) return;
    this.#agreedTo = remembered.view;
    this.#elements.setChoices(remembered);
    this.#dispatch({ type: 'recall' });
    void this.#startHub();
  }

  #agree(event: MouseEvent): void {
    // A script of the page can't click here, but one of an extension could.
    if (!event.isTrusted || !this.#gate.isOpen || this.#view.at !== 'card') return;
    if (!this.#presence.vouchesFor(event)) {
      this.#elements.showPressAgain(true);
      return;
    }
    if (Date.now() - this.#shown.at >= FRESH_MS) {
      // What it is for may be something else by now: that is read first.
      this.#elements.showPressAgain(true);
      void this.#learn();
      return;
    }
    // Whoever agrees anew begins anew, as somebody of whom nothing is known.
    const isAnew = this.#memory.recall()?.excluded === true;
    this.#answers += 1;
    this.#traces.forgetNever();
    this.#elements.showRefused(false);
    this.#agreedTo = this.#shown.view;
    this.#bytes = this.#memory.agree(this.#elements.choices, this.#agreedTo, this.#bytes).bytes;
    this.#dispatch({ type: 'agree' });
    this.#embed.send({ type: 'answer', answer: 'yes' });
    void this.#startHub(isAnew);
  }

  /**
   * Starts the hub once it is known whether it may work now: where it may not, it downloads nothing yet.
   *
   * @param isAnew whether it is to work under another key than before.
   */
  async #startHub(isAnew = false): Promise<void> {
    const wasKept = this.#memory.recall() !== undefined;
    // What a key earns that was being given away is the site's, whether or not the answer to that has come.
    const retired = isAnew || this.#traces.isGiving ? retireKey(this.#config.site) : undefined;
    await Promise.all([this.#pauses.watch(), retired]);
    // The visitor may have stopped meanwhile, and even agreed again.
    if (this.#view.at !== 'live' || this.#hub) return;
    if (wasKept && !this.#memory.recall()) {
      // They stopped in another tab, and there was no hub yet to hear of it.
      this.#end();
      return;
    }
    // The hub makes a key, or goes on with the one that there is.
    this.#traces.noteKey();
    const { reason } = this.#pauses;
    const visit = { ...this.#elements.choices, view: this.#agreedTo, bytes: this.#bytes };
    const hub = new HubClient(this.#config, visit, reason, (message) => this.#receive(hub, message));
    this.#hub = hub;
    this.#elements.show(this.#view, reason);
  }

  #receive(hub: HubClient, message: FromHub): void {
    if (message.kind === 'status') this.#count(message);
    // One that was stopped has nothing else to say.
    if (hub !== this.#hub) return;
    if (message.kind === 'work_token') {
      this.#tellToken(message.answer);
      return;
    }
    if (message.kind !== 'status') {
      this.#follow(message);
      return;
    }
    const { phase, tasks, bytes, bytesMax, gpu, earner, about, results } = message;
    // Another tab has been told to stop.
    if (phase.name === 'stopped') this.#memory.forget();
    if (phase.name === 'failed' && phase.failure === 'excluded') this.#memory.noteExcluded();
    // The yes was to something else than holds now. What was earned under its key is still the visitor's.
    if (phase.name === 'failed' && phase.failure === 'text_changed') this.#memory.forget();
    void this.#offerKeep(message);
    this.#showStatus({ type: 'status', phase, tasks, traffic: { bytes, bytesMax }, gpu, earner, about, results });
  }

  /** The visitor chose in another tab, which has vouched for it. */
  #follow(choice: Extract<FromHub, { kind: 'share' | 'gpu' | 'cpu' | 'refuses' }>): void {
    if (choice.kind === 'share') this.#elements.setShare(choice.share);
    else if (choice.kind === 'refuses') this.#elements.setRefuses(choice.refuses);
    else if (choice.kind === 'gpu') this.#elements.setGpu(choice.allowed);
    else this.#elements.setCpu(choice.allowed);
    this.#chosen = this.#elements.choices;
  }

  /** There is something to keep once a result was accepted under a key that stays. */
  async #offerKeep({ earner, results }: Extract<FromHub, { kind: 'status' }>): Promise<void> {
    const hub = this.#hub;
    if (hub === this.#noted || earner !== 'visitor' || !results?.accepted) return;
    // Once for each hub: it has one key.
    this.#noted = hub;
    const isNoted = await this.#earned.note();
    if (!isNoted && this.#noted === hub) this.#noted = undefined;
    this.#elements.offerKeep(this.#earned.isThere);
  }

  /** Whoever comes back may collect what earlier visits have earned, without working again. */
  async #offerEarned(): Promise<void> {
    if (this.#traces.hasKey) this.#elements.offerKeep(await this.#earned.load());
  }

  /** Opens the coordinator's own page, whose storage lasts, with the right to collect. */
  async #keep(): Promise<void> {
    const link = await this.#earned.link();
    if (!link) return;
    window.open(link, '_blank', 'noopener');
    // It holds from now.
    if (this.#view.at === 'leaving') this.#traces.noteAsked();
    this.#dispatch({ type: 'linked' });
  }

  /** Shows a new phase at once, and mere counts now and then: to show is to lay out, which the page may have to wait for. */
  #showStatus(status: StatusEvent): void {
    const view = this.#view;
    const isCount = view.at === 'live' && JSON.stringify(view.phase) === JSON.stringify(status.phase);
    if (isCount && this.#countTimer !== undefined) {
      this.#unshown = status;
      return;
    }
    this.#unshown = undefined;
    clearTimeout(this.#countTimer);
    this.#countTimer = setTimeout(() => {
      this.#countTimer = undefined;
      if (this.#unshown && this.#view.at === 'live') this.#showStatus(this.#unshown);
    }, COUNT_SHOWN_EVERY_MS);
    this.#dispatch(status);
  }

  /** Adds what this tab has moved, or set aside, to what the visit has. Other tabs add theirs. */
  #count({ bytes, moved }: Extract<FromHub, { kind: 'status' }>): void {
    this.#bytes = bytes;
    const kept = moved === 0 ? undefined : this.#memory.addBytes(moved, bytes);
    // Where tabs can't hear each other, they learn of each other's traffic here.
    if (kept !== undefined && kept > bytes) this.#hub?.post({ kind: 'traffic', bytes: kept });
  }
}
