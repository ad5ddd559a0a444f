/** Asking for money to go out, and what became of what was asked for. */

import { useRef, useState } from 'preact/hooks';
import { AMOUNT, AmountField, amountOf } from './amount.tsx';
import { Field, Trouble, useDoing } from './form.tsx';
import { References, STATES, withdraw, type Till, type Withdrawal } from './till.ts';
import { date, time } from './times.ts';
import { useTokenRate } from './tokens.tsx';
import { tokens, usd } from './usd.ts';

/** As long as the API takes them. */
const ADDRESS_LENGTH_MAX = 200;

export interface WithdrawProps {
  readonly till: Till;
  readonly available: number;
  /** Nano-USD that are paid out at least. */
  readonly least: number;
  /** Where it goes where that is settled; otherwise it is asked for. */
  readonly address?: string;
  readonly changed: () => void;
}

export function WithdrawForm({ till, available, least, address, changed }: WithdrawProps) {
  const doing = useDoing();
  const references = useRef(new References());
  const rate = useTokenRate();
  const [amount, setAmount] = useState('');
  const [to, setTo] = useState('');
  const [isInTokens, setInTokens] = useState(false);
  const [said, setSaid] = useState('');
  const submit = (event: Event): void => {
    event.preventDefault();
    setSaid('');
    doing.run(async () => {
      const nanoUsd = amountOf(amount);
      const wish = { nanoUsd, address: address === undefined ? to.trim() : undefined, pay: isInTokens ? 'tokens' : 'usd' } as const;
      const state = await withdraw(till, references.current, wish, address);
      setAmount('');
      setSaid(state === 'approved' ? `${usd(nanoUsd)} are paid.` : `${usd(nanoUsd)} are held for you until the operator pays them.`);
      changed();
    });
  };
  return (
    <form onSubmit={submit} aria-label="Withdraw">
      <div class="fields">
        <AmountField value={amount} typed={setAmount} refusal={doing.refusal} available={available} rule={least > 0 ? `At least ${usd(least)} at a time.` : ''} />
        {address === undefined ? (
          <Field label="Pay to" name="address" refusal={doing.refusal} hint="A bank account with its owner's name, or another address that the operator can pay to.">
            {(attributes) => (
              <input {...attributes} required maxLength={ADDRESS_LENGTH_MAX} autocomplete="off" spellcheck={false} value={to} onInput={(event) => setTo(event.currentTarget.value)} />
            )}
          </Field>
        ) : null}
      </div>
      {rate > 0 ? (
        <label class="check">
          <input type="checkbox" checked={isInTokens} onChange={(event) => setInTokens(event.currentTarget.checked)} /> In RAVEN tokens, at {usd(rate)} each
        </label>
      ) : null}
      <Trouble refusal={doing.refusal} names={[AMOUNT, 'address']} />
      <p>
        <button class="primary" disabled={doing.isBusy}>
          Withdraw
        </button>
      </p>
      <p role="status" class="quiet">
        {said}
      </p>
    </form>
  );
}

const asTokens = ({ pay, microTokens }: Withdrawal): string => (pay === 'tokens' && microTokens !== undefined ? ` as ${tokens(microTokens)}` : '');

export interface ListProps {
  readonly till: Till;
  readonly withdrawals: readonly Withdrawal[];
  readonly changed: () => void;
}

/** Newest first, as they come. */
export function WithdrawalList({ till, withdrawals, changed }: ListProps) {
  const doing = useDoing();
  if (withdrawals.length === 0) return <p class="quiet">Nothing was withdrawn yet.</p>;
  const cancel = (id: string): void =>
    doing.run(async () => {
      await till.cancel(id);
      changed();
    });
  return (
    <>
      <ul class="looks withdrawals" aria-label="Withdrawals">
        {withdrawals.map((one) => {
          const [tone, name, note] = STATES[one.state] ?? ['quiet', one.state, ''];
          return (
            <li key={one.id}>
              <span>
                <b>{usd(one.nanoUsd)}</b>
                {asTokens(one)} <span class={`badge ${tone}`}>{name}</span>{' '}
                <span class="quiet">
                  {note}
                  {one.state === 'pending' ? `, until ${date(one.expires)} at most` : ''}
                  {one.note ? `: ${one.note}` : ''}
                </span>
                <br />
                <span class="quiet address">
                  {time(one.requested)}, to {one.address}
                </span>
              </span>
              {one.state === 'pending' ? (
                <button type="button" disabled={doing.isBusy} onClick={() => cancel(one.id)} aria-label={`Cancel the withdrawal of ${usd(one.nanoUsd)}`}>
                  Cancel
                </button>
              ) : null}
            </li>
          );
        })}
      </ul>
      <Trouble refusal={doing.refusal} />
    </>
  );
}
