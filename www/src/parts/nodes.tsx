import type { Node } from '../api.ts';
import { count, duration, percent, withPrefix, words } from '../format.ts';

/** More rows than this would only be scrolled past. */
const ROWS_MAX = 50;

export function Nodes({ nodes }: { readonly nodes: readonly Node[] }) {
  const shown = nodes.slice(0, ROWS_MAX);
  return (
    <div class="panel table">
      <table>
        <thead>
          <tr>
            <th scope="col">Device</th>
            <th scope="col">State</th>
            <th scope="col" class="number">
              Share
            </th>
            <th scope="col" class="number wide">
              Workers
            </th>
            <th scope="col" class="number wide">
              Speed
            </th>
            <th scope="col" class="number">
              Tasks
            </th>
            <th scope="col" class="number wide">
              Here for
            </th>
          </tr>
        </thead>
        <tbody>
          {shown.map((node) => (
            <tr key={node.session}>
              <td>
                {words(node.device)} {node.backend.toUpperCase()}
              </td>
              <td>{words(node.state)}</td>
              <td class="number">{percent(node.share)}</td>
              <td class="number wide">{count(node.workers)}</td>
              <td class="number wide">{withPrefix(node.flopsPerS, 'flop/s')}</td>
              <td class="number">{count(node.tasksAccepted)}</td>
              <td class="number wide">{duration(node.joinedSAgo)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {nodes.length > ROWS_MAX ? <p class="quiet">And {count(nodes.length - ROWS_MAX)} more.</p> : null}
    </div>
  );
}
