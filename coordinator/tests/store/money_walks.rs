//! Random histories of people and their money: after each step the auditor agrees
//! with the books, a refused step leaves them as they were, and nothing comes from nowhere.

use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::settlement::{
    Decision, Manual, Pay, Request, Settlement, Tender, WithdrawalId,
};
use raven_coordinator::store::{Book, KeyId, NewKey, Store, requester};
use raven_coordinator::time::UnixMs;
use raven_coordinator::token::MicroTokens;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use raven_engine::{ContributorId, SiteId};

const STEPS: u64 = 150;
const SEEDS: u64 = 6;
const DAY_MS: i64 = 86_400_000;
const SITE: Account = Account::Site(SiteId(7));
const CONTRIBUTOR: Account = Account::Contributor(ContributorId([3; 32]));

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn amount(&mut self) -> NanoUsd {
        let amounts = [-1, 0, 1, 9, 10, 250, 999, 5_000, 100_000, i64::MAX];
        NanoUsd(amounts[self.below(amounts.len() as u64) as usize])
    }
}

struct World {
    store: Store,
    settlement: Manual,
    parent: KeyId,
    child: KeyId,
    now: UnixMs,
    random: Random,
}

impl World {
    async fn start(folder: &std::path::Path, seed: u64) -> Self {
        let store = Store::open(&folder.join("raven.sqlite")).await.expect("a store");
        let settlement = Manual::new(store.clone(), NanoUsd(10));
        let (own, other) = (ApiKey::generate(KeyMode::Live), ApiKey::generate(KeyMode::Live));
        let parent = store.add_key(&own).await.expect("stored");
        let new = NewKey::whole(&other);
        let child = store.add_child(parent, &new, "Ann", None, 9).await.expect("stored");
        store.set_token_rate(1_500_000, || UnixMs(1)).await.expect("set");
        let now = UnixMs(1_000_000);
        World { store, settlement, parent, child, now, random: Random(seed) }
    }

    async fn post(&self, transfer: Transfer, step: u64) -> bool {
        let id = EntryId::of("walk", &[&step.to_le_bytes()]);
        let entry = Entry { id, at: self.now.0, action: Action::Post(transfer) };
        self.store.enter(Book::Live, &[entry]).await.is_ok()
    }

    /// Does something; whether the books took it.
    async fn step(&mut self, step: u64) -> bool {
        let amount = self.random.amount();
        let (own, child) = (requester(self.parent), requester(self.child));
        let account = [own, SITE, CONTRIBUTOR, child][self.random.below(4) as usize];
        // Of few, so that some are used twice.
        let reference = self.random.below(STEPS / 3);
        match self.random.below(8) {
            0 => {
                let payment = reference.to_string();
                let (owner, tokens) = (self.parent, Tender::Tokens(MicroTokens(amount.0)));
                // The same payment comes in the other kind of money too, and at other rates.
                let amount = if self.random.below(2) == 0 { tokens } else { amount.into() };
                let rate = 1_500_000 + 1_000 * step as i64;
                self.store.set_token_rate(rate, UnixMs::now).await.ok();
                let deposit = raven_coordinator::settlement::Deposit { owner, amount, payment };
                self.settlement.deposit(deposit).await.is_ok()
            }
            1 => {
                let reason = Reason::Earning;
                let debit = Account::Operator;
                self.post(Transfer { debit, credit: account, amount, reason }, step).await
            }
            2 => {
                let (debit, credit) =
                    if reference.is_multiple_of(2) { (own, child) } else { (child, own) };
                let reason = Reason::SubAccount;
                self.post(Transfer { debit, credit, amount, reason }, step).await
            }
            3 => {
                let from = if reference.is_multiple_of(2) { SITE } else { CONTRIBUTOR };
                let id = EntryId::of("spend", &[&reference.to_le_bytes()]);
                self.store.spend(from, self.parent, amount, id).await.is_ok()
            }
            4 | 5 => {
                let (address, reference) = ("IBAN 1".to_owned(), reference.to_string());
                let (book, pay) = (Book::Live, Pay::Usd);
                let request = Request { book, account, amount, address, pay, reference };
                self.settlement.request(request, self.now).await.is_ok()
            }
            6 => {
                let id = WithdrawalId(self.random.below(12) as i64);
                let decisions = [Decision::Begin, Decision::Approve, Decision::Refuse];
                let decision = decisions[reference as usize % 3];
                self.settlement.decide(id, decision, None, self.now).await.is_ok()
            }
            _ => {
                self.now = UnixMs(self.now.0 + 7 * DAY_MS);
                self.store.expire_withdrawals(self.now).await.is_ok()
            }
        }
    }
}

#[tokio::test]
async fn the_auditor_agrees_after_each_step_and_refusals_change_nothing() {
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..SEEDS {
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = World::start(folder.path(), seed).await;
        for step in 0..STEPS {
            let before = world.store.audit(Book::Live).await.expect("books").head;
            let took = world.step(step).await;
            let place = format!("seed {seed}, step {step}");
            let audited = world.store.audit(Book::Live).await;
            let after = audited.unwrap_or_else(|error| panic!("{place}: {error}"));
            if took {
                taken += 1;
            } else {
                refused += 1;
                assert_eq!(after.head, before, "{place}: refused, and entered");
            }
            // What waits is held, to the nano-USD.
            let waiting = world.store.withdrawals(None, true, 1_000).await.expect("listed");
            for account in [requester(world.parent), requester(world.child), SITE, CONTRIBUTOR] {
                let own = waiting.iter().filter(|found| found.request.account == account);
                let held: i64 = own.map(|found| found.request.amount.0).sum();
                let balance = world.store.balance(Book::Live, account).await.expect("read");
                assert_eq!(balance.held_out, held, "{place}: {account}");
                assert!(balance.available().0 >= 0, "{place}: {account}");
            }
        }
    }
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
}
