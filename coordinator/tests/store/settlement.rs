//! Money that goes out: asked for, held, approved, refused, and given back.

use crate::server::{Answer, Server, WITHDRAWAL_LEAST};
use raven_coordinator::http::upkeep;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::settlement::{
    Decision, Deposit, Pay, Request, SettlementError, Withdrawal, WithdrawalId, WithdrawalState,
};
use raven_coordinator::store::{Audited, Book, KeyId, requester, site_text};
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::{Account, Action, Added, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use raven_engine::{ContributorId, SiteId};
use serde_json::{Value, json};

const DAY_MS: i64 = 86_400_000;

/// A server, and a live account with that much.
struct Bank {
    server: Server,
    key: String,
    owner: KeyId,
}

impl Bank {
    fn start(amount: i64) -> Self {
        let server = Server::start();
        let key = ApiKey::generate(KeyMode::Live);
        let owner = server.runtime.block_on(server.app.store.add_key(&key)).expect("stored");
        let deposit = Deposit { owner, amount: NanoUsd(amount).into(), payment: "p".into() };
        let added = server.runtime.block_on(server.app.settlement.deposit(deposit));
        assert_eq!(added.expect("entered"), Added::New);
        Bank { server, key: key.reveal().to_owned(), owner }
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.server.ask(&self.key, "POST", path, body)
    }

    fn get(&self, path: &str) -> Value {
        self.server.ask(&self.key, "GET", path, &Value::Null).json()
    }

    fn balance(&self) -> Value {
        self.get("/v1/account")["balance"].clone()
    }

    fn audited(&self) -> Audited {
        self.server.runtime.block_on(self.server.app.store.audit(Book::Live)).expect("books")
    }

    fn request(&self, request: Request, now: UnixMs) -> Result<Withdrawal, SettlementError> {
        self.server.runtime.block_on(self.server.app.settlement.request(request, now))
    }

    fn decide(
        &self,
        id: &str,
        decision: Decision,
        now: UnixMs,
    ) -> Result<Withdrawal, SettlementError> {
        let id = id.parse().expect("an id");
        let note = Some("bank 7".to_owned());
        self.server.runtime.block_on(self.server.app.settlement.decide(id, decision, note, now))
    }

    /// Pays a withdrawal as an operator does.
    fn pay(&self, id: &str) {
        for decision in [Decision::Begin, Decision::Approve] {
            self.decide(id, decision, UnixMs::now()).expect("decided");
        }
    }

    /// Gives an account money from the work of nobody.
    fn earn(&self, account: Account, amount: i64) {
        let (debit, amount) = (Account::Operator, NanoUsd(amount));
        let transfer = Transfer { debit, credit: account, amount, reason: Reason::Earning };
        let id = EntryId::of("test", &[&account.to_bytes()]);
        let entries = [Entry { id, at: 1, action: Action::Post(transfer) }];
        let entered = self.server.app.store.enter(Book::Live, &entries);
        self.server.runtime.block_on(entered).expect("entered");
    }

    fn site(&self) -> SiteId {
        let spec = json!({"name": "News", "origins": ["https://news.example"]});
        let made = self.post("/v1/sites", &spec).json();
        let id = made["id"].as_str().expect("an id");
        raven_coordinator::store::parse_site(id).expect("an id")
    }
}

fn wish(amount: i64, reference: &str) -> Value {
    json!({"nano_usd": amount, "address": "IBAN 1", "reference": reference})
}

fn id(answer: &Value) -> &str {
    answer["id"].as_str().expect("an id")
}

const PATH: &str = "/v1/account/withdrawals";

#[test]
fn what_is_asked_for_is_held_until_it_is_approved() {
    let bank = Bank::start(100_000);
    let answer = bank.post(PATH, &wish(30_000, "a"));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let asked = answer.json();
    assert_eq!((&asked["state"], &asked["nano_usd"]), (&json!("pending"), &json!(30_000)));
    assert_eq!(bank.balance()["available_nano_usd"], 70_000);
    assert_eq!(bank.balance()["held_nano_usd"], 30_000);
    // The same one is held once.
    assert_eq!(bank.post(PATH, &wish(30_000, "a")).json(), asked);
    assert_eq!(bank.balance()["held_nano_usd"], 30_000);
    bank.pay(id(&asked));
    let listed = bank.get(PATH);
    assert_eq!(listed["withdrawals"][0]["state"], "approved");
    assert_eq!(listed["withdrawals"][0]["note"], "bank 7");
    assert_eq!(bank.balance()["available_nano_usd"], 70_000);
    assert_eq!(bank.balance()["held_nano_usd"], 0);
    // Asked for again it is what it was.
    assert_eq!(bank.post(PATH, &wish(30_000, "a")).json()["state"], "approved");
    let before = bank.audited();
    for decision in [Decision::Begin, Decision::Approve, Decision::Refuse] {
        let error = bank.decide(id(&asked), decision, UnixMs::now()).expect_err("decided");
        let state = WithdrawalState::Approved;
        assert!(matches!(error, SettlementError::Decided { state: found, .. } if found == state));
    }
    let unknown = WithdrawalId(99).to_string();
    let error = bank.decide(&unknown, Decision::Approve, UnixMs::now()).expect_err("unknown");
    assert!(matches!(error, SettlementError::Unknown(_)));
    assert_eq!(bank.audited(), before);
}

#[test]
fn what_is_refused_or_not_decided_in_time_goes_back() {
    let bank = Bank::start(100_000);
    let refused = bank.post(PATH, &wish(30_000, "a")).json();
    bank.decide(id(&refused), Decision::Refuse, UnixMs::now()).expect("refused");
    let late = bank.post(PATH, &wish(100_000, "b")).json();
    let end = UnixMs(UnixMs::now().0 + 30 * DAY_MS + 1_000);
    let before = bank.audited();
    let error = bank.decide(id(&late), Decision::Begin, end).expect_err("over");
    assert!(matches!(error, SettlementError::Over { .. }), "{error}");
    assert_eq!(bank.audited(), before);
    bank.server.runtime.block_on(upkeep::sweep(&bank.server.app, end)).expect("swept");
    assert_eq!(bank.balance()["available_nano_usd"], 100_000);
    let listed = bank.get(PATH);
    let states: Vec<_> = (0..2).map(|at| listed["withdrawals"][at]["state"].clone()).collect();
    assert_eq!(states, ["expired", "refused"]);
    let error = bank.decide(id(&late), Decision::Refuse, end).expect_err("decided");
    assert!(matches!(error, SettlementError::Decided { state: WithdrawalState::Expired, .. }));
    bank.audited();
}

#[test]
fn what_cannot_go_out_leaves_the_books_as_they_were() {
    let bank = Bank::start(100_000);
    bank.post(PATH, &wish(30_000, "a"));
    let before = bank.audited();
    let least = WITHDRAWAL_LEAST.0;
    for (body, status, field) in [
        (wish(-5, "b"), 422, "nano_usd"),
        (wish(0, "b"), 422, "nano_usd"),
        (wish(i64::MAX, "b"), 422, "nano_usd"),
        (json!({"nano_usd": u64::MAX, "address": "x", "reference": "b"}), 422, "nano_usd"),
        (wish(least - 1, "b"), 422, "nano_usd"),
        (wish(30_001, "a"), 409, "reference"),
        (json!({"nano_usd": 30_000, "address": "IBAN 2", "reference": "a"}), 409, "reference"),
        (json!({"nano_usd": least, "address": "", "reference": "b"}), 422, "address"),
        (json!({"nano_usd": least, "address": "a\nb", "reference": "b"}), 422, "address"),
        (json!({"nano_usd": least, "address": "x".repeat(201), "reference": "b"}), 422, "address"),
    ] {
        let problem = bank.post(PATH, &body).problem(status);
        assert_eq!(problem["field"], field, "{body}: {problem}");
    }
    let problem = bank.post(PATH, &wish(70_001, "b")).problem(402);
    assert_eq!((&problem["limit"], &problem["found"]), (&json!(70_000), &json!(70_001)));
    // Play money is worth nothing outside.
    let problem = bank.server.post(PATH, &wish(least, "b")).problem(409);
    assert_eq!(problem["type"], "urn:raven:problem:play-money");
    // Other accounts than those of people are nobody's to take from.
    for account in [Account::MasterNode, Account::External, Account::Operator, Account::Reserve] {
        let (book, amount) = (Book::Live, WITHDRAWAL_LEAST);
        let (address, reference) = ("x".to_owned(), "b".to_owned());
        let request = Request { book, account, amount, address, reference, pay: Pay::Usd };
        let error = bank.request(request, UnixMs::now()).expect_err("refused");
        assert!(matches!(error, SettlementError::NotPayable { .. }), "{error}");
    }
    assert_eq!(bank.audited(), before);
}

#[test]
fn sites_are_paid_out_to_their_owner_only() {
    let bank = Bank::start(100_000);
    let site = bank.site();
    bank.earn(Account::Site(site), 50_000);
    let path = format!("/v1/sites/{}/withdrawals", site_text(site));
    let asked = bank.post(&path, &wish(40_000, "a")).json();
    assert_eq!(asked["account"], Account::Site(site).to_string());
    bank.pay(id(&asked));
    let listed = bank.get(&path);
    assert_eq!(
        (&listed["site"], listed["withdrawals"].as_array().map(Vec::len)),
        (&json!(site_text(site)), Some(1))
    );
    assert_eq!(bank.get(PATH)["withdrawals"], json!([]), "not those of the account");
    let before = bank.audited();
    bank.post(&path, &wish(40_000, "b")).problem(402);
    let strange = format!("/v1/sites/{}/withdrawals", site_text(SiteId(9)));
    bank.post(&strange, &wish(10_000, "b")).problem(404);
    // Another account's key, and one that may look after sites but not after money.
    bank.server.post(&path, &wish(10_000, "b")).problem(404);
    let some = bank.post("/v1/keys", &json!({"name": "x", "scopes": ["sites"]})).json();
    let key = some["key"].as_str().expect("a key");
    let problem = bank.server.ask(key, "POST", &path, &wish(10_000, "b")).problem(403);
    assert_eq!(problem["type"], "urn:raven:problem:scope");
    assert_eq!(bank.audited(), before);
}

#[test]
fn contributors_are_paid_out_by_the_same_rules() {
    let bank = Bank::start(1);
    let account = Account::Contributor(ContributorId([7; 32]));
    bank.earn(account, 25_000);
    let (book, amount) = (Book::Live, NanoUsd(20_000));
    let (address, reference) = ("0xabc".to_owned(), "a".to_owned());
    let request = Request { book, account, amount, address, reference, pay: Pay::Usd };
    let asked = bank.request(request.clone(), UnixMs::now()).expect("held");
    assert_eq!(bank.request(request.clone(), UnixMs(1)).expect("held").id, asked.id);
    bank.pay(&asked.id.to_string());
    let again = Request { reference: "b".into(), ..request };
    assert!(bank.request(again, UnixMs::now()).is_err(), "5,000 are left");
    bank.audited();
}

#[test]
fn a_sub_accounts_money_goes_out_through_its_parent() {
    let bank = Bank::start(100_000);
    let child = bank.post("/v1/accounts", &json!({"name": "Ann"})).json();
    let key = child["key"].as_str().expect("a key");
    let account = child["account"].as_str().expect("an account");
    let fund = json!({"nano_usd": 50_000, "direction": "fund", "reference": "f"});
    bank.post(&format!("/v1/accounts/{account}/transfer"), &fund);
    let before = bank.audited();
    bank.server.ask(key, "POST", PATH, &wish(20_000, "a")).problem(403);
    assert_eq!(bank.audited(), before);
}

#[test]
fn a_key_that_no_longer_holds_moves_nothing() {
    let bank = Bank::start(100_000);
    let other = bank.post("/v1/keys", &json!({"name": "x"})).json();
    let (key, id) = (other["key"].as_str().expect("a key"), id(&other));
    let path = format!("/v1/keys/{id}");
    assert_eq!(bank.server.ask(&bank.key, "DELETE", &path, &Value::Null).status, 204);
    let before = bank.audited();
    bank.server.ask(key, "POST", PATH, &wish(20_000, "a")).problem(401);
    let spend = json!({"statement": "{}", "signature": ""});
    bank.server.ask(key, "POST", "/v1/account/earnings", &spend).problem(401);
    bank.server.ask(key, "POST", "/v1/accounts", &json!({"name": "x"})).problem(401);
    assert_eq!(bank.audited(), before);
}

#[test]
fn one_account_has_twenty_that_wait() {
    let bank = Bank::start(1_000_000);
    for at in 0..20 {
        assert_eq!(bank.post(PATH, &wish(10_000, &at.to_string())).status, 201);
    }
    let problem = bank.post(PATH, &wish(10_000, "more")).problem(429);
    assert_eq!(problem["limit"], 20);
    assert_eq!(requester(bank.owner).to_string(), bank.get("/v1/account")["account"]);
}

#[test]
fn what_is_being_paid_is_neither_given_back_nor_paid_again() {
    let bank = Bank::start(100_000);
    let asked = bank.post(PATH, &wish(30_000, "a")).json();
    let now = UnixMs::now();
    let error = bank.decide(id(&asked), Decision::Approve, now).expect_err("not begun");
    assert!(matches!(error, SettlementError::NotBegun { .. }), "{error}");
    bank.decide(id(&asked), Decision::Begin, now).expect("begun");
    let before = bank.audited();
    assert_eq!(bank.get(PATH)["withdrawals"][0]["state"], "paying");
    // A second operator is told, its owner comes too late, and so does its end.
    let error = bank.decide(id(&asked), Decision::Begin, now).expect_err("begun");
    let paying = WithdrawalState::Paying;
    assert!(matches!(error, SettlementError::Decided { state, .. } if state == paying));
    let path = format!("{PATH}/{}", id(&asked));
    bank.server.ask(&bank.key, "DELETE", &path, &Value::Null).problem(409);
    let end = UnixMs(now.0 + 31 * DAY_MS);
    bank.server.runtime.block_on(upkeep::sweep(&bank.server.app, end)).expect("swept");
    assert_eq!(bank.audited(), before, "it is still held");
    bank.decide(id(&asked), Decision::Approve, end).expect("approved, however late");
    assert_eq!(bank.balance()["available_nano_usd"], 70_000);
    // A payment that came back is refused, and its money is there again.
    let other = bank.post(PATH, &wish(30_000, "b")).json();
    bank.decide(id(&other), Decision::Begin, now).expect("begun");
    bank.decide(id(&other), Decision::Refuse, end).expect("refused");
    assert_eq!(bank.balance()["available_nano_usd"], 70_000);
    bank.audited();
}

#[test]
fn whoever_asked_takes_it_back_while_nobody_pays_it() {
    let bank = Bank::start(100_000);
    let site = bank.site();
    bank.earn(Account::Site(site), 50_000);
    let of_site = format!("/v1/sites/{}/withdrawals", site_text(site));
    for path in [PATH, &of_site] {
        let asked = bank.post(path, &wish(20_000, "a")).json();
        let own = format!("{path}/{}", id(&asked));
        bank.server.send("DELETE", &own, &[], b"").problem(404);
        for _ in 0..2 {
            let cancelled = bank.server.ask(&bank.key, "DELETE", &own, &Value::Null);
            assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
        }
        let error = bank.decide(id(&asked), Decision::Begin, UnixMs::now()).expect_err("over");
        assert!(matches!(error, SettlementError::Decided { .. }), "{error}");
        // Not that of the other account.
        let elsewhere = if path == PATH { of_site.as_str() } else { PATH };
        let strange = format!("{elsewhere}/{}", id(&asked));
        bank.server.ask(&bank.key, "DELETE", &strange, &Value::Null).problem(404);
    }
    assert_eq!(bank.balance()["available_nano_usd"], 100_000);
    for text in ["x", "wd_00000000000000ff"] {
        let path = format!("{PATH}/{text}");
        bank.server.ask(&bank.key, "DELETE", &path, &Value::Null).problem(404);
    }
    bank.audited();
}

#[test]
fn whoever_recovers_an_account_has_what_waited_to_leave_it() {
    let bank = Bank::start(100_000);
    let site = bank.site();
    bank.earn(Account::Site(site), 50_000);
    let of_site = format!("/v1/sites/{}/withdrawals", site_text(site));
    let paid = bank.post(PATH, &wish(10_000, "a")).json();
    bank.decide(id(&paid), Decision::Begin, UnixMs::now()).expect("begun");
    bank.post(PATH, &wish(30_000, "b"));
    bank.post(&of_site, &wish(40_000, "c"));
    let code = bank.post("/v1/account/recovery-code", &Value::Null).json();
    let code = json!({ "code": code["recovery_code"] });
    let found = bank.server.ask("none", "POST", "/v1/recover", &code).json();
    let key = found["key"].as_str().expect("a key");
    let get = |path: &str| bank.server.ask(key, "GET", path, &Value::Null).json();
    let states = get(PATH)["withdrawals"].clone();
    assert_eq!((&states[0]["state"], &states[1]["state"]), (&json!("cancelled"), &json!("paying")));
    assert_eq!(get(&of_site)["withdrawals"][0]["state"], "cancelled");
    assert_eq!(get("/v1/account")["balance"]["available_nano_usd"], 90_000);
    bank.audited();
}

#[test]
fn a_site_of_a_test_key_goes_to_a_live_account_with_what_it_earned() {
    let bank = Bank::start(1);
    let spec = json!({"name": "News", "origins": ["https://news.example"]});
    let made = bank.server.post("/v1/sites", &spec).json();
    let site = raven_coordinator::store::parse_site(id(&made)).expect("an id");
    bank.earn(Account::Site(site), 50_000);
    let path = format!("/v1/sites/{}", id(&made));
    let shown = bank.server.get(&format!("{path}/account")).json();
    assert_eq!((&shown["book"], &shown["elsewhere"]["book"]), (&json!("test"), &json!("live")));
    assert_eq!(shown["elsewhere"]["balance"]["available_nano_usd"], 50_000);
    bank.server.post(&format!("{path}/withdrawals"), &wish(50_000, "a")).problem(409);
    let hand_over = format!("{path}/hand-over");
    let some = bank.post("/v1/keys", &json!({"name": "x", "scopes": ["sites"]})).json();
    for (key, status) in [
        (json!("rk_live_x"), 422),
        (json!(ApiKey::generate(KeyMode::Live).reveal()), 422),
        (some["key"].clone(), 403),
        (json!(bank.server.key), 409),
    ] {
        let problem = bank.server.post(&hand_over, &json!({ "to_key": key })).problem(status);
        assert_eq!(problem["field"], "to_key", "{problem}");
    }
    // Who has not got it gives it to nobody.
    bank.post(&hand_over, &json!({ "to_key": bank.key })).problem(404);
    let moved = bank.server.post(&hand_over, &json!({ "to_key": bank.key })).json();
    assert_eq!(moved["account"], requester(bank.owner).to_string());
    bank.server.get(&format!("{path}/account")).problem(404);
    let asked = bank.post(&format!("{path}/withdrawals"), &wish(30_000, "a"));
    assert_eq!(asked.status, 201, "{}", asked.text());
    let spend = json!({"nano_usd": 20_000, "reference": "b"});
    let spent = bank.post(&format!("{path}/spend"), &spend).json();
    assert_eq!(spent["balance"]["available_nano_usd"], 20_001);
    // Real money does not go back to a test key.
    let back = bank.post(&hand_over, &json!({ "to_key": bank.server.key })).problem(409);
    assert_eq!(back["field"], "to_key");
    bank.audited();
}
