/** Which language the card speaks, and its words. */

import { messages as english, type Messages } from './text/en.ts';

/** Languages with a file below `text/`. English comes with the frame. */
export const LANGUAGES = ['en', 'es', 'fr', 'hi', 'sw', 'zh'] as const;
export type Language = (typeof LANGUAGES)[number];

/**
 * A visitor is not kept waiting for words: after this they are in English. The page around waits three seconds for the
 * frame's first message before it gives the frame up, and that message comes with the words.
 */
export const LOAD_MS_MAX = 2_000;

export interface Words {
  readonly language: Language;
  readonly messages: Messages;
}

/** The first of the wanted languages that there is. `zh-TW` takes `zh`. */
export function chooseLanguage(wanted: readonly string[]): Language {
  for (const tag of wanted) {
    const base = tag.toLowerCase().split('-')[0];
    const found = LANGUAGES.find((language) => language === base);
    if (found) return found;
  }
  return 'en';
}

/** The words of the language that the tag asks for with `data-lang`, or else of the browser's. */
export async function loadWords(search: string, preferred: readonly string[]): Promise<Words> {
  const asked = new URLSearchParams(search).get('lang');
  const language = chooseLanguage(asked ? [asked, ...preferred] : preferred);
  if (language === 'en') return { language, messages: english };
  const fallback = { language: 'en', messages: english } as const;
  const late = new Promise<Words>((resolve) => setTimeout(() => resolve(fallback), LOAD_MS_MAX));
  const loaded = import(new URL(`text/${language}.js`, import.meta.url).href).then(
    (module: { messages: Messages }): Words => ({ language, messages: module.messages }),
    () => fallback,
  );
  return Promise.race([loaded, late]);
}
