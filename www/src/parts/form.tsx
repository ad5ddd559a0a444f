/** Fields that show what is wrong with them, and actions that say how they went. */

import type { ComponentChildren } from 'preact';
import { useId, useState } from 'preact/hooks';
import { Refusal } from './refusal.ts';

/** What an action came to: nothing yet, under way, done, or refused. */
export interface Doing {
  readonly isBusy: boolean;
  readonly refusal: Refusal | undefined;
  /** Runs an action; one at a time. */
  readonly run: (action: () => Promise<void>) => void;
}

export function useDoing(): Doing {
  const [isBusy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<Refusal>();
  const run = (action: () => Promise<void>): void => {
    if (isBusy) return;
    setBusy(true);
    setRefusal(undefined);
    action()
      .catch((error: unknown) => setRefusal(error instanceof Refusal ? error : new Refusal(0, String(error), '')))
      .finally(() => setBusy(false));
  };
  return { isBusy, refusal, run };
}

/** Whether a refusal is about a field: `origins[1]` is about `origins`. */
const isAbout = (refusal: Refusal | undefined, name: string): boolean =>
  refusal !== undefined && (refusal.field === name || refusal.field.startsWith(`${name}[`) || refusal.field.startsWith(`${name}.`));

/** What ties a control to its label, hint and error. */
export interface Attributes {
  readonly id: string;
  readonly 'aria-describedby'?: string;
  readonly 'aria-invalid'?: true;
}

export interface FieldProps {
  readonly label: string;
  /** As the API calls it. */
  readonly name: string;
  readonly refusal: Refusal | undefined;
  readonly hint?: ComponentChildren;
  readonly children: (attributes: Attributes) => ComponentChildren;
}

export function Field({ label, name, refusal, hint, children }: FieldProps) {
  const id = useId();
  const mine = isAbout(refusal, name) ? refusal : undefined;
  const described = [hint ? `${id}-hint` : '', mine ? `${id}-error` : ''].filter((each) => each !== '').join(' ');
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, ...(described ? { 'aria-describedby': described } : {}), ...(mine ? { 'aria-invalid': true as const } : {}) })}
      {hint ? (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      ) : null}
      {mine ? (
        <p class="error" id={`${id}-error`} role="alert">
          {mine.detail}
        </p>
      ) : null}
    </div>
  );
}

/** A refusal that no field of `names` shows. */
export function Trouble({ refusal, names = [] }: { readonly refusal: Refusal | undefined; readonly names?: readonly string[] }) {
  if (!refusal || names.some((name) => isAbout(refusal, name))) return null;
  return (
    <p class="error" role="alert">
      {refusal.detail}
    </p>
  );
}

/** Text to be copied, with a button that does it. */
export function Copy({ text, what }: { readonly text: string; readonly what: string }) {
  const [said, setSaid] = useState('');
  const copy = (): void => {
    navigator.clipboard.writeText(text).then(
      () => setSaid('Copied'),
      () => setSaid('Select the text and copy it'),
    );
  };
  return (
    <div class="copy">
      {/* It scrolls on narrow screens, so a keyboard must reach it. */}
      <pre tabIndex={0} aria-label={what}>
        {text}
      </pre>
      <p>
        <button type="button" onClick={copy} aria-label={`Copy ${what}`}>
          Copy
        </button>
        <span role="status" class="quiet">
          {said}
        </span>
      </p>
    </div>
  );
}
