// A visitor: opens a partner's page in a browser context of its own and works the card as a person would.

const FRAME = 'iframe[src*="/embed/frame.html"]';
const STEP_MS_MAX = 30_000;

/** Presses an arrow key until the slider shows `percent` (it moves in steps of its own). */
async function slide(slider, percent) {
  const value = async () => Number(await slider.inputValue());
  await slider.focus();
  for (let now = await value(); now !== percent; ) {
    await slider.press(now < percent ? 'ArrowRight' : 'ArrowLeft');
    const next = await value();
    if (next === now || next - percent === percent - now) break;
    now = next;
  }
  const reached = await value();
  if (reached !== percent) throw new Error(`the slider stops at ${reached} %, ${percent} % was wanted`);
}

export class Visitor {
  /** Opens `pageUrl`. `prepare(page)` runs before the page is loaded; all else is the context's, such as `locale`. */
  static async open(browser, pageUrl, { viewport = { width: 1280, height: 800 }, prepare = () => {}, ...context } = {}) {
    const visitor = new Visitor();
    visitor.context = await browser.newContext({ viewport, ...context });
    visitor.page = await visitor.context.newPage();
    visitor.page.setDefaultTimeout(STEP_MS_MAX);
    await prepare(visitor.page);
    await visitor.page.goto(pageUrl);
    visitor.card = visitor.page.frameLocator(FRAME);
    return visitor;
  }

  /** Opens `pageUrl` in one more tab of a context that others use too. */
  static async tab(context, pageUrl) {
    const visitor = new Visitor();
    visitor.page = await context.newPage();
    visitor.page.setDefaultTimeout(STEP_MS_MAX);
    await visitor.page.goto(pageUrl);
    visitor.card = visitor.page.frameLocator(FRAME);
    return visitor;
  }

  /** Says yes to `share` percent of the machine, its GPU among it where that is allowed. */
  async accept(share, { gpu = false, gives = false } = {}) {
    await this.card.locator('#raven-open').click();
    if (gpu) await this.card.locator('#raven-gpu').check();
    // The card is laid out once it can be answered; a click before that may land beside.
    if (gives) await this.card.locator('#raven-yes:enabled').waitFor();
    if (gives) await this.card.locator('#raven-give').check();
    await slide(this.card.locator('#raven-share'), share);
    await this.card.locator('#raven-yes').click();
  }

  /** Moves the slider while working. */
  async share(percent) {
    // The panel must have been seen for a while before it takes more, and is watched from when somebody comes to its controls.
    await this.card.locator('#raven-share').blur();
    await this.card.locator('#raven-share').focus();
    await this.page.waitForTimeout(1_000);
    await slide(this.card.locator('#raven-share'), percent);
  }

  /** What the partner's page is told: `{phase, tasks}`. */
  state() {
    return this.page.evaluate(() => ({ ...globalThis.raven.state }));
  }

  /** Waits until `holds(state)`; throws with the last state. */
  async until(holds, what, ms = STEP_MS_MAX) {
    const deadline = Date.now() + ms;
    let state = null;
    while (Date.now() < deadline) {
      state = await this.state();
      if (holds(state)) return state;
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error(`not ${what} after ${ms} ms: ${JSON.stringify(state)}`);
  }

  /** Connected, with or without work. */
  contributing() {
    return this.until(({ phase }) => phase === 'idle' || phase === 'working', 'contributing');
  }

  async stop() {
    await this.card.locator('#raven-stop').click();
  }

  /** What the card says of the work. */
  status() {
    return this.card.locator('#raven-status').textContent();
  }

  /** Makes the page believe that its tab went to the background, or came back. */
  hide(hidden = true) {
    return this.page.evaluate((value) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => value });
      Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => (value ? 'hidden' : 'visible') });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
  }

  /** Closes the tab without a goodbye from the page. */
  close() {
    return this.context ? this.context.close() : this.page.close();
  }
}
