/** The button that signs in with a passkey, where there can be one. */

import { useEffect, useState } from 'preact/hooks';
import { isPossible, offers } from './passkey.ts';

/** Whether this browser and the coordinator have passkeys for that; not before both are known to. */
export function useOffered(what: 'sign-up' | 'sign-in'): boolean {
  const [isOffered, setOffered] = useState(false);
  useEffect(() => {
    if (isPossible()) void offers(what).then(setOffered);
  }, []);
  return isOffered;
}

export interface PasskeyButtonProps {
  readonly isBusy: boolean;
  readonly press: () => void;
}

export function PasskeyButton({ isBusy, press }: PasskeyButtonProps) {
  return useOffered('sign-in') ? (
    <p>
      <button type="button" disabled={isBusy} onClick={press}>
        Use a passkey
      </button>
    </p>
  ) : null;
}
