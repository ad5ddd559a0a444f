// A contributor who cheats: its browser gets another kernel's door than the one that the coordinator serves.
import { readFileSync } from 'node:fs';

const script = (name) => readFileSync(new URL(`liar/${name}`, import.meta.url), 'utf8');

/**
 * From now on visitors in `context` turn the sign of a gradient in every result that has one, after `honestTasks`
 * right ones of each worker. Returns the digests of its lies, a list that grows.
 */
export async function corrupt(context, { honestTasks = 0 } = {}) {
  const bodies = {
    'raven_kernel.js': script('kernel.mjs'),
    'liar-blake3.mjs': script('blake3.mjs'),
    'liar-plan.mjs': `export const HONEST_TASKS = ${honestTasks};`,
  };
  const lies = [];
  const nameOf = (url) => url.pathname.match(/\/kernel\/([^/]+)$/)?.[1];
  await context.route((url) => nameOf(url) in bodies && url.search === '', (route) =>
    route.fulfill({ contentType: 'text/javascript', body: bodies[nameOf(new URL(route.request().url()))] }));
  await context.route((url) => nameOf(url) === 'liar-told', (route) => {
    lies.push(new URL(route.request().url()).search.slice(1));
    return route.fulfill({ status: 204 });
  });
  return lies;
}
