/** Passkeys: what the coordinator asks of this browser, and what it answers. */

import { ask, fields, list, Refusal, text, type Fields } from './refusal.ts';

/** Binary as both sides write it in JSON. */
export function toBase64Url(bytes: ArrayBuffer): string {
  const binary = Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join('');
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

export function fromBase64Url(written: unknown): Uint8Array<ArrayBuffer> {
  const binary = atob(text(written).replaceAll('-', '+').replaceAll('_', '/'));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

/** Whether this browser makes passkeys at all. */
export const isPossible = (): boolean => typeof PublicKeyCredential !== 'undefined' && window.isSecureContext;

/** Whether the coordinator has passkeys for signing up, or for signing in. Where nothing answers it has not. */
export const offers = (what: 'sign-up' | 'sign-in'): Promise<boolean> =>
  ask(`/v1/passkeys/${what}`).then((terms) => terms.open === true, () => false);

/** Browsers say no in names that people do not know. */
function said(error: unknown): Refusal {
  const name = error instanceof DOMException ? error.name : '';
  if (name === 'NotAllowedError') return new Refusal(0, 'No passkey was used: it was given up, took too long, or there is none for this site.', '');
  if (name === 'InvalidStateError') return new Refusal(0, 'This device has a passkey of the account already.', '');
  if (name === 'ConstraintError' || name === 'NotSupportedError') {
    return new Refusal(0, 'This device cannot check who is there. Set up its PIN, fingerprint or face, or use another one.', '');
  }
  return new Refusal(0, `The browser made no passkey: ${String(error)}`, '');
}

const kinds = (value: unknown): PublicKeyCredentialParameters[] =>
  list(value).map((each) => ({ type: 'public-key', alg: Number(fields(each).alg) }));

/** @throws {@link Refusal} where the person, the device or the browser says no. */
async function create(options: Fields): Promise<object> {
  const { rp, user, timeout } = options;
  const publicKey: PublicKeyCredentialCreationOptions = {
    rp: { id: text(fields(rp).id), name: text(fields(rp).name) },
    user: { id: fromBase64Url(fields(user).id), name: text(fields(user).name), displayName: text(fields(user).displayName) },
    challenge: fromBase64Url(options.challenge),
    pubKeyCredParams: kinds(options.pubKeyCredParams),
    excludeCredentials: list(options.excludeCredentials).map((each) => ({ type: 'public-key', id: fromBase64Url(fields(each).id) })),
    authenticatorSelection: { residentKey: 'required', requireResidentKey: true, userVerification: 'required' },
    attestation: 'none',
    timeout: Number(timeout),
  };
  const made = await navigator.credentials.create({ publicKey }).catch((error: unknown) => {
    throw said(error);
  });
  const { rawId, response } = made as PublicKeyCredential;
  const { attestationObject, clientDataJSON } = response as AuthenticatorAttestationResponse;
  return {
    id: toBase64Url(rawId),
    response: { attestationObject: toBase64Url(attestationObject), clientDataJSON: toBase64Url(clientDataJSON) },
  };
}

/** @throws {@link Refusal}. */
async function get(options: Fields): Promise<object> {
  const publicKey: PublicKeyCredentialRequestOptions = {
    rpId: text(options.rpId),
    challenge: fromBase64Url(options.challenge),
    userVerification: 'required',
    timeout: Number(options.timeout),
  };
  const found = await navigator.credentials.get({ publicKey }).catch((error: unknown) => {
    throw said(error);
  });
  const { rawId, response } = found as PublicKeyCredential;
  const { authenticatorData, clientDataJSON, signature, userHandle } = response as AuthenticatorAssertionResponse;
  return {
    id: toBase64Url(rawId),
    response: {
      authenticatorData: toBase64Url(authenticatorData),
      clientDataJSON: toBase64Url(clientDataJSON),
      signature: toBase64Url(signature),
      userHandle: toBase64Url(userHandle ?? new ArrayBuffer(0)),
    },
  };
}

/** How requests are sent: under a key, or under none. */
export type Ask = (method: string, path: string, body?: unknown) => Promise<Fields>;

const unkeyed: Ask = (method, path, body) => ask(path, { method, body });

/** Has a passkey made where `begin` asks for one, and takes it to `finish`; with the word of another one, where that is asked for. */
export async function add(ask: Ask, begin: string, finish: string, name: string, more: object = {}): Promise<Fields> {
  const { options, confirm } = await ask('POST', begin, { name });
  const confirmation = typeof confirm === 'object' && confirm !== null ? { confirmation: await get(fields(confirm)) } : {};
  return ask('POST', finish, { name, ...more, ...confirmation, credential: await create(fields(options)) });
}

/** What an account is answered with that begins with a passkey. */
export const signUp = (name: string, book: 'test' | 'live'): Promise<Fields> =>
  add(unkeyed, '/v1/passkeys/sign-up', '/v1/passkeys/sign-up/finish', name, { book });

/** A key that a passkey has given. */
export interface Entered {
  readonly account: string;
  readonly key: string;
  /** The key's own, by which it is revoked. */
  readonly id: string;
}

/** Signs in, for some hours; or makes a key for programs, which has no end, where it is given a name. */
export async function signIn(keyName?: string): Promise<Entered> {
  const { options } = await unkeyed('POST', '/v1/passkeys/sign-in');
  const credential = await get(fields(options));
  const { account, key, id } = await unkeyed('POST', '/v1/passkeys/sign-in/finish', { credential, ...(keyName === undefined ? {} : { key_name: keyName }) });
  return { account: text(account), key: text(key), id: text(id) };
}

/** Ends what {@link signIn} gave. Where that fails it ends by itself. */
export async function signOut({ key, id }: Pick<Entered, 'key' | 'id'>): Promise<void> {
  await ask(`/v1/keys/${id}`, { method: 'DELETE', headers: { authorization: `Bearer ${key}` } }).catch(() => undefined);
}
