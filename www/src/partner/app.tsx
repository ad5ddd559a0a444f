import { useEffect, useState } from 'preact/hooks';
import { Top } from '../parts/top.tsx';
import { Api, type SiteName } from './api.ts';
import { Estimator } from './estimate.tsx';
import { Field, Trouble, useDoing } from '../parts/form.tsx';
import { SitePage } from './site.tsx';

/** It is gone with the tab: whoever comes after has to know the key. */
const KEPT = 'raven-partner-key';

function kept(): string {
  try {
    return sessionStorage.getItem(KEPT) ?? '';
  } catch {
    return '';
  }
}

function keep(key: string): void {
  try {
    if (key === '') sessionStorage.removeItem(KEPT);
    else sessionStorage.setItem(KEPT, key);
  } catch {
    // Without storage the key is asked for again.
  }
}

interface Signed {
  readonly key: string;
  readonly sites: readonly SiteName[];
}

function SignIn({ done }: { readonly done: (signed: Signed) => void }) {
  const doing = useDoing();
  const [key, setKey] = useState('');
  const submit = (event: Event): void => {
    event.preventDefault();
    doing.run(async () => done({ key: key.trim(), sites: await new Api(key.trim()).sites() }));
  };
  return (
    <>
      <section class="panel" aria-labelledby="sign-in">
        <h2 id="sign-in">Sign in</h2>
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
            No key yet? <a href="/sign-up">Sign up</a>.
          </p>
        </form>
      </section>
    </>
  );
}

function Register({ api, done }: { readonly api: Api; readonly done: (id: string) => void }) {
  const doing = useDoing();
  const [name, setName] = useState('');
  const [origins, setOrigins] = useState('');
  const submit = (event: Event): void => {
    event.preventDefault();
    doing.run(async () => {
      const site = await api.ask('POST', '/v1/sites', { name, origins: origins.split(/\s+/).filter((each) => each !== '') });
      setName('');
      setOrigins('');
      done(String(site.id));
    });
  };
  return (
    <form class="panel" onSubmit={submit} aria-labelledby="register">
      <h2 id="register">Register a site</h2>
      <Field label="Name" name="name" refusal={doing.refusal} hint="Your visitors see it on the card.">
        {(attributes) => <input {...attributes} required maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
      </Field>
      <Field label="Origins" name="origins" refusal={doing.refusal} hint="Scheme, host and port of your pages, one a line, such as https://news.example">
        {(attributes) => <textarea {...attributes} required rows={2} spellcheck={false} value={origins} onInput={(event) => setOrigins(event.currentTarget.value)} />}
      </Field>
      <Trouble refusal={doing.refusal} names={['name', 'origins']} />
      <p>
        <button class="primary" disabled={doing.isBusy}>
          Register
        </button>
      </p>
    </form>
  );
}

function Sites({ signed }: { readonly signed: Signed }) {
  const api = new Api(signed.key);
  const [sites, setSites] = useState(signed.sites);
  const [here, setHere] = useState(signed.sites[0]?.id ?? '');
  const again = async (id?: string): Promise<void> => {
    const found = await api.sites();
    setSites(found);
    setHere(id ?? found[0]?.id ?? '');
  };
  return (
    <>
      {sites.length > 0 ? (
        <nav class="sites" aria-label="Your sites">
          {sites.map((site) => (
            <button key={site.id} type="button" aria-current={site.id === here ? 'true' : undefined} onClick={() => setHere(site.id)}>
              {site.name}
            </button>
          ))}
        </nav>
      ) : (
        <p class="quiet">This key has no site yet.</p>
      )}
      {here ? <SitePage key={here} api={api} id={here} revoked={() => void again()} /> : null}
      <Register api={api} done={(id) => void again(id)} />
      <Estimator api={api} />
    </>
  );
}

export function Partner() {
  const [signed, setSigned] = useState<Signed>();
  const [isReady, setReady] = useState(kept() === '');
  const done = (next: Signed | undefined): void => {
    keep(next?.key ?? '');
    setSigned(next);
  };
  useEffect(() => {
    const key = kept();
    if (key === '') return;
    new Api(key)
      .sites()
      .then((sites) => setSigned({ key, sites }), () => keep(''))
      .finally(() => setReady(true));
  }, []);
  return (
    <>
      <Top here="/partner">
        {signed ? (
          <button type="button" onClick={() => done(undefined)}>
            Sign out
          </button>
        ) : null}
      </Top>
      <main>
        {signed ? <Sites key={signed.key} signed={signed} /> : isReady ? <SignIn done={done} /> : <p class="quiet">Loading …</p>}
        {signed || !isReady ? null : <Estimator api={new Api('')} />}
      </main>
    </>
  );
}
