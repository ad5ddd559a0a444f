/** A site's switches: whether it takes part, and in jobs of which kinds. */

import { Trouble, useDoing } from '../parts/form.tsx';
import { words } from '../format.ts';
import type { Site } from './api.ts';
import type { ChangeProps } from './site.tsx';

/** The kinds of jobs that a site's visitors may work for. */
const taken = ({ categories, refused, allowed }: Site): readonly string[] =>
  categories.filter((each) => !refused.includes(each) && (!allowed || allowed.includes(each)));

export function Switches({ api, site, changed }: ChangeProps) {
  const doing = useDoing();
  const set = (change: unknown): void => doing.run(async () => changed(await api.change(site.id, change)));
  return (
    <section class="panel" aria-labelledby="switches">
      <h3 id="switches">Switches</h3>
      <p class="quiet">They reach visitors who are there within a minute.</p>
      <p>
        <button type="button" class={site.paused ? 'primary' : 'stop'} disabled={doing.isBusy} onClick={() => set({ paused: !site.paused })}>
          {site.paused ? 'Go on' : 'Pause the site'}
        </button>{' '}
        <span role="status" class="quiet">
          {site.paused ? 'The frame shows nothing, and nobody works.' : ''}
        </span>
      </p>
      <Kinds site={site} isBusy={doing.isBusy} set={set} />
      <Trouble refusal={doing.refusal} />
    </section>
  );
}

interface KindsProps {
  readonly site: Site;
  readonly isBusy: boolean;
  readonly set: (change: unknown) => void;
}

function Kinds({ site, isBusy, set }: KindsProps) {
  const chosen = taken(site);
  const isListed = site.allowed !== undefined && site.allowed !== null;
  const others = (kinds: readonly string[]): readonly string[] => site.categories.filter((each) => !kinds.includes(each));
  const toggle = (category: string): void => {
    const next = chosen.includes(category) ? chosen.filter((each) => each !== category) : [...chosen, category];
    set(isListed ? { allowed_categories: next, refused_categories: [] } : { refused_categories: others(next) });
  };
  // They stay enabled while a request is under way: a control that is disabled loses the keyboard's focus.
  const wait = (event: Event): void => {
    if (isBusy) event.preventDefault();
  };
  return (
    <fieldset aria-busy={isBusy}>
      <legend>Your visitors' devices work for jobs of these kinds</legend>
      {site.categories.map((category) => (
        <label key={category} class="check">
          <input type="checkbox" checked={chosen.includes(category)} disabled={chosen.length === 1 && chosen.includes(category)} onClick={wait} onChange={() => toggle(category)} /> {words(category)}
        </label>
      ))}
      {site.allowed === undefined ? null : (
        <div>
          <label class="check">
            <input
              type="checkbox"
              checked={isListed}
              onClick={wait}
              onChange={() => set(isListed ? { allowed_categories: null, refused_categories: others(chosen) } : { allowed_categories: chosen, refused_categories: [] })}
            />{' '}
            Only these: kinds that are new to Raven stay out until you choose them
          </label>
        </div>
      )}
    </fieldset>
  );
}
