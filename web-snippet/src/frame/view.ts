/** The frame's elements, and how a view is put into them. */

import { JOB_CATEGORIES, type JobCategory } from '../wire/message.ts';
import type { Choices } from './memory.ts';
import type { Queue } from './queue.ts';
import type { PauseReason, View } from './state.ts';
import { parts, type Text } from './text.ts';
import type { Messages } from './text/en.ts';
import type { GateParts, Sight } from './gate.ts';

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
  readonly cpu = element<HTMLInputElement>('cpu');
  readonly gpu = element<HTMLInputElement>('gpu');
  readonly give = element<HTMLInputElement>('give');
  /** Whether a kind of job may be computed, for each of them. */
  readonly kinds: ReadonlyMap<JobCategory, HTMLInputElement> = new Map(
    JOB_CATEGORIES.map((category) => [category, element<HTMLInputElement>(`kind-${category}`)]),
  );
  readonly words = element('words');
  readonly foot = element('foot');
  readonly actions = element('actions');
  readonly yes = element<HTMLButtonElement>('yes');
  readonly no = element<HTMLButtonElement>('no');
  readonly never = element<HTMLButtonElement>('never');
  readonly stop = element<HTMLButtonElement>('stop');
  readonly again = element<HTMLButtonElement>('again');
  readonly close = element<HTMLButtonElement>('close');
  readonly keep = element<HTMLButtonElement>('keep');
  readonly overKeep = element<HTMLButtonElement>('over-keep');
  readonly cardKeep = element<HTMLButtonElement>('card-keep');
  readonly leavingKeep = element<HTMLButtonElement>('leaving-keep');
  readonly leavingGive = element<HTMLButtonElement>('leaving-give');
  readonly leavingText = element('leaving-text');
  readonly #chipText = element('ask');
  readonly #queue = element('queue');
  readonly #text: Text;
  readonly #shareText = element<HTMLOutputElement>('share-text');
  readonly #shareField = element('share-field');
  readonly #shareHome = element('share-home');
  readonly #shareLive = element('share-live');
  readonly #gpuField = element('gpu-field');
  readonly #hint = element('hint');
  readonly #liveHint = element('live-hint');
  readonly #live = element('live');
  readonly #now = element('now');
  readonly #status = element('status');
  readonly #tasks = element('tasks');
  readonly #traffic = element('traffic');
  readonly #results = element('results');
  readonly #gpuStatus = element('gpu-status');
  readonly #earner = element('earner');
  readonly #about = element('about');
  readonly #site: string;
  #sight: Sight = 'waiting';
  readonly #leaving = element('leaving');
  readonly #leavingHint = element('leaving-hint');
  /** Whether a press of the yes is to be repeated. */
  #isPressWanted = false;
  readonly #over = element('over');
  readonly #overText = element('over-text');
  readonly #overResults = element('over-results');

  /** Writes the words of the card; `values` stand in bold where a sentence names them. */
  constructor(text: Text, values: Readonly<Record<string, string>>) {
    this.#text = text;
    this.#site = values.site ?? '';
    document.documentElement.lang = text.language;
    for (const target of document.querySelectorAll<HTMLElement>('[data-text]')) {
      target.replaceChildren(...sentence(text.raw(target.dataset.text as keyof Messages), values));
    }
  }

  /** What a visitor must see who agrees. */
  get asked(): GateParts {
    return { card: this.card, actions: this.actions, reading: { words: this.words, foot: this.foot } };
  }

  /** What a visitor must see who raises what was agreed to. */
  get changed(): GateParts {
    return { card: this.#live, actions: this.#shareLive };
  }

  /** What a visitor must see who is asked what is to become of the earnings. */
  get left(): GateParts {
    return { card: this.#leaving, actions: this.leavingKeep };
  }

  /** Width in CSS pixels at which the question of the chip is whole. */
  get chipWidth(): number {
    const style = getComputedStyle(this.open);
    const around = ['paddingLeft', 'paddingRight', 'borderLeftWidth', 'borderRightWidth', 'columnGap'] as const;
    const mark = this.open.firstElementChild?.getBoundingClientRect().width ?? 0;
    return Math.ceil(around.reduce((sum, side) => sum + (parseFloat(style[side]) || 0), mark + this.#chipText.scrollWidth));
  }

  /** The chosen share, as a part of one. */
  get shareValue(): number {
    return Number(this.share.value) / 100;
  }

  setShare(share: number): void {
    this.share.value = String(Math.round(share * 100));
    this.showShare();
  }

  showShare(): void {
    const text = this.#text.percent(this.shareValue);
    this.#shareText.value = text;
    this.share.setAttribute('aria-valuetext', text);
  }

  /** Whether the GPU may be used: it was offered, and the visitor ticked it. */
  get gpuValue(): boolean {
    return this.offersGpu && this.gpu.checked;
  }

  /** Whether the processor may be used. */
  get cpuValue(): boolean {
    return !this.offersGpu || this.cpu.checked;
  }

  setGpu(allowed: boolean): void {
    this.gpu.checked = allowed;
    this.showSwitches();
  }

  setCpu(allowed: boolean): void {
    this.cpu.checked = allowed;
    this.showSwitches();
  }

  /** The last of them stays: who wants none stops. */
  showSwitches(): void {
    const isLast = this.#offered.filter((box) => box.checked).length === 1;
    for (const box of this.#offered) box.disabled = isLast && box.checked;
    this.cpu.disabled = this.cpu.checked && !this.gpu.checked;
    this.gpu.disabled = this.gpu.checked && !this.cpu.checked;
    this.#showYes();
  }

  get #offered(): readonly HTMLInputElement[] {
    return [...this.kinds.values()].filter((box) => box.parentElement?.hidden !== true);
  }

  /** Whether a kind of work is ticked. What the visitor refused may be all that the site takes: it is not ticked for them. */
  get #isAny(): boolean {
    return this.#offered.some((box) => box.checked);
  }

  #showYes(): void {
    this.yes.disabled = this.#sight !== 'seen' || !this.#isAny;
    const hindrance = this.#sight === 'seen' && !this.#isAny ? this.#text.fill('noKind') : this.#text.sight(this.#sight);
    setText(this.#hint, hindrance || (this.#isPressWanted ? this.#text.fill('pressAgain') : ''));
  }

  /** Without a GPU there is nothing to choose from. */
  offerGpu(isOffered: boolean): void {
    this.#gpuField.hidden = !isOffered;
  }

  get offersGpu(): boolean {
    return !this.#gpuField.hidden;
  }

  /** Offers the link by which the visitor keeps what was earned. */
  offerKeep(isOffered: boolean): void {
    this.keep.hidden = this.overKeep.hidden = this.cardKeep.hidden = !isOffered;
  }

  get choices(): Choices {
    return { share: this.shareValue, cpu: this.cpuValue, gpu: this.gpuValue, give: this.give.checked, refuses: this.refuses };
  }

  /** Kinds of jobs that the visitor has switched off. */
  get refuses(): readonly JobCategory[] {
    return JOB_CATEGORIES.filter((category) => this.kinds.get(category)?.checked === false);
  }

  setRefuses(refuses: readonly JobCategory[]): void {
    for (const [category, box] of this.kinds) box.checked = !refuses.includes(category);
    this.showSwitches();
  }

  /**
   * Shows what would be computed now. What the site does not take is not asked about; where nothing is known, all is.
   *
   * @returns whether the card says something else than before.
   */
  showQueue(queue: Queue | undefined): boolean {
    const before = this.#asksFor;
    setText(this.#queue, this.#text.queue(queue));
    for (const [category, box] of this.kinds) {
      if (box.parentElement) box.parentElement.hidden = queue?.categories.includes(category) === false;
    }
    this.showSwitches();
    return this.#asksFor !== before;
  }

  /** What the card says of the work that it asks for. */
  get #asksFor(): string {
    const hidden = [...this.kinds.values()].map((box) => box.parentElement?.hidden === true);
    return JSON.stringify([this.#queue.textContent, hidden]);
  }

  /** Shows what an earlier yes was for. */
  setChoices({ share, cpu, gpu, give, refuses }: Choices): void {
    this.setShare(share);
    this.setRefuses(refuses);
    this.cpu.checked = cpu;
    this.setGpu(gpu);
    this.give.checked = give;
  }

  showSight(sight: Sight): void {
    this.#sight = sight;
    this.#showYes();
  }

  /** A mark that asks nothing any more, or asks again, says so to whoever comes to it. */
  showRefused(isRefused: boolean): void {
    this.open.title = isRefused ? this.#text.fill('neverHolds') : '';
    setText(this.#chipText, this.#text.fill(isRefused ? 'neverHolds' : 'ask'));
  }

  /** After a click that could have been meant for the page, or for what the card said before; nothing any more where none is wanted. */
  showPressAgain(isWanted: boolean): void {
    this.#isPressWanted = isWanted;
    this.#showYes();
  }

  /** The same after a choice that was to be for more, or nothing any more; nothing moves for it, so that it can be pressed again. */
  showChangeAgain(isWanted: boolean): void {
    this.#now.hidden = isWanted;
    setText(this.#liveHint, isWanted ? this.#text.fill('pressAgain') : '');
  }

  show(view: View, pause: PauseReason | undefined): void {
    this.root.dataset.view = view.at;
    this.open.hidden = !(view.at === 'chip' || view.at === 'icon');
    this.open.setAttribute('aria-expanded', String(view.at === 'card'));
    this.card.hidden = view.at !== 'card';
    this.#live.hidden = view.at !== 'live';
    setText(this.#overResults, view.at === 'over' ? this.#text.results(view.results) : '');
    this.#over.hidden = !(view.at === 'over' || view.at === 'unavailable');
    this.#leaving.hidden = view.at !== 'leaving';
    const home = view.at === 'live' ? this.#shareLive : this.#shareHome;
    if (this.#shareField.parentElement !== home) home.append(this.#shareField);
    if (view.at === 'live') {
      this.root.dataset.work = view.phase.name;
      setText(this.#status, this.#text.live(view.phase, pause, this.shareValue));
      setText(this.#tasks, this.#text.tasks(view.tasks));
      setText(this.#results, this.#text.results(view.results));
      setText(this.#about, this.#text.about(view.about, view.phase));
      setText(this.#earner, this.#text.earner(view.earner, this.#site));
      setText(this.#gpuStatus, this.#text.gpu(view.gpu, view.phase));
      setText(this.#traffic, view.traffic ? this.#text.traffic(view.traffic.bytes, view.traffic.bytesMax) : '');
    } else if (view.at === 'over') {
      setText(this.#overText, this.#text.over(view.phase, view.tasks));
      this.again.hidden = this.close.hidden = false;
    } else if (view.at === 'leaving') {
      setText(this.leavingText, this.#text.leaving(view, this.#site));
      setText(this.leavingGive, this.#text.fill(view.isLinked ? 'leaveDone' : 'give', { site: this.#site }));
      setText(this.#leavingHint, view.failed ? this.#text.fill(view.failed === 'refused' ? 'leaveRefused' : 'leaveFailed') : '');
    } else if (view.at === 'unavailable') {
      setText(this.#overText, this.#text.unavailable(view.reason));
      this.again.hidden = this.close.hidden = true;
    }
  }
}

function sentence(raw: string, values: Readonly<Record<string, string>>): Node[] {
  return parts(raw).map((part) => {
    if ('text' in part) return document.createTextNode(part.text);
    const bold = document.createElement('b');
    bold.textContent = values[part.place] ?? '';
    return bold;
  });
}

/** Writes only what changed: screen readers announce every write to a status. */
function setText(target: HTMLElement, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}
