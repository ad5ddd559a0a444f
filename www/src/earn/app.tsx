import { useEffect, useRef, useState } from 'preact/hooks';
import { count, withPrefix } from '../format.ts';
import { signIn } from '../parts/passkey.ts';
import { References } from '../parts/till.ts';
import { Top } from '../parts/top.tsx';
import { Tile } from '../parts/totals.tsx';
import { own, type Own } from './api.ts';
import { isClaim, readClaims, type Claim } from './claims.ts';
import { Collect } from './collect.tsx';
import { collect, collectTo, said, type News } from './collecting.ts';
import { History, Sessions } from './lists.tsx';
import { Money } from './money.tsx';
import { Payouts } from './payout.tsx';
import { Spend } from './spend.tsx';
import { Wallet } from './wallet.ts';
import { OUTCOMES } from './words.ts';

/** Devices may be at work while this is open. */
const EVERY_MS = 15_000;

interface Page {
  readonly wallet?: Wallet;
  readonly own?: Own;
  readonly news?: News | undefined;
}

/** What is this browser's own, asked for again and again, and a way to do so at once. */
function useOwn(): [Page, () => void, (news: News | undefined) => void] {
  const [page, setPage] = useState<Page>({});
  const [turn, setTurn] = useState(0);
  const tell = (news: News | undefined): void => setPage((before) => ({ ...before, news }));
  useEffect(() => {
    let isGone = false;
    const look = async (): Promise<void> => {
      let wallet: Wallet;
      try {
        wallet = page.wallet ?? (await Wallet.open());
      } catch {
        tell({ good: false, text: 'This browser keeps no key, so that nothing can be collected in it.' });
        return;
      }
      try {
        const answer = await own(wallet);
        // News of an earlier look that failed is over; what a link gave is not.
        if (!isGone) setPage(({ news }) => ({ wallet, own: answer, news: news?.isPassing ? undefined : news }));
      } catch (error) {
        if (!isGone) setPage((before) => ({ ...before, wallet, news: { good: false, text: said(error), isPassing: true } }));
      }
    };
    if (!document.hidden) void look();
    const timer = setTimeout(() => setTurn(turn + 1), EVERY_MS);
    return () => {
      isGone = true;
      clearTimeout(timer);
    };
  }, [turn]);
  return [page, () => setTurn((before) => before + 1), tell];
}

/** The claims of the link by which this page was opened, and how to be done with them. */
function useClaims(tell: (news: News) => void): [readonly Claim[], () => void] {
  const [claims, setClaims] = useState<readonly Claim[]>([]);
  useEffect(() => {
    const look = (): void => {
      const found = readClaims(location.hash, location.origin);
      setClaims(found);
      if (found.length === 0 && isClaim(location.hash)) tell({ good: false, text: 'This link is not whole.' });
    };
    look();
    // A link that is pasted into a page that is open loads nothing.
    addEventListener('hashchange', look);
    return () => removeEventListener('hashchange', look);
  }, []);
  const done = (): void => {
    // Neither a reload nor a bookmark repeats it.
    history.replaceState(null, '', location.pathname);
    setClaims([]);
  };
  return [claims, done];
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
      <p class="quiet">
        Said “never here” on a site? Its card asks no more. Where the site has a link that shows it, a mark appears, and a press on that changes it; clearing the
        site’s data in your browser does so too.
      </p>
    </div>
  );
}

export function Earn() {
  const [{ wallet, own, news }, again, tell] = useOwn();
  const [claims, done] = useClaims(tell);
  const references = useRef(new References());
  const take = async (how: (wallet: Wallet) => Promise<News>): Promise<void> => {
    if (!wallet) return;
    tell(await how(wallet));
    done();
    again();
  };
  const takeToAccount = async (): Promise<void> => {
    const entered = await signIn();
    await take((wallet) => collectTo(entered, wallet, claims, references.current));
  };
  const isEmpty = own !== undefined && own.linked.length === 0 && own.sessions.length === 0;
  return (
    <>
      <Top here="/earn" />
      <main>
        <p role="status" class={news ? `news ${news.good ? 'good' : 'bad'}` : 'unseen'}>
          {news?.text}
        </p>
        {!own && !news && <p class="quiet">Loading …</p>}
        {claims.length > 0 && <Collect claims={claims} isHere={wallet !== undefined} collect={() => take((wallet) => collect(wallet, claims))} collectToAccount={takeToAccount} />}
        {isEmpty && claims.length === 0 && <Nothing />}
        {wallet && own && !isEmpty && (
          <>
            <Money own={own} />
            <Work own={own} />
            <Sessions own={own} />
            <Payouts wallet={wallet} own={own} again={again} />
            <Spend wallet={wallet} own={own} again={again} />
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
