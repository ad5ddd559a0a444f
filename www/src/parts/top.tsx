import type { ComponentChildren } from 'preact';

const PAGES = [
  ['/', 'Network'],
  ['/partner', 'Partner sites'],
  ['/earn', 'Contributors'],
  ['/account', 'Account'],
] as const;

/** The head of every page: its name, the way to the others, and what the page puts beside them. */
export function Top({ here, children }: { readonly here: string; readonly children?: ComponentChildren }) {
  return (
    <header class="top">
      <h1>Raven</h1>
      <nav aria-label="Pages">
        {PAGES.map(([path, name]) => (
          <a key={path} href={path} aria-current={path === here ? 'page' : undefined}>
            {name}
          </a>
        ))}
      </nav>
      {children}
    </header>
  );
}
