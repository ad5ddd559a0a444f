/** What was earned, spent on jobs of one's own. */

import { useRef, useState } from 'preact/hooks';
import { AMOUNT, AmountField, amountOf } from '../parts/amount.tsx';
import { Field, Trouble, useDoing } from '../parts/form.tsx';
import { Refusal } from '../parts/refusal.ts';
import { References } from '../parts/till.ts';
import { usd } from '../parts/usd.ts';
import { accountOf, BOOKS, spend, type Book, type Own } from './api.ts';
import { has } from './money.tsx';
import type { Wallet } from './wallet.ts';

const NAMES: Readonly<Record<Book, string>> = { live: 'Real money', test: 'Play money' };

export interface SpendProps {
  readonly wallet: Wallet;
  readonly own: Own;
  readonly again: () => void;
}

export function Spend({ wallet, own, again }: SpendProps) {
  const books = BOOKS.filter((book) => has(own, book));
  const doing = useDoing();
  const references = useRef(new References());
  const [chosen, choose] = useState<Book>();
  const [key, setKey] = useState('');
  const [amount, setAmount] = useState('');
  const [said, setSaid] = useState('');
  const book = chosen ?? books[0];
  if (!book) return null;
  const submit = (event: Event): void => {
    event.preventDefault();
    setSaid('');
    doing.run(async () => {
      const nanoUsd = amountOf(amount);
      const owner = await accountOf(key.trim());
      if (owner.book !== book) throw new Refusal(0, `This key's account has ${NAMES[owner.book].toLowerCase()}, and both kinds never meet.`, 'key');
      await spend(wallet, key.trim(), owner.account, nanoUsd, references.current.of(owner.account, nanoUsd));
      references.current.done();
      setAmount('');
      setKey('');
      setSaid(`${usd(nanoUsd)} are the account’s now: its jobs can be paid with them.`);
      again();
    });
  };
  return (
    <section aria-labelledby="spend">
      <h2 id="spend">Spend on your own jobs</h2>
      <form class="panel" onSubmit={submit}>
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
        <div class="fields">
          <AmountField value={amount} typed={setAmount} refusal={doing.refusal} available={own.earnings[book].available} rule={book === 'test' ? 'Play money.' : ''} />
          <Field label="API key of the account" name="key" refusal={doing.refusal} hint="With the scope account. It is not kept.">
            {(attributes) => (
              <input {...attributes} type="password" autocomplete="off" spellcheck={false} required placeholder="rk_…" value={key} onInput={(event) => setKey(event.currentTarget.value)} />
            )}
          </Field>
        </div>
        <Trouble refusal={doing.refusal} names={[AMOUNT, 'key']} />
        <p>
          <button class="primary" disabled={doing.isBusy}>
            Move to the account
          </button>
        </p>
        <p role="status" class="quiet">
          {said}
        </p>
      </form>
    </section>
  );
}
