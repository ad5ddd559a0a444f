//! Accounts and their money where somebody asks twice, or many ask at once.

use crate::server::{Answer, ORIGIN, Server};
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::mail::{FolderMailer, Mailer};
use raven_coordinator::settlement::{Deposit, SettlementError};
use raven_coordinator::store::{Audited, Book, BooksError, KeyId};
use raven_engine::ledger::{Added, Refusal};
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};
use std::sync::Arc;

const AT_ONCE: usize = 6;

fn start(folder: &tempfile::TempDir) -> Server {
    let mailer = FolderMailer::open(folder.path()).expect("a folder");
    Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.accounts.mailer = Some(Arc::new(mailer) as Arc<dyn Mailer>);
    })
}

/// Paths of the links that were sent, oldest first.
fn links(server: &Server, folder: &tempfile::TempDir, email: &str, count: usize) -> Vec<String> {
    for _ in 0..count {
        let answer = server.ask("none", "POST", "/v1/sign-up", &json!({ "email": email }));
        assert_eq!(answer.status, 202);
    }
    let files = std::fs::read_dir(folder.path()).expect("a folder");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    let link = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).expect("text");
        text.lines().find_map(|line| line.strip_prefix(ORIGIN)).map(|it| it.trim().to_owned())
    };
    files.iter().filter_map(link).collect()
}

/// What `ask` is answered by all that ask at once.
fn at_once(count: usize, ask: impl Fn(usize) -> Answer + Sync) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let ask = &ask;
        let asked: Vec<_> = (0..count).map(|at| scope.spawn(move || ask(at))).collect();
        asked.into_iter().map(|it| it.join().expect("no panic")).collect()
    })
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

/// Of the keys that were given, those that are good.
fn good_keys(server: &Server, answers: &[Answer]) -> usize {
    let given = answers.iter().filter_map(|it| it.json()["key"].as_str().map(str::to_owned));
    given.filter(|key| server.ask(key, "GET", "/v1/account", &Value::Null).status == 200).count()
}

#[test]
fn a_link_that_many_follow_at_once_gives_one_account_and_one_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder);
    let link = links(&server, &folder, "ann@example.org", 1).remove(0);
    let answers = at_once(AT_ONCE, |_| server.ask("none", "POST", &link, &Value::Null));
    let mut accounts: Vec<String> =
        answers.iter().filter_map(|it| it.json()["account"].as_str().map(str::to_owned)).collect();
    accounts.dedup();
    assert_eq!((count(&answers, 201), accounts.len()), (AT_ONCE, 1), "{accounts:?}");
    assert_eq!(good_keys(&server, &answers), 1, "the last one");
    server.ask("none", "POST", &link, &Value::Null).problem(404);
}

#[test]
fn of_several_links_of_one_address_one_makes_the_account() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder);
    let links = links(&server, &folder, "ann@example.org", 3);
    assert_eq!(links.len(), 3);
    let answers = at_once(3, |at| server.ask("none", "POST", &links[at], &Value::Null));
    assert_eq!((count(&answers, 201), count(&answers, 404)), (1, 2));
    assert_eq!(good_keys(&server, &answers), 1);
}

#[test]
fn a_link_gives_no_key_of_an_account_that_was_recovered_or_whose_key_was_revoked() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder);
    let link = links(&server, &folder, "ann@example.org", 1).remove(0);
    let follow = || server.ask("none", "POST", &link, &Value::Null);
    // Whoever read the mail too follows the link after its owner has recovered the account.
    let made = follow().json();
    let code = json!({ "code": made["recovery_code"] });
    let found = server.ask("none", "POST", "/v1/recover", &code).json();
    assert!(found["key"].is_string());
    follow().problem(404);
    let other = tempfile::tempdir().expect("a folder");
    let server = start(&other);
    let link = links(&server, &other, "ben@example.org", 1).remove(0);
    let made = server.ask("none", "POST", &link, &Value::Null).json();
    let key = ApiKey::parse(made["key"].as_str().expect("a key")).expect("a key");
    assert!(server.runtime.block_on(server.app.store.revoke_key(&key)).expect("revoked"));
    server.ask("none", "POST", &link, &Value::Null).problem(404);
    // Its code is of the account, and stays: nobody is locked out by a key that is gone.
    let code = json!({ "code": made["recovery_code"] });
    assert_eq!(server.ask("none", "POST", "/v1/recover", &code).status, 201);
}

#[test]
fn a_code_that_many_use_at_once_gives_one_key() {
    let server = Server::start();
    let code = server.send("POST", "/v1/account/recovery-code", &[], b"").json();
    let code = json!({ "code": code["recovery_code"] });
    let answers = at_once(AT_ONCE, |_| server.ask("none", "POST", "/v1/recover", &code));
    assert!(count(&answers, 201) >= 1);
    assert_eq!(good_keys(&server, &answers), 1);
    server.ask("none", "POST", "/v1/recover", &code).problem(401);
    server.get("/v1/account").problem(401);
}

/// A live account with five USD.
fn live(server: &Server, payment: &str) -> (String, KeyId) {
    let (key, owner) = live_without(server);
    pay_in(server, owner, 5_000_000_000, payment).expect("entered");
    (key, owner)
}

fn live_without(server: &Server) -> (String, KeyId) {
    let key = ApiKey::generate(KeyMode::Live);
    let owner = server.runtime.block_on(server.app.store.add_key(&key)).expect("stored");
    (key.reveal().to_owned(), owner)
}

fn pay_in(
    server: &Server,
    owner: KeyId,
    amount: i64,
    payment: &str,
) -> Result<Added, SettlementError> {
    let deposit = Deposit { owner, amount: NanoUsd(amount).into(), payment: payment.into() };
    server.runtime.block_on(server.app.settlement.deposit(deposit))
}

fn audited(server: &Server) -> Audited {
    server.runtime.block_on(server.app.store.audit(Book::Live)).expect("books")
}

fn withdraw(server: &Server, key: &str, amount: i64, reference: &str) -> Answer {
    let body = json!({ "nano_usd": amount, "address": "IBAN 1", "reference": reference });
    server.ask(key, "POST", "/v1/account/withdrawals", &body)
}

#[test]
fn money_is_asked_for_once_however_many_ask() {
    let server = Server::start();
    let (key, _) = live(&server, "p");
    let references: Vec<String> = (0..AT_ONCE).map(|at| format!("may-{at}")).collect();
    let answers = at_once(AT_ONCE, |at| withdraw(&server, &key, 3_000_000_000, &references[at]));
    assert_eq!((count(&answers, 201), count(&answers, 402)), (1, AT_ONCE - 1));
    let (key, _) = live(&server, "q");
    let answers = at_once(AT_ONCE, |_| withdraw(&server, &key, 1_000_000_000, "may"));
    assert_eq!(count(&answers, 201), AT_ONCE);
    assert!(answers.iter().all(|it| it.json()["id"] == answers[0].json()["id"]), "one withdrawal");
    let path = format!("/v1/account/withdrawals/{}", answers[0].json()["id"].as_str().expect("id"));
    let answers = at_once(AT_ONCE, |_| server.ask(&key, "DELETE", &path, &Value::Null));
    assert_eq!(count(&answers, 200), AT_ONCE);
    let account = server.ask(&key, "GET", "/v1/account", &Value::Null).json();
    assert_eq!(account["balance"]["available_nano_usd"], 5_000_000_000_i64, "given back once");
    audited(&server);
}

#[test]
fn a_payment_is_entered_once_and_never_as_something_else() {
    let server = Server::start();
    let (_, owner) = live(&server, "p");
    let (_, other) = live_without(&server);
    assert_eq!(pay_in(&server, owner, 5_000_000_000, "p").expect("known"), Added::Before);
    let before = audited(&server);
    let refused = |amount, payment| match pay_in(&server, owner, amount, payment) {
        Err(SettlementError::Books(BooksError::Refused(refusal))) => refusal,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(5_000_000_001, "p"), Refusal::IdReused { .. }));
    assert!(matches!(refused(0, "q"), Refusal::Amount { .. }));
    assert!(matches!(refused(-5, "q"), Refusal::Amount { .. }));
    assert!(matches!(refused(i64::MIN, "q"), Refusal::Amount { .. }));
    assert!(matches!(refused(i64::MAX, "q"), Refusal::Overflow { .. }));
    // The same payment for somebody else.
    pay_in(&server, other, 5_000_000_000, "p").expect_err("refused");
    assert_eq!(audited(&server), before);
}

#[test]
fn sites_that_there_are_not_and_those_of_others_give_nothing() {
    let server = Server::start();
    let (key, _) = live(&server, "p");
    let spec = json!({"name": "News", "origins": ["https://news.example"]});
    let site = server.post("/v1/sites", &spec).json();
    let before = audited(&server);
    let own = site["id"].as_str().expect("an id");
    for id in [own, "site_00000000000000ff", "site_x", "00", "site_ffffffffffffffffff"] {
        for (method, path, body) in [
            ("POST", "spend", json!({ "nano_usd": 1, "reference": "a" })),
            ("POST", "withdrawals", json!({ "nano_usd": 1, "reference": "a", "address": "x" })),
            ("GET", "withdrawals", Value::Null),
            ("GET", "account", Value::Null),
            ("GET", "account/statement", Value::Null),
            ("GET", "account/receipts/1", Value::Null),
        ] {
            server.ask(&key, method, &format!("/v1/sites/{id}/{path}"), &body).problem(404);
        }
    }
    assert_eq!(audited(&server), before);
}
