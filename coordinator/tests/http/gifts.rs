//! `/v1/contributors/gifts`: what a key has earned becomes its site's before a browser erases it.

use crate::contributors::{claim, id, key, nonce, of, own, posted, public, sign};
use crate::server::{Answer, ORIGIN, Server};
use ed25519_dalek::SigningKey;
use raven_coordinator::http::upkeep;
use raven_coordinator::runtime::SessionRecord;
use raven_coordinator::store::{Book, parse_site};
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use raven_engine::{NetworkPrefix, SiteId};
use raven_protocol::{Device, DeviceClass, KernelId, NumericClass, SessionId};
use serde_json::{Value, json};

const PAGE: &str = "http://localhost:3000";

/// A site whose pages are this machine's, which play money takes as proven; its id and key.
fn site(server: &Server, origin: &str) -> (SiteId, String) {
    let site = server.post("/v1/sites", &json!({"name": "News", "origins": [origin]})).json();
    let id = site["id"].as_str().and_then(parse_site).expect("an id");
    (id, site["site_key"].as_str().expect("a key").to_owned())
}

fn open(server: &Server, session: u64, key: &SigningKey, site: SiteId, page: &str) {
    let record = SessionRecord {
        session: SessionId(session),
        contributor: id(key),
        site: Some(site),
        origin: Some(page.into()),
        ticket: None,
        prefix: NetworkPrefix([0; 16]),
        device: Device { class: DeviceClass::Phone, cores: 1, memory_bytes: 1, flops_per_s: 1 },
        numeric: NumericClass::Cpu { kernel: KernelId([7; 32]) },
        share: 0.25,
        workers: 1,
        refuses: raven_engine::CategorySet::EMPTY,
        view: None,
        receipt: "{}".into(),
        signature: String::new(),
    };
    server.runtime.block_on(server.app.store.session_opened(&record)).expect("stored");
}

fn earn(server: &Server, book: Book, name: &str, key: &SigningKey, amount: i64) {
    let (debit, credit) = (Account::External, of(key));
    let (amount, reason) = (NanoUsd(amount), Reason::Earning);
    let action = Action::Post(Transfer { debit, credit, amount, reason });
    let id = EntryId::of("test", &[name.as_bytes()]);
    let entries = [Entry { id, at: UnixMs::now().0, action }];
    server.runtime.block_on(server.app.store.enter(book, &entries)).expect("entered");
}

fn has(server: &Server, book: Book, account: Account) -> i64 {
    let balance = server.runtime.block_on(server.app.store.balance(book, account));
    balance.expect("readable").posted
}

fn statement(from: &SigningKey, site_key: &str) -> Value {
    json!({
        "purpose": "give", "coordinator": ORIGIN, "from": public(from), "site": site_key,
        "expires_ms": UnixMs::now().0 + 60_000, "nonce": "0123456789abcdef",
    })
}

fn give_with(server: &Server, statement: &Value, signer: &SigningKey) -> Answer {
    let statement = statement.to_string();
    let body = json!({ "signature": sign(signer, &statement), "statement": statement });
    server.post("/v1/contributors/gifts", &body)
}

fn give(server: &Server, from: &SigningKey, site_key: &str) -> Answer {
    give_with(server, &statement(from, site_key), from)
}

fn sweep(server: &Server) {
    server.runtime.block_on(upkeep::sweep(&server.app, UnixMs::now())).expect("swept");
}

#[test]
fn what_a_key_has_and_what_matures_later_is_its_sites() {
    let server = Server::start();
    let ((news, site_key), frame) = (site(&server, PAGE), key(1));
    open(&server, 1, &frame, news, PAGE);
    earn(&server, Book::Test, "one", &frame, 500);
    let answer = give(&server, &frame, &site_key);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let both = |book| (has(&server, book, of(&frame)), has(&server, book, Account::Site(news)));
    assert_eq!(both(Book::Test), (0, 500));
    // The same again moves nothing; what matures afterwards follows, once.
    assert_eq!(give(&server, &frame, &site_key).status, 201);
    earn(&server, Book::Test, "two", &frame, 25);
    sweep(&server);
    sweep(&server);
    assert_eq!(both(Book::Test), (0, 525));
    assert_eq!(own(&server, &frame)["given"], raven_coordinator::store::site_text(news));
    // Real money does not come to a site of play money: it is the reserve's, as what is left to the site from the start.
    earn(&server, Book::Live, "real", &frame, 40);
    sweep(&server);
    assert_eq!((both(Book::Live), posted(&server, Account::Reserve)), ((0, 0), 40));
    for book in Book::ALL {
        server.runtime.block_on(server.app.store.audit(book)).expect("the auditor agrees");
    }
}

#[test]
fn what_is_given_to_a_site_whose_page_is_not_proven_is_the_reserves() {
    let server = Server::start();
    let page = "https://news.example";
    let ((news, site_key), frame) = (site(&server, page), key(1));
    open(&server, 1, &frame, news, page);
    earn(&server, Book::Test, "one", &frame, 500);
    assert_eq!(give(&server, &frame, &site_key).status, 201);
    assert_eq!(has(&server, Book::Test, Account::Site(news)), 0);
    assert_eq!(has(&server, Book::Test, Account::Reserve), 500);
}

#[test]
fn gifts_that_may_not_be_move_nothing() {
    let server = Server::start();
    let ((news, site_key), (_, other)) = (site(&server, PAGE), site(&server, PAGE));
    let (frame, thief, wallet) = (key(1), key(4), key(3));
    open(&server, 1, &frame, news, PAGE);
    earn(&server, Book::Test, "one", &frame, 500);
    let good = statement(&frame, &site_key);
    let change = |field: &str, value: Value| {
        let mut statement = good.clone();
        statement[field] = value;
        statement
    };
    let refused = [
        (change("expires_ms", json!(UnixMs::now().0 - 1)), "statement.expires_ms"),
        (change("expires_ms", json!(UnixMs::now().0 + 960_000)), "statement.expires_ms"),
        (change("purpose", json!("claim")), "statement.purpose"),
        (change("coordinator", json!("https://other.test")), "statement.coordinator"),
        (change("nonce", json!("short")), "statement.nonce"),
        (change("from", json!(public(&thief))), "signature"),
        (change("site", json!("pk_nobody")), "statement.site"),
        (change("site", Value::Null), "statement.site"),
        (change("more", json!(1)), "statement"),
    ];
    for (statement, field) in refused {
        assert_eq!(give_with(&server, &statement, &frame).problem(422)["field"], field);
    }
    assert_eq!(give_with(&server, &good, &thief).problem(422)["field"], "signature");
    // It came through one site, and through no other.
    assert_eq!(give(&server, &frame, &other).problem(409)["field"], "statement.site");
    assert_eq!(give(&server, &thief, &site_key).problem(409)["field"], "statement.site");
    assert_eq!(has(&server, Book::Test, of(&frame)), 500);

    // What a wallet collects is not given away, nor is what the wallet has.
    assert_eq!(claim(&server, &frame, &wallet).status, 201);
    give(&server, &frame, &site_key).problem(409);
    open(&server, 2, &wallet, news, PAGE);
    give(&server, &wallet, &site_key).problem(409);
    assert_eq!(has(&server, Book::Test, of(&wallet)), 500);

    // What was given is not collected.
    let giver = key(5);
    open(&server, 3, &giver, news, PAGE);
    earn(&server, Book::Test, "five", &giver, 70);
    assert_eq!(give(&server, &giver, &site_key).status, 201);
    let answer = claim(&server, &giver, &wallet).problem(409);
    assert_eq!(answer["type"], "urn:raven:problem:given");
    // A statement that gives does not claim.
    let (text, nonce) = (statement(&key(5), &site_key).to_string(), nonce(&server, &wallet));
    let said = format!("raven wallet 1\n{ORIGIN}\n{nonce}\n{text}");
    let body = json!({
        "signature": sign(&giver, &text), "statement": text, "wallet": public(&wallet),
        "nonce": nonce, "wallet_signature": sign(&wallet, &said),
    });
    let answer = server.post("/v1/contributors/claims", &body);
    assert_eq!(answer.problem(422)["field"], "statement.purpose");
}
