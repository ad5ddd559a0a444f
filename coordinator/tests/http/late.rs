//! Requests that were let in with a key which was revoked while they waited for their
//! turn to write: they make no secrets, and take no money out.

use crate::server::{Answer, Server};
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::settlement::Deposit;
use raven_coordinator::store::{Book, NewKey};
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};
use sqlx::Executor as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::time::Duration;

/// Long enough for a request to be let in and to wait.
const LET_IN: Duration = Duration::from_millis(300);

/// Sends a request with a new key of the server's live account, and revokes the key
/// while another process keeps the store from being written.
fn late(
    server: &Server,
    owner: raven_coordinator::store::KeyId,
    path: &str,
    body: &Value,
) -> Answer {
    let key = ApiKey::generate(KeyMode::Live);
    let new = NewKey::whole(&key);
    let added = server.runtime.block_on(server.app.store.add_key_of(owner, &new));
    let number = added.expect("stored");
    // Its first use is noted.
    assert_eq!(server.ask(key.reveal(), "GET", "/v1/keys", &Value::Null).status, 200);
    let file = SqliteConnectOptions::new().filename(server.folder.path().join("raven.sqlite"));
    std::thread::scope(|scope| {
        let (mut other, pool) = server.runtime.block_on(async {
            let pool = SqlitePool::connect_with(file).await.expect("a file");
            let mut other = pool.acquire().await.expect("a connection");
            other.execute("BEGIN IMMEDIATE").await.expect("begun");
            (other, pool)
        });
        let asked = scope.spawn(|| server.ask(key.reveal(), "POST", path, body));
        std::thread::sleep(LET_IN);
        assert!(!asked.is_finished(), "{path}: it waits");
        server.runtime.block_on(async {
            sqlx::query("UPDATE api_keys SET revoked_ms = 1 WHERE id = ?1")
                .bind(number.0)
                .execute(&mut *other)
                .await
                .expect("revoked");
            other.execute("COMMIT").await.expect("committed");
            drop(other);
            pool.close().await;
        });
        asked.join().expect("answers")
    })
}

#[test]
fn what_waited_while_its_key_was_revoked_is_refused() {
    let server = Server::start();
    let (store, own) = (&server.app.store, ApiKey::generate(KeyMode::Live));
    let owner = server.runtime.block_on(store.add_key(&own)).expect("stored");
    let deposit = Deposit { owner, amount: NanoUsd(100_000).into(), payment: "p".into() };
    server.runtime.block_on(server.app.settlement.deposit(deposit)).expect("entered");
    let withdrawal = json!({"nano_usd": 50_000, "address": "IBAN 1", "reference": "a"});
    for (path, body) in [
        ("/v1/keys", json!({"name": "x"})),
        ("/v1/account/recovery-code", Value::Null),
        ("/v1/accounts", json!({"name": "x"})),
        ("/v1/account/withdrawals", withdrawal),
    ] {
        late(&server, owner, path, &body).problem(401);
    }
    let get = |path: &str| server.ask(own.reveal(), "GET", path, &Value::Null).json();
    let keys = get("/v1/keys");
    let holds = |key: &&Value| key["revoked_at"].is_null();
    assert_eq!(keys["keys"].as_array().expect("keys").iter().filter(holds).count(), 1);
    assert_eq!(keys["recovery_set_at"], Value::Null);
    assert_eq!(get("/v1/accounts")["accounts"], json!([]));
    assert_eq!(get("/v1/account")["balance"]["available_nano_usd"], 100_000);
    server.runtime.block_on(store.audit(Book::Live)).expect("books");
}
