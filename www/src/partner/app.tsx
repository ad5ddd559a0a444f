import { Top } from '../parts/top.tsx';

export function Partner() {
  return (
    <>
      <Top here="/partner" />
      <main>
        <p class="quiet">Loading …</p>
      </main>
    </>
  );
}
