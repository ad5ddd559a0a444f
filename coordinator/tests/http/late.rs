//! Requests that were let in with a key which was revoked while they waited for their
//! turn to write: they make no secrets, and take no money out.

use crate::server::{Answer, ORIGIN, Server, job};
use ed25519_dalek::{Signer, SigningKey};
use raven_coordinator::earnings::{DOMAIN, LINK_DOMAIN};
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::runtime::session::hex;
use raven_coordinator::settlement::Deposit;
use raven_coordinator::store::{Book, KeyNumber, NewKey, mode_of, parse_site};
use raven_coordinator::time::UnixMs;
use raven_engine::ContributorId;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};
use sqlx::Executor as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Long enough for a request to be let in and to wait.
const LET_IN: Duration = Duration::from_millis(300);

/// A new key of an account, whose first use is noted.
fn new_key(server: &Server, owner: raven_coordinator::store::KeyId) -> (ApiKey, KeyNumber) {
    let book = server.runtime.block_on(server.app.store.book_of(owner)).expect("an account");
    let key = ApiKey::generate(mode_of(book));
    let new = NewKey::whole(&key);
    let added = server.runtime.block_on(server.app.store.add_key_of(owner, &new));
    assert_eq!(server.ask(key.reveal(), "GET", "/v1/keys", &Value::Null).status, 200);
    (key, added.expect("stored"))
}

/// Sends a request with a new key of an account, and revokes the key while another
/// process keeps the store from being written.
fn late(
    server: &Server,
    owner: raven_coordinator::store::KeyId,
    path: &str,
    body: &Value,
) -> Answer {
    let (key, number) = new_key(server, owner);
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

/// A contributor's word about the server's account, under that domain.
fn signed(server: &Server, domain: &str, key: &SigningKey, amount: Option<i64>) -> Value {
    let account = server.get("/v1/account").json()["account"].clone();
    let end = UnixMs(UnixMs::now().0 + 600_000).rfc3339();
    let mut said = json!({
        "coordinator": ORIGIN, "contributor": hex(key.verifying_key().as_bytes()),
        "account": account, "nonce": hex(&[1; 16]), "expires_at": end,
    });
    if let Some(amount) = amount {
        said["nano_usd"] = json!(amount);
    }
    let text = said.to_string();
    let signature = key.sign(format!("{domain}{text}").as_bytes()).to_bytes();
    json!({ "statement": text, "signature": hex(&signature) })
}

fn earn(server: &Server, credit: Account) {
    let (debit, amount) = (Account::Operator, NanoUsd(500));
    let transfer = Transfer { debit, credit, amount, reason: Reason::Earning };
    let id = EntryId::of("test", &[&credit.to_bytes()]);
    let entries = [Entry { id, at: 1, action: Action::Post(transfer) }];
    let entered = server.app.store.enter(Book::Test, &entries);
    server.runtime.block_on(entered).expect("entered");
}

#[test]
fn no_money_moves_for_a_key_that_was_revoked_while_its_request_waited() {
    let server = Server::start();
    let dataset = server.small_dataset();
    let posted = server.post("/v1/jobs", &job(&dataset)).json();
    let child = server.post("/v1/accounts", &json!({ "name": "Ann" })).json();
    let spec = json!({"name": "News", "origins": ["https://news.example"]});
    let site = server.post("/v1/sites", &spec).json();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let (posted, child, site) = (text(&posted["id"]), text(&child["account"]), text(&site["id"]));
    let contributor = SigningKey::from_bytes(&[7; 32]);
    let own = Account::Contributor(ContributorId(contributor.verifying_key().to_bytes()));
    earn(&server, own);
    earn(&server, Account::Site(parse_site(&site).expect("an id")));
    let audited = || server.runtime.block_on(server.app.store.audit(Book::Test)).expect("books");
    let before = audited();
    let movement = json!({"nano_usd": 5, "direction": "fund", "reference": "a"});
    for (path, body) in [
        ("/v1/jobs".to_owned(), job(&dataset)),
        (format!("/v1/jobs/{posted}/top-up"), json!({ "amount_nano_usd": 5 })),
        (format!("/v1/accounts/{child}/transfer"), movement),
        (format!("/v1/sites/{site}/spend"), json!({"nano_usd": 5, "reference": "a"})),
        ("/v1/account/earnings".to_owned(), signed(&server, DOMAIN, &contributor, Some(5))),
        ("/v1/account/links".to_owned(), signed(&server, LINK_DOMAIN, &contributor, None)),
    ] {
        late(&server, server.owner, &path, &body).problem(401);
        assert_eq!(audited(), before, "{path}");
    }
    assert_eq!(server.get("/v1/jobs").json()["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(server.network.jobs.lock().expect("no panic").len(), 1, "the first one's");
    assert_eq!(server.get("/v1/account/links").json()["links"], json!([]));
}

#[test]
fn a_key_that_is_revoked_between_a_requests_head_and_its_body_moves_nothing() {
    let server = Server::start();
    let posted = server.post("/v1/jobs", &job(&server.small_dataset())).json();
    let path = format!("/v1/jobs/{}/top-up", posted["id"].as_str().expect("an id"));
    let (key, _) = new_key(&server, server.owner);
    let body = json!({ "amount_nano_usd": 5 }).to_string();
    let mut stream = TcpStream::connect(server.address).expect("connects");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        key.reveal(),
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    std::thread::sleep(LET_IN);
    assert!(server.runtime.block_on(server.app.store.revoke_key(&key)).expect("revoked"));
    stream.write_all(body.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let job = server.get(&format!("/v1/jobs/{}", posted["id"].as_str().expect("an id"))).json();
    assert_eq!(job["cost"]["topped_up_nano_usd"], 0);
}
