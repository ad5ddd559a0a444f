/** What was earned, made an account's: a part of it now, or all from now on. */

import { useRef, useState } from 'preact/hooks';
import { AMOUNT, AmountField, amountOf } from '../parts/amount.tsx';
import { Field, Trouble, useDoing } from '../parts/form.tsx';
import { signIn, signOut, type Entered } from '../parts/passkey.ts';
import { PasskeyButton } from '../parts/passkey-button.tsx';
import { Refusal } from '../parts/refusal.ts';
import { References } from '../parts/till.ts';
import { date } from '../parts/times.ts';
import { usd } from '../parts/usd.ts';
import { accountOf, BOOKS, link, spend, unlink, type Account, type Book, type Link, type Own } from './api.ts';
import { has } from './money.tsx';
import type { Wallet } from './wallet.ts';
import { NAMES } from './words.ts';

export interface SpendProps {
  readonly wallet: Wallet;
  readonly own: Own;
  readonly again: () => void;
}

export function Spend({ wallet, own, again }: SpendProps) {
  const [chosen, choose] = useState<Book>();
  const links = own.links ?? [];
  const books = BOOKS.filter((book) => has(own, book) || links.some((each) => each.book === book));
  const book = chosen ?? books[0];
  if (!book) return null;
  const linked = links.find((each) => each.book === book);
  return (
    <section aria-labelledby="spend">
      <h2 id="spend">Spend on your own jobs</h2>
      <div class="panel">
        <p class="quiet">
          An account posts jobs and pays for them. No account yet? <a href="/sign-up">Sign up</a>.
        </p>
        {books.length > 1 ? (
          <fieldset>
            <legend>Of which</legend>
            {books.map((one) => (
              <label key={one} class="check">
                <input type="radio" name="book" checked={one === book} onChange={() => choose(one)} /> {NAMES[one]}
              </label>
            ))}
          </fieldset>
        ) : null}
        {linked ? <Linked wallet={wallet} linked={linked} again={again} /> : <MoveForm key={book} wallet={wallet} own={own} book={book} again={again} />}
      </div>
    </section>
  );
}

interface LinkedProps {
  readonly wallet: Wallet;
  readonly linked: Link;
  readonly again: () => void;
}

function Linked({ wallet, linked, again }: LinkedProps) {
  const doing = useDoing();
  const end = (): void =>
    doing.run(async () => {
      await unlink(wallet, linked.book);
      again();
    });
  return (
    <>
      <p>
        Since {date(linked.at)} all {NAMES[linked.book].toLowerCase()} that you earn goes to the account <b class="address">{linked.account}</b>.
      </p>
      <p>
        <button type="button" disabled={doing.isBusy} onClick={end}>
          End that
        </button>
      </p>
      <Trouble refusal={doing.refusal} />
    </>
  );
}

function MoveForm({ wallet, own, book, again }: SpendProps & { readonly book: Book }) {
  const doing = useDoing();
  const references = useRef(new References());
  const [isAll, setAll] = useState(false);
  const [typed, setTyped] = useState('');
  const [entered, setEntered] = useState<Entered>();
  const key = entered?.key ?? typed.trim();
  const [amount, setAmount] = useState('');
  const [said, setSaid] = useState('');
  const move = async ({ account }: Account): Promise<string> => {
    if (isAll) {
      await link(wallet, key, account, references.current.of(account));
      return `All ${NAMES[book].toLowerCase()} that you earn is the account’s from now on.`;
    }
    const nanoUsd = amountOf(amount);
    await spend(wallet, key, account, nanoUsd, references.current.of(account, nanoUsd));
    return `${usd(nanoUsd)} are the account’s now: its jobs can be paid with them.`;
  };
  const submit = (event: Event): void => {
    event.preventDefault();
    setSaid('');
    doing.run(async () => {
      if (!isAll) amountOf(amount);
      const owner = await accountOf(key);
      if (owner.book !== book) throw new Refusal(0, `This key's account has ${NAMES[owner.book].toLowerCase()}, and both kinds never meet.`, 'key');
      setSaid(await move(owner));
      references.current.done();
      setAmount('');
      setTyped('');
      leave();
      again();
    });
  };
  const press = (): void => doing.run(async () => setEntered(await signIn()));
  /** What a passkey gave is for one movement, as a key that is typed is. */
  const leave = (): void => {
    if (entered) void signOut(entered);
    setEntered(undefined);
  };
  return (
    <form onSubmit={submit} aria-label="Move to an account">
      {own.links === undefined ? null : (
        <fieldset>
          <legend>How much</legend>
          <label class="check">
            <input type="radio" name="all" checked={!isAll} onChange={() => setAll(false)} /> An amount, now
          </label>
          <label class="check">
            <input type="radio" name="all" checked={isAll} onChange={() => setAll(true)} /> All, and what I earn from now on
          </label>
        </fieldset>
      )}
      <div class="fields">
        {isAll ? null : (
          <AmountField value={amount} typed={setAmount} refusal={doing.refusal} available={own.earnings[book].available} rule={book === 'test' ? 'Play money.' : ''} />
        )}
        {entered ? null : (
          <Field label="API key of the account" name="key" refusal={doing.refusal} hint="With the scope account. It is not kept.">
            {(attributes) => (
              <input {...attributes} type="password" autocomplete="off" spellcheck={false} required placeholder="rk_…" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
            )}
          </Field>
        )}
      </div>
      {entered ? (
        <p>
          To the account <b class="address">{entered.account}</b>.{' '}
          <button type="button" disabled={doing.isBusy} onClick={leave}>
            Another account
          </button>
        </p>
      ) : (
        <PasskeyButton isBusy={doing.isBusy} press={press} />
      )}
      <Trouble refusal={doing.refusal} names={[...(entered ? [] : ['key']), ...(isAll ? [] : [AMOUNT])]} />
      <p>
        <button class="primary" disabled={doing.isBusy}>
          {isAll ? 'Link the account' : 'Move to the account'}
        </button>
      </p>
      <p role="status" class="quiet">
        {said}
      </p>
    </form>
  );
}
