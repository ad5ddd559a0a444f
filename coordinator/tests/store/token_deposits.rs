//! Money that comes in as tokens: at the rate of its time, once, and never by guess.

use crate::file::write_older;
use crate::server::Server;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::receipt::verify;
use raven_coordinator::settlement::{DEPOSIT_MAX, Deposit, SettlementError, Tender};
use raven_coordinator::store::{AuditError, Audited, Book, BooksError, KeyId, Store, StoreError};
use raven_coordinator::time::UnixMs;
use raven_coordinator::token::{MicroTokens, RATE_MAX, RATE_MIN};
use raven_engine::ledger::{Added, Refusal};
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{ConnectOptions as _, Executor as _};

/// A server, and a live account that has nothing.
struct Bank {
    server: Server,
    key: String,
    owner: KeyId,
}

impl Bank {
    fn start() -> Self {
        let server = Server::start();
        let (key, owner) = account(&server, KeyMode::Live);
        Bank { server, key, owner }
    }

    fn set(&self, nano_usd: i64) -> UnixMs {
        let set = self.server.app.store.set_token_rate(nano_usd, UnixMs::now);
        self.server.runtime.block_on(set).expect("set").from
    }

    fn pay(&self, amount: impl Into<Tender>, payment: &str) -> Result<Added, SettlementError> {
        self.pay_to(self.owner, amount, payment)
    }

    fn pay_to(
        &self,
        owner: KeyId,
        amount: impl Into<Tender>,
        payment: &str,
    ) -> Result<Added, SettlementError> {
        let deposit = Deposit { owner, amount: amount.into(), payment: payment.into() };
        self.server.runtime.block_on(self.server.app.settlement.deposit(deposit))
    }

    fn get(&self, path: &str) -> Value {
        self.server.ask(&self.key, "GET", path, &Value::Null).json()
    }

    fn spendable(&self) -> Value {
        self.get("/v1/account")["balance"]["available_nano_usd"].clone()
    }

    fn audit(&self) -> Result<Audited, AuditError> {
        self.server.runtime.block_on(self.server.app.store.audit(Book::Live))
    }

    /// Does what nobody should, behind the store's back.
    fn tamper(&self, sql: &str) -> Result<(), sqlx::Error> {
        let path = self.server.folder.path().join("raven.sqlite");
        self.server.runtime.block_on(async {
            let options = SqliteConnectOptions::new().filename(path);
            let pool = SqlitePool::connect_with(options).await.expect("a file");
            let done = pool.execute(sqlx::AssertSqlSafe(sql)).await.map(|_| ());
            pool.close().await;
            done
        })
    }
}

fn account(server: &Server, mode: KeyMode) -> (String, KeyId) {
    let key = ApiKey::generate(mode);
    let owner = server.runtime.block_on(server.app.store.add_key(&key)).expect("stored");
    (key.reveal().to_owned(), owner)
}

const fn tokens(micro: i64) -> Tender {
    Tender::Tokens(MicroTokens(micro))
}

#[test]
fn tokens_are_worth_the_rate_of_their_time_and_keep_it() {
    let bank = Bank::start();
    let first = bank.set(50_000_001);
    assert_eq!(bank.pay(tokens(1_500_001), "p").expect("entered"), Added::New);
    assert_eq!(bank.spendable(), 75_000_052, "of 75,000,051.500001");
    bank.set(1_000_000);
    assert_eq!(bank.pay(tokens(3), "q").expect("entered"), Added::New);
    // The same payment is entered once, whatever a token is worth by then.
    assert_eq!(bank.pay(tokens(1_500_001), "p").expect("known"), Added::Before);
    assert_eq!(bank.spendable(), 75_000_055);
    let lines = bank.get("/v1/account/statement")["lines"].clone();
    let rate = json!({"nano_usd_per_token": 50_000_001, "from": first.rfc3339()});
    assert_eq!(lines[1]["paid"], json!({"micro_tokens": 1_500_001, "rate": rate}));
    assert_eq!(lines[1]["micro_tokens"], 1_500_001, "not what 75,000,052 nano-USD come to");
    // Anyone can check the signed receipt's amount by the rate in it.
    let path = format!("/v1/account/receipts/{}", lines[1]["number"]);
    let receipt = bank.server.ask(&bank.key, "GET", &path, &Value::Null).text();
    let paid = verify(&receipt, None).expect("genuine").paid.expect("in tokens");
    assert_eq!((paid.tokens, paid.rate.from), (MicroTokens(1_500_001), first));
    assert_eq!(paid.rate.worth(paid.tokens), Some(NanoUsd(75_000_052)));
    bank.audit().expect("books");
}

#[test]
fn a_payment_in_dollars_says_nothing_of_tokens() {
    let bank = Bank::start();
    bank.set(50_000_000);
    bank.pay(NanoUsd(7), "p").expect("entered");
    let line = bank.get("/v1/account/statement")["lines"][0].clone();
    assert_eq!(line["paid"], Value::Null);
    let path = format!("/v1/account/receipts/{}", line["number"]);
    let receipt = bank.server.ask(&bank.key, "GET", &path, &Value::Null).text();
    assert_eq!(verify(&receipt, None).expect("genuine").paid, None);
    assert!(!receipt.contains("paid"), "{receipt}");
}

#[test]
fn what_tokens_cannot_come_to_is_refused_and_leaves_the_books_as_they_were() {
    let bank = Bank::start();
    let refused = |amount, payment| bank.pay(amount, payment).expect_err("refused");
    let before = bank.audit().expect("books");
    assert!(matches!(refused(tokens(1_000_000), "p"), SettlementError::NoTokenRate));
    bank.set(RATE_MIN);
    for found in [0, -1, i64::MIN] {
        let error = refused(tokens(found), "p");
        assert!(matches!(error, SettlementError::Tokens { found: it } if it.0 == found), "{error}");
    }
    let error = refused(tokens(499), "p");
    assert!(matches!(error, SettlementError::TokensWorthNothing { .. }), "{error}");
    bank.set(RATE_MAX);
    for found in [1_000_001, i64::MAX] {
        let error = refused(tokens(found), "p");
        assert!(matches!(error, SettlementError::TokensWorthTooMuch { .. }), "{error}");
    }
    let (_, test) = account(&bank.server, KeyMode::Test);
    let error = bank.pay_to(test, tokens(1), "p").expect_err("refused");
    assert!(matches!(error, SettlementError::PlayMoney), "{error}");
    assert_eq!(bank.audit().expect("books"), before);
    // The most that there may be.
    bank.pay(tokens(1_000_000), "p").expect("entered");
    assert_eq!(bank.spendable(), DEPOSIT_MAX.0);
}

#[test]
fn a_payments_name_stands_for_one_payment() {
    let bank = Bank::start();
    bank.set(1_000_000);
    bank.pay(tokens(700), "tokens").expect("entered");
    bank.pay(NanoUsd(700), "dollars").expect("entered");
    let (_, other) = account(&bank.server, KeyMode::Live);
    let before = bank.audit().expect("books");
    for (owner, amount, payment) in [
        (bank.owner, tokens(701), "tokens"),
        (other, tokens(700), "tokens"),
        // The same amount in the other kind of money.
        (bank.owner, NanoUsd(700).into(), "tokens"),
        (bank.owner, tokens(700), "dollars"),
        (bank.owner, tokens(701), "dollars"),
    ] {
        let error = bank.pay_to(owner, amount, payment).expect_err("refused");
        let SettlementError::Books(BooksError::Refused(refusal)) = &error else {
            panic!("{error}");
        };
        assert!(matches!(refusal, Refusal::IdReused { .. }), "{amount:?} as {payment}: {error}");
    }
    assert_eq!(bank.audit().expect("books"), before);
    assert_eq!(bank.pay(tokens(700), "tokens").expect("known"), Added::Before);
    assert_eq!(bank.pay(NanoUsd(700), "dollars").expect("known"), Added::Before);
}

#[test]
fn the_auditor_computes_what_tokens_were_worth_anew() {
    let free = "DROP TRIGGER token_deposits_are_not_changed;
        DROP TRIGGER token_deposits_are_not_deleted;";
    for (sql, rule) in [
        ("UPDATE token_deposits SET micro_tokens = micro_tokens + 1", "worth"),
        ("UPDATE token_deposits SET entry = zeroblob(32)", "no entry"),
        ("UPDATE token_deposits SET rate = (SELECT max(from_ms) FROM token_rates)", "in force"),
        ("DELETE FROM token_deposits", "0 are there"),
    ] {
        let bank = Bank::start();
        bank.set(1_000_000);
        bank.pay(tokens(700), "p").expect("entered");
        // The same rate once more: the amount would be right.
        bank.set(1_000_000);
        bank.audit().expect("books");
        bank.tamper(sql).expect_err("not by accident");
        bank.tamper(&format!("{free} {sql}")).expect("changed");
        let error = bank.audit().expect_err(sql);
        let is_deposits =
            matches!(error, AuditError::Deposit { .. } | AuditError::DepositsGone { .. });
        assert!(is_deposits, "{error}");
        assert!(error.to_string().contains(rule), "{error}");
    }
}

#[test]
fn a_rate_that_is_gone_is_found_and_shuts_nobody_out_of_a_statement() {
    let bank = Bank::start();
    bank.set(1_000_000);
    bank.pay(tokens(700), "p").expect("entered");
    bank.tamper(
        "PRAGMA foreign_keys = OFF; DROP TRIGGER token_rates_are_not_deleted;
         DELETE FROM token_rates",
    )
    .expect("changed");
    let error = bank.audit().expect_err("a rate is missing");
    assert!(error.to_string().contains("its rate is gone"), "{error}");
    let lines = bank.get("/v1/account/statement")["lines"].clone();
    assert_eq!((&lines[0]["nano_usd"], &lines[0]["paid"]), (&json!(700), &Value::Null));
}

#[test]
fn a_rate_never_comes_before_what_was_paid_in_by_the_one_before_it() {
    let bank = Bank::start();
    let store = &bank.server.app.store;
    let wait = &bank.server.runtime;
    let set = |at: i64, nano_usd| wait.block_on(store.set_token_rate(nano_usd, || UnixMs(at)));
    let pay = |at: i64, payment: &str| {
        wait.block_on(store.deposit_by(|| UnixMs(at), bank.owner, tokens(1_000_000), payment))
    };
    assert_eq!(set(10_000, 1_000_000).expect("set").from, UnixMs(10_000));
    assert_eq!(pay(10_500, "a").expect("entered"), Added::New);
    // In the same millisecond, and by a clock that was read before the deposit.
    assert_eq!(set(10_500, 2_000_000).expect("set").from, UnixMs(10_501));
    assert_eq!(set(10_400, 3_000_000).expect("set").from, UnixMs(10_502));
    bank.audit().expect("books");
    // And a deposit whose clock was read before the newest rate has that one.
    assert_eq!(pay(10_450, "b").expect("entered"), Added::New);
    assert_eq!(bank.spendable(), 4_000_000);
    bank.audit().expect("books");
    // A clock that was set back is no clock.
    let late =
        |error: &StoreError| matches!(error, StoreError::RateToCome { from } if from.0 >= 10_502);
    let error = set(9_000, 1_000_000).expect_err("refused");
    assert!(late(&error), "{error}");
    let error = pay(9_000, "c").expect_err("refused");
    let SettlementError::Books(BooksError::Store(error)) = &error else { panic!("{error}") };
    assert!(late(error), "{error}");
    bank.audit().expect("books");
}

/// The schema of before deposits were numbered and passkeys confirmed.
const SCHEMA_BEFORE: usize = 22;

#[tokio::test]
async fn deposits_and_passkeys_of_an_older_file_are_numbered_and_confirmed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("raven.sqlite");
    write_older(
        &path,
        SCHEMA_BEFORE,
        "INSERT INTO token_rates (from_ms, nano_usd) VALUES (5, 1000), (9, 2000);
         INSERT INTO token_deposits (book, entry, micro_tokens, rate)
             VALUES ('live', x'aa', 7, 9), ('live', x'bb', 8, 5);
         INSERT INTO api_keys (id, hash, hint, created_ms, account, expires_ms, passkey)
             VALUES (1, x'01', 'a', 5, 1, NULL, NULL), (2, x'02', 'b', 5, 1, 99, 1);
         INSERT INTO owners (id, created_ms) VALUES (1, 5);
         INSERT INTO passkeys (id, account, credential, public_key, count, synced, name,
                 created_ms, added_by)
             VALUES (1, 1, x'01', x'01', 0, 0, 'first', 5, NULL),
                 (2, 1, x'02', x'01', 0, 0, 'by a sign-in', 5, 2),
                 (3, 1, x'03', x'01', 0, 0, 'by a key', 5, 1);",
    )
    .await;
    let store = Store::open(&path).await.expect("opened");
    let confirmed: Vec<_> = store
        .passkeys_of(KeyId(1))
        .await
        .expect("read")
        .iter()
        .map(|row| row.confirmed_by.map(|passkey| passkey.0))
        .collect();
    assert_eq!(confirmed, [None, Some(1), None], "the newest first");
    store.close().await;
    let mut now = SqliteConnectOptions::new().filename(&path).connect().await.expect("a file");
    let rows: Vec<(i64, Vec<u8>, i64)> =
        sqlx::query_as("SELECT number, entry, rate FROM token_deposits ORDER BY number")
            .fetch_all(&mut now)
            .await
            .expect("read");
    assert_eq!(rows, [(1, vec![0xbb], 5), (2, vec![0xaa], 9)]);
    for sql in ["UPDATE token_deposits SET micro_tokens = 1", "DELETE FROM token_deposits"] {
        let error = now.execute(sql).await.expect_err("refused");
        assert!(error.to_string().contains("appended"), "{error}");
    }
}
