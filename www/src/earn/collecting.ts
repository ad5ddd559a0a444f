/** What the page does with a link that gives something, and what is said of it then. */

import { signOut, type Entered } from '../parts/passkey.ts';
import { Refusal } from '../parts/refusal.ts';
import type { References } from '../parts/till.ts';
import { accountOf, BOOKS, claim, link, own, type Account, type Own } from './api.ts';
import type { Claim } from './claims.ts';
import type { Wallet } from './wallet.ts';
import { NAMES } from './words.ts';

/** What went well, or did not. */
export interface News {
  readonly good: boolean;
  readonly text: string;
  /** Of a look that failed: the next one may succeed. */
  readonly isPassing?: true;
  /** Of a link that gave nothing. */
  readonly isNothing?: true;
}

export const said = (error: unknown): string => (error instanceof Refusal ? error.detail : 'The coordinator does not answer.');

/** Collects what a link gives. */
export async function collect(wallet: Wallet, claims: readonly Claim[]): Promise<News> {
  let trouble = '';
  let taken = 0;
  // One key that was claimed before must not keep the others from it.
  for (const each of claims) {
    try {
      await claim(wallet, each);
      taken += 1;
    } catch (error) {
      trouble = said(error);
    }
  }
  if (taken === 0) return { good: false, text: `This link gave nothing: ${trouble}`, isNothing: true };
  const part = trouble === '' ? '' : ` A part of the link gave nothing: ${trouble}`;
  return { good: trouble === '', text: `That browser’s earnings are yours now: what it has, and what it still gets.${part}` };
}

/** What goes to the account, and what does not: an account has one kind of money, and both never meet. */
export function linkedNews(news: News, { account, book }: Account, mine: Pick<Own, 'earnings'> | undefined): News {
  const [own, other] = [NAMES[book].toLowerCase(), BOOKS.find((each) => each !== book)!];
  const goes = `All ${own} that this wallet earns goes to the account ${account}.`;
  const stays = mine !== undefined && mine.earnings[other].available + mine.earnings[other].pending > 0;
  const name = NAMES[other].toLowerCase();
  if (!stays) return { ...news, text: `${news.text} ${goes} An account has one kind of money: ${name} would stay in this browser’s wallet.` };
  return { good: false, text: `${news.text} ${goes} It has ${own} only: the ${name} that this wallet has stays in this browser until you move it to an account of ${name}.` };
}

/**
 * The same for the account of a passkey. Its key is for this one time.
 *
 * @throws {@link Refusal} where nothing was collected: the link still gives all.
 */
export async function collectTo(entered: Entered, wallet: Wallet, claims: readonly Claim[], references: References): Promise<News> {
  try {
    // Which kind of money it has is known before anything moves.
    const owner = await accountOf(entered.key);
    const news = await collect(wallet, claims);
    return news.isNothing ? news : await linked(entered, owner, wallet, news, references);
  } finally {
    void signOut(entered);
  }
}

async function linked({ key }: Entered, owner: Account, wallet: Wallet, news: News, references: References): Promise<News> {
  try {
    await link(wallet, key, owner.account, references.of(owner.account));
  } catch (error) {
    return { good: false, text: `${news.text} They do not go to the account: ${said(error)}` };
  }
  references.done();
  return linkedNews(news, owner, await own(wallet).catch(() => undefined));
}
