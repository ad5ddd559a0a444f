/** Who may do what with the account. */

import { useEffect, useState } from 'preact/hooks';
import { words } from '../format.ts';
import { Copy, Field, Trouble, useDoing } from '../parts/form.tsx';
import { date } from '../parts/times.ts';
import { type Api, type Key, type Keys } from './api.ts';

/** What a key may be allowed, and what that is. */
const SCOPES = [
  ['jobs', 'quotes, jobs and their models'],
  ['datasets', 'data sets and uploads'],
  ['sites', 'partner sites'],
  ['account', 'money, also that of sites'],
  ['keys', 'keys and sub-accounts'],
] as const;

export function KeysPanel({ api }: { readonly api: Api }) {
  const doing = useDoing();
  const [keys, setKeys] = useState<Keys>();
  const look = async (): Promise<void> => setKeys(await api.keys());
  useEffect(() => doing.run(look), []);
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
      await look();
    });
  return (
    <section class="panel" aria-labelledby="keys">
      <h2 id="keys">Keys</h2>
      <ul class="looks withdrawals" aria-label="Keys">
        {keys.keys.map((key) => (
          <KeyLine key={key.id} of={key} isBusy={doing.isBusy} revoke={() => revoke(key.id)} />
        ))}
      </ul>
      <Trouble refusal={doing.refusal} />
      <h3>Another key</h3>
      <NewKeyForm api={api} made={look} />
      <h3>Recovery code</h3>
      <Recovery api={api} set={keys.recoverySet} made={look} />
    </section>
  );
}

interface KeyLineProps {
  readonly of: Key;
  readonly isBusy: boolean;
  readonly revoke: () => void;
}

export function KeyLine({ of: key, isBusy, revoke }: KeyLineProps) {
  const [isAsked, setAsked] = useState(false);
  const name = key.name || 'The first key';
  const ends = key.revoked ? `revoked ${date(key.revoked)}` : key.expires ? `until ${date(key.expires)}` : '';
  return (
    <li>
      <span>
        <b class="address">{name}</b> <code>{key.hint}</code> {ends ? <span class={`badge ${key.revoked ? 'bad' : 'wait'}`}>{ends}</span> : null}
        <br />
        <span class="quiet">
          {key.scopes.length === SCOPES.length ? 'may do everything' : `may do: ${key.scopes.join(', ')}`}; made {date(key.created)}; {key.lastUsed ? `last used ${date(key.lastUsed)}` : 'never used'}
        </span>
      </span>
      {key.revoked ? null : isAsked ? (
        <span>
          <button type="button" class="stop" disabled={isBusy} onClick={revoke} aria-label={`Revoke ${name} for good`}>
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

interface NewKeyProps {
  /** Whoever makes it: for this account, or for one of its sub-accounts. */
  readonly api: Pick<Api, 'make'>;
  readonly made: () => Promise<void>;
  readonly label?: string;
  readonly what?: string;
}

export function NewKeyForm({ api, made, label = 'Another key', what = 'the new key' }: NewKeyProps) {
  const doing = useDoing();
  const [name, setName] = useState('');
  const [scopes, setScopes] = useState<readonly string[]>(['jobs', 'datasets']);
  const [until, setUntil] = useState('');
  const [key, setKey] = useState('');
  const submit = (event: Event): void => {
    event.preventDefault();
    setKey('');
    doing.run(async () => {
      setKey(await api.make({ name: name.trim(), scopes, until }));
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
        <Field label="Last day" name="expires_at" refusal={doing.refusal} hint="Without one it has no end.">
          {(attributes) => <input {...attributes} type="date" value={until} onInput={(event) => setUntil(event.currentTarget.value)} />}
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
              <b>Keep it now: it is shown this once.</b>
            </p>
            <Copy text={key} what={what} />
          </>
        ) : null}
      </div>
    </form>
  );
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
