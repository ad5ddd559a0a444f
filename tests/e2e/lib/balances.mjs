// What every account must have, from the credited executions alone: the rules of engine/LEDGER.md once more, in other words.
// It shares nothing with the coordinator's books.

/** The parts of a job's cost that others than its contributors get, in percent. */
const PARTNER = 3n;
const MASTER = 5n;
const FEE = 2n;
/** Hundredths of a flop times a pico-USD per calculation of 50 Mflop, in a nano-USD. */
const PER_NANO_USD = 100n * 50_000_000n * 1_000n;
/** Kinds of accounts, in the order of equal remainders. */
const ORDER = ['requester', 'escrow', 'contributor', 'site', 'master_node', 'protocol_fee', 'reserve'];

const byAccount = ([a], [b]) => {
  const rank = (name) => ORDER.indexOf(name.split(':')[0]);
  return rank(a) - rank(b) || (a < b ? -1 : Number(a > b));
};

/** Whole nano-USD of exact sums: each rounded down, and what is missing by largest remainder. */
function rounded(sums) {
  const paid = new Map([...sums].map(([account, exact]) => [account, exact / PER_NANO_USD]));
  const exact = [...sums.values()].reduce((sum, value) => sum + value, 0n);
  const missing = exact / PER_NANO_USD - [...paid.values()].reduce((sum, value) => sum + value, 0n);
  const rest = ([, value]) => value % PER_NANO_USD;
  const ranked = [...sums].sort((a, b) => (rest(a) === rest(b) ? byAccount(a, b) : rest(a) < rest(b) ? 1 : -1));
  for (const [account] of ranked.slice(0, Number(missing))) paid.set(account, paid.get(account) + 1n);
  return paid;
}

const add = (sums, account, amount) => sums.set(account, (sums.get(account) ?? 0n) + amount);

/** What one job pays: by account, and `R_T`, each part of the margin and `R_S` in nano-USD. */
function jobPay(credits, earnerOf) {
  const shares = { earning: new Map(), partner: new Map(), master: new Map(), fee: new Map(), operator: new Map() };
  for (const credit of credits) {
    const units = BigInt(credit.flops) * BigInt(credit.rate);
    const ofJob = credit.payer === 'job';
    add(ofJob ? shares.earning : shares.operator, earnerOf(credit), 100n * units);
    if (!ofJob) continue;
    add(shares.partner, credit.site === null ? 'reserve' : `site:${credit.site}`, PARTNER * units);
    add(shares.master, 'master_node', MASTER * units);
    add(shares.fee, 'protocol_fee', FEE * units);
  }
  const paid = Object.fromEntries(Object.entries(shares).map(([share, sums]) => [share, rounded(sums)]));
  const total = (share) => [...paid[share].values()].reduce((sum, value) => sum + value, 0n);
  const parts = Object.fromEntries(Object.keys(shares).map((share) => [share, total(share)]));
  return { paid, parts, price: parts.earning + parts.partner + parts.master + parts.fee };
}

/**
 * Balances after jobs that have ended. `credits` are the executions that are not void; `requester` had `trial` nano-USD of
 * the operator's; `earnerOf(credit)` is whose an execution's earning is.
 */
export function expectedBalances({ credits, requester, trial, earnerOf = ({ contributor }) => `contributor:${contributor}` }) {
  const balances = new Map([[requester, trial], ['operator', -trial]]);
  const jobs = new Map();
  for (const job of new Set(credits.map((credit) => credit.job))) {
    const pay = jobPay(credits.filter((credit) => credit.job === job), earnerOf);
    jobs.set(job, pay);
    for (const sums of Object.values(pay.paid)) for (const [account, amount] of sums) add(balances, account, amount);
    add(balances, requester, -pay.price);
    add(balances, 'operator', -pay.parts.operator);
  }
  return { balances, jobs };
}
