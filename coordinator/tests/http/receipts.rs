//! Receipts of holds: what became of the money, shown to whoever holds the receipt.

use crate::server::Server;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::receipt::{Outcome, Receipt, verify};
use raven_coordinator::settlement::{Decision, Deposit};
use raven_coordinator::store::{Book, parse_site};
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};

fn enter(server: &Server, name: &str, action: Action) -> EntryId {
    let id = EntryId::of("test", &[name.as_bytes()]);
    let entries = [Entry { id, at: UnixMs::now().0, action }];
    server.runtime.block_on(server.app.store.enter(Book::Test, &entries)).expect("entered");
    id
}

/// The newest line of a statement, and its receipt.
fn newest(server: &Server, key: &str, of: &str) -> (Value, Receipt) {
    let shown = server.ask(key, "GET", &format!("{of}/statement"), &Value::Null).json();
    let line = shown["lines"][0].clone();
    let path = format!("{of}/receipts/{}", line["number"]);
    let text = server.ask(key, "GET", &path, &Value::Null).text();
    (line, verify(&text, None).expect("genuine"))
}

#[test]
fn pay_that_is_held_and_then_voided_or_its_earners_own_is_told_as_that() {
    let server = Server::start();
    let spec = json!({"name": "News", "origins": ["https://news.example"]});
    let site = server.post("/v1/sites", &spec).json();
    let site = site["id"].as_str().expect("an id");
    let path = format!("/v1/sites/{site}/account");
    let transfer = |amount| Transfer {
        debit: Account::Operator,
        credit: Account::Site(parse_site(site).expect("an id")),
        amount: NanoUsd(amount),
        reason: Reason::PartnerShare,
    };
    let hold = |name: &str, amount| {
        let action = Action::Hold { transfer: transfer(amount), expires: None };
        enter(&server, name, action)
    };
    let lie = hold("a lie", 500);
    let (line, receipt) = newest(&server, &server.key, &path);
    assert_eq!((&line["state"], &receipt.outcome), (&json!("open"), &Outcome::Pending));
    assert!(!receipt.outcome.is_paid());
    // A proven lie voids it; whoever asks then gets no paper that looks like pay.
    enter(&server, "void", Action::VoidHold { hold: lie });
    let (line, receipt) = newest(&server, &server.key, &path);
    assert_eq!((&line["state"], receipt.transfer.amount), (&json!("voided"), NanoUsd(500)));
    let Outcome::Voided(end) = &receipt.outcome else { panic!("{:?}", receipt.outcome) };
    assert_eq!(end.entry.action, Action::VoidHold { hold: lie });
    assert!(end.number > receipt.number && !receipt.outcome.is_paid());
    // What has matured is proven by the entry that posted it.
    let work = hold("work", 700);
    let posted = enter(&server, "post", Action::PostHold { hold: work });
    let (line, receipt) = newest(&server, &server.key, &path);
    assert_eq!((&line["state"], receipt.transfer.amount), (&json!("posted"), NanoUsd(700)));
    let Outcome::Posted(end) = &receipt.outcome else { panic!("{:?}", receipt.outcome) };
    assert_eq!((end.entry.id, end.entry.action), (posted, Action::PostHold { hold: work }));
    assert_eq!(end.before, receipt.hash, "it was entered next");
    assert!(receipt.signed.is_some_and(|signed| signed.0 >= end.entry.at));
    // So is a hold whose time was over.
    let soon = UnixMs::now().0 + 1;
    let action = Action::Hold { transfer: transfer(900), expires: Some(soon) };
    let over = enter(&server, "over", action);
    std::thread::sleep(std::time::Duration::from_millis(5));
    enter(&server, "expire", Action::ExpireHold { hold: over });
    let (_, receipt) = newest(&server, &server.key, &path);
    assert!(matches!(receipt.outcome, Outcome::Expired(_)), "{:?}", receipt.outcome);
}

#[test]
fn a_withdrawal_that_was_paid_has_a_receipt_that_shows_it() {
    let server = Server::start();
    let key = ApiKey::generate(KeyMode::Live);
    let owner = server.runtime.block_on(server.app.store.add_key(&key)).expect("stored");
    let deposit = Deposit { owner, amount: NanoUsd(100_000).into(), payment: "p".into() };
    server.runtime.block_on(server.app.settlement.deposit(deposit)).expect("entered");
    let ask = |reference: &str| {
        let wish = json!({"nano_usd": 40_000, "address": "IBAN 1", "reference": reference});
        let asked = server.ask(key.reveal(), "POST", "/v1/account/withdrawals", &wish).json();
        asked["id"].as_str().expect("an id").parse().expect("an id")
    };
    let decide = |id, decision| {
        let decided = server.app.settlement.decide(id, decision, None, UnixMs::now());
        server.runtime.block_on(decided).expect("decided");
    };
    let receipt = || newest(&server, key.reveal(), "/v1/account").1;
    let may = ask("may");
    assert_eq!(receipt().outcome, Outcome::Pending);
    decide(may, Decision::Begin);
    assert_eq!(receipt().outcome, Outcome::Pending, "held again, without an end");
    decide(may, Decision::Approve);
    let paid = receipt();
    assert_eq!((paid.transfer.credit, paid.transfer.amount.0), (Account::External, 40_000));
    assert!(paid.outcome.is_paid(), "{:?}", paid.outcome);
    decide(ask("june"), Decision::Refuse);
    let refused = receipt();
    assert!(matches!(refused.outcome, Outcome::Voided(_)), "{:?}", refused.outcome);
    // A payment that came in moved at once.
    let text = server.ask(key.reveal(), "GET", "/v1/account/receipts/1", &Value::Null).text();
    assert_eq!(verify(&text, None).expect("genuine").outcome, Outcome::Moved);
}
