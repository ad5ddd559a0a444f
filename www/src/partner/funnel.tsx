/** From page views to verified work, and which of the work earned. */

import { count, withPrefix, words } from '../format.ts';
import type { Day, Site } from './api.ts';
import { dayNumber, dayText } from './days.ts';

const DAYS_SHOWN = 7;

const REASONS: Readonly<Record<string, string>> = {
  earned: 'Earned the site its 3 %',
  unproven: 'The origin is not proven',
  site_closed: 'The site was paused or revoked',
  other_money: 'The job was paid with play money, or the site has only that',
  network_sessions: 'Too many sessions of one network',
  network: 'A ticket of another network',
  network_keys: 'Too many new keys of one network',
  network_share: "Too large a part of a day's work from one network",
  operator_pays: 'Paid by the operator, without a margin: done twice, or beyond what its job was to cost',
};

function outcomes(days: readonly Day[]): ReadonlyArray<readonly [outcome: string, results: number, flops: number]> {
  const sums = new Map<string, [number, number]>();
  for (const [outcome, results, flops] of days.flatMap(({ work }) => work)) {
    const [before, flopsBefore] = sums.get(outcome) ?? [0, 0];
    sums.set(outcome, [before + results, flopsBefore + flops]);
  }
  return [...sums].map(([outcome, [results, flops]]) => [outcome, results, flops] as const);
}

export function Funnel({ site }: { readonly site: Site }) {
  const days = site.days.slice(-DAYS_SHOWN).reverse();
  const work = outcomes(site.days);
  const isShownCounted = site.days.some(({ shown }) => shown !== undefined);
  return (
    <section class="panel" aria-labelledby="funnel">
      <h3 id="funnel">Visitors</h3>
      {days.length === 0 ? <p class="quiet">Nobody has come yet.</p> : <Table days={days} />}
      <p class="hint">
        Views are frames that were served to your pages; blocked ones were asked for by pages of other origins. Browsers that hide the page are not counted{isShownCounted ? '. Shown are cards that came into view.' : ', nor whether the card came into view.'}
      </p>
      {work.length === 0 ? null : (
        <>
          <h3>Verified work, 30 days</h3>
          <div class="scroll" tabIndex={0} role="group" aria-label="Verified work by what it came to">
            <table>
              <thead>
                <tr>
                  <th scope="col">What it came to</th>
                  <th scope="col" class="number">
                    Results
                  </th>
                  <th scope="col" class="number">
                    Work
                  </th>
                </tr>
              </thead>
              <tbody>
                {work.map(([outcome, results, flops]) => (
                  <tr key={outcome}>
                    <td class="wrap">{REASONS[outcome] ?? words(outcome)}</td>
                    <td class="number">{count(results)}</td>
                    <td class="number">{withPrefix(flops, 'flop')}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <p class="hint">
            One network earns a site its share up to {site.caps.sessions} sessions at a time, {site.caps.newKeys} new keys an hour and {site.caps.sharePercent} % of
            a day's work.
          </p>
        </>
      )}
    </section>
  );
}

type Column = readonly [name: string, value: (day: Day) => number];

/** From a page to work, in the order in which visitors get there. */
function columns(days: readonly Day[]): readonly Column[] {
  const shown: readonly Column[] = days.some((day) => day.shown !== undefined) ? [['Shown', (day) => day.shown ?? 0]] : [];
  return [['Views', (day) => day.views], ['Blocked', (day) => day.blocked], ...shown, ['Said yes', (day) => day.yes], ['Worked', (day) => day.worked]];
}

function Table({ days }: { readonly days: readonly Day[] }) {
  const steps = columns(days);
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Visitors by day">
      <table>
        <thead>
          <tr>
            <th scope="col">Day</th>
            {steps.map(([name]) => (
              <th key={name} scope="col" class="number">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {days.map((day) => (
            <tr key={day.day}>
              <td>
                <time dateTime={day.day}>{dayText(dayNumber(day.day))}</time>
              </td>
              {steps.map(([name, value]) => (
                <td key={name} class="number">
                  {count(value(day))}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
