import { useState } from 'preact/hooks';
import { Copy, Trouble } from '../parts/form.tsx';
import { useLooked } from '../parts/looked.ts';
import { SignedIn } from '../parts/sign-in.tsx';
import { Statement } from '../parts/statement.tsx';
import type { Withdrawals } from '../parts/till.ts';
import { MoneyTile, useTokenRate } from '../parts/tokens.tsx';
import { usd } from '../parts/usd.ts';
import { WithdrawalList, WithdrawForm } from '../parts/withdraw.tsx';
import { Api, type Account, type Key, type Passkey } from './api.ts';
import { KeysPanel } from './keys.tsx';
import { PasskeysPanel } from './passkeys.tsx';
import { SubAccountsPanel } from './sub-accounts.tsx';

/** What the operator decides, and what jobs use, is seen after that. */
const EVERY_MS = 10_000;

export function AccountPage() {
  const open = async (key: string): Promise<Api> => {
    const api = new Api(key);
    await api.open();
    return api;
  };
  return (
    <SignedIn here="/account" open={open}>
      {(api) => (
        <>
          <MoneyPanel api={api} />
          <Access api={api} />
          <SubAccountsPanel api={api} />
        </>
      )}
    </SignedIn>
  );
}

/** Who comes in, and how. What one of both lists does is seen in the other at once. */
function Access({ api }: { readonly api: Api }) {
  const [ofKeys, lookAtKeys] = useState(0);
  const [ofPasskeys, lookAtPasskeys] = useState(0);
  const [keys, setKeys] = useState<readonly Key[]>();
  const [passkeys, setPasskeys] = useState<readonly Passkey[]>();
  return (
    <>
      <KeysPanel api={api} passkeys={passkeys} turn={ofKeys} looked={setKeys} revoked={() => lookAtPasskeys(ofPasskeys + 1)} />
      <PasskeysPanel api={api} keys={keys} turn={ofPasskeys} looked={setPasskeys} changed={() => lookAtKeys(ofKeys + 1)} />
    </>
  );
}

function MoneyPanel({ api }: { readonly api: Api }) {
  const [money, refusal, again] = useLooked(() => api.money(), EVERY_MS);
  return (
    <section class="panel" aria-labelledby="money">
      <h2 id="money">Money</h2>
      <Trouble refusal={refusal} />
      {money ? <Money api={api} money={money} again={again} /> : refusal ? null : <p class="quiet">Loading …</p>}
    </section>
  );
}

interface MoneyProps {
  readonly api: Api;
  readonly money: Account & Withdrawals;
  readonly again: () => void;
}

function Money({ api, money, again }: MoneyProps) {
  const { name, isPlayMoney, available, held, pending, least, withdrawals } = money;
  const rate = useTokenRate();
  const kind = { rate, isPlayMoney };
  return (
    <>
      <dl class="tiles">
        <MoneyTile name="Available" nanoUsd={available} {...kind} />
        <MoneyTile name="On its way out" nanoUsd={held} {...kind} />
        <MoneyTile name="On its way in" nanoUsd={pending} {...kind} />
      </dl>
      <p class="quiet">A job takes its price from here when it is posted, and gives back what it did not use.</p>
      <h3>Pay in</h3>
      {isPlayMoney ? (
        <p class="quiet">Nothing can be paid in: play money is for trying things out. Real money needs an account of its own.</p>
      ) : (
        <>
          <p class="quiet">Ask whoever runs this coordinator how, and name this account:</p>
          <Copy text={name} what="the account's name" />
        </>
      )}
      <h3>Withdraw</h3>
      {isPlayMoney ? (
        <p class="quiet">Play money stays inside{least > 0 ? `. Of real money at least ${usd(least)} are paid out at a time` : ''}.</p>
      ) : (
        <WithdrawForm till={api.till} available={available} least={least} changed={again} />
      )}
      <h3>Withdrawals</h3>
      <WithdrawalList till={api.till} withdrawals={withdrawals} changed={again} />
      <Statement load={(before) => api.statement(before)} receipt={(number) => api.receipt(number)} />
    </>
  );
}
