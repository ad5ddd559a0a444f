/** Accounts that a platform has made for users of its own. */

import { useEffect, useRef, useState } from 'preact/hooks';
import { AMOUNT, AmountField, amountOf } from '../parts/amount.tsx';
import { Copy, Field, Trouble, useDoing } from '../parts/form.tsx';
import { References } from '../parts/till.ts';
import { date } from '../parts/times.ts';
import { MoneyTile, below, useTokenRate } from '../parts/tokens.tsx';
import { usd, usdBrief } from '../parts/usd.ts';
import type { Api, Keys as AllKeys } from './api.ts';
import { Ends, KeyLine, NewKeyForm } from './keys.tsx';
import { SubAccounts, type Direction, type Made, type SubAccount } from './sub-accounts-api.ts';

/** As long as the API takes them. */
const [NAME_LENGTH_MAX, EXTERNAL_ID_LENGTH_MAX] = [100, 200];

/** What is listed so far. */
interface Listed {
  readonly accounts: readonly SubAccount[];
  readonly after: string;
  readonly most: number;
}

export function SubAccountsPanel({ api }: { readonly api: Api }) {
  const doing = useDoing();
  const rate = useTokenRate();
  const [routes] = useState(() => new SubAccounts(api));
  const [listed, setListed] = useState<Listed>();
  const [opened, open] = useState('');
  const load = (): void =>
    doing.run(async () => {
      const page = await routes.page(listed?.after);
      setListed({ ...page, accounts: [...(listed?.accounts ?? []), ...page.accounts] });
    });
  useEffect(load, []);
  const changed = (now: SubAccount): void =>
    setListed((before) => before && { ...before, accounts: before.accounts.map((each) => (each.account === now.account ? now : each)) });
  // It stands at the end, and comes with the last page where that is not listed yet.
  const made = async (account: string): Promise<void> => {
    const now = await routes.one(account);
    setListed((before) => (before && before.after === '' ? { ...before, accounts: [...before.accounts, now] } : before));
    open(account);
  };
  return (
    <section class="panel" aria-labelledby="sub-accounts">
      <h2 id="sub-accounts">Sub-accounts</h2>
      <p class="quiet">
        For platforms that serve users of their own. Each has keys, jobs and money of its own, begins with nothing, and sees only what it owns.
        {listed && listed.most > 0 ? ` At most ${listed.most} are open at a time.` : ''} Their open jobs, data and sites count together with this account’s against the limits of one account.
      </p>
      {listed?.accounts.length === 0 ? <p class="quiet">There is none yet.</p> : null}
      {listed ? (
        <ul class="looks withdrawals sub-accounts" aria-label="Sub-accounts">
          {listed.accounts.map((each) => (
            <Line key={each.account} routes={routes} of={each} rate={rate} isOpen={each.account === opened} toggle={() => open(each.account === opened ? '' : each.account)} changed={changed} />
          ))}
        </ul>
      ) : doing.refusal ? null : (
        <p class="quiet">Loading …</p>
      )}
      {listed && listed.after !== '' ? (
        <p>
          <button type="button" disabled={doing.isBusy} onClick={load}>
            More of them
          </button>
        </p>
      ) : null}
      <Trouble refusal={doing.refusal} />
      {listed ? (
        <>
          <h3>Another sub-account</h3>
          <NewSubAccount routes={routes} made={made} />
        </>
      ) : null}
    </section>
  );
}

interface OpenedProps {
  readonly routes: SubAccounts;
  readonly of: SubAccount;
  readonly rate: number;
  readonly changed: (now: SubAccount) => void;
}

interface LineProps extends OpenedProps {
  readonly isOpen: boolean;
  readonly toggle: () => void;
}

function Line({ routes, of, rate, isOpen, toggle, changed }: LineProps) {
  const kind = below({ nanoUsd: of.available, rate, isPlayMoney: of.isPlayMoney });
  return (
    <li>
      <span>
        <b class="address">{of.name}</b> {of.externalId ? <code class="address">{of.externalId}</code> : null} {of.closed ? <span class="badge bad">closed {date(of.closed)}</span> : null}
        <br />
        <span class="quiet">
          {usdBrief(of.available)}
          {kind.length > 0 ? ` (${kind.join(', ')})` : ''} to spend; made {date(of.created)}
        </span>
      </span>
      <button type="button" aria-expanded={isOpen} onClick={toggle} aria-label={`${isOpen ? 'Fold' : 'Open'} ${of.name}`}>
        {isOpen ? 'Fold' : 'Open'}
      </button>
      {isOpen ? <Opened routes={routes} of={of} rate={rate} changed={changed} /> : null}
    </li>
  );
}

function Opened({ routes, of, rate, changed }: OpenedProps) {
  const kind = { rate, isPlayMoney: of.isPlayMoney };
  // Its jobs may have moved its money since it was listed; where nobody answers the list still holds.
  useEffect(() => void routes.one(of.account).then(changed, () => undefined), []);
  return (
    <section class="opened" aria-label={of.name}>
      <p class="quiet address">{of.account}</p>
      <dl class="tiles plain">
        <MoneyTile name="Available" nanoUsd={of.available} {...kind} />
        <MoneyTile name="On its way out" nanoUsd={of.held} {...kind} />
        <MoneyTile name="On its way in" nanoUsd={of.pending} {...kind} />
      </dl>
      <h3>Move money</h3>
      <MoveForm routes={routes} of={of} changed={changed} />
      <h3>Keys</h3>
      <Keys routes={routes} of={of} />
      {of.closed ? null : <Close routes={routes} of={of} changed={changed} />}
    </section>
  );
}

const DIRECTIONS: ReadonlyArray<readonly [Direction, string]> = [
  ['fund', 'To the sub-account'],
  ['take_back', 'Back to this account'],
];

function MoveForm({ routes, of, changed }: Omit<OpenedProps, 'rate'>) {
  const doing = useDoing();
  const references = useRef(new References());
  const [own, setOwn] = useState<{ readonly available: number; readonly isPlayMoney: boolean }>();
  const [direction, setDirection] = useState<Direction>(of.closed ? 'take_back' : 'fund');
  const [amount, setAmount] = useState('');
  const [said, setSaid] = useState('');
  useEffect(() => doing.run(async () => setOwn(await routes.own())), []);
  const submit = (event: Event): void => {
    event.preventDefault();
    setSaid('');
    doing.run(async () => {
      const nanoUsd = amountOf(amount);
      const reference = references.current.of(of.account, direction, nanoUsd);
      const { account, left } = await routes.move(of.account, { nanoUsd, direction, reference });
      references.current.done();
      setAmount('');
      setSaid(direction === 'fund' ? `${usd(nanoUsd)} are ${of.name}’s now.` : `${usd(nanoUsd)} are back in this account.`);
      setOwn({ available: left, isPlayMoney: own?.isPlayMoney ?? false });
      changed(account);
    });
  };
  // Nobody could spend what a closed one gets.
  const directions = of.closed ? DIRECTIONS.filter(([each]) => each === 'take_back') : DIRECTIONS;
  return (
    <form onSubmit={submit} aria-label={`Move money of ${of.name}`}>
      <fieldset>
        <legend>Which way</legend>
        {directions.map(([each, name]) => (
          <label key={each} class="check">
            <input type="radio" name={`direction-${of.account}`} checked={direction === each} onChange={() => setDirection(each)} /> {name}
          </label>
        ))}
      </fieldset>
      <div class="fields">
        <AmountField value={amount} typed={setAmount} refusal={doing.refusal} available={direction === 'fund' ? (own?.available ?? 0) : of.available} rule={own?.isPlayMoney ? 'Play money.' : ''} />
      </div>
      <Trouble refusal={doing.refusal} names={[AMOUNT]} />
      <p>
        <button class="primary" disabled={doing.isBusy}>
          Move it
        </button>
      </p>
      <p role="status" class="quiet">
        {said}
      </p>
    </form>
  );
}

function Keys({ routes, of }: { readonly routes: SubAccounts; readonly of: SubAccount }) {
  const doing = useDoing();
  const [keys, setKeys] = useState<AllKeys>();
  const look = async (): Promise<void> => setKeys(await routes.keys(of.account));
  // What is closed has lost its keys.
  useEffect(() => doing.run(look), [of.closed]);
  const revoke = (id: string): void =>
    doing.run(async () => {
      await routes.revokeKey(of.account, id);
      await look();
    });
  return (
    <>
      <ul class="looks withdrawals" aria-label={`Keys of ${of.name}`}>
        {keys?.keys.map((key) => (
          <KeyLine key={key.id} of={key} among={keys.keys} passkeys={undefined} isBusy={doing.isBusy} revoke={() => revoke(key.id)} />
        ))}
      </ul>
      <Trouble refusal={doing.refusal} />
      {of.closed || !keys ? null : (
        <NewKeyForm make={(wish) => routes.makeKey(of.account, wish)} most={keys.until} made={look} label={`Another key of ${of.name}`} what={`the new key of ${of.name}`} />
      )}
    </>
  );
}

function Close({ routes, of, changed }: Omit<OpenedProps, 'rate'>) {
  const doing = useDoing();
  const [isAsked, setAsked] = useState(false);
  const close = (): void =>
    doing.run(async () => {
      await routes.close(of.account);
      changed(await routes.one(of.account));
    });
  return (
    <>
      <h3>Close it</h3>
      <p class="quiet">Its keys are revoked for good, its sites, data and ended jobs become this account’s, and its money can be taken back.</p>
      <p>
        {isAsked ? (
          <>
            <button type="button" class="stop" disabled={doing.isBusy} onClick={close} aria-label={`Close for good: ${of.name}`}>
              Close for good
            </button>{' '}
            <button type="button" onClick={() => setAsked(false)}>
              Keep it
            </button>
          </>
        ) : (
          <button type="button" onClick={() => setAsked(true)} aria-label={`Close ${of.name} …`}>
            Close …
          </button>
        )}
      </p>
      <Trouble refusal={doing.refusal} />
    </>
  );
}

function NewSubAccount({ routes, made }: { readonly routes: SubAccounts; readonly made: (account: string) => Promise<void> }) {
  const doing = useDoing();
  const [name, setName] = useState('');
  const [externalId, setExternalId] = useState('');
  const [key, setKey] = useState<Made>();
  const submit = (event: Event): void => {
    event.preventDefault();
    setKey(undefined);
    doing.run(async () => {
      const done = await routes.make(name.trim(), externalId.trim());
      setKey(done);
      setName('');
      setExternalId('');
      await made(done.account);
    });
  };
  return (
    <form onSubmit={submit} aria-label="Another sub-account">
      <div class="fields">
        <Field label="Name of the sub-account" name="name" refusal={doing.refusal} hint="Whose it is.">
          {(attributes) => <input {...attributes} required maxLength={NAME_LENGTH_MAX} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
        </Field>
        <Field label="Your own number for it" name="external_id" refusal={doing.refusal} hint="One of your users has one sub-account by it. It may be empty.">
          {(attributes) => <input {...attributes} maxLength={EXTERNAL_ID_LENGTH_MAX} value={externalId} onInput={(event) => setExternalId(event.currentTarget.value)} />}
        </Field>
      </div>
      <Trouble refusal={doing.refusal} names={['name', 'external_id']} />
      <p>
        <button class="primary" disabled={doing.isBusy}>
          Make the sub-account
        </button>
      </p>
      <div role="status">
        {key ? (
          <>
            <p>
              <b>Keep its first key now: it is shown this once.</b> It may do what yours may, and as long. <Ends made={key} />
              {key.expires === '' ? null : ' For one that lasts sign in with a key that does, and make another key of the sub-account.'}
            </p>
            <Copy text={key.key} what="the first key of the sub-account" />
          </>
        ) : null}
      </div>
    </form>
  );
}
