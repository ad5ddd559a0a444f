//! What a contributor's key may do about its money: see every transfer, have it signed, take
//! back what has not left, and say that an account has all of it from now on.

use crate::server::{Answer, ORIGIN, Server};
use ed25519_dalek::{Signer, SigningKey};
use raven_coordinator::earnings::{DOMAIN, LINK_DOMAIN};
use raven_coordinator::http::upkeep;
use raven_coordinator::receipt::verify;
use raven_coordinator::runtime::session::hex;
use raven_coordinator::settlement::{Decision, Request};
use raven_coordinator::store::{Audited, Book, Claim, KeyId, Payout, requester};
use raven_coordinator::time::UnixMs;
use raven_engine::ContributorId;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};

const TRIAL: i64 = 1_000_000_000_000;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn public(key: &SigningKey) -> String {
    hex(key.verifying_key().as_bytes())
}

fn id(key: &SigningKey) -> ContributorId {
    ContributorId(key.verifying_key().to_bytes())
}

fn of(key: &SigningKey) -> Account {
    Account::Contributor(id(key))
}

fn sign(key: &SigningKey, text: &str) -> String {
    hex(&key.sign(text.as_bytes()).to_bytes())
}

/// A request that `key` answers a challenge for.
fn signed(server: &Server, key: &SigningKey, method: &str, path: &str, body: &Value) -> Answer {
    let asked = server.post("/v1/contributors/challenge", &json!({ "key": public(key) })).json();
    let nonce = asked["nonce"].as_str().expect("a nonce");
    let text = format!("raven contributor 1\n{ORIGIN}\n{}\n{nonce}", public(key));
    let header = format!("Raven-Key {}.{nonce}.{}", public(key), sign(key, &text));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(server.url(path))
        .header("authorization", header)
        .header("content-type", "application/json")
        .body(body)
        .expect("a request");
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut answer = agent.run(request).expect("answers");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Answer { status, headers, body: answer.body_mut().read_to_vec().expect("a body") }
}

fn get(server: &Server, key: &SigningKey, path: &str) -> Answer {
    let path = format!("/v1/contributors/{}{path}", public(key));
    signed(server, key, "GET", &path, &Value::Null)
}

/// Gives a contributor money from the work of nobody.
fn earn(server: &Server, book: Book, name: &str, key: &SigningKey, amount: i64, is_held: bool) {
    let (debit, credit, amount) = (Account::Operator, of(key), NanoUsd(amount));
    let transfer = Transfer { debit, credit, amount, reason: Reason::Earning };
    let action = match is_held {
        true => Action::Hold { transfer, expires: None },
        false => Action::Post(transfer),
    };
    let id = EntryId::of("test", &[name.as_bytes()]);
    let entry = Entry { id, at: UnixMs::now().0, action };
    server.runtime.block_on(server.app.store.enter(book, &[entry])).expect("entered");
}

fn available(server: &Server, book: Book, account: Account) -> i64 {
    let balance = server.runtime.block_on(server.app.store.balance(book, account));
    balance.expect("readable").available().0
}

fn audited(server: &Server, book: Book) -> Audited {
    server.runtime.block_on(server.app.store.audit(book)).expect("the auditor agrees")
}

fn sweep(server: &Server) {
    server.runtime.block_on(upkeep::sweep(&server.app, UnixMs::now())).expect("swept");
}

/// As the page `/earn` does it, whose signatures another test is about.
fn claim(server: &Server, from: &SigningKey, wallet: &SigningKey) {
    let (contributor, wallet) = (id(from), id(wallet));
    let claim = Claim { contributor, wallet, statement: String::new(), signature: String::new() };
    server.runtime.block_on(server.app.store.claim(&claim, UnixMs::now())).expect("claimed");
}

#[test]
fn a_contributor_has_its_statement_in_pages_and_signed_receipts() {
    let server = Server::start();
    let (ann, ben) = (key(1), key(2));
    for (name, amount) in [("a", 10), ("b", 20), ("c", 30)] {
        earn(&server, Book::Live, name, &ann, amount, name == "c");
    }
    earn(&server, Book::Test, "d", &ann, 40, false);
    earn(&server, Book::Live, "e", &ben, 50, false);
    let first = get(&server, &ann, "/statement?limit=2").json();
    let amounts = |page: &Value| -> Vec<i64> {
        let lines = page["lines"].as_array().expect("lines");
        lines.iter().map(|line| line["nano_usd"].as_i64().expect("an amount")).collect()
    };
    assert_eq!(first["account"], of(&ann).to_string());
    assert_eq!(amounts(&first), [30, 20]);
    assert_eq!(
        (&first["lines"][0]["state"], &first["lines"][1]["state"]),
        (&json!("open"), &json!("posted"))
    );
    let rest = get(&server, &ann, &format!("/statement?before={}", first["next_before"])).json();
    assert_eq!((amounts(&rest), &rest["next_before"]), (vec![10], &Value::Null));
    assert_eq!(amounts(&get(&server, &ann, "/statement?book=test").json()), [40]);
    // One line, signed.
    let number = &rest["lines"][0]["number"];
    let text = get(&server, &ann, &format!("/receipts/{number}")).text();
    let signer = server.get("/v1/certificate-key").json();
    let signer = signer["public_key"].as_str().expect("a key").parse().expect("a key");
    let receipt = verify(&text, Some(signer)).expect("genuine");
    assert_eq!((receipt.transfer.credit, receipt.transfer.amount.0), (of(&ann), 10));
    assert!(receipt.signed.is_some_and(|signed| signed.0 >= receipt.entry.at));
    // Nobody else's, and nothing that there is not.
    let path = |rest: &str| format!("/v1/contributors/{}/{rest}", public(&ann));
    for rest in ["statement".to_owned(), format!("receipts/{number}")] {
        assert_eq!(
            signed(&server, &ben, "GET", &path(&rest), &Value::Null).problem(403)["field"],
            "key"
        );
        server.get(&path(&rest)).problem(401);
    }
    get(&server, &ben, &format!("/receipts/{number}")).problem(404);
    get(&server, &ann, &format!("/receipts/{number}?book=test")).problem(404);
    get(&server, &ann, &format!("/receipts/{}", i64::MAX)).problem(404);
    get(&server, &ann, &format!("/receipts/{}", i64::MIN)).problem(404);
    for (query, field) in
        [("book=play", "book"), ("of=00", "of"), ("limit=0", "limit"), ("limit=501", "limit")]
    {
        assert_eq!(get(&server, &ann, &format!("/statement?{query}")).problem(422)["field"], field);
    }
    get(&server, &ann, "/statement?since=1").problem(400);
}

#[test]
fn a_wallet_sees_the_statements_of_whom_it_collects_for() {
    let server = Server::start();
    let (frame, wallet, stranger) = (key(1), key(2), key(3));
    earn(&server, Book::Live, "a", &frame, 70, false);
    claim(&server, &frame, &wallet);
    let query = format!("?of={}", public(&frame));
    let lines = get(&server, &wallet, &format!("/statement{query}")).json()["lines"].clone();
    let reasons: Vec<&Value> =
        lines.as_array().expect("lines").iter().map(|it| &it["reason"]).collect();
    assert_eq!(reasons, [&json!("claim"), &json!("earning")]);
    let number = &lines[1]["number"];
    let text = get(&server, &wallet, &format!("/receipts/{number}{query}")).text();
    assert_eq!(verify(&text, None).expect("genuine").transfer.credit, of(&frame));
    assert_eq!(get(&server, &stranger, &format!("/statement{query}")).problem(404)["field"], "of");
    let query = format!("?of={}", public(&wallet));
    get(&server, &frame, &format!("/statement{query}")).problem(404);
}

/// Asks for `amount` at the address that the key has named.
fn withdraw(server: &Server, key: &SigningKey, amount: i64, reference: &str) -> Answer {
    let payout = Payout { address: Some("ann@example.org".into()), threshold_nano_usd: None };
    let stored = server.app.store.set_payout(id(key), &payout, UnixMs::now());
    server.runtime.block_on(stored).expect("stored");
    let body = json!({ "nano_usd": amount, "reference": reference });
    let path = format!("/v1/contributors/{}/withdrawals", public(key));
    signed(server, key, "POST", &path, &body)
}

#[test]
fn a_contributor_takes_back_what_nobody_has_begun_to_pay() {
    let server = Server::start();
    let (ann, ben) = (key(1), key(2));
    earn(&server, Book::Live, "a", &ann, 5_000_000_000, false);
    earn(&server, Book::Live, "b", &ben, 5_000_000_000, false);
    let asked = withdraw(&server, &ann, 2_000_000_000, "may").json();
    let cancel = |who: &SigningKey, whose: &SigningKey, id: &str| {
        let path = format!("/v1/contributors/{}/withdrawals/{id}", public(whose));
        signed(&server, who, "DELETE", &path, &Value::Null)
    };
    let withdrawal = asked["id"].as_str().expect("an id");
    assert_eq!(available(&server, Book::Live, of(&ann)), 3_000_000_000);
    // Others do not: neither under its name nor under theirs.
    assert_eq!(cancel(&ben, &ann, withdrawal).problem(403)["field"], "key");
    cancel(&ben, &ben, withdrawal).problem(404);
    cancel(&ann, &ann, "wd_00000000000000ff").problem(404);
    cancel(&ann, &ann, "x").problem(404);
    assert_eq!(available(&server, Book::Live, of(&ann)), 3_000_000_000);
    for _ in 0..2 {
        let cancelled = cancel(&ann, &ann, withdrawal);
        assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    }
    assert_eq!(available(&server, Book::Live, of(&ann)), 5_000_000_000);
    // Its reference is that of what was cancelled.
    assert_eq!(withdraw(&server, &ann, 2_000_000_000, "may").json()["state"], "cancelled");
    let next = withdraw(&server, &ann, 2_000_000_000, "june").json();
    let next = next["id"].as_str().expect("an id");
    let begun = server.app.settlement.decide(
        next.parse().expect("an id"),
        Decision::Begin,
        None,
        UnixMs::now(),
    );
    server.runtime.block_on(begun).expect("begun");
    cancel(&ann, &ann, next).problem(409);
    assert_eq!(available(&server, Book::Live, of(&ann)), 3_000_000_000);
    audited(&server, Book::Live);
}

fn link_statement(account: &Value, key: &SigningKey, nonce: u8) -> Value {
    json!({
        "coordinator": ORIGIN, "contributor": public(key), "account": account,
        "nonce": hex(&[nonce; 16]), "expires_at": UnixMs(UnixMs::now().0 + 60_000).rfc3339(),
    })
}

fn link_as(server: &Server, api_key: &str, key: &SigningKey, statement: &Value) -> Answer {
    let text = statement.to_string();
    let signature = sign(key, &format!("{LINK_DOMAIN}{text}"));
    let body = json!({ "statement": text, "signature": signature });
    server.ask(api_key, "POST", "/v1/account/links", &body)
}

fn link(server: &Server, key: &SigningKey, nonce: u8) -> Answer {
    let account = server.get("/v1/account").json()["account"].clone();
    link_as(server, &server.key, key, &link_statement(&account, key, nonce))
}

fn kind(answer: &Answer, status: u16) -> String {
    let problem = answer.problem(status);
    let text = problem["type"].as_str().expect("a type");
    text.strip_prefix("urn:raven:problem:").expect("ours").to_owned()
}

/// Another account of the same book: its key and name.
fn other_account(server: &Server) -> (String, Value) {
    let made = server.post("/v1/accounts", &json!({ "name": "Ben" })).json();
    (made["key"].as_str().expect("a key").to_owned(), made["account"].clone())
}

#[test]
fn what_a_linked_contributor_earns_is_its_accounts_until_it_is_unlinked() {
    let server = Server::start();
    let (ann, own) = (key(1), requester(server.owner));
    earn(&server, Book::Test, "a", &ann, 100, false);
    earn(&server, Book::Test, "b", &ann, 30, true);
    earn(&server, Book::Live, "c", &ann, 7, false);
    let linked = link(&server, &ann, 1);
    assert_eq!(linked.status, 201, "{}", linked.text());
    // Whoever signs it is here, so that what it leaves in the other book is not unclaimed yet.
    assert!(server.sql("SELECT seen_ms FROM contributors").is_some());
    let linked = linked.json();
    assert_eq!((&linked["book"], &linked["account"]), (&json!("test"), &json!(own.to_string())));
    assert_eq!(available(&server, Book::Test, own), TRIAL + 100, "what has matured");
    let shown = get(&server, &ann, "").json()["accounts"].clone();
    assert_eq!(shown[0]["account"], own.to_string());
    assert_eq!(server.get("/v1/account/links").json()["links"], json!([linked]));
    // What comes later follows by itself; real money is another book.
    earn(&server, Book::Test, "d", &ann, 50, false);
    let earnings = get(&server, &ann, "").json()["earnings"].clone();
    assert_eq!(earnings["test"]["expires"], Value::Null, "it is claimed");
    assert!(earnings["live"]["expires"].is_string(), "{earnings}");
    sweep(&server);
    sweep(&server);
    assert_eq!(available(&server, Book::Test, own), TRIAL + 150);
    assert_eq!(available(&server, Book::Live, of(&ann)), 7);
    // It survives the process, and the same statement again only brings what is there.
    let server = server.restart();
    earn(&server, Book::Test, "e", &ann, 5, false);
    assert_eq!(link(&server, &ann, 2).json()["linked_at"], linked["linked_at"]);
    assert_eq!(available(&server, Book::Test, own), TRIAL + 155);
    // Either of both ends it.
    let path = format!("/v1/account/links/{}", public(&ann));
    assert_eq!(server.ask(&server.key, "DELETE", &path, &Value::Null).status, 204);
    server.ask(&server.key, "DELETE", &path, &Value::Null).problem(404);
    earn(&server, Book::Test, "f", &ann, 1_000, false);
    sweep(&server);
    assert_eq!(available(&server, Book::Test, of(&ann)), 1_000, "it stays");
    assert_eq!(link(&server, &ann, 3).status, 201);
    let path = format!("/v1/contributors/{}/links/test", public(&ann));
    assert_eq!(signed(&server, &ann, "DELETE", &path, &Value::Null).status, 204);
    signed(&server, &ann, "DELETE", &path, &Value::Null).problem(404);
    assert_eq!(get(&server, &ann, "").json()["accounts"], json!([]));
    assert_eq!(available(&server, Book::Test, own), TRIAL + 1_155);
    audited(&server, Book::Test);
}

#[test]
fn links_that_may_not_be_move_nothing() {
    let server = Server::start();
    let (ann, ben) = (key(1), key(2));
    earn(&server, Book::Test, "a", &ann, 100, false);
    let account = server.get("/v1/account").json()["account"].clone();
    let before = audited(&server, Book::Test);
    // Of somebody who has done nothing, for another account, by another key, or something else.
    assert_eq!(kind(&link(&server, &ben, 1), 409), "conflict");
    let (other, other_name) = other_account(&server);
    let said = link_statement(&account, &ann, 1);
    assert_eq!(link_as(&server, &other, &ann, &said).problem(403)["field"], "statement.account");
    assert_eq!(link_as(&server, &server.key, &ben, &said).problem(403)["field"], "signature");
    let text = said.to_string();
    for signature in [sign(&ann, &text), sign(&ann, &format!("{DOMAIN}{text}"))] {
        let body = json!({ "statement": text, "signature": signature });
        assert_eq!(server.post("/v1/account/links", &body).problem(403)["field"], "signature");
    }
    for (field, value, status) in [
        ("coordinator", json!("http://other.test"), 403),
        ("expires_at", json!("1999-01-01T00:00:00Z"), 409),
        ("expires_at", json!("soon"), 422),
        ("expires_at", json!(UnixMs(UnixMs::now().0 + 3_660_000).rfc3339()), 422),
        ("account", json!("me"), 422),
        ("nonce", json!("1"), 422),
        ("contributor", json!("1"), 422),
    ] {
        let mut said = said.clone();
        said[field] = value;
        let problem = link_as(&server, &server.key, &ann, &said).problem(status);
        assert_eq!(problem["field"], format!("statement.{field}"));
    }
    let mut more = said.clone();
    more["nano_usd"] = json!(1);
    assert_eq!(link_as(&server, &server.key, &ann, &more).problem(422)["field"], "statement");
    let jobs_only = server.post("/v1/keys", &json!({"name": "x", "scopes": ["jobs"]})).json();
    let jobs_only = jobs_only["key"].as_str().expect("a key");
    assert_eq!(kind(&link_as(&server, jobs_only, &ann, &said), 403), "scope");
    assert_eq!(audited(&server, Book::Test), before);
    // Two accounts: the first has it, and only it or the contributor lets go.
    assert_eq!(link_as(&server, &server.key, &ann, &said).status, 201);
    let theirs = link_statement(&other_name, &ann, 2);
    assert_eq!(kind(&link_as(&server, &other, &ann, &theirs), 409), "linked");
    let path = format!("/v1/account/links/{}", public(&ann));
    server.ask(&other, "DELETE", &path, &Value::Null).problem(404);
    server.ask(&other, "DELETE", "/v1/account/links/ann", &Value::Null).problem(422);
    let path = format!("/v1/contributors/{}/links/test", public(&ann));
    assert_eq!(signed(&server, &ben, "DELETE", &path, &Value::Null).problem(403)["field"], "key");
    assert_eq!(signed(&server, &ann, "DELETE", &path, &Value::Null).status, 204);
    // What was said before says nothing any more.
    assert_eq!(kind(&link_as(&server, &server.key, &ann, &said), 409), "statement-used");
    assert_eq!(link_as(&server, &other, &ann, &theirs).status, 201);
}

#[test]
fn whoever_says_it_twice_has_said_it_once() {
    let server = Server::start();
    let ann = key(1);
    earn(&server, Book::Test, "a", &ann, 100, false);
    let account = server.get("/v1/account").json()["account"].clone();
    let said = |nonce, s: i64| {
        let mut said = link_statement(&account, &ann, nonce);
        said["expires_at"] = json!(UnixMs(UnixMs::now().0 + s * 1_000).rfc3339());
        said
    };
    // The same nonce until another end, as who got no answer sends it; and another one beside it.
    let statements = [said(1, 60), said(1, 600), said(2, 60)];
    for statement in &statements {
        assert_eq!(link_as(&server, &server.key, &ann, statement).status, 201);
    }
    let path = format!("/v1/account/links/{}", public(&ann));
    assert_eq!(server.ask(&server.key, "DELETE", &path, &Value::Null).status, 204);
    for statement in statements.iter().chain([&said(1, 1_200), &said(2, 1_200)]) {
        let again = link_as(&server, &server.key, &ann, statement);
        assert_eq!(kind(&again, 409), "statement-used", "{statement}");
    }
    // Its nonces are its own: nobody else's are used up.
    let ben = key(2);
    earn(&server, Book::Test, "b", &ben, 100, false);
    assert_eq!(link(&server, &ben, 1).status, 201);
    assert_eq!(link(&server, &ann, 3).status, 201);
}

#[test]
fn what_goes_to_an_account_does_not_expire() {
    let server = Server::start();
    let ann = key(1);
    earn(&server, Book::Test, "a", &ann, 100, false);
    earn(&server, Book::Live, "b", &ann, 100, false);
    assert_eq!(link(&server, &ann, 1).status, 201);
    earn(&server, Book::Test, "c", &ann, 100, false);
    let earnings = get(&server, &ann, "").json()["earnings"].clone();
    assert_eq!(earnings["test"]["available_nano_usd"], 100);
    assert_eq!(earnings["test"]["expires"], Value::Null);
    // Money of another book is still nobody's.
    assert!(earnings["live"]["expires"].is_string(), "{earnings}");
}

#[test]
fn money_goes_one_way_wallet_or_account() {
    let server = Server::start();
    let (frame, wallet) = (key(1), key(2));
    let live = other_live(&server);
    earn(&server, Book::Live, "a", &frame, 3_000_000_000, false);
    let account = json!(requester(live.1).to_string());
    let said = link_statement(&account, &frame, 1);
    assert_eq!(link_as(&server, &live.0, &frame, &said).status, 201);
    // Linked: no wallet claims it, and it does not withdraw by itself.
    let (contributor, wallet_id) = (id(&frame), id(&wallet));
    let claim = Claim {
        contributor,
        wallet: wallet_id,
        statement: String::new(),
        signature: String::new(),
    };
    let refused = server.runtime.block_on(server.app.store.claim(&claim, UnixMs::now()));
    assert!(refused.expect_err("refused").to_string().contains("go to an account"));
    earn(&server, Book::Live, "b", &frame, 2_000_000_000, false);
    assert_eq!(kind(&withdraw(&server, &frame, 1_000_000_000, "may"), 409), "collected");
    // Unlinked and claimed: the wallet is linked, not the frame.
    let path = format!("/v1/contributors/{}/links/live", public(&frame));
    assert_eq!(signed(&server, &frame, "DELETE", &path, &Value::Null).status, 204);
    server.runtime.block_on(server.app.store.claim(&claim, UnixMs::now())).expect("claimed");
    let said = link_statement(&account, &frame, 2);
    assert_eq!(kind(&link_as(&server, &live.0, &frame, &said), 409), "collected");
    let said = link_statement(&account, &wallet, 3);
    assert_eq!(link_as(&server, &live.0, &wallet, &said).status, 201);
    earn(&server, Book::Live, "c", &frame, 11, false);
    sweep(&server);
    assert_eq!(available(&server, Book::Live, requester(live.1)), 5_000_000_011);
    audited(&server, Book::Live);
}

/// A live account: its key and number.
fn other_live(server: &Server) -> (String, KeyId) {
    use raven_coordinator::keys::{ApiKey, KeyMode};
    let key = ApiKey::generate(KeyMode::Live);
    let owner = server.runtime.block_on(server.app.store.add_key(&key)).expect("stored");
    (key.reveal().to_owned(), owner)
}

#[test]
fn a_closed_accounts_contributors_are_its_parents_and_linked_earnings_do_not_expire() {
    let server = Server::start();
    let ann = key(1);
    earn(&server, Book::Test, "a", &ann, 10, false);
    let (child_key, child) = other_account(&server);
    let said = link_statement(&child, &ann, 1);
    assert_eq!(link_as(&server, &child_key, &ann, &said).status, 201);
    let path = format!("/v1/accounts/{}", child.as_str().expect("a name"));
    assert_eq!(server.ask(&server.key, "DELETE", &path, &Value::Null).status, 204);
    earn(&server, Book::Test, "b", &ann, 20, false);
    // Years later: of what is linked nothing is nobody's, and of the rest all is.
    earn(&server, Book::Live, "c", &ann, 5, false);
    let later = UnixMs::now().plus_days(2_000);
    let store = &server.app.store;
    assert_eq!(server.runtime.block_on(store.expire_unclaimed(later, 180)).expect("swept"), 1);
    assert_eq!(available(&server, Book::Live, Account::Reserve), 5);
    sweep(&server);
    assert_eq!(available(&server, Book::Test, requester(server.owner)), TRIAL + 20);
    audited(&server, Book::Test);
}

#[test]
fn two_claims_at_once_have_one_winner_and_two_links_too() {
    let server = Server::start();
    let (frame, linked) = (key(1), key(9));
    earn(&server, Book::Live, "a", &frame, 1_000, false);
    earn(&server, Book::Test, "b", &linked, 1_000, false);
    let wallets: Vec<SigningKey> = (2..8).map(key).collect();
    let outcomes: Vec<bool> = server.runtime.block_on(async {
        let claims = wallets.iter().map(|wallet| {
            let (contributor, wallet) = (id(&frame), id(wallet));
            let (statement, signature) = (String::new(), String::new());
            let (store, claim) =
                (server.app.store.clone(), Claim { contributor, wallet, statement, signature });
            tokio::spawn(async move { store.claim(&claim, UnixMs::now()).await.is_ok() })
        });
        let claims: Vec<_> = claims.collect();
        let mut outcomes = Vec::new();
        for claim in claims {
            outcomes.push(claim.await.expect("no panic"));
        }
        outcomes
    });
    assert_eq!(outcomes.iter().filter(|won| **won).count(), 1, "{outcomes:?}");
    let sums: Vec<i64> = wallets.iter().map(|it| available(&server, Book::Live, of(it))).collect();
    let won: Vec<i64> = outcomes.iter().map(|won| if *won { 1_000 } else { 0 }).collect();
    assert_eq!(sums, won);
    // Links, over HTTP.
    let accounts: Vec<(String, Value)> = (0..4).map(|_| other_account(&server)).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = accounts
            .iter()
            .map(|(api_key, account)| {
                let said = link_statement(account, &linked, 1);
                let (server, linked) = (&server, &linked);
                scope.spawn(move || link_as(server, api_key, linked, &said).status)
            })
            .collect();
        asked.into_iter().map(|it| it.join().expect("no panic")).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 3, "{statuses:?}");
    assert_eq!(available(&server, Book::Test, of(&linked)), 0);
    audited(&server, Book::Live);
    audited(&server, Book::Test);
}

#[test]
fn amounts_that_are_none_and_references_of_something_else_change_nothing() {
    let server = Server::start();
    let (live, owner) = other_live(&server);
    let ann = key(1);
    earn(&server, Book::Live, "a", &ann, 9_000_000_000, false);
    assert_eq!(withdraw(&server, &ann, 2_000_000_000, "may").status, 201);
    let before = audited(&server, Book::Live);
    for amount in [
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.5),
        json!("1"),
        json!(1e300),
    ] {
        let body = json!({ "nano_usd": amount, "reference": "june" });
        let path = format!("/v1/contributors/{}/withdrawals", public(&ann));
        assert_eq!(
            signed(&server, &ann, "POST", &path, &body).problem(422)["field"],
            "nano_usd",
            "{body}"
        );
        let body = json!({ "nano_usd": amount, "reference": "june", "address": "x" });
        let refused = server.ask(&live, "POST", "/v1/account/withdrawals", &body);
        assert_eq!(refused.problem(422)["field"], "nano_usd", "{body}");
    }
    assert_eq!(kind(&withdraw(&server, &ann, 2_000_000_001, "may"), 409), "reference-used");
    // The same reference with another address, which the key has named since.
    let payout = Payout { address: Some("else@example.org".into()), threshold_nano_usd: None };
    let stored = server.app.store.set_payout(id(&ann), &payout, UnixMs::now());
    server.runtime.block_on(stored).expect("stored");
    let path = format!("/v1/contributors/{}/withdrawals", public(&ann));
    let body = json!({ "nano_usd": 2_000_000_000_i64, "reference": "may" });
    assert_eq!(kind(&signed(&server, &ann, "POST", &path, &body), 409), "reference-used");
    // An account whose balance would pass what books can hold.
    let huge = Request {
        book: Book::Live,
        account: requester(owner),
        amount: NanoUsd(i64::MAX),
        address: "x".into(),
        pay: Default::default(),
        reference: "june".into(),
    };
    server
        .runtime
        .block_on(server.app.settlement.request(huge, UnixMs::now()))
        .expect_err("refused");
    assert_eq!(audited(&server, Book::Live), before);
}
