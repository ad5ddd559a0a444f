/** What a site has earned, as a chart and as a table to take away. */

import { useEffect, useState } from 'preact/hooks';
import type { Curve } from '../api.ts';
import { Chart } from '../parts/chart.tsx';
import { MoneyTile, useTokenRate } from '../parts/tokens.tsx';
import { usdShort } from '../parts/usd.ts';
import type { Api, Earnings } from './api.ts';
import { download } from '../parts/download.ts';
import { Field, Trouble, useDoing } from '../parts/form.tsx';
import { dayBack, dayNumber, dayText } from './days.ts';

/** Every day of the span, those without earnings too. */
function curve({ days }: Earnings, from: string, to: string): Curve {
  const sums = new Map(days.map(({ day, available, pending }) => [dayNumber(day), available + pending]));
  const [first, last] = [dayNumber(from), dayNumber(to)];
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => [first + index, sums.get(first + index) ?? 0] as const);
}

export function EarningsPanel({ api, id }: { readonly api: Api; readonly id: string }) {
  const doing = useDoing();
  const rate = useTokenRate();
  const [from, setFrom] = useState(dayBack(29));
  const [to, setTo] = useState(dayBack(0));
  const [shown, setShown] = useState<{ earnings: Earnings; points: Curve }>();
  const load = (): void =>
    doing.run(async () => {
      const earnings = await api.earnings(id, from, to);
      setShown({ earnings, points: curve(earnings, from, to) });
    });
  useEffect(load, []);
  const submit = (event: Event): void => {
    event.preventDefault();
    load();
  };
  const save = (): void =>
    doing.run(async () => {
      const response = await api.send('GET', `/v1/sites/${id}/earnings.csv?from=${from}&to=${to}`);
      download(await response.blob(), `raven-${id}-${from}-${to}.csv`);
    });
  return (
    <section class="panel" aria-labelledby="earnings">
      <h3 id="earnings">Earnings</h3>
      {shown ? (
        <>
          <dl class="tiles">
            <MoneyTile name="Earned in these days" nanoUsd={shown.earnings.days.reduce((sum, { available, pending }) => sum + available + pending, 0)} rate={rate} isPlayMoney={shown.earnings.isPlayMoney} />
          </dl>
          {shown.points.every(([, earned]) => earned === 0) ? (
            <p class="quiet">Nothing was earned in these days.</p>
          ) : (
            <Chart title="By day" points={shown.points} format={usdShort} formatX={dayText} yMin={0} marks />
          )}
        </>
      ) : null}
      <form class="span" onSubmit={submit}>
        <Field label="From" name="from" refusal={doing.refusal}>
          {(attributes) => <input {...attributes} type="date" required value={from} onInput={(event) => setFrom(event.currentTarget.value)} />}
        </Field>
        <Field label="To" name="to" refusal={doing.refusal}>
          {(attributes) => <input {...attributes} type="date" required value={to} onInput={(event) => setTo(event.currentTarget.value)} />}
        </Field>
        <p>
          <button disabled={doing.isBusy}>Show</button>{' '}
          <button type="button" disabled={doing.isBusy} onClick={save}>
            Download as CSV
          </button>
        </p>
      </form>
      <Trouble refusal={doing.refusal} names={['from', 'to']} />
    </section>
  );
}
