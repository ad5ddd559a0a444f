//! `/v1/contributors`: what a key may see of its own, and wallets that collect.

use crate::server::{Answer, ORIGIN, Server};
use ed25519_dalek::{Signer, SigningKey};
use raven_coordinator::allocation::Allocation;
use raven_coordinator::http::upkeep;
use raven_coordinator::runtime::SessionRecord;
use raven_coordinator::runtime::session::hex;
use raven_coordinator::store::{Book, Claim, ClaimError, LINK_DAYS, LINKS_MAX, Payout};
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use raven_engine::{ContributorId, NetworkPrefix};
use raven_protocol::{
    Backend, Device, DeviceClass, GoodbyeReason, KernelId, NumericClass, ResultOutcome, SessionId,
};
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use std::collections::BTreeMap;

pub(super) fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(super) fn public(key: &SigningKey) -> String {
    hex(key.verifying_key().as_bytes())
}

pub(super) fn id(key: &SigningKey) -> ContributorId {
    ContributorId(key.verifying_key().to_bytes())
}

pub(super) fn sign(key: &SigningKey, text: &str) -> String {
    hex(&key.sign(text.as_bytes()).to_bytes())
}

pub(super) fn nonce(server: &Server, key: &SigningKey) -> String {
    let answer = server.post("/v1/contributors/challenge", &json!({ "key": public(key) }));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["origin"], ORIGIN);
    let behind = UnixMs::now().0 - answer.json()["now_ms"].as_i64().expect("the clock");
    assert!((0..60_000).contains(&behind), "{behind} ms");
    answer.json()["nonce"].as_str().expect("a nonce").to_owned()
}

fn authorization(key: &SigningKey, nonce: &str) -> String {
    let text = format!("raven contributor 1\n{ORIGIN}\n{}\n{nonce}", public(key));
    format!("Raven-Key {}.{nonce}.{}", public(key), sign(key, &text))
}

pub(super) fn own(server: &Server, key: &SigningKey) -> Value {
    let header = authorization(key, &nonce(server, key));
    let path = format!("/v1/contributors/{}", public(key));
    let answer = server.get_with(&path, &[("authorization", &header)]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn statement(key: &SigningKey, expires_in_ms: i64) -> Value {
    json!({
        "purpose": "claim", "coordinator": ORIGIN, "from": public(key),
        "expires_ms": UnixMs::now().0 + expires_in_ms, "nonce": "0123456789abcdef",
    })
}

/// Claims by a statement that `from` has signed, for `wallet`.
fn claim_with(
    server: &Server,
    statement: &Value,
    from: &SigningKey,
    wallet: &SigningKey,
) -> Answer {
    let (statement, nonce) = (statement.to_string(), nonce(server, wallet));
    let text = format!("raven wallet 1\n{ORIGIN}\n{nonce}\n{statement}");
    let body = json!({
        "signature": sign(from, &statement), "statement": statement, "wallet": public(wallet),
        "nonce": nonce, "wallet_signature": sign(wallet, &text),
    });
    server.post("/v1/contributors/claims", &body)
}

pub(super) fn claim(server: &Server, from: &SigningKey, wallet: &SigningKey) -> Answer {
    claim_with(server, &statement(from, 60_000), from, wallet)
}

fn enter(server: &Server, name: &str, to: ContributorId, amount: i64, is_held: bool) {
    let (debit, credit) = (Account::External, Account::Contributor(to));
    let (amount, reason) = (NanoUsd(amount), Reason::Earning);
    let transfer = Transfer { debit, credit, amount, reason };
    let action = match is_held {
        true => Action::Hold { transfer, expires: None },
        false => Action::Post(transfer),
    };
    let at = UnixMs::now().0;
    enter_at(server, name, at, action);
}

fn enter_at(server: &Server, name: &str, at: i64, action: Action) {
    let entries = [Entry { id: EntryId::of("test", &[name.as_bytes()]), at, action }];
    server.runtime.block_on(server.app.store.enter(Book::Live, &entries)).expect("entered");
}

pub(super) fn posted(server: &Server, account: Account) -> i64 {
    let balance = server.runtime.block_on(server.app.store.balance(Book::Live, account));
    balance.expect("readable").posted
}

pub(super) fn of(key: &SigningKey) -> Account {
    Account::Contributor(id(key))
}

fn open(server: &Server, session: u64, key: &SigningKey) {
    let record = SessionRecord {
        session: SessionId(session),
        contributor: id(key),
        site: None,
        origin: None,
        ticket: None,
        prefix: NetworkPrefix([0; 16]),
        device: Device { class: DeviceClass::Phone, cores: 1, memory_bytes: 1, flops_per_s: 1 },
        numeric: NumericClass::Gpu { kernel: KernelId([7; 32]) },
        share: 0.25,
        workers: 1,
        refuses: raven_engine::CategorySet::EMPTY,
        view: None,
        receipt: "{}".into(),
        signature: String::new(),
    };
    server.runtime.block_on(server.app.store.session_opened(&record)).expect("stored");
}

fn close(server: &Server, session: u64) {
    let reason = Some(GoodbyeReason::Stopped);
    let closed = server.app.store.session_closed(SessionId(session), reason);
    server.runtime.block_on(closed).expect("stored");
}

#[test]
fn a_contributor_sees_its_own_by_a_signature() {
    let server = Server::start();
    let ann = key(1);
    open(&server, 5, &ann);
    close(&server, 5);
    enter(&server, "posted", id(&ann), 700, false);
    enter(&server, "held", id(&ann), 30, true);
    let counts = BTreeMap::from([
        ((id(&ann), ResultOutcome::Accepted), 3),
        ((id(&ann), ResultOutcome::Late), 1),
        ((id(&key(2)), ResultOutcome::Wrong), 1),
    ]);
    server.runtime.block_on(server.app.store.add_contributor_outcomes(&counts)).expect("stored");
    let shown = own(&server, &ann);
    assert_eq!(shown["results"], json!({ "accepted": 3, "late": 1 }));
    assert_eq!(shown["earnings"]["live"]["available_nano_usd"], 700);
    assert_eq!(shown["earnings"]["live"]["pending_nano_usd"], 30);
    assert!(shown["earnings"]["live"]["expires"].is_string());
    assert!(shown["earnings"]["test"]["expires"].is_null());
    assert_eq!(shown["earned"][0]["nano_usd"], 730);
    assert_eq!(shown["sessions"][0]["device"], "phone");
    assert_eq!(shown["sessions"][0]["backend"], "gpu");
    assert_eq!(shown["sessions"][0]["reason"], "stopped");
    let kinds: Vec<&Value> =
        shown["allocations"].as_array().expect("lines").iter().map(|line| &line["kind"]).collect();
    assert_eq!(kinds, ["revoke", "consent"]);
    assert_eq!(shown["allocations"][1]["share_ppm"], 250_000);
    assert_eq!(own(&server, &key(9))["work"]["tasks"], 0, "one that has done nothing");
}

#[test]
fn a_session_is_shown_with_the_share_that_it_was_last_allocated() {
    let server = Server::start();
    let ann = key(1);
    for session in [5, 6] {
        open(&server, session, &ann);
    }
    let pace = |session: u64, share: f64, workers: u32| {
        let refuses = raven_engine::CategorySet::EMPTY;
        let line = Allocation::of(id(&ann), SessionId(session), Backend::Gpu)
            .consented(0.25, 1, refuses, "{}")
            .paced(share, workers, refuses, None);
        let stored = server.app.store.add_allocation(&line, None);
        server.runtime.block_on(stored).expect("stored");
    };
    let shown = |session: u64| {
        let sessions = own(&server, &ann)["sessions"].as_array().expect("sessions").clone();
        let text = SessionId(session).to_string();
        let one = sessions.iter().find(|one| one["session"] == text).expect("it is listed").clone();
        (one["share"].clone(), one["workers"].clone())
    };
    assert_eq!(shown(5), (json!(0.25), json!(1)));
    pace(5, 0.2, 1);
    pace(5, 0.1, 2);
    assert_eq!(shown(5), (json!(0.1), json!(2)));
    assert_eq!(shown(6), (json!(0.25), json!(1)), "another one's changes are not its own");
    // Of one that is over, what it had until then.
    close(&server, 5);
    assert_eq!(shown(5), (json!(0.1), json!(2)));
}

#[test]
fn whoever_is_not_the_key_sees_nothing() {
    let server = Server::start();
    let (ann, ben) = (key(1), key(2));
    let path = format!("/v1/contributors/{}", public(&ann));
    let get = |header: &str| server.get_with(&path, &[("authorization", header)]);
    let kind = |answer: Answer, status: u16| {
        answer.problem(status)["type"].as_str().expect("a type").to_owned()
    };
    assert_eq!(kind(get("Bearer rk_test_x"), 401), "urn:raven:problem:challenge");
    assert_eq!(kind(get("Raven-Key a.b"), 401), "urn:raven:problem:challenge");
    // A nonce serves once, its own key, and only with its own signature.
    let given = nonce(&server, &ann);
    let good = authorization(&ann, &given);
    let forged = good.replace(&public(&ann), &public(&ben));
    assert_eq!(kind(get(&forged), 401), "urn:raven:problem:challenge");
    let foreign = authorization(&ann, &nonce(&server, &ben));
    assert_eq!(kind(get(&foreign), 401), "urn:raven:problem:challenge");
    assert_eq!(get(&good).status, 200);
    assert_eq!(kind(get(&good), 401), "urn:raven:problem:challenge");
    // Another's page is not one's own.
    let other = authorization(&ben, &nonce(&server, &ben));
    assert_eq!(get(&other).problem(403)["field"], "key");
    for bad in ["", "zz", &"00".repeat(32)] {
        let asked = server.post("/v1/contributors/challenge", &json!({ "key": bad }));
        assert_eq!(asked.problem(422)["field"], "key");
    }
}

#[test]
fn payout_settings_are_checked_and_kept() {
    let server = Server::start();
    let ann = key(1);
    open(&server, 1, &ann);
    let path = format!("/v1/contributors/{}/payout", public(&ann));
    let put = |body: &Value| {
        let header = authorization(&ann, &nonce(&server, &ann));
        let headers = [("authorization", header.as_str())];
        let request = ureq::put(server.url(&path)).config().http_status_as_error(false).build();
        let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
        let mut answer = request.send(body.to_string()).expect("answers");
        let body: Value = serde_json::from_slice(&answer.body_mut().read_to_vec().expect("a body"))
            .expect("JSON");
        (answer.status().as_u16(), body)
    };
    let (status, kept) = put(&json!({ "address": "ann@example.org", "threshold_nano_usd": 5 }));
    assert_eq!((status, &kept["threshold_nano_usd"]), (200, &json!(5)));
    assert_eq!(own(&server, &ann)["payout"], kept);
    let refused = [
        (json!({ "address": "two words" }), "address"),
        (json!({ "address": "" }), "address"),
        (json!({ "address": "x".repeat(129) }), "address"),
        (json!({ "address": "a\u{202e}b" }), "address"),
        (json!({ "threshold_nano_usd": -1 }), "threshold_nano_usd"),
    ];
    for (body, field) in refused {
        let (status, problem) = put(&body);
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{body}");
    }
    assert_eq!(own(&server, &ann)["payout"], kept, "as before");
}

#[test]
fn a_wallet_collects_what_its_contributors_earn() {
    let server = Server::start();
    let (frame, phone, wallet) = (key(1), key(2), key(3));
    enter(&server, "one", id(&frame), 500, false);
    enter(&server, "pending", id(&frame), 40, true);
    assert_eq!(claim(&server, &frame, &wallet).status, 201);
    assert_eq!((posted(&server, of(&frame)), posted(&server, of(&wallet))), (0, 500));
    // The same again moves nothing; what is earned later follows with the next turn, once.
    assert_eq!(claim(&server, &frame, &wallet).status, 201);
    assert_eq!(posted(&server, of(&wallet)), 500);
    enter(&server, "two", id(&frame), 25, false);
    open(&server, 1, &phone);
    assert_eq!(claim(&server, &phone, &wallet).status, 201);
    let sweep = || server.runtime.block_on(upkeep::sweep(&server.app, UnixMs::now()));
    sweep().expect("swept");
    sweep().expect("swept");
    assert_eq!((posted(&server, of(&frame)), posted(&server, of(&wallet))), (0, 525));
    let shown = own(&server, &wallet);
    assert_eq!(shown["linked"].as_array().map(Vec::len), Some(2));
    assert_eq!(shown["earnings"]["live"]["available_nano_usd"], 525);
    assert_eq!(shown["earnings"]["live"]["pending_nano_usd"], 40, "not matured, not moved");
    assert_eq!(shown["earned"][0]["nano_usd"], 565, "what is moved is not earned twice");
    assert_eq!(own(&server, &frame)["wallet"], public(&wallet));
    let lines = server.app.store.statement(Book::Live, of(&wallet), None, 9);
    let lines = server.runtime.block_on(lines).expect("read");
    assert!(lines.iter().all(|line| matches!(
        line.entry.action,
        Action::Post(Transfer { reason: Reason::Claim, .. })
    )));
    server.runtime.block_on(server.app.store.audit(Book::Live)).expect("the auditor agrees");
}

#[test]
fn claims_that_may_not_be_move_nothing() {
    let server = Server::start();
    let (frame, wallet, thief) = (key(1), key(3), key(4));
    enter(&server, "one", id(&frame), 500, false);
    let good = statement(&frame, 60_000);
    let change = |field: &str, value: Value| {
        let mut statement = good.clone();
        statement[field] = value;
        statement
    };
    let refused = [
        (statement(&frame, -1), "statement.expires_ms"),
        (statement(&frame, 16 * 60_000), "statement.expires_ms"),
        (change("purpose", json!("login")), "statement.purpose"),
        (change("coordinator", json!("https://other.test")), "statement.coordinator"),
        (change("nonce", json!("short")), "statement.nonce"),
        (change("from", json!(public(&thief))), "signature"),
        (change("more", json!(1)), "statement"),
    ];
    for (statement, field) in refused {
        let answer = claim_with(&server, &statement, &frame, &wallet);
        assert_eq!(answer.problem(422)["field"], field, "{statement}");
    }
    let forged = claim_with(&server, &good, &thief, &wallet);
    assert_eq!(forged.problem(422)["field"], "signature");
    assert_eq!(posted(&server, of(&frame)), 500);

    assert_eq!(claim(&server, &frame, &wallet).status, 201);
    // One contributor has one wallet, and no wallet has another.
    claim(&server, &frame, &thief).problem(409);
    claim(&server, &wallet, &thief).problem(409);
    open(&server, 5, &key(5));
    claim(&server, &key(5), &frame).problem(409);
    claim(&server, &key(5), &key(5)).problem(409);
    assert_eq!(posted(&server, of(&wallet)), 500);
    assert_eq!(posted(&server, of(&thief)), 0);
}

async fn rows(server: &Server, sql: &'static str) -> i64 {
    let options = SqliteConnectOptions::new().filename(server.folder.path().join("raven.sqlite"));
    let mut file = options.connect().await.expect("a file");
    sqlx::query_scalar(sql).fetch_one(&mut file).await.expect(sql)
}

#[test]
fn a_key_that_has_done_nothing_leaves_no_trace() {
    let server = Server::start();
    let (wallet, nobody) = (key(3), key(4));
    let refused = claim(&server, &nobody, &wallet).problem(409);
    assert_eq!(refused["field"], "statement.from");
    assert!(refused["detail"].as_str().expect("a detail").contains("neither"), "{refused}");
    own(&server, &nobody);
    let header = authorization(&nobody, &nonce(&server, &nobody));
    let path = format!("/v1/contributors/{}/payout", public(&nobody));
    let body = json!({ "address": "nobody@example.org" }).to_string();
    let request = ureq::put(server.url(&path)).config().http_status_as_error(false).build();
    let answer = request.header("authorization", &header).send(body).expect("answers");
    assert_eq!(answer.status().as_u16(), 409);
    let count = |sql| server.runtime.block_on(rows(&server, sql));
    assert_eq!(count("SELECT COUNT(*) FROM contributors"), 0);
    assert_eq!(count("SELECT COUNT(*) FROM wallet_links"), 0);
    // A session or some earnings are enough, and then the wallet is known, too.
    open(&server, 1, &key(1));
    enter(&server, "one", id(&key(2)), 5, false);
    for known in [key(1), key(2)] {
        assert_eq!(claim(&server, &known, &wallet).status, 201);
    }
    assert_eq!(count("SELECT COUNT(*) FROM contributors"), 1);
}

#[test]
fn a_wallet_has_many_contributors_in_its_life_and_sums_up_all_of_them() {
    let server = Server::start();
    let wallet = key(3);
    // Claims of some weeks ago are not the first entries: numbers grow with time.
    let (debit, credit) = (Account::External, of(&key(9)));
    let first = Transfer { debit, credit, amount: NanoUsd(1), reason: Reason::Earning };
    enter_at(&server, "first", UnixMs::now().0 - 60 * 86_400_000, Action::Post(first));
    let link = |number: u64, days_ago: i64| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let contributor = ContributorId(bytes);
        enter(&server, &format!("of {number}"), contributor, 2, false);
        enter(&server, &format!("for {number}"), contributor, 1, true);
        let claim = Claim {
            contributor,
            wallet: id(&wallet),
            statement: String::new(),
            signature: String::new(),
        };
        server.runtime.block_on(
            server.app.store.claim(&claim, UnixMs(UnixMs::now().0 - days_ago * 86_400_000)),
        )
    };
    for number in 0..LINKS_MAX {
        link(number, LINK_DAYS + 1).expect("linked");
    }
    for number in LINKS_MAX..2 * LINKS_MAX {
        link(number, 1).expect("those of before do not count any more");
    }
    assert!(matches!(link(2 * LINKS_MAX, 0), Err(ClaimError::Full)));
    let shown = own(&server, &wallet);
    assert_eq!(shown["linked"].as_array().map(Vec::len), Some(100));
    assert_eq!(shown["earnings"]["live"]["available_nano_usd"], 2 * 2 * LINKS_MAX);
    assert_eq!(shown["earnings"]["live"]["pending_nano_usd"], 2 * LINKS_MAX);
    assert_eq!(shown["earned"][0]["nano_usd"], 3 * 2 * LINKS_MAX);
}

#[test]
fn what_nobody_claims_in_half_a_year_goes_to_the_reserve() {
    let server = Server::start();
    let (gone, back, linked, wallet, online) = (key(1), key(2), key(3), key(4), key(5));
    let addressed = key(6);
    for (number, key) in [(1, &gone), (2, &back), (3, &linked), (5, &online), (6, &addressed)] {
        open(&server, number, key);
        enter(&server, &format!("of {number}"), id(key), 100, false);
    }
    for number in [1, 2, 3, 6] {
        close(&server, number);
    }
    let payout = Payout { address: Some("ann@example.org".into()), threshold_nano_usd: None };
    let stored = server.app.store.set_payout(id(&addressed), &payout, UnixMs::now());
    server.runtime.block_on(stored).expect("stored");
    assert_eq!(claim(&server, &linked, &wallet).status, 201);
    let now = UnixMs::now();
    let sweep = |days| {
        let later = now.plus_days(days);
        server.runtime.block_on(upkeep::sweep(&server.app, later)).expect("swept");
    };
    let seen = server.app.store.contributor_seen(id(&back), now.plus_days(10));
    server.runtime.block_on(seen).expect("stored");
    sweep(179);
    assert_eq!(posted(&server, Account::Reserve), 0);
    sweep(181);
    assert_eq!(posted(&server, Account::Reserve), 200, "of whoever was not seen");
    assert_eq!(posted(&server, of(&addressed)), 0, "an address alone asks for nothing");
    sweep(181);
    assert_eq!((posted(&server, of(&gone)), posted(&server, of(&back))), (0, 100));
    assert_eq!(posted(&server, of(&online)), 100, "at work all the time");
    sweep(191);
    assert_eq!(posted(&server, Account::Reserve), 300, "whoever came back once, later");
    sweep(1_000);
    assert_eq!(posted(&server, of(&wallet)), 100, "collected is claimed");
    // What matures afterwards goes the same way, when its account is looked at the next time.
    enter(&server, "late", id(&gone), 7, false);
    sweep(1_179);
    assert_eq!(posted(&server, Account::Reserve), 300);
    sweep(1_181);
    assert_eq!(posted(&server, Account::Reserve), 307);
    server.runtime.block_on(server.app.store.audit(Book::Live)).expect("the auditor agrees");
}

#[test]
fn earnings_go_out_to_the_address_that_the_key_has_named() {
    let server = Server::start();
    let (ann, frame) = (key(1), key(2));
    enter(&server, "live", id(&ann), 9_000_000_000, false);
    let path = |key: &SigningKey| format!("/v1/contributors/{}/withdrawals", public(key));
    let ask = |whose: &SigningKey, signer: &SigningKey, body: &Value| {
        let header = authorization(signer, &nonce(&server, signer));
        let url = server.url(&path(whose));
        let request = ureq::post(url).config().http_status_as_error(false).build();
        let request = request.header("authorization", header);
        let mut answer = request.send(body.to_string()).expect("answers");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, body: answer.body_mut().read_to_vec().expect("a body") }
    };
    let pay_to = |key: &SigningKey, address: Option<&str>, threshold: Option<i64>| {
        let payout = Payout { address: address.map(Into::into), threshold_nano_usd: threshold };
        let stored = server.app.store.set_payout(id(key), &payout, UnixMs::now());
        server.runtime.block_on(stored).expect("stored");
    };
    let wish = |amount: i64, reference: &str| json!({ "nano_usd": amount, "reference": reference });
    let kind = |answer: Answer, status: u16| {
        answer.problem(status)["type"].as_str().expect("a type").to_owned()
    };
    let refused = |answer: Answer, status: u16, name: &str| {
        assert_eq!(kind(answer, status), format!("urn:raven:problem:{name}"));
    };
    refused(ask(&ann, &ann, &wish(2_000_000_000, "may")), 409, "no-payout-address");
    pay_to(&ann, Some("ann@example.org"), Some(2_000_000_000));
    let below = ask(&ann, &ann, &wish(1_999_999_999, "may")).problem(422);
    assert_eq!(below["type"], "urn:raven:problem:below-least");
    assert_eq!((&below["limit"], &below["field"]), (&json!(2_000_000_000), &json!("nano_usd")));
    refused(ask(&ann, &ann, &wish(9_000_000_001, "may")), 402, "funds");
    assert_eq!(ask(&ann, &frame, &wish(2_000_000_000, "may")).problem(403)["field"], "key");
    let unsigned = server.post(&path(&ann), &wish(2_000_000_000, "may"));
    refused(unsigned, 401, "challenge");
    let asked = ask(&ann, &ann, &wish(2_000_000_000, "may"));
    assert_eq!(asked.status, 201, "{}", asked.text());
    let asked = asked.json();
    assert_eq!(
        (&asked["address"], &asked["state"]),
        (&json!("ann@example.org"), &json!("pending"))
    );
    assert_eq!(ask(&ann, &ann, &wish(2_000_000_000, "may")).json(), asked, "once");
    refused(ask(&ann, &ann, &wish(2_000_000_001, "may")), 409, "reference-used");
    let header = authorization(&ann, &nonce(&server, &ann));
    let listed = server.get_with(&path(&ann), &[("authorization", &header)]).json();
    assert_eq!(listed["withdrawals"], json!([asked]));
    assert_eq!(own(&server, &ann)["earnings"]["live"]["available_nano_usd"], 7_000_000_000_i64);
    // What goes to a wallet is the wallet's to ask for, threshold or not.
    enter(&server, "frame", id(&frame), 5_000_000_000, false);
    pay_to(&frame, Some("thief@example.org"), None);
    assert_eq!(claim(&server, &frame, &ann).status, 201);
    refused(ask(&frame, &frame, &wish(2_000_000_000, "june")), 409, "collected");
    assert_eq!(ask(&ann, &ann, &wish(12_000_000_000, "june")).status, 201);
    server.runtime.block_on(server.app.store.audit(Book::Live)).expect("the auditor agrees");
}
