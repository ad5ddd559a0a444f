/** Links by which a wallet collects what other browsers have earned: as the frame makes them, and shorter for a QR code. */

import { toHex } from '../parts/hex.ts';
import { fields, number, text } from '../parts/refusal.ts';

/** A contributor's word that a wallet may collect for it. */
export interface Claim {
  readonly statement: string;
  readonly signature: string;
}

/** More claims than a link of the frame has. */
const CLAIMS_MAX = 32;
/** What a coordinator reads of a statement. */
const STATEMENT_LENGTH_MAX = 1024;

const [TIME_BYTES, KEY_BYTES, NONCE_BYTES, SIGNATURE_BYTES] = [8, 32, 16, 64];
const CLAIM_BYTES = TIME_BYTES + KEY_BYTES + NONCE_BYTES + SIGNATURE_BYTES;

const toBase64Url = (bytes: string): string => btoa(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const fromBase64Url = (coded: string): string => atob(coded.replaceAll('-', '+').replaceAll('_', '/'));

/** The claims of a link's fragment, one for each key that has earned; none where it is not whole. */
export function readClaims(hash: string, origin: string): readonly Claim[] {
  const [, name, coded] = /^#(claim|claims)=([\w-]+)$/.exec(hash) ?? [];
  if (!coded) return [];
  try {
    const bytes = fromBase64Url(coded);
    return (name === 'claims' ? unpack(bytes, origin) : parse(bytes)) ?? [];
  } catch {
    return [];
  }
}

/** Whether a fragment was meant to be one. */
export const isClaim = (hash: string): boolean => /^#claims?=/.test(hash);

function parse(written: string): readonly Claim[] | undefined {
  const parsed: unknown = JSON.parse(written);
  // A link of before is of one key.
  const claims = (Array.isArray(parsed) ? parsed : [parsed]).map(readClaim);
  return claims.length <= CLAIMS_MAX && claims.every((each) => each !== undefined) ? claims : undefined;
}

/** @throws where the statement is no JSON. */
function readClaim(value: unknown): Claim | undefined {
  const { statement, signature } = fields(value);
  // Nothing else is ever signed, and it can be written as a link again.
  if (typeof statement !== 'string' || statement.length > STATEMENT_LENGTH_MAX || !/^\{[ -~]*\}$/.test(statement)) return undefined;
  JSON.parse(statement);
  return typeof signature === 'string' && /^[0-9a-f]{1,128}$/.test(signature) ? { statement, signature } : undefined;
}

/** As the frame writes it. What was signed is this text, byte by byte. */
const statement = (coordinator: string, from: string, expires_ms: number, nonce: string): string =>
  JSON.stringify({ purpose: 'claim', coordinator, from, expires_ms, nonce });

const hexOf = (bytes: string): string => toHex(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
const fromHex = (hex: string): string => String.fromCharCode(...(hex.match(/../g) ?? []).map((digits) => Number.parseInt(digits, 16)));

function unpack(bytes: string, origin: string): readonly Claim[] | undefined {
  const count = bytes.length / CLAIM_BYTES;
  if (!Number.isInteger(count) || count > CLAIMS_MAX) return undefined;
  return Array.from({ length: count }, (_, index) => {
    let at = index * CLAIM_BYTES;
    const next = (length: number): string => hexOf(bytes.slice(at, (at += length)));
    const [expires, from, nonce, signature] = [next(TIME_BYTES), next(KEY_BYTES), next(NONCE_BYTES), next(SIGNATURE_BYTES)];
    return { statement: statement(origin, from, Number.parseInt(expires, 16), nonce), signature };
  });
}

function pack({ statement, signature }: Claim): string {
  const { from, expires_ms: expires, nonce } = fields(JSON.parse(statement));
  return fromHex(number(expires).toString(16).padStart(2 * TIME_BYTES, '0') + text(from) + text(nonce) + signature);
}

/** A link to the same claims, as short as can be: a QR code of fewer squares is read from further away. */
export function claimLink(claims: readonly Claim[], origin: string): string {
  const packed = claims.map(pack).join('');
  // A frame of another version may write its statements otherwise; only its own words are signed.
  const isSame = JSON.stringify(unpack(packed, origin)) === JSON.stringify(claims);
  return isSame ? `${origin}/earn#claims=${toBase64Url(packed)}` : `${origin}/earn#claim=${toBase64Url(JSON.stringify(claims))}`;
}
