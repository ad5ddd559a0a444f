// Builds the tag, the frame and the workers into dist/, and fails where one
// outgrows its limit. `node build.mjs --watch` is not offered on purpose: the
// build takes well under a second.
import { cp, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const out = `${here}dist/`;
/** Built modules, each a folder; where one has not been built it is left out. */
const built = `${here}../dist/`;

/** Languages of the card; each is a file of its own, since a visitor needs one. English is in the frame's script too. */
const LANGUAGES = readdirSync(`${here}src/frame/text`).map((file) => file.replace(/\.ts$/, '')).sort();
const FRAME = ['frame.js', 'frame.css', 'frame.html'];

/**
 * Limits in bytes of gzip. What is fetched before a yes is the tag and the card, whatever the language: less than the 25 kB that
 * README.md promises. The workers are fetched after a yes; their limit only guards against accidents.
 */
const BUNDLES = [
  { name: 'loader', files: ['raven.js'], limit: 6_000 },
  { name: 'frame', files: FRAME, limit: 20_000 },
  ...LANGUAGES.map((language) => {
    const words = language === 'en' ? [] : [`text/${language}.js`];
    return { name: `tag and card, ${language}`, files: ['raven.js', ...FRAME, ...words], limit: 25_000 };
  }),
  { name: 'workers', files: ['hub.js', 'kernel-worker.js', 'gpu-worker.js'], limit: 22_000 },
];

const common = {
  bundle: true,
  minify: true,
  charset: 'utf8',
  legalComments: 'none',
  logLevel: 'warning',
  absWorkingDir: here,
};

async function compile() {
  await mkdir(out, { recursive: true });
  for (const entry of await readdir(out)) {
    // The kernel of an earlier build may be all there is of it; without a GPU module there is simply no GPU.
    if (entry !== 'kernel') await rm(`${out}${entry}`, { recursive: true });
  }
  await Promise.all([
    // Partner pages may be old; the loader asks for less than the frame.
    build({ ...common, entryPoints: { raven: 'src/public/loader.ts' }, outdir: out, format: 'iife', target: 'es2018' }),
    build({
      ...common,
      entryPoints: {
        frame: 'src/frame/main.ts',
        ...Object.fromEntries(LANGUAGES.map((language) => [`text/${language}`, `src/frame/text/${language}.ts`])),
        hub: 'src/hub/main.ts',
        'kernel-worker': 'src/kernel-worker/main.ts',
        'gpu-worker': 'src/gpu-worker/main.ts',
      },
      outdir: out,
      format: 'esm',
      target: 'es2022',
    }),
    build({ ...common, entryPoints: { frame: 'src/frame/frame.css' }, outdir: out, target: 'es2022' }),
    cp(`${here}src/frame.html`, `${out}frame.html`),
  ]);
}

/** Copies the module called `name`, where it was built. */
async function copyModule(name) {
  if (!existsSync(`${built}${name}/${name}.json`)) return;
  await rm(`${out}${name}`, { recursive: true, force: true });
  await mkdir(`${out}${name}`);
  for (const file of [`${name}.json`, `raven_${name}.js`, `raven_${name}.wasm`]) {
    await cp(`${built}${name}/${file}`, `${out}${name}/${file}`);
  }
}

async function weigh() {
  let fits = true;
  for (const { name, files, limit } of BUNDLES) {
    let bytes = 0;
    for (const file of files) bytes += gzipSync(await readFile(out + file), { level: 9 }).length;
    const verdict = bytes <= limit ? 'within' : 'OVER';
    console.log(`${name}: ${bytes} bytes gzip (${verdict} ${limit}): ${files.join(', ')}`);
    fits &&= bytes <= limit;
  }
  return fits;
}

await compile();
await copyModule('kernel');
await copyModule('gpu');
if (!(await weigh())) process.exit(1);
