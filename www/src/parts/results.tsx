import type { Outcomes } from '../api.ts';
import { count, percent } from '../format.ts';
import { Tile } from './totals.tsx';

/** What became of everything that contributors computed, and how much honest work earned nothing. */
export function Results(props: { readonly outcomes: Outcomes; readonly unpaidShare: number }) {
  const { accepted, notNeeded, late, withdrawn, refused } = props.outcomes;
  const unpaid = `not needed ${count(notNeeded)}, too late ${count(late)}, no longer wanted ${count(withdrawn)}`;
  return (
    <dl class="tiles">
      <Tile name="Accepted and paid" value={count(accepted)} />
      <Tile name="Honest work unpaid" value={percent(props.unpaidShare, 2)} note={unpaid} />
      <Tile name="Refused" value={count(refused)} note="differed from the checked result" />
    </dl>
  );
}
