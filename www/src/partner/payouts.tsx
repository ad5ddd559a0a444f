/** What a site has, and its way to its owner: on to the account, or out. */

import { useRef, useState } from 'preact/hooks';
import { AMOUNT, AmountField, amountOf } from '../parts/amount.tsx';
import { Trouble, useDoing } from '../parts/form.tsx';
import { useLooked } from '../parts/looked.ts';
import { Statement } from '../parts/statement.tsx';
import { References } from '../parts/till.ts';
import { inTokens, MoneyTile, useTokenRate } from '../parts/tokens.tsx';
import { usd } from '../parts/usd.ts';
import { WithdrawalList, WithdrawForm } from '../parts/withdraw.tsx';
import type { Api, Money } from './api.ts';

/** What the operator decides is seen after that. */
const EVERY_MS = 10_000;

export interface PayoutsProps {
  readonly api: Api;
  readonly id: string;
}

export function PayoutsPanel({ api, id }: PayoutsProps) {
  const [money, refusal, again] = useLooked(() => api.money(id), EVERY_MS);
  const till = api.till(id);
  return (
    <section class="panel" aria-labelledby="payouts">
      <h3 id="payouts">Payouts</h3>
      <Trouble refusal={refusal} />
      {money ? (
        <>
          <Balance money={money} />
          <h4>Withdraw</h4>
          {money.isPlayMoney ? (
            <p class="quiet">Play money stays inside: it is for trying things out. Real money needs a live key.</p>
          ) : (
            <WithdrawForm till={till} available={money.available} least={money.least} changed={again} />
          )}
          <h4>Withdrawals</h4>
          <WithdrawalList till={till} withdrawals={money.withdrawals} changed={again} />
          <h4>Spend on your own jobs</h4>
          <Spend api={api} id={id} available={money.available} changed={again} />
          <Statement load={(before) => api.statement(id, before)} receipt={(number) => api.receipt(id, number)} />
        </>
      ) : refusal ? null : (
        <p class="quiet">Loading …</p>
      )}
    </section>
  );
}

function Balance({ money }: { readonly money: Money }) {
  const { available, pending, held, isPlayMoney, elsewhere } = money;
  const rate = useTokenRate();
  const elsewhereIn = inTokens(elsewhere, rate);
  return (
    <>
      <dl class="tiles">
        <MoneyTile name="Available" nanoUsd={available} rate={rate} isPlayMoney={isPlayMoney} />
        <MoneyTile name="Maturing" nanoUsd={pending} rate={rate} isPlayMoney={isPlayMoney} note="until the work is confirmed" />
        <MoneyTile name="On its way out" nanoUsd={held} rate={rate} isPlayMoney={isPlayMoney} />
      </dl>
      {elsewhere > 0 ? (
        <p class="hint">
          It has earned {usd(elsewhere)} {elsewhereIn ? `(${elsewhereIn}) ` : ''}in {isPlayMoney ? 'real money' : 'play money'} too, which this key does not reach.
        </p>
      ) : null}
    </>
  );
}

interface SpendProps {
  readonly api: Api;
  readonly id: string;
  readonly available: number;
  readonly changed: () => void;
}

function Spend({ api, id, available, changed }: SpendProps) {
  const doing = useDoing();
  const references = useRef(new References());
  const [amount, setAmount] = useState('');
  const [said, setSaid] = useState('');
  const submit = (event: Event): void => {
    event.preventDefault();
    setSaid('');
    doing.run(async () => {
      const nanoUsd = amountOf(amount);
      await api.spend(id, nanoUsd, references.current.of(nanoUsd));
      references.current.done();
      setAmount('');
      setSaid(`${usd(nanoUsd)} are your account's now: its jobs can be paid with them.`);
      changed();
    });
  };
  return (
    <form onSubmit={submit} aria-label="Spend on your own jobs">
      <div class="fields">
        <AmountField value={amount} typed={setAmount} refusal={doing.refusal} available={available} />
      </div>
      <Trouble refusal={doing.refusal} names={[AMOUNT]} />
      <p>
        <button disabled={doing.isBusy}>Move to your account</button>
      </p>
      <p role="status" class="quiet">
        {said}
      </p>
    </form>
  );
}
