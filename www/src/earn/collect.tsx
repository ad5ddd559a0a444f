/** A link that gives something: collected here, or taken to another device. */

import { useState } from 'preact/hooks';
import { Copy } from '../parts/form.tsx';
import { Qr } from '../parts/qr.tsx';
import { claimLink, type Claim } from './claims.ts';

export interface CollectProps {
  readonly claims: readonly Claim[];
  /** Without a wallet there is only the other device. */
  readonly isHere: boolean;
  readonly collect: () => Promise<void>;
}

export function Collect({ claims, isHere, collect }: CollectProps) {
  const [isBusy, setBusy] = useState(false);
  const link = claimLink(claims, location.origin);
  const press = (): void => {
    setBusy(true);
    void collect().finally(() => setBusy(false));
  };
  return (
    <section class="panel" aria-labelledby="collect">
      <h2 id="collect">Keep what a browser has earned</h2>
      <p>Choose where it is collected: what that browser has earned, and what it still will, goes to one wallet, for good.</p>
      <div class="choice">
        <div>
          <h3>In this browser</h3>
          <p class="quiet">The wallet is a key in this browser. Whoever clears this site’s data loses it.</p>
          <p>
            <button type="button" class="primary" disabled={!isHere || isBusy} onClick={press}>
              Collect it here
            </button>
          </p>
        </div>
        <div>
          <h3>On a phone, or another device</h3>
          <p class="quiet">Open its camera, point it here, and follow the link within a quarter of an hour. Let nobody else see it.</p>
          <Qr text={link} what="The link as a QR code" />
          <details>
            <summary>The link as text</summary>
            <Copy text={link} what="the link" />
          </details>
        </div>
      </div>
    </section>
  );
}
