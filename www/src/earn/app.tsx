import { useEffect, useState } from 'preact/hooks';
import { count, withPrefix } from '../format.ts';
import { Top } from '../parts/top.tsx';
import { Tile } from '../parts/totals.tsx';
import { claim, own, readClaims, Refused, type Own } from './api.ts';
import { History, Sessions } from './lists.tsx';
import { Money } from './money.tsx';
import { PayoutForm } from './payout.tsx';
import { Wallet } from './wallet.ts';
import { OUTCOMES } from './words.ts';

/** Devices may be at work while this is open. */
const EVERY_MS = 15_000;

interface Page {
  readonly wallet?: Wallet;
  readonly own?: Own;
  readonly news?: News | undefined;
}

/** What went well, or did not. */
interface News {
  readonly good: boolean;
  readonly text: string;
}

const said = (error: unknown): string => (error instanceof Refused ? error.message : 'The coordinator does not answer.');

/** Follows the link by which this page was opened, if it is one that gives something. */
async function follow(wallet: Wallet): Promise<News | undefined> {
  const asked = readClaims(location.hash);
  if (asked.length === 0) return location.hash.startsWith('#claim=') ? { good: false, text: 'This link is not whole.' } : undefined;
  // Neither a reload nor a bookmark repeats it.
  history.replaceState(null, '', location.pathname);
  let trouble = '';
  let taken = 0;
  // One key that was claimed before must not keep the others from it.
  for (const each of asked) {
    try {
      await claim(wallet, each);
      taken += 1;
    } catch (error) {
      trouble = said(error);
    }
  }
  if (taken === 0) return { good: false, text: `This link gave nothing: ${trouble}` };
  const part = trouble === '' ? '' : ` A part of the link gave nothing: ${trouble}`;
  return { good: trouble === '', text: `That browser’s earnings are yours now: what it has, and what it still gets.${part}` };
}

function useOwn(): [Page, () => void] {
  const [page, setPage] = useState<Page>({});
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let isGone = false;
    const open = async (): Promise<void> => {
      let wallet: Wallet;
      try {
        wallet = page.wallet ?? (await Wallet.open());
      } catch {
        setPage({ news: { good: false, text: 'This browser keeps no key, so that nothing can be collected in it.' } });
        return;
      }
      const news = page.wallet ? undefined : await follow(wallet);
      try {
        const answer = await own(wallet);
        if (!isGone) setPage((before) => ({ wallet, own: answer, news: news ?? before.news }));
      } catch (error) {
        if (!isGone) setPage((before) => ({ ...before, wallet, news: news ?? { good: false, text: said(error) } }));
      }
    };
    if (!document.hidden) void open();
    const timer = setTimeout(() => setTurn(turn + 1), EVERY_MS);
    return () => {
      isGone = true;
      clearTimeout(timer);
    };
  }, [turn]);
  return [page, () => setTurn(turn + 1)];
}

function Work({ own }: { readonly own: Own }) {
  const results = OUTCOMES.filter(([outcome]) => outcome === 'accepted' || (own.results.get(outcome) ?? 0) > 0);
  return (
    <section aria-labelledby="work">
      <h2 id="work">Work</h2>
      <dl class="tiles">
        <Tile name="Tasks paid" value={count(own.tasks)} />
        <Tile name="Calculations" value={withPrefix(own.calculations, '')} note="of 50 Mflop" />
        {results.map(([outcome, name, note]) => (
          <Tile key={outcome} name={`Results: ${name.toLowerCase()}`} value={count(own.results.get(outcome) ?? 0)} note={note} />
        ))}
      </dl>
    </section>
  );
}

function Nothing() {
  return (
    <div class="panel empty">
      <h2>Nothing here yet</h2>
      <p>
        While your browser lends computing power on a site, its card has the button “Keep what I earned”. It opens this page, and what that
        browser has earned is collected here from then on.
      </p>
    </div>
  );
}

export function Earn() {
  const [{ wallet, own, news }, again] = useOwn();
  return (
    <>
      <Top here="/earn" />
      <main>
        <p role="status" class={news ? `news ${news.good ? 'good' : 'bad'}` : 'unseen'}>
          {news?.text}
        </p>
        {!own && !news && <p class="quiet">Loading …</p>}
        {own && own.linked.length === 0 && own.sessions.length === 0 && <Nothing />}
        {wallet && own && (
          <>
            <Money own={own} />
            <Work own={own} />
            <Sessions own={own} />
            <PayoutForm wallet={wallet} payout={own.payout} saved={again} />
            <History own={own} />
            <p class="quiet small">
              This wallet is the key <code>{own.key.slice(0, 16)}…</code>. It is kept in this browser alone: whoever clears this site’s data
              loses it.
            </p>
          </>
        )}
      </main>
    </>
  );
}
