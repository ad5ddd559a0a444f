// Coordinator, partner site and browser together, for one test file.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Coordinator } from './coordinator.mjs';
import { launch, SOFTWARE_GPU } from './browser.mjs';
import { Visitor } from './contributor.mjs';
import { TERMINAL } from './jobs.mjs';
import { root } from './paths.mjs';
import { shapedLink } from './link.mjs';
import { serveStatic } from './static.mjs';

const site = join(root, 'scripts/lib/demo-site');

/** The demo's partner, with a tag or without. */
export const article = (tag) => readFileSync(join(site, 'index.html'), 'utf8').replace('<!-- raven tag -->', tag);

export class World {
  /**
   * With `uplinkBytesPerS` browsers reach the coordinator through a link that sends no faster.
   * A visit may move `visitMb`, by default so much that a few visitors can do the work of many.
   * With `gpu` visitors may lend a GPU, for which Chromium's software adapter stands in.
   */
  static async start(name, options = {}) {
    const world = new World();
    try {
      await world.#open(name, options);
    } catch (error) {
      // What did start would keep this process alive for ever.
      await world.stop();
      throw error;
    }
    return world;
  }

  async #open(name, { uplinkBytesPerS, visitMb, gpu = false }) {
    const world = this;
    const flags = async (port) => {
      const use = gpu ? ['--gpu', 'any'] : [];
      if (!uplinkBytesPerS) return use;
      world.link = await shapedLink(port, uplinkBytesPerS);
      return [...use, '--origin', `http://127.0.0.1:${world.link.port}`];
    };
    world.coordinator = await Coordinator.start({ name, visitMb, flags });
    world.partner = await serveStatic({ mounts: { '/': site } });
    // Another site than 127.0.0.1: a port alone would be the same site.
    world.origin = `http://news.localhost:${world.partner.port}`;
    world.site = await world.coordinator.json('POST', '/v1/sites', { name: 'Local News', origins: [world.origin] });
    world.partner.routes['/'] = article(world.site.snippet);
    world.partner.routes['/plain'] = article('');
    world.partner.routes['/pinned'] = article(world.site.snippet_pinned);
    // One bit of the digest changed: as if the file had been.
    world.partner.routes['/tampered'] = article(world.site.snippet_pinned.replace(/sha384-./, (start) => (start.endsWith('A') ? 'sha384-B' : 'sha384-A')));
    world.browser = await launch(gpu ? SOFTWARE_GPU : []);
  }

  /** Opens a visitor on the partner's page, or on another path of it. */
  visitor({ path = '/', ...options } = {}) {
    return Visitor.open(this.browser, this.origin + path, options);
  }

  /** Visitors who have said yes and are connected. */
  async contributors(count, share = 50) {
    const visitors = [];
    for (let n = 0; n < count; n += 1) {
      const visitor = await this.visitor();
      await visitor.accept(share);
      await visitor.contributing();
      visitors.push(visitor);
    }
    return visitors;
  }

  /** Waits until the coordinator counts as many contributors; it looks twice a second. */
  async counts(contributors) {
    const counted = async () => (await this.coordinator.json('GET', '/v1/stats')).contributors;
    await until(async () => (await counted()) === contributors, `${contributors} contributors counted`, 5_000);
  }

  /** Closes every visitor and cancels every job, also after a test that failed. */
  async clear() {
    for (const context of this.browser.contexts()) await context.close();
    const { jobs } = await this.coordinator.json('GET', '/v1/jobs');
    for (const { id, state } of jobs) {
      if (TERMINAL.has(state)) continue;
      await this.coordinator.api('POST', `/v1/jobs/${id}/cancel`).catch((error) => {
        // It may have ended since the list was made.
        if (error.status !== 409) throw error;
      });
    }
    await this.counts(0);
  }

  async stop() {
    await this.browser?.close();
    await this.partner?.close();
    await this.link?.close();
    return this.coordinator?.stop();
  }
}

/** Resolves once `probe()` yields something true. */
export async function until(probe, what, ms = 30_000) {
  const deadline = Date.now() + ms;
  let last;
  for (;;) {
    last = await probe();
    if (last) return last;
    if (Date.now() > deadline) throw new Error(`not ${what} after ${ms} ms`);
    await new Promise((done) => setTimeout(done, 50));
  }
}
