import { useState } from 'preact/hooks';
import { Refused, setPayout, type Payout } from './api.ts';
import type { Wallet } from './wallet.ts';

/** Dollars as they are typed; `undefined` where nothing is. */
function nanoUsd(text: string): number | undefined {
  return text.trim() === '' ? undefined : Math.round(Number(text) * 1e9);
}

interface Props {
  readonly wallet: Wallet;
  readonly payout: Payout;
  readonly saved: () => void;
}

/** Where, and from how much on, earnings are to be paid out. */
export function PayoutForm({ wallet, payout, saved }: Props) {
  const [address, setAddress] = useState(payout.address);
  const [threshold, setThreshold] = useState(payout.threshold === undefined ? '' : String(payout.threshold / 1e9));
  const [news, setNews] = useState('');
  const save = async (event: Event): Promise<void> => {
    event.preventDefault();
    const amount = nanoUsd(threshold);
    if (amount !== undefined && !(amount >= 0)) {
      setNews('The amount must be a number, such as 0.5.');
      return;
    }
    try {
      await setPayout(wallet, { address: address.trim(), threshold: amount });
      setNews('Saved.');
      saved();
    } catch (error) {
      setNews(error instanceof Refused ? error.message : 'The coordinator does not answer.');
    }
  };
  return (
    <section aria-labelledby="payout">
      <h2 id="payout">Payout</h2>
      <form class="panel form" onSubmit={(event) => void save(event)}>
        <div>
          <label for="payout-address">Pay to (address or account)</label>
          <input
            id="payout-address"
            maxLength={128}
            autocomplete="off"
            spellcheck={false}
            value={address}
            onInput={(event) => setAddress(event.currentTarget.value)}
          />
        </div>
        <div>
          <label for="payout-threshold">From so many dollars on</label>
          <input
            id="payout-threshold"
            inputMode="decimal"
            autocomplete="off"
            value={threshold}
            onInput={(event) => setThreshold(event.currentTarget.value)}
          />
        </div>
        <button type="submit">Save</button>
        <p role="status">{news}</p>
      </form>
    </section>
  );
}
