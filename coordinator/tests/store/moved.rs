//! Earnings that go on by themselves, of more contributors than one transaction moves.

use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::store::{Book, Claim, NewLink, Store, requester};
use raven_coordinator::time::UnixMs;
use raven_engine::ContributorId;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;

/// One more than a page has.
const MANY: u16 = 501;
const NOW: UnixMs = UnixMs(1_000);

/// In the order in which they are listed.
fn contributor(number: u16) -> ContributorId {
    let mut key = [7; 32];
    key[..2].copy_from_slice(&number.to_be_bytes());
    ContributorId(key)
}

async fn open(folder: &tempfile::TempDir) -> Store {
    Store::open(&folder.path().join("raven.sqlite")).await.expect("opened")
}

/// A nano-USD for each of them, as much as it takes to be listed.
async fn earn(store: &Store, name: &str, book: Book) {
    let entry = |number| {
        let credit = Account::Contributor(contributor(number));
        let (debit, amount, reason) = (Account::External, NanoUsd(1), Reason::Earning);
        let transfer = Transfer { debit, credit, amount, reason };
        let id = EntryId::of(name, &[&number.to_be_bytes()]);
        Entry { id, at: 1, action: Action::Post(transfer) }
    };
    let entries: Vec<Entry> = (0..MANY).map(entry).collect();
    store.enter(book, &entries).await.expect("entered");
}

async fn available(store: &Store, account: Account) -> i64 {
    store.balance(Book::Live, account).await.expect("a balance").available().0
}

#[tokio::test]
async fn a_wallet_has_what_the_last_of_many_earned_though_all_earn_all_the_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder).await;
    let wallet = ContributorId([1; 32]);
    earn(&store, "first", Book::Live).await;
    for number in 0..MANY {
        let (statement, signature) = (String::new(), String::new());
        let claim = Claim { contributor: contributor(number), wallet, statement, signature };
        store.claim(&claim, NOW).await.expect("claimed");
    }
    earn(&store, "second", Book::Live).await;
    earn(&store, "play", Book::Test).await;
    assert_eq!(store.collect(NOW).await.expect("collected"), 2 * u64::from(MANY));
    assert_eq!(available(&store, Account::Contributor(contributor(MANY - 1))).await, 0);
    assert_eq!(available(&store, Account::Contributor(wallet)).await, 2 * i64::from(MANY));
    let play = store.balance(Book::Test, Account::Contributor(wallet)).await.expect("a balance");
    assert_eq!(play.available().0, i64::from(MANY));
    store.audit(Book::Live).await.expect("the auditor agrees");
}

#[tokio::test]
async fn an_account_has_what_the_last_of_many_earned_though_all_earn_all_the_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder).await;
    let account = store.add_key(&ApiKey::generate(KeyMode::Live)).await.expect("an account");
    earn(&store, "first", Book::Live).await;
    for number in 0..MANY {
        let contributor = contributor(number);
        let (statement, signature) = (number.to_string(), String::new());
        let (nonce, end) = ([0; 16], UnixMs(2_000));
        let link = NewLink { contributor, account, nonce, end, statement, signature };
        store.link_account(&link, NOW).await.expect("linked");
    }
    earn(&store, "second", Book::Live).await;
    assert_eq!(store.forward(NOW).await.expect("moved"), u64::from(MANY));
    assert_eq!(available(&store, Account::Contributor(contributor(MANY - 1))).await, 0);
    assert_eq!(available(&store, requester(account)).await, 2 * i64::from(MANY));
    store.audit(Book::Live).await.expect("the auditor agrees");
}
