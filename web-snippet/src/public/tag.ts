/** The script tag and what it asks for. */

const SITE_KEY = /^pk_[A-Za-z0-9_-]{1,128}$/;
const LANGUAGE = /^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$/;

export interface Tag {
  readonly site: string;
  /** Where the frame comes from. */
  readonly origin: string;
  readonly frameUrl: string;
  readonly corner: 'left' | 'right';
  /** `data-consent="manual"`: the page says when the frame may appear. */
  readonly waits: boolean;
}

function findScript(): HTMLScriptElement | undefined {
  const current = document.currentScript;
  if (current instanceof HTMLScriptElement && current.src) return current;
  // A module or a tag manager leaves no current script.
  const own = [...document.scripts].filter((script) => /\/embed\/raven[^/]*\.js\?(.*&)?site=/.test(script.src));
  return own[own.length - 1];
}

/** `undefined` where the tag has no site key. To be called while the script runs: later there is no current one. */
export function readTag(): Tag | undefined {
  const script = findScript();
  if (!script) return undefined;
  const source = new URL(script.src, document.baseURI);
  const site = source.searchParams.get('site') || '';
  if (!SITE_KEY.test(site)) return undefined;
  const { lang = '', corner, consent } = script.dataset;
  const frameUrl = new URL('frame.html', source);
  frameUrl.search = new URLSearchParams(LANGUAGE.test(lang) ? { site, lang } : { site }).toString();
  return {
    site,
    origin: frameUrl.origin,
    frameUrl: frameUrl.href,
    corner: corner === 'left' ? 'left' : 'right',
    waits: consent === 'manual',
  };
}
