import { Top } from '../parts/top.tsx';

export function Earn() {
  return (
    <>
      <Top here="/earn" />
      <main>
        <p class="quiet">Loading …</p>
      </main>
    </>
  );
}
