/** Who may do what with the account. */

import { useEffect, useState } from 'preact/hooks';
import { words } from '../format.ts';
import { Copy, Field, Trouble, useDoing } from '../parts/form.tsx';
import { date, time } from '../parts/times.ts';
import type { Api, Key, Keys, MadeKey, NewKey, Passkey } from './api.ts';

/** What a key may be allowed, and what that is. */
const SCOPES = [
  ['jobs', 'quotes, jobs and their models'],
  ['datasets', 'data sets and uploads'],
  ['sites', 'partner sites'],
  ['account', 'money, also that of sites'],
  ['keys', 'keys and sub-accounts'],
] as const;

export interface KeysPanelProps {
  readonly api: Api;
  /** Of which some came of a key: they go with it. None where they are not known. */
  readonly passkeys: readonly Passkey[] | undefined;
  /** Counted up when others have changed what there is. */
  readonly turn: number;
  readonly looked: (keys: readonly Key[]) => void;
  /** A key is gone, and what came of it. */
  readonly revoked: () => void;
}

export function KeysPanel({ api, passkeys, turn, looked, revoked }: KeysPanelProps) {
  const doing = useDoing();
  const [keys, setKeys] = useState<Keys>();
  const look = async (): Promise<void> => {
    const found = await api.keys();
    setKeys(found);
    looked(found.keys);
  };
  useEffect(() => doing.run(look), [turn]);
  if (!keys) {
    return (
      <section class="panel" aria-labelledby="keys">
        <h2 id="keys">Keys</h2>
        {doing.refusal ? <Trouble refusal={doing.refusal} /> : <p class="quiet">Loading …</p>}
      </section>
    );
  }
  const revoke = (id: string): void =>
    doing.run(async () => {
      await api.revoke(id);
      revoked();
      await look();
    });
  return (
    <section class="panel" aria-labelledby="keys">
      <h2 id="keys">Keys</h2>
      <ul class="looks withdrawals" aria-label="Keys">
        {keys.keys.map((key) => (
          <KeyLine key={key.id} of={key} among={keys.keys} passkeys={passkeys} isBusy={doing.isBusy} revoke={() => revoke(key.id)} />
        ))}
      </ul>
      <Trouble refusal={doing.refusal} />
      <h3>Another key</h3>
      <NewKeyForm make={(wish) => api.make(wish)} most={keys.until} made={look} />
      <h3>Recovery code</h3>
      <Recovery api={api} set={keys.recoverySet} made={look} />
    </section>
  );
}

/** Whether it is over by now. */
export const isOver = ({ revoked, expires }: Pick<Key, 'revoked' | 'expires'>, now = Date.now()): boolean =>
  revoked !== '' || (expires !== '' && Date.parse(expires) <= now);

const nameOf = ({ name }: Key): string => name || 'the first key';

/** What a key came of, where it came of something. */
export function origin({ madeBy, passkey }: Key, among: readonly Key[], passkeys: readonly Passkey[] | undefined): string {
  if (passkey !== '') return passkeys ? `; given by the passkey ${passkeys.find(({ id }) => id === passkey)?.name ?? 'that was removed'}` : '; given by a passkey';
  if (madeBy === '') return '';
  // One of a sub-account may have been made by a key of its parent's.
  const maker = among.find(({ id }) => id === madeBy);
  return maker ? `; made by ${nameOf(maker)}` : '; made by a key that is not of this list';
}

interface KeyLineProps {
  readonly of: Key;
  /** What is listed beside it. */
  readonly among: readonly Key[];
  readonly passkeys: readonly Passkey[] | undefined;
  readonly isBusy: boolean;
  readonly revoke: () => void;
}

export function KeyLine({ of: key, among, passkeys, isBusy, revoke }: KeyLineProps) {
  const [isAsked, setAsked] = useState(false);
  const name = key.name || 'The first key';
  const hasEnded = isOver(key);
  const ends = key.revoked ? `revoked ${date(key.revoked)}` : key.expires ? `${hasEnded ? 'ended' : 'until'} ${time(key.expires)}` : '';
  return (
    <li>
      <span>
        <b class="address">{name}</b> <code>{key.hint}</code> {ends ? <span class={`badge ${hasEnded ? 'bad' : 'wait'}`}>{ends}</span> : null}
        <br />
        <span class="quiet">
          {key.scopes.length === SCOPES.length ? 'may do everything' : `may do: ${key.scopes.join(', ')}`}; made {date(key.created)}; {key.lastUsed ? `last used ${date(key.lastUsed)}` : 'never used'}
          {origin(key, among, passkeys)}
        </span>
        {isAsked ? <Along of={key} among={among} passkeys={passkeys} /> : null}
      </span>
      {hasEnded ? null : isAsked ? (
        <span>
          <button type="button" class="stop" disabled={isBusy} onClick={revoke} aria-label={`Revoke for good: ${name}`}>
            Revoke for good
          </button>{' '}
          <button type="button" onClick={() => setAsked(false)}>
            Keep it
          </button>
        </span>
      ) : (
        <button type="button" onClick={() => setAsked(true)} aria-label={`Revoke ${name} …`}>
          Revoke …
        </button>
      )}
    </li>
  );
}

/** What has come of a key: what goes with it, and what stays. */
function Along({ of: key, among, passkeys }: Pick<KeyLineProps, 'of' | 'among' | 'passkeys'>) {
  const made = among.filter((each) => each.madeBy === key.id && !isOver(each)).map(nameOf);
  const gone = takenAlong(key.id, passkeys ?? []).map(({ name }) => name);
  return (
    <span class="quiet">
      {gone.length > 0 ? <span class="address">It takes along the passkeys that it added: {gone.join(', ')}. </span> : null}
      {made.length > 0 ? <span class="address">Keys that it made stay: {made.join(', ')}. </span> : null}
      A recovery code that it made goes with it.
    </span>
  );
}

/** The passkeys that go with a key: those that it added on its own word, and all that these have confirmed since. */
export function takenAlong(key: string, all: readonly Passkey[]): readonly Passkey[] {
  const found = all.filter(({ addedBy, confirmedBy }) => addedBy === key && confirmedBy === '');
  for (const one of found) found.push(...all.filter((each) => each.confirmedBy === one.id && !found.includes(each)));
  return found;
}

interface NewKeyProps {
  /** For this account, or for one of its sub-accounts. */
  readonly make: (wish: NewKey) => Promise<MadeKey>;
  /** Until when the key holds that asks, where it has an end. */
  readonly most: string;
  readonly made: () => Promise<void>;
  readonly label?: string;
  readonly what?: string;
}

export function NewKeyForm({ make, most, made, label = 'Another key', what = 'the new key' }: NewKeyProps) {
  const doing = useDoing();
  const [name, setName] = useState('');
  const [scopes, setScopes] = useState<readonly string[]>(['jobs', 'datasets']);
  const [until, setUntil] = useState('');
  const [key, setKey] = useState<MadeKey>();
  const submit = (event: Event): void => {
    event.preventDefault();
    setKey(undefined);
    doing.run(async () => {
      setKey(await make({ name: name.trim(), scopes, until, most }));
      setName('');
      await made();
    });
  };
  const toggle = (scope: string): void => setScopes(scopes.includes(scope) ? scopes.filter((each) => each !== scope) : [...scopes, scope]);
  return (
    <form onSubmit={submit} aria-label={label}>
      <div class="fields">
        <Field label="Name" name="name" refusal={doing.refusal} hint="To know it by, such as the machine that it is for.">
          {(attributes) => <input {...attributes} required maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
        </Field>
        <Field label="Last day" name="expires_at" refusal={doing.refusal} hint={most === '' ? 'Without one it has no end.' : `At the latest ${time(most)}, when your own key ends.`}>
          {(attributes) => <input {...attributes} type="date" max={most.slice(0, 10)} value={until} onInput={(event) => setUntil(event.currentTarget.value)} />}
        </Field>
      </div>
      <fieldset>
        <legend>It may do</legend>
        {SCOPES.map(([scope, what]) => (
          <label key={scope} class="check">
            <input type="checkbox" checked={scopes.includes(scope)} onChange={() => toggle(scope)} />
            <span>
              {words(scope)} <span class="hint">{what}</span>
            </span>
          </label>
        ))}
      </fieldset>
      {most === '' ? null : (
        <p class="quiet">
          You are signed in until {time(most)}, and no key that you make here holds longer. For one that does sign in with a key that has no end; a passkey gives you one under “A key that lasts”.
        </p>
      )}
      <Trouble refusal={doing.refusal} names={['name', 'expires_at']} />
      <p>
        <button class="primary" disabled={doing.isBusy}>
          Make the key
        </button>
      </p>
      <div role="status">
        {key ? (
          <>
            <p>
              <b>Keep it now: it is shown this once.</b> <Ends made={key} />
            </p>
            <Copy text={key.key} what={what} />
          </>
        ) : null}
      </div>
    </form>
  );
}

/** Until when a new key holds. */
export function Ends({ made }: { readonly made: MadeKey }) {
  return <>{made.expires === '' ? 'It has no end.' : `It ends ${time(made.expires)}.`}</>;
}

interface RecoveryProps {
  readonly api: Api;
  readonly set: string;
  readonly made: () => Promise<void>;
}

function Recovery({ api, set, made }: RecoveryProps) {
  const doing = useDoing();
  const [code, setCode] = useState('');
  const make = (): void =>
    doing.run(async () => {
      setCode(await api.recoveryCode());
      await made();
    });
  return (
    <>
      <p class="quiet">
        It gives the account back to you should its keys be lost or stolen. {set ? `There is one since ${date(set)}; another one takes its place.` : 'There is none.'}
      </p>
      <p>
        <button type="button" disabled={doing.isBusy} onClick={make}>
          Make a recovery code
        </button>
      </p>
      <div role="status">
        {code ? (
          <>
            <p>
              <b>Keep it now, somewhere else than the keys: it is shown this once.</b>
            </p>
            <Copy text={code} what="the recovery code" />
          </>
        ) : null}
      </div>
      <Trouble refusal={doing.refusal} />
    </>
  );
}
