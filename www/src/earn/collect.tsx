/** A link that gives something: collected here, or taken to another device. */

import { Copy, Trouble, useDoing } from '../parts/form.tsx';
import { useOffered } from '../parts/passkey-button.tsx';
import { Qr } from '../parts/qr.tsx';
import { claimLink, type Claim } from './claims.ts';

export interface CollectProps {
  readonly claims: readonly Claim[];
  /** Without a wallet there is only the other device. */
  readonly isHere: boolean;
  readonly collect: () => Promise<void>;
  /** The same, and links the wallet to the account of a passkey. */
  readonly collectToAccount: () => Promise<void>;
}

export function Collect({ claims, isHere, collect, collectToAccount }: CollectProps) {
  const doing = useDoing();
  const hasPasskeys = useOffered('sign-in');
  const link = claimLink(claims, location.origin);
  return (
    <section class="panel" aria-labelledby="collect">
      <h2 id="collect">Keep what a browser has earned</h2>
      <p>Choose where it is collected: what that browser has earned, and what it still will, goes to one wallet, for good.</p>
      <div class="choice">
        <div>
          <h3>In this browser</h3>
          <p class="quiet">The wallet is a key in this browser. Whoever clears this site’s data loses it.</p>
          <p>
            <button type="button" class="primary" disabled={!isHere || doing.isBusy} onClick={() => doing.run(collect)}>
              Collect it here
            </button>
          </p>
        </div>
        {hasPasskeys ? (
          <div>
            <h3>In your account</h3>
            <p class="quiet">What this browser’s wallet earns goes to the account of your passkey, which no browser loses, until you end that. An account has real money or play money; what is of the other kind stays in the wallet.</p>
            <p>
              <button type="button" disabled={!isHere || doing.isBusy} onClick={() => doing.run(collectToAccount)}>
                Collect it with a passkey
              </button>
            </p>
          </div>
        ) : null}
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
      <Trouble refusal={doing.refusal} />
    </section>
  );
}
