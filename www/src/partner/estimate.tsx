/** What a site could earn, from numbers that its owner knows. */

import { useState } from 'preact/hooks';
import { count } from '../format.ts';
import { Tile } from '../parts/totals.tsx';
import type { Api, Estimate } from './api.ts';
import { Field, Trouble, useDoing } from '../parts/form.tsx';
import { MoneyTile, useTokenRate } from '../parts/tokens.tsx';

const PPM = 1_000_000;
const FIELDS = [
  ['page_views', 'Page views', '100000', 1],
  ['seconds', 'Seconds that a visitor stays on a page', '90', 1],
  ['yes_rate_ppm', 'Visitors who say yes, in percent', '1', PPM / 100],
  ['share_ppm', 'Share of the device that they lend, in percent', '5', PPM / 100],
  ['devices_ppm', 'Of them on a phone, in percent', '60', PPM / 100],
] as const;

export function Estimator({ api }: { readonly api: Api }) {
  const doing = useDoing();
  const rate = useTokenRate();
  const [values, setValues] = useState<Record<string, string>>(Object.fromEntries(FIELDS.map(([name, , value]) => [name, value])));
  const [estimate, setEstimate] = useState<Estimate>();
  const submit = (event: Event): void => {
    event.preventDefault();
    doing.run(async () => {
      const spec = Object.fromEntries(FIELDS.map(([name, , , scale]) => [name, Math.round(Number(values[name]) * scale)]));
      const phone = spec.devices_ppm ?? 0;
      setEstimate(await api.estimate({ ...spec, devices_ppm: { phone, desktop: PPM - phone } }));
    });
  };
  return (
    <form class="panel" onSubmit={submit} aria-labelledby="estimate">
      <h2 id="estimate">What could a site earn?</h2>
      <div class="fields">
        {FIELDS.map(([name, label]) => (
          <Field key={name} label={label} name={name} refusal={doing.refusal}>
            {(attributes) => (
              <input {...attributes} type="number" min="0" step="any" required value={values[name]} onInput={(event) => setValues({ ...values, [name]: event.currentTarget.value })} />
            )}
          </Field>
        ))}
      </div>
      <Trouble refusal={doing.refusal} names={FIELDS.map(([name]) => name)} />
      <p>
        <button disabled={doing.isBusy}>Estimate</button>
      </p>
      <div role="status">
        {estimate ? (
          <dl class="tiles">
            <MoneyTile name="The site's 3 %" nanoUsd={estimate.siteNanoUsd} rate={rate} isPlayMoney={false} />
            <Tile name="Visitors who lend" value={count(estimate.visitors)} />
            <Tile name="Calculations" value={count(estimate.calculations)} />
          </dl>
        ) : null}
      </div>
      <p class="hint">
        If there is work for them all the time. Devices differ by a factor of three either way; what is paid is what was verified.
      </p>
    </form>
  );
}
