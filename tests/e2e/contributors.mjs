// Opens visitors of a page who say yes, and keeps them until its input ends.
// Usage: node contributors.mjs PAGE_URL COUNT SHARE_PERCENT
// Prints a line of JSON per step: {"contributing": n} or {"error": text}.
import { launch } from './lib/browser.mjs';
import { Visitor } from './lib/contributor.mjs';

const [pageUrl, count, share] = process.argv.slice(2);
const report = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const ended = new Promise((done) => process.stdin.resume().once('end', done).once('error', done));
const browser = await launch();
try {
  for (let opened = 1; opened <= Number(count); opened += 1) {
    const visitor = await Visitor.open(browser, pageUrl);
    visitor.page.on('crash', () => report({ error: `the page of visitor ${opened} crashed` }));
    await visitor.accept(Number(share));
    await visitor.contributing();
    report({ contributing: opened });
  }
  await ended;
} catch (error) {
  report({ error: String(error.message ?? error).slice(0, 500) });
  process.exitCode = 1;
} finally {
  await browser.close();
}
