/** Amounts in RAVEN tokens beside dollars, where the operator has set a rate. */

import { useEffect, useState } from 'preact/hooks';
import { ask, fields, number } from './refusal.ts';
import { tokens, usdBrief } from './usd.ts';

/** Nano-USD for a token; 0 where there is no rate. */
export function useTokenRate(): number {
  const [rate, setRate] = useState(0);
  useEffect(() => {
    ask('/v1/token-rate').then((body) => setRate(number(fields(body.now).nano_usd_per_token)), () => undefined);
  }, []);
  return rate;
}

const MICRO = 1_000_000n;

/** Nano-USD in tokens, rounded towards nothing as the coordinator does; nothing to say where there is no rate, or no money. */
export function inTokens(nanoUsd: number, rate: number): string {
  if (rate <= 0 || nanoUsd === 0) return '';
  return tokens((BigInt(Math.trunc(nanoUsd)) * MICRO) / BigInt(rate));
}

export interface MoneyTileProps {
  readonly name: string;
  readonly nanoUsd: number;
  /** As {@link useTokenRate} says. */
  readonly rate: number;
  /** Which is worth nothing outside: no tokens either. */
  readonly isPlayMoney: boolean;
  readonly note?: string;
}

/** What stands below an amount: what it is in tokens, and whatever else there is to say. */
export function below({ nanoUsd, rate, isPlayMoney, note = '' }: Omit<MoneyTileProps, 'name'>): readonly string[] {
  return [isPlayMoney ? 'play money' : inTokens(nanoUsd, rate), note].filter((each) => each !== '');
}

/** An amount, and below it what that is in tokens. */
export function MoneyTile({ name, ...amount }: MoneyTileProps) {
  return (
    <div class="tile">
      <dt>{name}</dt>
      <dd>
        <b>{usdBrief(amount.nanoUsd)}</b>
        {below(amount).map((each) => (
          <span key={each}>{each}</span>
        ))}
      </dd>
    </div>
  );
}
