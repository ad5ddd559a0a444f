import { useState } from 'preact/hooks';
import { Field, Trouble, useDoing } from '../parts/form.tsx';
import { SignedIn } from '../parts/sign-in.tsx';
import { Api, type SiteName } from './api.ts';
import { Estimator } from './estimate.tsx';
import { SitePage } from './site.tsx';

interface Signed {
  readonly key: string;
  readonly sites: readonly SiteName[];
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
              {site.state === 'revoked' ? ' (revoked)' : ''}
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
  return (
    <SignedIn here="/partner" open={async (key): Promise<Signed> => ({ key, sites: await new Api(key).sites() })} outside={<Estimator api={new Api('')} />}>
      {(signed) => <Sites key={signed.key} signed={signed} />}
    </SignedIn>
  );
}
