/** The routes by which people get an account, or theirs back. */

import { signUp } from '../parts/passkey.ts';
import { ask, text, type Fields } from '../parts/refusal.ts';

/** What an account is known by. Both secrets are shown once. */
export interface Made {
  readonly account: string;
  readonly key: string;
  readonly recoveryCode: string;
}

const made = (body: Fields): Made => ({ account: text(body.account), key: text(body.key), recoveryCode: text(body.recovery_code) });

/** Whether people may sign up here. */
export async function isOpen(): Promise<boolean> {
  return (await ask('/v1/sign-up')).open === true;
}

export async function begin(email: string, book: 'test' | 'live'): Promise<void> {
  await ask('/v1/sign-up', { method: 'POST', body: { email, book } });
}

/** The token of a link's fragment, if it has one. */
export const tokenOf = (hash: string): string | undefined => /^#(su_\w+)$/.exec(hash)?.[1];

export async function finish(token: string): Promise<Made> {
  return made(await ask(`/v1/sign-up/${token}`, { method: 'POST' }));
}

export const begunWithPasskey = async (name: string, book: 'test' | 'live'): Promise<Made> => made(await signUp(name, book));

export async function recover(code: string): Promise<Made> {
  return made(await ask('/v1/recover', { method: 'POST', body: { code } }));
}
