import { useState } from 'preact/hooks';
import { AMOUNT } from '../parts/amount.tsx';
import { Field, Trouble, useDoing } from '../parts/form.tsx';
import { Refusal } from '../parts/refusal.ts';
import { Statement } from '../parts/statement.tsx';
import { decimal, parseUsd, usd } from '../parts/usd.ts';
import { WithdrawalList, WithdrawForm } from '../parts/withdraw.tsx';
import { BOOKS, receipt, setPayout, statement, till, type Own, type Payout } from './api.ts';
import { has } from './money.tsx';
import type { Wallet } from './wallet.ts';
import { NAMES } from './words.ts';

/** As long as the API takes it. */
const ADDRESS_LENGTH_MAX = 128;
const THRESHOLD = 'threshold_nano_usd';

interface SettingsProps {
  readonly wallet: Wallet;
  readonly payout: Payout;
  readonly saved: () => void;
}

/** Where, and from how much on, earnings are to be paid out. */
function Settings({ wallet, payout, saved }: SettingsProps) {
  const doing = useDoing();
  const [address, setAddress] = useState(payout.address);
  const [threshold, setThreshold] = useState(payout.threshold === undefined ? '' : decimal(payout.threshold));
  const [said, setSaid] = useState('');
  const save = (event: Event): void => {
    event.preventDefault();
    setSaid('');
    doing.run(async () => {
      const amount = threshold.trim() === '' ? undefined : parseUsd(threshold);
      if (threshold.trim() !== '' && amount === undefined) throw new Refusal(0, 'This must be an amount in dollars, with a point, such as 0.5; a million at most.', THRESHOLD);
      await setPayout(wallet, { address: address.trim(), threshold: amount });
      setSaid('Saved.');
      saved();
    });
  };
  return (
    <form onSubmit={save} aria-label="Payout settings">
      <div class="fields">
        <Field label="Pay to (address or account)" name="address" refusal={doing.refusal} hint="Letters, digits and @ . : _ + - / without spaces.">
          {(attributes) => (
            <input
              {...attributes}
              maxLength={ADDRESS_LENGTH_MAX}
              autocomplete="off"
              spellcheck={false}
              value={address}
              onInput={(event) => setAddress(event.currentTarget.value)}
            />
          )}
        </Field>
        <Field label="From so many dollars on" name={THRESHOLD} refusal={doing.refusal} hint="Your own least amount, if you want one.">
          {(attributes) => <input {...attributes} inputMode="decimal" autocomplete="off" value={threshold} onInput={(event) => setThreshold(event.currentTarget.value)} />}
        </Field>
      </div>
      <Trouble refusal={doing.refusal} names={['address', THRESHOLD, AMOUNT]} />
      <p>
        <button disabled={doing.isBusy}>Save</button>{' '}
        <span role="status" class="quiet">
          {said}
        </span>
      </p>
    </form>
  );
}

export interface PayoutProps {
  readonly wallet: Wallet;
  readonly own: Own;
  readonly again: () => void;
}

/** Real money goes out to the address, as its owner asks for it. */
export function Payouts({ wallet, own, again }: PayoutProps) {
  const { payout, payouts, earnings } = own;
  const least = Math.max(payout.threshold ?? 0, payouts.least);
  const mine = till(wallet);
  const link = own.links?.find(({ book }) => book === 'live');
  return (
    <section aria-labelledby="payout">
      <h2 id="payout">Payout</h2>
      <div class="panel">
        <h3>Where to</h3>
        <Settings wallet={wallet} payout={payout} saved={again} />
        <h3>Withdraw</h3>
        {link ? (
          <p class="quiet">All real money that you earn goes to an account, which withdraws it.</p>
        ) : has(own, 'live') ? (
          payout.address === '' ? (
            <p class="quiet">
              {usd(earnings.live.available)} are available. Say above where they are to be paid to{least > 0 ? `; at least ${usd(least)} are paid out at a time` : ''}.
            </p>
          ) : (
            <WithdrawForm till={mine} available={earnings.live.available} least={least} address={payout.address} changed={again} />
          )
        ) : (
          <p class="quiet">
            Only real money goes out, and there is none yet{least > 0 ? `; at least ${usd(least)} are paid out at a time` : ''}.
            {has(own, 'test') ? ' Play money is for trying things out: it can be spent on jobs.' : ''}
          </p>
        )}
        <h3>Withdrawals</h3>
        <WithdrawalList till={mine} withdrawals={payouts.withdrawals} changed={again} />
        {own.links === undefined
          ? null
          : BOOKS.filter((book) => has(own, book)).map((book) => (
              <Statement
                key={book}
                of={NAMES[book].toLowerCase()}
                load={(before) => statement(wallet, book, before)}
                receipt={(number) => receipt(wallet, book, number)}
              />
            ))}
      </div>
    </section>
  );
}
