import { percent, words } from '../format.ts';
import { time } from '../parts/times.ts';
import type { Own } from './api.ts';
import { allocated, ended } from './words.ts';

/** Devices, by their sessions. */
export function Sessions({ own }: { readonly own: Own }) {
  if (own.sessions.length === 0) return null;
  return (
    <section aria-labelledby="devices">
      <h2 id="devices">Devices</h2>
      <div class="panel table">
        <table>
          <thead>
            <tr>
              <th scope="col">Device</th>
              <th scope="col">On</th>
              <th scope="col" class="number">Share</th>
              <th scope="col" class="wide">Since</th>
              <th scope="col">State</th>
            </tr>
          </thead>
          <tbody>
            {own.sessions.slice(0, 12).map((one) => (
              <tr key={one.session}>
                <td>{words(one.device)}</td>
                <td>{one.backend === 'gpu' ? 'GPU' : 'CPU'}</td>
                <td class="number">{percent(one.share)}</td>
                <td class="wide">{time(one.opened)}</td>
                <td class="wrap">{one.closed ? ended(one.reason) : 'At work'}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** What was agreed to, and every change of it. */
export function History({ own }: { readonly own: Own }) {
  if (own.allocations.length === 0) return null;
  return (
    <section aria-labelledby="history">
      <h2 id="history">What you agreed to</h2>
      <div class="panel table">
        <table>
          <thead>
            <tr>
              <th scope="col">When</th>
              <th scope="col">What</th>
              <th scope="col" class="wide">Line and hash of the chain</th>
            </tr>
          </thead>
          <tbody>
            {own.allocations.slice(0, 12).map((line) => (
              <tr key={line.number}>
                <td>{time(line.at)}</td>
                <td class="wrap">{allocated(line)}</td>
                <td class="wide">
                  {line.number}: <code>{line.hash.slice(0, 16)}…</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
