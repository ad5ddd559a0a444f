/** An amount of dollars, typed or taken whole. */

import { Field } from './form.tsx';
import { Refusal } from './refusal.ts';
import { decimal, parseUsd, usd } from './usd.ts';

/** The name that the API has for amounts. */
export const AMOUNT = 'nano_usd';

/** What was typed, in nano-USD. @throws {@link Refusal} where that is no amount. */
export function amountOf(typed: string): number {
  const nano = parseUsd(typed);
  if (nano === undefined) throw new Refusal(0, 'This must be an amount in dollars, with a point and nine digits behind it at most, such as 12.50; a million at most.', AMOUNT);
  if (nano === 0) throw new Refusal(0, 'This must be more than nothing.', AMOUNT);
  return nano;
}

export interface AmountProps {
  readonly value: string;
  readonly typed: (value: string) => void;
  readonly refusal: Refusal | undefined;
  /** Nano-USD that there are; they may be taken whole. */
  readonly available: number;
  /** Beside what is available. */
  readonly rule?: string;
}

export function AmountField({ value, typed, refusal, available, rule }: AmountProps) {
  return (
    <Field label="Amount in US dollars" name={AMOUNT} refusal={refusal} hint={`Available: ${usd(available)}.${rule ? ` ${rule}` : ''}`}>
      {(attributes) => (
        <span class="with-button">
          <input {...attributes} inputMode="decimal" autocomplete="off" required placeholder="0.00" value={value} onInput={(event) => typed(event.currentTarget.value)} />
          <button type="button" disabled={available <= 0} onClick={() => typed(decimal(available))}>
            All of it
          </button>
        </span>
      )}
    </Field>
  );
}
