import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { chooseLanguage, LANGUAGES, LOAD_MS_MAX } from '../src/frame/language.ts';
import { parts, Text } from '../src/frame/text.ts';
import { messages as en, type Messages } from '../src/frame/text/en.ts';
import { messages as es } from '../src/frame/text/es.ts';
import { messages as fr } from '../src/frame/text/fr.ts';
import { messages as hi } from '../src/frame/text/hi.ts';
import { messages as sw } from '../src/frame/text/sw.ts';
import { messages as zh } from '../src/frame/text/zh.ts';
import { JOB_CATEGORIES } from '../src/wire/message.ts';
import { SILENCE_AFTER_LOAD_MS } from '../src/public/page-side.ts';

const CATALOGUES: Record<string, Messages> = { en, es, fr, hi, sw, zh };
const keys = Object.keys(en) as (keyof Messages)[];

/** The names of a sentence's places, sorted. */
const places = (sentence: string): string[] => parts(sentence).flatMap((part) => ('place' in part ? [part.place] : [])).sort();

test('every language that is offered has its file, and every file is offered', () => {
  const folder = process.env.RAVEN_SOURCE ?? '';
  const files = readdirSync(`${folder}/src/frame/text`).map((file) => file.replace(/\.ts$/, ''));
  assert.deepEqual(files.sort(), [...LANGUAGES]);
  assert.deepEqual(Object.keys(CATALOGUES).sort(), [...LANGUAGES]);
});

for (const [language, messages] of Object.entries(CATALOGUES)) {
  test(`no sentence is missing in ${language}`, () => {
    assert.deepEqual(Object.keys(messages).sort(), [...keys].sort());
    for (const key of keys) {
      assert.ok(messages[key].trim() !== '', key);
      assert.deepEqual(places(messages[key]), places(en[key]), `places of ${key}`);
      if (language !== 'en') assert.notEqual(messages[key], key === 'stop' ? '' : en[key], `${key} is still English`);
    }
  });

  test(`numbers are written as ${language} writes them, and no place is left`, () => {
    const text = new Text({ language: language as (typeof LANGUAGES)[number], messages });
    const lines = [
      text.live({ name: 'working' }, undefined, 0.35),
      text.live({ name: 'idle' }, undefined, 0.35),
      text.live({ name: 'paused' }, 'hidden', 0.35),
      text.tasks(3),
      text.traffic(1_500_000, 25_000_000),
      text.over({ name: 'stopped' }, 2),
      text.about({ requester: 'Amber Heron', category: 'vision' }, { name: 'working' }),
      text.earner('site', 'News'),
      text.results({ accepted: 128, notNeeded: 2, late: 3, withdrawn: 4, wrong: 1 }),
    ];
    const heron = { requester: 'Amber Heron', category: 'vision' } as const;
    const queues = [
      undefined,
      { categories: JOB_CATEGORIES, work: [], more: 0, view: 'v' },
      { categories: ['science', 'other'] as const, work: [], more: 0, view: 'v' },
      { categories: JOB_CATEGORIES, work: [heron], more: 0, view: 'v' },
      { categories: JOB_CATEGORIES, work: [heron, { ...heron, requester: 'Jade Kite' }], more: 42, view: 'v' },
    ].map((queue) => text.queue(queue));
    // A site that takes nothing: no list of no kinds.
    assert.equal(text.queue({ categories: [], work: [], more: 0, view: 'v' }), queues[0]);
    assert.equal(new Set(queues).size, queues.length);
    assert.match(queues[3] ?? '', /Amber Heron/);
    assert.match(queues[4] ?? '', /Amber Heron.*Jade Kite.*42/);
    lines.push(...queues);
    for (const line of lines) assert.doesNotMatch(line, /[{}]|undefined/);
    assert.match(lines[0] ?? '', /35/);
    assert.match(lines[1] ?? '', /0/);
    assert.match(lines[4] ?? '', /1[.,]5.*25|25.*1[.,]5/);
    assert.match(lines[8] ?? '', /128.* · .*2.* · .*3.* · .*4.* · .*1/);
    assert.match(lines[6] ?? '', /Amber Heron/);
    assert.match(lines[7] ?? '', /News/);
    assert.equal(text.about({ requester: 'Amber Heron', category: 'vision' }, { name: 'idle' }), '');
    assert.equal(text.results(undefined), '');
  });
}

test('words that do not come are given up before the page around gives up the frame', () => {
  assert.ok(LOAD_MS_MAX + 500 <= SILENCE_AFTER_LOAD_MS, `${LOAD_MS_MAX} ms and ${SILENCE_AFTER_LOAD_MS} ms`);
});

test('every language names both kinds of job', () => {
  const kinds = /(im[aá]g|तस्वीर|picha|图片).*(table|tabla|तालिका|jedwali|表格)/;
  for (const [language, { runs }] of Object.entries(CATALOGUES)) assert.match(runs, kinds, language);
});

test('a cap that ends the work is said as what it is: perhaps little was used, but no job fits', () => {
  const used = /used up|agotado|épuisé|समाप्त|imekwisha|用完/;
  for (const [language, { failedTraffic }] of Object.entries(CATALOGUES)) assert.doesNotMatch(failedTraffic, used, language);
});

test('every language says that the site can learn how much was computed', () => {
  const said = /\{site\}.*(computed|calculado|calculé|गणना|umekokotoa|计算)/;
  for (const [language, { yours }] of Object.entries(CATALOGUES)) assert.match(yours, said, language);
});

test('the card says of the GPU that it takes a tick, and never that it is not used', () => {
  const never = /no graphics chip|sin el chip|sans la puce|चिप इस्तेमाल नहीं|chipu ya michoro|不使用显卡/;
  for (const [language, { gpu, gpuOn, gpuNone, much }] of Object.entries(CATALOGUES)) {
    assert.doesNotMatch(much, never, language);
    for (const words of [gpu, gpuOn, gpuNone]) assert.match(words, /GPU/, language);
  }
});

test('the first language that there is speaks', () => {
  assert.equal(chooseLanguage(['de-DE', 'fr-CA', 'en']), 'fr');
  assert.equal(chooseLanguage(['zh-Hant-TW']), 'zh');
  assert.equal(chooseLanguage(['SW']), 'sw');
  assert.equal(chooseLanguage(['xx', 'constructor']), 'en');
  assert.equal(chooseLanguage([]), 'en');
});
