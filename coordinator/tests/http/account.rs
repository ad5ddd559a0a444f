//! `/v1/account`: what a requester has, and why.

use crate::server::{Server, job};
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::receipt::verify;
use raven_coordinator::store::{Book, requester};
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};

const TRIAL: i64 = 1_000_000_000_000;

/// Takes money out of the owner's account.
fn spend(server: &Server, amount: i64) {
    let (debit, credit) = (requester(server.owner), Account::External);
    let amount = NanoUsd(amount);
    let transfer = Transfer { debit, credit, amount, reason: Reason::Withdrawal };
    let id = EntryId::of("test", &[]);
    let entries = [Entry { id, at: 1, action: Action::Post(transfer) }];
    server.runtime.block_on(server.app.store.enter(Book::Test, &entries)).expect("entered");
}

#[test]
fn a_job_holds_its_price_and_gives_back_what_it_did_not_use() {
    let server = Server::start();
    let before = server.get("/v1/account").json();
    assert_eq!(before["book"], "test");
    assert_eq!(before["balance"]["available_nano_usd"], TRIAL);
    let posted = server.post("/v1/jobs", &job(&server.small_dataset())).json();
    let id = posted["id"].as_str().expect("an id");
    let held = posted["cost"]["escrow_nano_usd"].as_i64().expect("an amount");
    assert!(held > 0);
    let balance = server.get("/v1/account").json()["balance"].clone();
    assert_eq!(balance["available_nano_usd"], TRIAL - held);
    let statement = server.get("/v1/account/statement").json();
    let lines = statement["lines"].as_array().expect("lines");
    let seen: Vec<(&Value, &Value)> =
        lines.iter().map(|line| (&line["reason"], &line["nano_usd"])).collect();
    assert_eq!(seen, [(&json!("escrow"), &json!(-held)), (&json!("trial"), &json!(TRIAL))]);
    assert_eq!(lines[0]["other"], format!("escrow:{id}"));
    // The rest is on the next page.
    let first = server.get("/v1/account/statement?limit=1").json();
    assert_eq!(first["next_before"], lines[0]["number"]);
    let next = server.get(&format!("/v1/account/statement?limit=1&before={}", lines[0]["number"]));
    assert_eq!(next.json()["lines"][0], lines[1]);
}

#[test]
fn a_receipt_is_what_the_coordinator_signed() {
    let server = Server::start();
    let text = server.get("/v1/account/receipts/1").text();
    let signer = server.get("/v1/certificate-key").json();
    let signer = signer["public_key"].as_str().expect("a key").parse().expect("a key");
    let receipt = verify(&text, Some(signer)).expect("genuine");
    assert_eq!((receipt.number, receipt.transfer.amount.0), (1, TRIAL));
    assert_eq!(receipt.transfer.credit, requester(server.owner));
    assert!(verify(&text.replace("1000000000000", "2000000000000"), None).is_err());
    assert_eq!(server.get("/v1/account/receipts/2").status, 404);
    server.get("/v1/account/receipts/x").problem(400);
    // Nobody gets receipts of others.
    let stranger = ApiKey::generate(KeyMode::Test);
    server.runtime.block_on(server.app.store.add_key(&stranger)).expect("stored");
    let bearer = format!("Bearer {}", stranger.reveal());
    let answer = server.get_with("/v1/account/receipts/1", &[("authorization", &bearer)]);
    assert_eq!(answer.status, 404);
}

#[test]
fn whoever_has_too_little_is_refused_and_nothing_is_stored() {
    let server = Server::start();
    let document = job(&server.small_dataset());
    let quote = server.post("/v1/quotes", &document).json();
    let needed = quote["price"]["most_nano_usd"].as_u64().expect("a price");
    // All but one nano-USD of what a job needs is spent elsewhere.
    let spare = i64::try_from(needed).expect("small") - 1;
    spend(&server, TRIAL - spare);
    let problem = server.post("/v1/jobs", &document).problem(402);
    assert_eq!(problem["type"], "urn:raven:problem:funds");
    assert_eq!((&problem["limit"], &problem["found"]), (&json!(spare), &json!(needed)));
    assert_eq!(server.get("/v1/jobs").json()["jobs"], json!([]));
    assert_eq!(server.get("/v1/account").json()["balance"]["available_nano_usd"], spare);
    // With a smaller budget it is posted.
    let least = quote["price"]["least_budget_nano_usd"].as_i64().expect("a price");
    assert!(least <= spare, "{least} of {spare}");
    let mut document = document;
    document["budget"] = json!({ "nano_usd": spare });
    assert_eq!(server.post("/v1/jobs", &document).status, 202);
}

#[test]
fn statements_refuse_what_they_cannot_answer() {
    let server = Server::start();
    for query in ["limit=0", "limit=501"] {
        let problem = server.get(&format!("/v1/account/statement?{query}")).problem(422);
        assert_eq!((&problem["field"], &problem["limit"]), (&json!("limit"), &json!(500)));
    }
    for query in ["limit=-1", "before=x", "after=1"] {
        let problem = server.get(&format!("/v1/account/statement?{query}")).problem(400);
        assert_eq!(problem["field"], "query", "{query}");
    }
}

#[test]
fn live_keys_have_what_was_deposited_and_no_play_money() {
    let server = Server::start();
    let key = ApiKey::generate(KeyMode::Live);
    let owner = server.runtime.block_on(server.app.store.add_key(&key)).expect("stored");
    let bearer = format!("Bearer {}", key.reveal());
    let of = || server.get_with("/v1/account", &[("authorization", &bearer)]).json();
    assert_eq!(
        (&of()["book"], &of()["balance"]["available_nano_usd"]),
        (&json!("live"), &json!(0))
    );
    let paid = server.app.store.deposit(owner, NanoUsd(7), "payment 1");
    server.runtime.block_on(paid).expect("entered");
    assert_eq!(of()["balance"]["available_nano_usd"], 7);
}
