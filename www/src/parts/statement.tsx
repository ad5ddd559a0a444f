/** Every movement that made a balance what it is, each with a receipt that can be checked without this coordinator. */

import { useState } from 'preact/hooks';
import { words } from '../format.ts';
import { download } from './download.ts';
import { Trouble, useDoing } from './form.tsx';
import { fields, list, number, text, type Fields } from './refusal.ts';
import { time } from './times.ts';
import { tokens, usd } from './usd.ts';

export interface Line {
  readonly number: number;
  readonly at: string;
  readonly reason: string;
  /** Below zero where the account gave. */
  readonly nanoUsd: number;
  /** What it was paid in, where that was tokens: millionths of them, and what one was worth. */
  readonly paid: { readonly microTokens: number; readonly rate: number } | undefined;
  /** `posted`, or of a hold `open`, `voided` or `expired`. */
  readonly state: string;
}

export interface Lines {
  readonly lines: readonly Line[];
  /** There are more before this number. */
  readonly before: number | undefined;
}

function readPaid(value: unknown): Line['paid'] {
  const from = fields(value);
  if (typeof from.micro_tokens !== 'number') return undefined;
  return { microTokens: from.micro_tokens, rate: number(fields(from.rate).nano_usd_per_token) };
}

export function readLines(body: Fields): Lines {
  const lines = list(body.lines).map((value) => {
    const from = fields(value);
    return { number: number(from.number), at: text(from.at), reason: text(from.reason), nanoUsd: number(from.nano_usd), state: text(from.state), paid: readPaid(from.paid) };
  });
  return { lines, before: typeof body.next_before === 'number' ? body.next_before : undefined };
}

/** Lines that are asked for at a time. */
const LINES = 20;

/** The query of a part of a statement. */
export const pageOf = (before: number | undefined): string => `?limit=${LINES}${before === undefined ? '' : `&before=${before}`}`;

const REASONS: Readonly<Record<string, string>> = {
  deposit: 'Paid in',
  trial: 'To begin with',
  escrow: 'Set aside for a job',
  release: 'Not used by a job',
  earning: 'Earned by work',
  partner_share: 'The site’s share of work',
  withdrawal: 'Withdrawn',
  unclaimed: 'Claimed by nobody in time',
  correction: 'Put right',
  claim: 'Collected by a wallet',
  sub_account: 'To or from a sub-account',
};

/** What a line is about. Earnings that an account spends, or a site was given, are named by who reads it: who gave, or who got. */
export function nameOf({ reason, nanoUsd }: Line): string {
  if (reason === 'spend') return nanoUsd < 0 ? 'To an account' : 'From earnings';
  if (reason === 'gift') return nanoUsd < 0 ? 'Given to a site' : 'Given by a visitor';
  return REASONS[reason] ?? words(reason);
}

/** What became of a hold; nothing of what is entered for good. */
const STATES: Readonly<Record<string, string>> = { posted: '', open: 'held', voided: 'given back', expired: 'given back' };

export interface StatementProps {
  /** Of which money, where there are several kinds. */
  readonly of?: string;
  /** The newest lines, or those before a number. */
  readonly load: (before: number | undefined) => Promise<Lines>;
  readonly receipt: (number: number) => Promise<Blob>;
}

/** Folded, and asked for where somebody unfolds it. */
export function Statement({ of = '', load, receipt }: StatementProps) {
  const doing = useDoing();
  const [shown, setShown] = useState<Lines>();
  const more = (): void =>
    doing.run(async () => {
      const { lines, before } = await load(shown?.before);
      setShown({ lines: [...(shown?.lines ?? []), ...lines], before });
    });
  const toggle = (event: Event): void => {
    if ((event.currentTarget as HTMLDetailsElement).open && !shown) more();
  };
  return (
    <details onToggle={toggle}>
      <summary>Statement{of ? ` of ${of}` : ''}, with receipts</summary>
      <p class="hint">
        A receipt is signed by the coordinator. <code>coordinator verify-receipt FILE</code> checks it, now or later, without asking anybody.
      </p>
      {shown?.lines.length === 0 ? <p class="quiet">Nothing was entered yet.</p> : null}
      <ul class="looks withdrawals" aria-label="Statement">
        {shown?.lines.map((line) => (
          <li key={line.number}>
            <span>
              <b>{usd(line.nanoUsd)}</b> {nameOf(line)} <span class="quiet">{STATES[line.state] ?? line.state}</span>
              <br />
              <span class="quiet">
                {time(line.at)}
                {line.paid ? `, as ${tokens(line.paid.microTokens)} at ${usd(line.paid.rate)} each` : ''}
              </span>
            </span>
            <button type="button" disabled={doing.isBusy} aria-label={`Receipt ${line.number}`} onClick={() => doing.run(async () => download(await receipt(line.number), `raven-receipt-${line.number}.json`))}>
              Receipt
            </button>
          </li>
        ))}
      </ul>
      {shown?.before !== undefined ? (
        <p>
          <button type="button" disabled={doing.isBusy} onClick={more}>
            Earlier ones
          </button>
        </p>
      ) : null}
      <Trouble refusal={doing.refusal} />
    </details>
  );
}
