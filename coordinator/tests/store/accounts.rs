//! Accounts of files that were written when each key was its own owner.

use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::scopes::Scopes;
use raven_coordinator::secret::{Secret, SecretKind};
use raven_coordinator::store::{
    Book, ChildError, KeyId, NewKey, Revocation, Store, StoreError, USED_MS, requester,
};
use raven_coordinator::time::UnixMs;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{Executor as _, SqlSafeStr as _};
use std::path::Path;

/// Those that there were before accounts had several keys.
const BEFORE: &[&str] = &[
    include_str!("../../migrations/0001_start.sql"),
    include_str!("../../migrations/0002_jobs.sql"),
    include_str!("../../migrations/0003_session_receipts.sql"),
    include_str!("../../migrations/0004_datasets.sql"),
    include_str!("../../migrations/0005_operations.sql"),
    include_str!("../../migrations/0006_job_terms.sql"),
    include_str!("../../migrations/0007_backends.sql"),
    include_str!("../../migrations/0008_proof.sql"),
    include_str!("../../migrations/0009_certificates.sql"),
    include_str!("../../migrations/0010_outcomes.sql"),
    include_str!("../../migrations/0011_setbacks.sql"),
    include_str!("../../migrations/0012_books.sql"),
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
    let by = store.known_key(&second, UnixMs::now()).await.expect("read").expect("known");
    let revoked = store.revoke_key_of(KeyId(1), first.number, &by).await.expect("revoked");
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

/// A store, and what is known of an account's only key.
async fn with_account(path: &Path) -> (Store, ApiKey, raven_coordinator::store::KnownKey) {
    let store = Store::open(&path.join("raven.sqlite")).await.expect("a file");
    let key = ApiKey::generate(KeyMode::Test);
    store.add_key(&key).await.expect("stored");
    let known = store.known_key(&key, UnixMs::now()).await.expect("read").expect("known");
    (store, key, known)
}

fn code() -> Secret {
    Secret::generate(SecretKind::Recovery)
}

/// A request is let in with a key that holds, waits for its turn to write, and the
/// key is revoked in the meantime.
#[tokio::test]
async fn what_a_key_asked_for_before_it_was_revoked_makes_no_secrets_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, key, known) = with_account(folder.path()).await;
    assert!(store.revoke_key(&key).await.expect("revoked"));
    let other = ApiKey::generate(KeyMode::Test);
    let new = NewKey { made_by: Some(known.number), ..NewKey::whole(&other) };
    let error = store.add_key_of(known.account, &new).await.expect_err("refused");
    assert!(matches!(error, StoreError::KeyOver), "{error}");
    let error = store.add_child(known.account, &new, "x", None, 9).await.expect_err("refused");
    assert!(matches!(error, ChildError::Store(StoreError::KeyOver)), "{error}");
    let (late, next) = (code(), code());
    let set = store.set_recovery(known.account, known.number, &late).await;
    assert!(matches!(set, Err(StoreError::KeyOver)), "{set:?}");
    assert!(store.recover(&late, &next).await.expect("read").is_none());
    assert_eq!(store.find_key(&other).await.expect("read"), None);
    let revoked = store.revoke_key_of(known.account, known.number, &known).await;
    assert!(matches!(revoked, Err(StoreError::KeyOver)), "{revoked:?}");
    assert!(store.children(known.account, 0, 9).await.expect("read").is_empty());
}

#[tokio::test]
async fn a_code_goes_with_the_key_that_made_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, first) = with_account(folder.path()).await;
    let stolen = ApiKey::generate(KeyMode::Test);
    store.add_key_of(first.account, &NewKey::whole(&stolen)).await.expect("stored");
    let known = store.known_key(&stolen, UnixMs::now()).await.expect("read").expect("known");
    for by_command in [false, true] {
        let (thief, next) = (code(), code());
        let other = ApiKey::generate(KeyMode::Test);
        store.add_key_of(first.account, &NewKey::whole(&other)).await.expect("stored");
        let own = store.known_key(&other, UnixMs::now()).await.expect("read").expect("known");
        store.set_recovery(first.account, own.number, &thief).await.expect("set");
        assert!(store.recovery_set(first.account).await.expect("read").is_some());
        if by_command {
            store.revoke_key(&other).await.expect("revoked");
        } else {
            let revoked = store.revoke_key_of(first.account, own.number, &known).await;
            assert_eq!(revoked.expect("revoked"), Revocation::Revoked);
        }
        assert_eq!(store.recovery_set(first.account).await.expect("read"), None);
        assert!(store.recover(&thief, &next).await.expect("read").is_none());
    }
    // One that another key made stays.
    let good = code();
    store.set_recovery(first.account, first.number, &good).await.expect("set");
    store.revoke_key(&stolen).await.expect("revoked");
    assert!(store.recover(&good, &code()).await.expect("read").is_some());
}

#[tokio::test]
async fn a_closed_account_comes_back_in_no_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, parent) = with_account(folder.path()).await;
    let key = ApiKey::generate(KeyMode::Test);
    let new = NewKey::whole(&key);
    let child = store.add_child(parent.account, &new, "Ann", None, 9).await.expect("stored");
    let known = store.known_key(&key, UnixMs::now()).await.expect("read").expect("known");
    let (own, late) = (code(), code());
    store.set_recovery(child, known.number, &own).await.expect("set");
    assert!(store.close_child(parent.account, child).await.expect("closed"));
    assert!(store.recover(&own, &code()).await.expect("read").is_none());
    // Its parent's key still holds, and makes nothing of it either.
    let set = store.set_recovery(child, parent.number, &late).await;
    assert!(matches!(set, Err(StoreError::Closed)), "{set:?}");
    let more = ApiKey::generate(KeyMode::Test);
    for made_by in [None, Some(parent.number)] {
        let new = NewKey { made_by, ..NewKey::whole(&more) };
        let added = store.add_key_of(child, &new).await;
        assert!(matches!(added, Err(StoreError::Closed)), "{added:?}");
    }
    assert!(store.recover(&late, &code()).await.expect("read").is_none());
}

#[tokio::test]
async fn a_used_code_is_good_again_until_its_key_is_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, first) = with_account(folder.path()).await;
    let (own, second, third) = (code(), code(), code());
    store.set_recovery(first.account, first.number, &own).await.expect("set");
    let (_, lost) = store.recover(&own, &second).await.expect("read").expect("recovered");
    let (owner, found) = store.recover(&own, &third).await.expect("read").expect("again");
    assert_eq!(owner, first.account);
    // What nobody got is good for nothing.
    assert!(store.known_key(&lost, UnixMs::now()).await.expect("read").is_none());
    assert!(store.recover(&second, &code()).await.expect("read").is_none());
    assert!(store.known_key(&found, UnixMs::now()).await.expect("read").is_some());
    assert!(store.recover(&own, &code()).await.expect("read").is_none(), "its key was used");
    // And not for longer than its time.
    let (_, _) = store.recover(&third, &code()).await.expect("read").expect("recovered");
    let path = folder.path().join("raven.sqlite");
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await;
    let pool = pool.expect("a file");
    let sql = format!("UPDATE owners SET used_until_ms = used_until_ms - {USED_MS}");
    pool.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.expect("changed");
    pool.close().await;
    assert!(store.recover(&third, &code()).await.expect("read").is_none());
}

#[tokio::test]
async fn who_recovers_an_account_revokes_what_its_keys_made_of_sub_accounts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, parent) = with_account(folder.path()).await;
    let own = code();
    store.set_recovery(parent.account, parent.number, &own).await.expect("set");
    let [first, thiefs, operators] = [(); 3].map(|()| ApiKey::generate(KeyMode::Test));
    let new = NewKey { made_by: Some(parent.number), ..NewKey::whole(&first) };
    let child = store.add_child(parent.account, &new, "Ann", None, 9).await.expect("stored");
    let known = store.known_key(&first, UnixMs::now()).await.expect("read").expect("known");
    let new = NewKey { made_by: Some(known.number), ..NewKey::whole(&thiefs) };
    store.add_key_of(child, &new).await.expect("stored");
    store.add_key_of(child, &NewKey::whole(&operators)).await.expect("stored");
    store.recover(&own, &code()).await.expect("read").expect("recovered");
    for (key, holds) in [(&first, false), (&thiefs, false), (&operators, true)] {
        let known = store.known_key(key, UnixMs::now()).await.expect("read");
        assert_eq!(known.is_some(), holds, "{}", key.hint());
    }
}
