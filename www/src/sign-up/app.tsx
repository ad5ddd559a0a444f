import { useEffect, useState } from 'preact/hooks';
import { Copy, Field, Trouble, useDoing } from '../parts/form.tsx';
import { useOffered } from '../parts/passkey-button.tsx';
import { Top } from '../parts/top.tsx';
import { begin, begunWithPasskey, finish, isOpen, recover, tokenOf, type Made } from './api.ts';

/** Where somebody is on the way to an account. */
type Stage =
  | { readonly at: 'asking' }
  | { readonly at: 'sent'; readonly email: string }
  | { readonly at: 'followed'; readonly token: string }
  | { readonly at: 'made'; readonly made: Made; readonly by: Way };

/** By what somebody has the account. */
type Way = 'link' | 'passkey' | 'code';

/** Takes the link's token for as long as it may be needed: a reload before the button is pressed loses nothing. */
const first = (): Stage => {
  const token = tokenOf(location.hash);
  return token ? { at: 'followed', token } : { at: 'asking' };
};

export function SignUp() {
  const [stage, setStage] = useState(first);
  const hasPasskeys = useOffered('sign-up');
  useEffect(() => {
    // A link that is followed while this page is open loads nothing.
    const look = (): void => {
      if (tokenOf(location.hash)) setStage(first());
    };
    addEventListener('hashchange', look);
    return () => removeEventListener('hashchange', look);
  }, []);
  const done = (made: Made, by: Way): void => {
    history.replaceState(null, '', location.pathname);
    setStage({ at: 'made', made, by });
  };
  return (
    <>
      <Top here="/sign-up" />
      <main>
        {stage.at === 'asking' && hasPasskeys ? <WithPasskey done={(made) => done(made, 'passkey')} /> : null}
        {stage.at === 'asking' ? <Asking isFirst={!hasPasskeys} sent={(email) => setStage({ at: 'sent', email })} /> : null}
        {stage.at === 'sent' ? <Sent email={stage.email} again={() => setStage({ at: 'asking' })} /> : null}
        {stage.at === 'followed' ? <Followed token={stage.token} done={(made) => done(made, 'link')} /> : null}
        {stage.at === 'made' ? <Keys made={stage.made} by={stage.by} /> : null}
        {stage.at === 'asking' ? <Recover done={(made) => done(made, 'code')} /> : null}
      </main>
    </>
  );
}

const BOOKS = [
  ['test', 'Play money', 'To try things out: 1,000 dollars to begin with, worth nothing outside.'],
  ['live', 'Real money', 'What you deposit or earn.'],
] as const;

interface BooksProps {
  /** Of the form that it stands in. */
  readonly form: string;
  readonly book: 'test' | 'live';
  readonly choose: (book: 'test' | 'live') => void;
}

function Books({ form, book, choose }: BooksProps) {
  return (
    <fieldset>
      <legend>The account has</legend>
      {BOOKS.map(([name, label, hint]) => (
        <div key={name}>
          <label class="check">
            <input type="radio" name="book" checked={book === name} onChange={() => choose(name)} aria-describedby={`${form}-${name}`} /> {label}
          </label>
          <p id={`${form}-${name}`} class="hint">
            {hint}
          </p>
        </div>
      ))}
    </fieldset>
  );
}

/** Stands once on the page. */
const Purpose = () => (
  <p>With an account you train models on this network, or register the sites whose visitors may lend a hand. Visitors who lend their computer need none.</p>
);

function WithPasskey({ done }: { readonly done: (made: Made) => void }) {
  const doing = useDoing();
  const [name, setName] = useState('');
  const [book, setBook] = useState<'test' | 'live'>('test');
  const submit = (event: Event): void => {
    event.preventDefault();
    doing.run(async () => done(await begunWithPasskey(name.trim(), book)));
  };
  return (
    <section class="panel" aria-labelledby="with-passkey">
      <h2 id="with-passkey">Sign up with a passkey</h2>
      <Purpose />
      <p>No mail and no password: your device makes a passkey for this site, and its own lock signs you in.</p>
      <form onSubmit={submit} aria-label="Sign up with a passkey">
        <Field label="Name" name="name" refusal={doing.refusal} hint="Your device shows it when you sign in. Nobody else sees it.">
          {(attributes) => <input {...attributes} autocomplete="username" required maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
        </Field>
        <Books form="passkey" book={book} choose={setBook} />
        <Trouble refusal={doing.refusal} names={['name']} />
        <p>
          <button class="primary" disabled={doing.isBusy}>
            Make a passkey and my account
          </button>
        </p>
      </form>
    </section>
  );
}

interface AskingProps {
  /** Whether there is no other way to sign up. */
  readonly isFirst: boolean;
  readonly sent: (email: string) => void;
}

function Asking({ isFirst, sent }: AskingProps) {
  const doing = useDoing();
  const [email, setEmail] = useState('');
  const [book, setBook] = useState<'test' | 'live'>('test');
  const [isClosed, setClosed] = useState(false);
  useEffect(() => {
    // Where nothing answers the form says so when it is sent.
    isOpen().then((open) => setClosed(!open), () => undefined);
  }, []);
  const submit = (event: Event): void => {
    event.preventDefault();
    doing.run(async () => {
      await begin(email.trim(), book);
      sent(email.trim());
    });
  };
  if (isClosed && !isFirst) return null;
  return (
    <section class="panel" aria-labelledby="sign-up">
      <h2 id="sign-up">{isFirst ? 'Sign up' : 'Sign up by mail'}</h2>
      {isFirst ? <Purpose /> : null}
      {isClosed ? (
        <p class="quiet" role="status">
          Nobody can sign up by mail here: whoever runs this coordinator makes the accounts. Ask them for an API key.
        </p>
      ) : (
        <form onSubmit={submit}>
          <Field label="E-mail address" name="email" refusal={doing.refusal} hint="A link is sent to it. It is kept with the account, and told to nobody.">
            {(attributes) => (
              <input {...attributes} type="email" autocomplete="email" required maxLength={254} value={email} onInput={(event) => setEmail(event.currentTarget.value)} />
            )}
          </Field>
          <Books form="book" book={book} choose={setBook} />
          <Trouble refusal={doing.refusal} names={['email']} />
          <p>
            <button class="primary" disabled={doing.isBusy}>
              Send me the link
            </button>
          </p>
        </form>
      )}
    </section>
  );
}

function Sent({ email, again }: { readonly email: string; readonly again: () => void }) {
  return (
    <section class="panel" aria-labelledby="sent">
      <h2 id="sent">Look into your mail</h2>
      <p role="status">
        A message is on its way to <b class="address">{email}</b>. Its link is good for 15 minutes. If the address has an account already, the message says
        how to get back to it.
      </p>
      <p>
        <button type="button" onClick={again}>
          Nothing came, or it was another address
        </button>
      </p>
    </section>
  );
}

function Followed({ token, done }: { readonly token: string; readonly done: (made: Made) => void }) {
  const doing = useDoing();
  return (
    <section class="panel" aria-labelledby="followed">
      <h2 id="followed">One more press</h2>
      <p>The button makes your account. Then you are shown, this once, an API key and a code that gives the account back to you should you lose the key.</p>
      <p>
        <button type="button" class="primary" disabled={doing.isBusy} onClick={() => doing.run(async () => done(await finish(token)))}>
          Make my account
        </button>
      </p>
      <Trouble refusal={doing.refusal} />
      {doing.refusal?.status === 404 || doing.refusal?.status === 422 ? (
        <p>
          <a href="/sign-up">Ask for another link</a>
        </p>
      ) : null}
    </section>
  );
}

function Keys({ made, by }: { readonly made: Made; readonly by: Way }) {
  const isNew = by !== 'code';
  return (
    <section class="panel" aria-labelledby="made">
      <h2 id="made">{isNew ? 'Your account is made' : 'The account is yours again'}</h2>
      <p role="status">
        <b>Keep both of these now: they are shown this once.</b> {isNew ? '' : 'Keys and passkeys from before are good for nothing any more.'}
      </p>
      <h3>API key</h3>
      <p class="quiet">Programs and the pages here sign in with it. Whoever has it may do everything with the account.</p>
      <Copy text={made.key} what="the API key" />
      <h3>Recovery code</h3>
      <p class="quiet">For when the key is lost. Keep it somewhere else than the key.</p>
      <Copy text={made.recoveryCode} what="the recovery code" />
      <h3>What now?</h3>
      <ul>
        <li>
          <a href="/partner">Register a site</a>, or see <a href="/account">the account</a>: sign in there with the {by === 'passkey' ? 'passkey, or the key' : 'key'}.
        </li>
        <li>
          Train a model: upload a data set, then post a job. With the key in <code>RAVEN_KEY</code> this shows that it works:
          <pre tabIndex={0} aria-label="a first request">{`curl ${location.origin}/v1/account -H "Authorization: Bearer $RAVEN_KEY"`}</pre>
        </li>
      </ul>
      <p class="hint">
        The account is called <span class="address">{made.account}</span>.
      </p>
    </section>
  );
}

function Recover({ done }: { readonly done: (made: Made) => void }) {
  const doing = useDoing();
  const [code, setCode] = useState('');
  const submit = (event: Event): void => {
    event.preventDefault();
    doing.run(async () => done(await recover(code.trim())));
  };
  return (
    <section class="panel" aria-labelledby="recover">
      <h2 id="recover">I have lost my key</h2>
      <form onSubmit={submit}>
        <Field label="Recovery code" name="code" refusal={doing.refusal} hint="It gives you a new key and a new code. All keys and passkeys from before stop working.">
          {(attributes) => (
            <input {...attributes} type="password" autocomplete="off" spellcheck={false} required placeholder="rr_…" value={code} onInput={(event) => setCode(event.currentTarget.value)} />
          )}
        </Field>
        <Trouble refusal={doing.refusal} names={['code']} />
        <p>
          <button disabled={doing.isBusy}>Give me the account back</button>
        </p>
      </form>
    </section>
  );
}
