//! Accounts of files that were written when each key was its own owner.

use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::scopes::Scopes;
use raven_coordinator::store::{Book, KeyId, NewKey, Revocation, Store, requester};
use raven_coordinator::time::UnixMs;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{Executor as _, SqlSafeStr as _};
use std::path::Path;

/// Those that there were before accounts had several keys.
const BEFORE: &[&str] = &[
    include_str!("../migrations/0001_start.sql"),
    include_str!("../migrations/0002_jobs.sql"),
    include_str!("../migrations/0003_session_receipts.sql"),
    include_str!("../migrations/0004_datasets.sql"),
    include_str!("../migrations/0005_operations.sql"),
    include_str!("../migrations/0006_job_terms.sql"),
    include_str!("../migrations/0007_backends.sql"),
    include_str!("../migrations/0008_proof.sql"),
    include_str!("../migrations/0009_certificates.sql"),
    include_str!("../migrations/0010_outcomes.sql"),
    include_str!("../migrations/0011_setbacks.sql"),
    include_str!("../migrations/0012_books.sql"),
];

async fn old_file(path: &Path, keys: &[&ApiKey]) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.expect("a file");
    for sql in BEFORE {
        pool.execute(sqlx::raw_sql(sql.into_sql_str())).await.expect("migrated");
    }
    for key in keys {
        let book = if key.mode() == KeyMode::Live { "live" } else { "test" };
        sqlx::query("INSERT INTO api_keys (hash, hint, created_ms, book) VALUES (?1, ?2, 5, ?3)")
            .bind(&key.hash()[..])
            .bind(key.hint())
            .bind(book)
            .execute(&pool)
            .await
            .expect("stored");
    }
    let version = format!("PRAGMA user_version = {}", BEFORE.len());
    pool.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(version))).await.expect("counted");
    pool.close().await;
}

#[tokio::test]
async fn each_key_of_an_old_file_is_an_account_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("raven.sqlite");
    let (test, live) = (ApiKey::generate(KeyMode::Test), ApiKey::generate(KeyMode::Live));
    old_file(&path, &[&test, &live]).await;
    let store = Store::open(&path).await.expect("migrated");
    store.grant_trials().await.expect("entered");
    for (key, account, book) in [(&test, KeyId(1), Book::Test), (&live, KeyId(2), Book::Live)] {
        let known = store.known_key(key, UnixMs::now()).await.expect("read").expect("known");
        assert_eq!((known.account, known.scopes), (account, Scopes::ALL));
        assert_eq!(store.book_of(account).await.expect("read"), book);
    }
    let balance = store.balance(Book::Test, requester(KeyId(1))).await.expect("read");
    assert_eq!(balance.posted, 1_000_000_000_000);
    // It gets more keys, and outlives its first one.
    let second = ApiKey::generate(KeyMode::Test);
    store.add_key_of(KeyId(1), &NewKey::whole(&second)).await.expect("stored");
    let first = store.known_key(&test, UnixMs::now()).await.expect("read").expect("known");
    let revoked = store.revoke_key_of(KeyId(1), first.number).await.expect("revoked");
    assert_eq!(revoked, Revocation::Revoked);
    assert_eq!(store.find_key(&test).await.expect("read"), None);
    assert_eq!(store.find_key(&second).await.expect("read"), Some(KeyId(1)));
    // Each of several keys is not given play money of its own.
    store.grant_trials().await.expect("entered");
    assert_eq!(store.audit(Book::Test).await.expect("books").entries, 1);
}

#[tokio::test]
async fn an_account_has_a_hundred_keys_that_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("raven.sqlite")).await.expect("a file");
    let owner = store.add_key(&ApiKey::generate(KeyMode::Test)).await.expect("stored");
    for at in 1..100 {
        let key = ApiKey::generate(KeyMode::Test);
        // Those whose time is over do not count.
        let expires = (at == 1).then_some(UnixMs(1));
        let new = NewKey { expires, ..NewKey::whole(&key) };
        store.add_key_of(owner, &new).await.expect("stored");
    }
    let key = ApiKey::generate(KeyMode::Test);
    store.add_key_of(owner, &NewKey::whole(&key)).await.expect("the hundredth");
    let more = ApiKey::generate(KeyMode::Test);
    let error = store.add_key_of(owner, &NewKey::whole(&more)).await.expect_err("refused");
    assert!(error.to_string().contains("100 API keys"), "{error}");
}
