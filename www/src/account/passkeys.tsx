/** The passkeys of an account: one for each device, or for all that share theirs. */

import { useEffect, useState } from 'preact/hooks';
import { Copy, Field, Trouble, useDoing } from '../parts/form.tsx';
import { isPossible, offers, signIn } from '../parts/passkey.ts';
import { date } from '../parts/times.ts';
import type { Api, Passkey } from './api.ts';

export interface PasskeysPanelProps {
  readonly api: Api;
  /** The account has another key. */
  readonly keyMade: () => void;
}

/** Nothing where the coordinator has an address at which browsers make none. */
export function PasskeysPanel({ api, keyMade }: PasskeysPanelProps) {
  const doing = useDoing();
  const [passkeys, setPasskeys] = useState<readonly Passkey[]>();
  const [isOffered, setOffered] = useState(false);
  const look = async (): Promise<void> => setPasskeys(await api.passkeys());
  useEffect(() => {
    void offers('sign-in').then((open) => {
      setOffered(open);
      if (open) doing.run(look);
    });
  }, []);
  const remove = (id: string): void =>
    doing.run(async () => {
      await api.removePasskey(id);
      await look();
    });
  if (!isOffered) return null;
  return (
    <section class="panel" aria-labelledby="passkeys">
      <h2 id="passkeys">Passkeys</h2>
      <p class="quiet">A passkey signs you in by your device’s own lock, without a key to paste. It also gives you a new key when all are lost.</p>
      {passkeys && passkeys.length > 0 ? (
        <ul class="looks withdrawals" aria-label="Passkeys">
          {passkeys.map((passkey) => (
            <PasskeyLine key={passkey.id} of={passkey} isBusy={doing.isBusy} remove={() => remove(passkey.id)} />
          ))}
        </ul>
      ) : null}
      <Trouble refusal={doing.refusal} />
      {isPossible() ? (
        <>
          <h3>Another passkey</h3>
          <AddForm api={api} added={look} />
          {passkeys && passkeys.length > 0 ? <LastingKeyForm made={keyMade} /> : null}
        </>
      ) : (
        <p class="quiet">This browser makes no passkeys.</p>
      )}
    </section>
  );
}

interface PasskeyLineProps {
  readonly of: Passkey;
  readonly isBusy: boolean;
  readonly remove: () => void;
}

function PasskeyLine({ of: passkey, isBusy, remove }: PasskeyLineProps) {
  const [isAsked, setAsked] = useState(false);
  const { name } = passkey;
  return (
    <li>
      <span>
        <b class="address">{name}</b>
        <br />
        <span class="quiet">
          {passkey.isSynced ? 'may be on several devices' : 'on one device'}; added {date(passkey.created)}; {passkey.lastUsed ? `last used ${date(passkey.lastUsed)}` : 'never used'}
        </span>
      </span>
      {isAsked ? (
        <span>
          <button type="button" class="stop" disabled={isBusy} onClick={remove} aria-label={`Remove for good: ${name}`}>
            Remove for good
          </button>{' '}
          <button type="button" onClick={() => setAsked(false)}>
            Keep it
          </button>
        </span>
      ) : (
        <button type="button" onClick={() => setAsked(true)} aria-label={`Remove ${name} …`}>
          Remove …
        </button>
      )}
    </li>
  );
}

function AddForm({ api, added }: { readonly api: Api; readonly added: () => Promise<void> }) {
  const doing = useDoing();
  const [name, setName] = useState('');
  const submit = (event: Event): void => {
    event.preventDefault();
    doing.run(async () => {
      await api.addPasskey(name.trim());
      setName('');
      await added();
    });
  };
  return (
    <form onSubmit={submit} aria-label="Another passkey">
      <Field label="Name of the passkey" name="name" refusal={doing.refusal} hint="To know it by, such as the device that it is on.">
        {(attributes) => <input {...attributes} required maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
      </Field>
      <Trouble refusal={doing.refusal} names={['name']} />
      <p>
        <button class="primary" disabled={doing.isBusy}>
          Add a passkey
        </button>
      </p>
    </form>
  );
}

/** Whoever is signed in by a passkey makes no key that outlasts the day; the passkey itself does. */
function LastingKeyForm({ made }: { readonly made: () => void }) {
  const doing = useDoing();
  const [name, setName] = useState('');
  const [key, setKey] = useState('');
  const submit = (event: Event): void => {
    event.preventDefault();
    setKey('');
    doing.run(async () => {
      setKey((await signIn(name.trim())).key);
      setName('');
      made();
    });
  };
  return (
    <form onSubmit={submit} aria-label="A key that lasts">
      <h3>A key that lasts</h3>
      <p class="quiet">For programs, to make a recovery code with, or in place of one that is lost: it may do everything and has no end. Your passkey is asked for once more.</p>
      <Field label="Name of the key" name="key_name" refusal={doing.refusal}>
        {(attributes) => <input {...attributes} required maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
      </Field>
      <Trouble refusal={doing.refusal} names={['key_name']} />
      <p>
        <button disabled={doing.isBusy}>Make a key that lasts</button>
      </p>
      <div role="status">
        {key ? (
          <>
            <p>
              <b>Keep it now: it is shown this once.</b>
            </p>
            <Copy text={key} what="the key that lasts" />
          </>
        ) : null}
      </div>
    </form>
  );
}
