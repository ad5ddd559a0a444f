/** Pages that are signed in to by an API key. Whoever signs in on one of them is on the others of the same tab. */

import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { Field, Trouble, useDoing } from './form.tsx';
import { signIn, signOut } from './passkey.ts';
import { PasskeyButton } from './passkey-button.tsx';
import { Refusal } from './refusal.ts';
import { Top } from './top.tsx';

/** It is gone with the tab: whoever comes after has to know the key. */
const KEPT = 'raven-key';
/** By which the key is revoked when it is left, where a passkey gave it for this visit. */
const KEPT_ID = 'raven-key-id';

function kept(name = KEPT): string {
  try {
    return sessionStorage.getItem(name) ?? '';
  } catch {
    return '';
  }
}

function keep(key: string, id = ''): void {
  try {
    for (const [name, value] of [[KEPT, key], [KEPT_ID, id]] as const) {
      if (value === '') sessionStorage.removeItem(name);
      else sessionStorage.setItem(name, value);
    }
  } catch {
    // Without storage the key is asked for again.
  }
}

/** Whether it says that the key is none, or none for the page. Anything else passes, and the key stays good. */
export const isNoKey = (error: unknown): boolean => error instanceof Refusal && (error.status === 401 || error.status === 403);

export interface SignedInProps<T> {
  readonly here: string;
  /** What the page begins with; refused where the key is none for it. */
  readonly open: (key: string) => Promise<T>;
  readonly children: (opened: T) => ComponentChildren;
  /** What is shown to everybody else, below the form. */
  readonly outside?: ComponentChildren;
}

export function SignedIn<T>({ here, open, children, outside }: SignedInProps<T>) {
  const [opened, setOpened] = useState<T>();
  const [isReady, setReady] = useState(kept() === '');
  const [refusal, setRefusal] = useState<Refusal>();
  const come = (): void => {
    const key = kept();
    if (key === '') return;
    setReady(false);
    setRefusal(undefined);
    const failed = (error: unknown): void => {
      if (isNoKey(error)) keep('');
      else setRefusal(error instanceof Refusal ? error : new Refusal(0, String(error), ''));
    };
    open(key)
      .then((found) => setOpened(() => found), failed)
      .finally(() => setReady(true));
  };
  useEffect(come, []);
  const enter = async (key: string, id?: string): Promise<void> => {
    const found = await open(key);
    keep(key, id);
    setOpened(() => found);
  };
  const leave = (): void => {
    const [key, id] = [kept(), kept(KEPT_ID)];
    if (id !== '') void signOut({ key, id });
    keep('');
    setOpened(undefined);
    setRefusal(undefined);
  };
  const outsider = refusal ? <NotNow refusal={refusal} again={come} /> : <SignIn enter={enter} />;
  return (
    <>
      <Top here={here}>
        {opened === undefined && !refusal ? null : (
          <button type="button" onClick={leave}>
            Sign out
          </button>
        )}
      </Top>
      <main>
        {opened !== undefined ? children(opened) : isReady ? outsider : <p class="quiet">Loading …</p>}
        {opened === undefined && isReady ? outside : null}
      </main>
    </>
  );
}

/** Whoever is signed in stays so while the coordinator has trouble. */
function NotNow({ refusal, again }: { readonly refusal: Refusal; readonly again: () => void }) {
  return (
    <section class="panel">
      <Trouble refusal={refusal} />
      <p>
        <button type="button" class="primary" onClick={again}>
          Try again
        </button>
      </p>
    </section>
  );
}

function SignIn({ enter }: { readonly enter: (key: string, id?: string) => Promise<void> }) {
  const doing = useDoing();
  const [key, setKey] = useState('');
  const submit = (event: Event): void => {
    event.preventDefault();
    doing.run(() => enter(key.trim()));
  };
  const press = (): void =>
    doing.run(async () => {
      const { key, id } = await signIn();
      await enter(key, id);
    });
  return (
    <section class="panel" aria-labelledby="sign-in">
      <h2 id="sign-in">Sign in</h2>
      <PasskeyButton isBusy={doing.isBusy} press={press} />
      <form onSubmit={submit}>
        <Field
          label="API key"
          name="key"
          refusal={undefined}
          hint="It stays in this tab's own storage until you sign out or close the tab, and goes to this coordinator only."
        >
          {(attributes) => (
            <input {...attributes} type="password" autocomplete="off" spellcheck={false} required placeholder="rk_…" value={key} onInput={(event) => setKey(event.currentTarget.value)} />
          )}
        </Field>
        <Trouble refusal={doing.refusal} />
        <p>
          <button class="primary" disabled={doing.isBusy}>
            Sign in
          </button>
        </p>
        <p class="quiet">
          No key yet, or lost it? <a href="/sign-up">Sign up, or get your account back</a>.
        </p>
      </form>
    </section>
  );
}
