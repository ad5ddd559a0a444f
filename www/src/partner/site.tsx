/** One site: what it is, what came of it, and its switches. */

import { useEffect, useRef, useState } from 'preact/hooks';
import { count, words } from '../format.ts';
import { Tile } from '../parts/totals.tsx';
import type { Api, Look, Proof, Site } from './api.ts';
import { EarningsPanel } from './earnings.tsx';
import { Copy, Field, Trouble, useDoing } from '../parts/form.tsx';
import { Funnel } from './funnel.tsx';
import { PayoutsPanel } from './payouts.tsx';
import { Switches } from './switches.tsx';

/** Between two questions, while somebody looks. */
const EVERY_MS = 5_000;

export interface SiteProps {
  readonly api: Api;
  readonly id: string;
  readonly revoked: () => void;
}

export function SitePage({ api, id, revoked }: SiteProps) {
  const [site, setSite] = useState<Site>();
  const loading = useDoing();
  const ask = useRef(loading.run);
  ask.current = loading.run;
  useEffect(() => {
    const look = (): void => {
      if (!document.hidden) ask.current(async () => setSite(await api.site(id)));
    };
    look();
    const timer = setInterval(look, EVERY_MS);
    return () => clearInterval(timer);
  }, [id]);
  if (!site) return loading.refusal ? <Trouble refusal={loading.refusal} /> : <p class="quiet">Loading …</p>;
  const earning = site.origins.filter((origin) => origin.earns).length;
  // Its tag shows nothing any more, and its money is its owner's.
  const isRevoked = site.state === 'revoked';
  return (
    <article aria-labelledby="site">
      <h2 id="site">{site.name}</h2>
      <dl class="tiles">
        <Tile name="State" value={words(site.state)} />
        <Tile name="Contributors now" value={count(site.contributors)} />
        {isRevoked ? null : <Tile name="Origins that earn" value={`${earning} of ${site.origins.length}`} />}
      </dl>
      <Trouble refusal={loading.refusal} />
      {isRevoked ? (
        <p class="quiet">It is revoked: its key and its tag are worth nothing. What it has earned is yours to spend and withdraw.</p>
      ) : (
        <>
          <Tag api={api} site={site} />
          <Origins api={api} site={site} changed={setSite} />
          <Switches api={api} site={site} changed={setSite} />
        </>
      )}
      <Funnel site={site} />
      <EarningsPanel api={api} id={id} />
      <PayoutsPanel api={api} id={id} />
      {isRevoked ? null : <Revoke api={api} site={site} revoked={revoked} />}
    </article>
  );
}

function Looks({ looks }: { readonly looks: readonly Look[] }) {
  return (
    <ul class="looks">
      {looks.map((look) => (
        <li key={look.url}>
          <span class={`badge ${look.isGood ? 'good' : 'bad'}`}>{words(look.result)}</span> <span class="address">{look.url}</span>
          {look.detail ? <span class="quiet"> {look.detail}</span> : null}
        </li>
      ))}
    </ul>
  );
}

function Tag({ api, site }: { readonly api: Api; readonly site: Site }) {
  const doing = useDoing();
  const [looks, setLooks] = useState<readonly Look[]>([]);
  return (
    <section class="panel" aria-labelledby="tag">
      <h3 id="tag">The tag</h3>
      <p class="quiet">
        Paste it into your pages, before the end of the body. This one is pinned: browsers refuse any other script under its name.
      </p>
      <Copy text={site.pinned || site.snippet} what="the tag" />
      <p>
        <button type="button" disabled={doing.isBusy} onClick={() => doing.run(async () => setLooks(await api.verify(site.id)))}>
          Look whether it is on the pages
        </button>
      </p>
      <div role="status">{doing.isBusy ? <p class="quiet">Looking …</p> : <Looks looks={looks} />}</div>
      <Trouble refusal={doing.refusal} />
    </section>
  );
}

const STATES: Readonly<Record<string, readonly [tone: string, text: string]>> = {
  proven: ['good', 'Proven'],
  test: ['good', 'On this machine: needs no proof for play money'],
  unproven: ['wait', 'Unproven: its 3 % go to the reserve'],
  lapsed: ['bad', 'The proof was not found again, or another site has proven it since: its 3 % go to the reserve'],
};

export interface ChangeProps {
  readonly api: Api;
  readonly site: Site;
  readonly changed: (site: Site) => void;
}

function Origins({ api, site, changed }: ChangeProps) {
  const doing = useDoing();
  const saving = useDoing();
  const [proof, setProof] = useState<Proof>();
  const [draft, setDraft] = useState<string>();
  const shown = draft ?? site.origins.map(({ origin }) => origin).join('\n');
  const prove = (): void =>
    doing.run(async () => {
      setProof(await api.prove(site.id));
      changed(await api.site(site.id));
    });
  const save = (event: Event): void => {
    event.preventDefault();
    saving.run(async () => {
      changed(await api.change(site.id, { origins: shown.split(/\s+/).filter((each) => each !== '') }));
      setDraft(undefined);
    });
  };
  return (
    <section class="panel" aria-labelledby="origins">
      <h3 id="origins">Origins</h3>
      <ul class="looks">
        {site.origins.map(({ origin, state }) => {
          const [tone, said] = STATES[state] ?? ['quiet', words(state)];
          return (
            <li key={origin}>
              <span class="address">{origin}</span> <span class={`badge ${tone}`}>{said}</span>
            </li>
          );
        })}
      </ul>
      <p class="quiet">
        To prove an origin, put the site's key on a line of <code>/.well-known/raven-site.txt</code> on it, or the text into a TXT record named{' '}
        <code>_raven.</code> and the host. It is looked at again every day.
      </p>
      <p class="hint">For the file:</p>
      <Copy text={site.siteKey} what="the site's key, for the file" />
      <p class="hint">For the record:</p>
      <Copy text={`raven-site=${site.siteKey}`} what="the text, for the record" />
      <p>
        <button type="button" disabled={doing.isBusy} onClick={prove}>
          Look for the proof
        </button>
      </p>
      <div role="status">{doing.isBusy ? <p class="quiet">Looking …</p> : <Looks looks={proof?.looks ?? []} />}</div>
      <Trouble refusal={doing.refusal} />
      <form onSubmit={save}>
        <Field label="Change the list" name="origins" refusal={saving.refusal} hint="One a line. Visitors of pages that are not in it any more are sent away within a minute.">
          {(attributes) => <textarea {...attributes} rows={2} spellcheck={false} value={shown} onInput={(event) => setDraft(event.currentTarget.value)} />}
        </Field>
        <Trouble refusal={saving.refusal} names={['origins']} />
        <p>
          <button disabled={saving.isBusy || draft === undefined}>Save the list</button>
        </p>
      </form>
    </section>
  );
}

function Revoke({ api, site, revoked }: RevokeProps) {
  const doing = useDoing();
  const [isAsked, setAsked] = useState(false);
  const revoke = (): void =>
    doing.run(async () => {
      await api.ask('DELETE', `/v1/sites/${site.id}`);
      revoked();
    });
  return (
    <section class="panel" aria-labelledby="revoke">
      <h3 id="revoke">Revoke</h3>
      <p class="quiet">Its key and its tag are worth nothing from then on. What it has earned stays yours.</p>
      {isAsked ? (
        <p>
          <button type="button" class="stop" disabled={doing.isBusy} onClick={revoke}>
            Revoke it for good
          </button>{' '}
          <button type="button" onClick={() => setAsked(false)}>
            Keep it
          </button>
        </p>
      ) : (
        <p>
          <button type="button" onClick={() => setAsked(true)}>
            Revoke the site …
          </button>
        </p>
      )}
      <Trouble refusal={doing.refusal} />
    </section>
  );
}

interface RevokeProps {
  readonly api: Api;
  readonly site: Site;
  readonly revoked: () => void;
}
