import type { Curve } from '../api.ts';
import { Chart } from '../parts/chart.tsx';
import { MoneyTile, useTokenRate } from '../parts/tokens.tsx';
import { date } from '../parts/times.ts';
import { usdShort } from '../parts/usd.ts';
import { BOOKS, type Book, type Own } from './api.ts';
import { day } from './words.ts';

/** Every day from the first on, also those on which nothing was earned. */
export function daily(earned: ReadonlyArray<readonly [day: number, nanoUsd: number]>, today: number): Curve {
  const first = earned[0]?.[0];
  if (first === undefined) return [];
  const amounts = new Map(earned);
  // One point alone is no curve.
  const from = Math.min(first, today - 6);
  return Array.from({ length: Math.max(1, today - from + 1) }, (_, index) => [from + index, amounts.get(from + index) ?? 0] as const);
}

/** The days' range with room for half of the last one's label. */
function withRoom(points: Curve): readonly [number, number] {
  const [first, last] = [points[0]?.[0] ?? 0, points.at(-1)?.[0] ?? 1];
  return [first, last + (last - first) * 0.08];
}

/** Whether there is, or was, money of a book. */
export const has = (own: Own, book: Book): boolean =>
  own.earned[book].length > 0 || own.earnings[book].available > 0 || own.earnings[book].pending > 0;

/** What there is, what waits, and how it came. Play money is shown where there is any, or nothing else. */
export function Money({ own }: { readonly own: Own }) {
  const shown = BOOKS.filter((book) => has(own, book) || (book === 'live' && !has(own, 'test')));
  const rate = useTokenRate();
  const today = Math.floor(Date.now() / 86_400_000);
  return (
    <section aria-labelledby="money">
      <h2 id="money">Earnings</h2>
      {shown.map((book) => {
        const { available, pending, expires } = own.earnings[book];
        const points = daily(own.earned[book], today);
        return (
          <div class="panel" key={book}>
            {book === 'test' && <h3 class="quiet">Play money</h3>}
            <dl class="tiles plain">
              <MoneyTile name="Available" nanoUsd={available} rate={rate} isPlayMoney={book === 'test'} {...(expires ? { note: `kept until ${date(expires)}` } : {})} />
              <MoneyTile name="Pending" nanoUsd={pending} rate={rate} isPlayMoney={book === 'test'} note="until the work is confirmed" />
            </dl>
            {points.length > 0 && (
              <Chart
                title="Earned per day"
                points={points}
                format={usdShort}
                formatX={day}
                xRange={withRoom(points)}
                yMin={0}
                height={150}
                marks
              />
            )}
          </div>
        );
      })}
    </section>
  );
}
