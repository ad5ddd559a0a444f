import type { Stats } from '../api.ts';
import { count, rate, withPrefix } from '../format.ts';

export function Tile(props: { readonly name: string; readonly value: string; readonly note?: string }) {
  return (
    <div class="tile">
      <dt>{props.name}</dt>
      <dd>
        <b>{props.value}</b>
        {props.note ? <span>{props.note}</span> : null}
      </dd>
    </div>
  );
}

/** What the whole network is doing. */
export function Totals({ stats }: { readonly stats: Stats }) {
  return (
    <dl class="tiles">
      <Tile name="Contributors" value={count(stats.contributors)} note={`${count(stats.workers)} ${stats.workers === 1 ? 'worker' : 'workers'}`} />
      <Tile name="Tasks per second" value={rate(stats.tasksPerS)} />
      <Tile name="Tasks accepted" value={count(stats.tasksAccepted)} />
      <Tile name="Work done" value={withPrefix(stats.flopsDone, 'flop')} />
    </dl>
  );
}
