/** Nano-USD as people read and write them. Amounts are whole numbers all the way: none is divided, and none is rounded up. */

const DIGITS = 9;
const NANO = 1_000_000_000;
/** What one movement may be at most: a million dollars. The coordinator has the same limit. */
const NANO_USD_MAX = 1_000_000n * BigInt(NANO);

/** What is whole, and the digits behind the point without idle zeros. */
function parts(amount: number | bigint, places = DIGITS): readonly [sign: string, whole: string, fraction: string] {
  const exact = typeof amount === 'bigint' ? amount : BigInt(Math.trunc(amount));
  const digits = (exact < 0n ? -exact : exact).toString().padStart(places + 1, '0');
  return [exact < 0n ? '−' : '', digits.slice(0, -places), digits.slice(-places).replace(/0+$/, '')];
}

/** Millionths of a token, e.g. `1,250.5 RAVEN`. */
export function tokens(micro: number | bigint): string {
  const [sign, whole, fraction] = parts(micro, 6);
  return `${sign}${BigInt(whole).toLocaleString('en')}${fraction === '' ? '' : `.${fraction}`} RAVEN`;
}

/** As it is typed into a field: {@link parseUsd} reads the same amount. */
export function decimal(nano: number): string {
  const [, whole, fraction] = parts(nano);
  return fraction === '' ? whole : `${whole}.${fraction}`;
}

/** The exact amount, e.g. `$1,000.00` or `$0.000000432`. */
export function usd(nano: number): string {
  if (nano === 0) return '$0';
  const [sign, whole, fraction] = parts(nano);
  return `${sign}$${BigInt(whole).toLocaleString('en')}.${fraction.padEnd(2, '0')}`;
}

/** The same where there is little room: from ten dollars on without what is behind the cents, so that it is never more than there is. */
export function usdBrief(nano: number): string {
  return Math.abs(nano) < 10 * NANO ? usd(nano) : usd(nano - (nano % 10_000_000));
}

/** For an axis, with a prefix where it is little: `131 n$`. */
export function usdShort(nano: number): string {
  if (nano <= 0) return '$0';
  if (nano >= NANO) return `$${(nano / NANO).toFixed(2)}`;
  const [size, prefix] = nano >= 1e6 ? [1e6, 'm'] : nano >= 1e3 ? [1e3, 'µ'] : [1, 'n'];
  return `${Number((nano / size).toPrecision(3))} ${prefix}$`;
}

/**
 * Dollars as they are typed, in nano-USD; `undefined` where it is no amount, is more than may be moved at once, or has digits
 * beyond the books' own. A comma is no amount: some write it for the point, and some between thousands.
 */
export function parseUsd(text: string): number | undefined {
  const found = /^\$?(\d{0,9})(?:\.(\d{0,9}))?$/.exec(text.trim());
  if (!found || !/\d/.test(text)) return undefined;
  const nano = BigInt(found[1] || '0') * BigInt(NANO) + BigInt((found[2] ?? '').padEnd(DIGITS, '0'));
  return nano > NANO_USD_MAX ? undefined : Number(nano);
}
