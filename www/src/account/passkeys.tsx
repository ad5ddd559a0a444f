/** The passkeys of an account: one for each device, or for all that share theirs. */

import { useEffect, useState } from 'preact/hooks';
import { Copy, Field, Trouble, useDoing } from '../parts/form.tsx';
import { isPossible, offers, signIn } from '../parts/passkey.ts';
import { date } from '../parts/times.ts';
import type { Api, Key, Passkey } from './api.ts';
import { isOver } from './keys.tsx';

export interface PasskeysPanelProps {
  readonly api: Api;
  /** Of which some were given by a passkey. */
  readonly keys: readonly Key[] | undefined;
  /** Counted up when others have changed what there is. */
  readonly turn: number;
  readonly looked: (passkeys: readonly Passkey[]) => void;
  /** The account has another key, or has lost some. */
  readonly changed: () => void;
}

/** Nothing where the coordinator has an address at which browsers make none. */
export function PasskeysPanel({ api, keys, turn, looked, changed }: PasskeysPanelProps) {
  const doing = useDoing();
  const [passkeys, setPasskeys] = useState<readonly Passkey[]>();
  const [isOffered, setOffered] = useState(false);
  const look = async (): Promise<void> => {
    const found = await api.passkeys();
    setPasskeys(found);
    looked(found);
  };
  useEffect(() => {
    void offers('sign-in').then((open) => {
      setOffered(open);
      if (open) doing.run(look);
    });
  }, [turn]);
  const remove = (id: string): void =>
    doing.run(async () => {
      await api.removePasskey(id);
      changed();
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
            <PasskeyLine key={passkey.id} of={passkey} keys={keys} among={passkeys} isBusy={doing.isBusy} remove={() => remove(passkey.id)} />
          ))}
        </ul>
      ) : null}
      <Trouble refusal={doing.refusal} />
      {isPossible() ? (
        <>
          <h3>Another passkey</h3>
          <AddForm api={api} added={look} />
          {passkeys && passkeys.length > 0 ? <LastingKeyForm made={changed} /> : null}
        </>
      ) : (
        <p class="quiet">This browser makes no passkeys.</p>
      )}
    </section>
  );
}

interface PasskeyLineProps {
  readonly of: Passkey;
  readonly keys: readonly Key[] | undefined;
  /** What is listed beside it. */
  readonly among: readonly Passkey[];
  readonly isBusy: boolean;
  readonly remove: () => void;
}

/** On whose word it was added. */
function origin({ addedBy, confirmedBy }: Passkey, keys: readonly Key[] | undefined, among: readonly Passkey[]): string {
  if (confirmedBy !== '') return `; confirmed by the passkey ${among.find(({ id }) => id === confirmedBy)?.name ?? 'that was removed'}`;
  if (addedBy === '' || !keys) return '';
  const key = keys.find(({ id }) => id === addedBy);
  return `; added by the key ${key === undefined ? 'that is not listed any more' : key.name || 'that was the first'}`;
}

/** What has come of a passkey: what ends with it, and what stays. */
function Along({ of: passkey, keys, among }: Pick<PasskeyLineProps, 'of' | 'keys' | 'among'>) {
  const gave = (keys ?? []).filter((key) => key.passkey === passkey.id && !isOver(key));
  const ends = gave.filter(({ expires }) => expires !== '').length;
  const stays = gave.filter(({ expires }) => expires === '').map(({ name }) => name);
  const confirmed = among.filter(({ confirmedBy }) => confirmedBy === passkey.id).map(({ name }) => name);
  return (
    <span class="quiet">
      {ends > 0 ? `Whoever is signed in with it is so no longer (${ends}). ` : ''}
      {stays.length > 0 ? <span class="address">Keys that it gave stay: {stays.join(', ')}. </span> : null}
      {confirmed.length > 0 ? <span class="address">Passkeys that it confirmed stay: {confirmed.join(', ')}.</span> : null}
    </span>
  );
}

function PasskeyLine({ of: passkey, keys, among, isBusy, remove }: PasskeyLineProps) {
  const [isAsked, setAsked] = useState(false);
  const { name } = passkey;
  return (
    <li>
      <span>
        <b class="address">{name}</b>
        <br />
        <span class="quiet">
          {passkey.isSynced ? 'may be on several devices' : 'on one device'}; added {date(passkey.created)}; {passkey.lastUsed ? `last used ${date(passkey.lastUsed)}` : 'never used'}
          {origin(passkey, keys, among)}
        </span>
        {isAsked ? <Along of={passkey} keys={keys} among={among} /> : null}
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
