//! Earnings of sites and contributors that become an account's to spend.

use crate::server::{Answer, ORIGIN, Server};
use ed25519_dalek::{Signer, SigningKey};
use raven_coordinator::earnings::DOMAIN;
use raven_coordinator::receipt::verify;
use raven_coordinator::runtime::session::hex;
use raven_coordinator::store::{Audited, Book, parse_site};
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use raven_engine::{ContributorId, SiteId};
use serde_json::{Value, json};

const TRIAL: i64 = 1_000_000_000_000;

/// Gives an account money from the work of nobody: some that is its own, some that is held.
fn earn(server: &Server, account: Account, amount: i64, held: i64) {
    let transfer = |amount| Transfer {
        debit: Account::Operator,
        credit: account,
        amount: NanoUsd(amount),
        reason: Reason::Earning,
    };
    let id = |name: &[u8]| EntryId::of("test", &[&account.to_bytes(), name]);
    let hold = Action::Hold { transfer: transfer(held), expires: None };
    let entries = [
        Entry { id: id(b"a"), at: 1, action: Action::Post(transfer(amount)) },
        Entry { id: id(b"b"), at: 1, action: hold },
    ];
    let entered = server.app.store.enter(Book::Test, &entries);
    server.runtime.block_on(entered).expect("entered");
}

fn site(server: &Server) -> (String, SiteId) {
    let spec = json!({"name": "News", "origins": ["https://news.example"]});
    let made = server.post("/v1/sites", &spec).json();
    let text = made["id"].as_str().expect("an id").to_owned();
    let id = parse_site(&text).expect("an id");
    (text, id)
}

fn audited(server: &Server) -> Audited {
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("books")
}

fn available(server: &Server) -> i64 {
    let account = server.get("/v1/account").json();
    account["balance"]["available_nano_usd"].as_i64().expect("an amount")
}

#[test]
fn a_sites_owner_spends_what_has_matured() {
    let server = Server::start();
    let (text, id) = site(&server);
    earn(&server, Account::Site(id), 500, 100);
    let path = format!("/v1/sites/{text}/spend");
    let body = json!({"nano_usd": 300, "reference": "a"});
    let spent = server.post(&path, &body).json();
    assert_eq!(spent["entered_before"], false);
    assert_eq!(
        (&spent["left"]["available_nano_usd"], &spent["left"]["pending_nano_usd"]),
        (&json!(200), &json!(100))
    );
    assert_eq!(spent["balance"]["available_nano_usd"], TRIAL + 300);
    assert_eq!(server.post(&path, &body).json()["entered_before"], true);
    assert_eq!(available(&server), TRIAL + 300);
    let before = audited(&server);
    for (body, status, field) in [
        (json!({"nano_usd": 201, "reference": "b"}), 402, Value::Null),
        (json!({"nano_usd": 301, "reference": "a"}), 409, json!("reference")),
        (json!({"nano_usd": -1, "reference": "b"}), 422, json!("nano_usd")),
        (json!({"nano_usd": u64::MAX, "reference": "b"}), 422, json!("nano_usd")),
    ] {
        assert_eq!(server.post(&path, &body).problem(status)["field"], field, "{body}");
    }
    let body = json!({"nano_usd": 1, "reference": "b"});
    server.post("/v1/sites/site_0000000000000009/spend", &body).problem(404);
    assert_eq!(audited(&server), before);
}

#[test]
fn a_sites_owner_has_its_statement_and_receipts() {
    let server = Server::start();
    let (text, id) = site(&server);
    earn(&server, Account::Site(id), 500, 100);
    let path = format!("/v1/sites/{text}/account");
    let shown = server.get(&path).json();
    assert_eq!(shown["account"], Account::Site(id).to_string());
    assert_eq!(shown["balance"]["available_nano_usd"], 500);
    let lines = server.get(&format!("{path}/statement")).json();
    let states: Vec<&Value> =
        lines["lines"].as_array().expect("lines").iter().map(|line| &line["state"]).collect();
    assert_eq!(states, ["open", "posted"]);
    let number = &lines["lines"][1]["number"];
    let receipt = server.get(&format!("{path}/receipts/{number}")).text();
    let receipt = verify(&receipt, None).expect("genuine");
    assert_eq!((receipt.transfer.credit, receipt.transfer.amount.0), (Account::Site(id), 500));
    // The trial balance is the account's, not the site's.
    server.get(&format!("{path}/receipts/1")).problem(404);
    server.get("/v1/sites/site_0000000000000009/account").problem(404);
    let spec = json!({"name": "x", "scopes": ["sites"]});
    let some = server.post("/v1/keys", &spec).json();
    let key = some["key"].as_str().expect("a key");
    server.ask(key, "GET", &path, &Value::Null).problem(403);
}

/// What a contributor says.
fn statement(server: &Server, key: &SigningKey, amount: i64, nonce: u8, end: i64) -> Value {
    let account = server.get("/v1/account").json()["account"].clone();
    json!({
        "coordinator": ORIGIN, "contributor": hex(key.verifying_key().as_bytes()), "account": account,
        "nano_usd": amount, "nonce": hex(&[nonce; 16]), "expires_at": UnixMs(end).rfc3339(),
    })
}

fn claim(server: &Server, key: &SigningKey, statement: &Value) -> Answer {
    let text = statement.to_string();
    let signature = key.sign(format!("{DOMAIN}{text}").as_bytes()).to_bytes();
    let body = json!({"statement": text, "signature": hex(&signature)});
    server.post("/v1/account/earnings", &body)
}

#[test]
fn a_contributors_word_makes_its_earnings_an_accounts() {
    let server = Server::start();
    let key = SigningKey::from_bytes(&[7; 32]);
    let contributor = ContributorId(key.verifying_key().to_bytes());
    earn(&server, Account::Contributor(contributor), 500, 100);
    let later = UnixMs::now().0 + 60_000;
    let said = statement(&server, &key, 300, 1, later);
    let spent = claim(&server, &key, &said).json();
    assert_eq!(
        (&spent["entered_before"], &spent["left"]["available_nano_usd"]),
        (&json!(false), &json!(200))
    );
    assert_eq!(available(&server), TRIAL + 300);
    let before = audited(&server);
    // Sent again it moves nothing.
    assert_eq!(claim(&server, &key, &said).json()["entered_before"], true);
    claim(&server, &key, &statement(&server, &key, 200, 1, later)).problem(409);
    claim(&server, &key, &statement(&server, &key, 201, 2, later)).problem(402);
    let over = claim(&server, &key, &statement(&server, &key, 1, 2, 1_000)).problem(409);
    assert_eq!(over["field"], "statement.expires_at");
    for (field, value) in [
        ("nano_usd", json!(0)),
        ("nano_usd", json!(-5)),
        ("nonce", json!("abc")),
        ("account", json!("x")),
        ("expires_at", json!("soon")),
        ("contributor", json!("abc")),
    ] {
        let mut said = statement(&server, &key, 1, 2, later);
        said[field] = value;
        let problem = claim(&server, &key, &said).problem(422);
        assert_eq!(problem["field"], format!("statement.{field}"));
    }
    // Another's signature, another's account, and what is no statement at all.
    let thief = SigningKey::from_bytes(&[8; 32]);
    let mut said = statement(&server, &key, 1, 2, later);
    assert_eq!(claim(&server, &thief, &said).problem(403)["field"], "signature");
    // What was said to another coordinator.
    for elsewhere in ["http://other.test", "http://coordinator.test/", ""] {
        let mut said = said.clone();
        said["coordinator"] = json!(elsewhere);
        assert_eq!(claim(&server, &key, &said).problem(403)["field"], "statement.coordinator");
    }
    said["account"] = json!("requester:0000000000000063");
    assert_eq!(claim(&server, &key, &said).problem(403)["field"], "statement.account");
    let text = statement(&server, &key, 1, 2, later).to_string();
    let bare = hex(&key.sign(text.as_bytes()).to_bytes());
    for (text, signature, status) in [
        (text.as_str(), bare.as_str(), 403),
        (text.as_str(), "00", 422),
        ("{}", bare.as_str(), 422),
        (&" ".repeat(2_049), bare.as_str(), 422),
    ] {
        let body = json!({"statement": text, "signature": signature});
        server.post("/v1/account/earnings", &body).problem(status);
    }
    assert_eq!(audited(&server), before);
}

#[test]
fn who_signs_a_statement_was_here_and_who_sends_it_again_was_not() {
    let server = Server::start();
    let key = SigningKey::from_bytes(&[7; 32]);
    let contributor = ContributorId(key.verifying_key().to_bytes());
    earn(&server, Account::Contributor(contributor), 500, 100);
    let said = statement(&server, &key, 300, 1, UnixMs::now().0 + 60_000);
    let seen = || server.sql("SELECT seen_ms FROM contributors");
    assert_eq!(seen(), None);
    assert_eq!(claim(&server, &key, &said).status, 200);
    assert!(seen().is_some_and(|at| at > 1), "what is unclaimed expires from now on");
    server.sql("UPDATE contributors SET seen_ms = 1 RETURNING 1");
    assert_eq!(claim(&server, &key, &said).json()["entered_before"], true);
    assert_eq!(seen(), Some(1));
}
