//! Sub-accounts: made, funded, taken back from and closed by their parent.

use crate::server::{Server, job};
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::receipt::verify;
use raven_coordinator::store::{Audited, Book, parse_site};
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};

const TRIAL: i64 = 1_000_000_000_000;

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn child(server: &Server, name: &str) -> (String, String) {
    let answer = server.post("/v1/accounts", &json!({ "name": name }));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    let made = answer.json();
    (text(&made["account"]).to_owned(), text(&made["key"]).to_owned())
}

fn spendable(server: &Server, key: &str) -> i64 {
    let account = server.ask(key, "GET", "/v1/account", &Value::Null).json();
    account["balance"]["available_nano_usd"].as_i64().expect("an amount")
}

fn fund(amount: i64, reference: &str) -> Value {
    json!({"nano_usd": amount, "direction": "fund", "reference": reference})
}

fn take_back(amount: i64, reference: &str) -> Value {
    json!({"nano_usd": amount, "direction": "take_back", "reference": reference})
}

fn audited(server: &Server) -> Audited {
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("books")
}

#[test]
fn a_child_begins_with_nothing_and_has_what_its_parent_gives() {
    let server = Server::start();
    let (account, key) = child(&server, "Ann");
    assert_eq!(spendable(&server, &key), 0);
    let path = format!("/v1/accounts/{account}/transfer");
    let first = server.post(&path, &fund(700, "a")).json();
    assert_eq!(first["entered_before"], false);
    let again = server.post(&path, &fund(700, "a")).json();
    assert_eq!((&again["entered_before"], &again["entry"]), (&json!(true), &first["entry"]));
    assert_eq!((spendable(&server, &key), spendable(&server, &server.key)), (700, TRIAL - 700));
    server.post(&path, &take_back(200, "b"));
    assert_eq!((spendable(&server, &key), spendable(&server, &server.key)), (500, TRIAL - 500));
    let listed = server.get("/v1/accounts").json();
    assert_eq!(listed["accounts"][0]["balance"]["available_nano_usd"], 500);
    assert_eq!(listed["accounts"][0], server.get(&format!("/v1/accounts/{account}")).json());
    // No process gives it a trial balance later.
    server.runtime.block_on(server.app.store.grant_trials()).expect("entered");
    assert_eq!(spendable(&server, &key), 500);
    audited(&server);
    // Both have receipts of the transfer.
    let lines = server.ask(&key, "GET", "/v1/account/statement", &Value::Null).json();
    let number = &lines["lines"][1]["number"];
    assert_eq!(lines["lines"][1]["reason"], "sub_account");
    for key in [&key, &server.key] {
        let path = format!("/v1/account/receipts/{number}");
        let receipt = server.ask(key, "GET", &path, &Value::Null).text();
        assert_eq!(verify(&receipt, None).expect("genuine").transfer.amount.0, 700);
    }
}

#[test]
fn a_child_sees_only_its_own_and_works_like_any_account() {
    let server = Server::start();
    let (account, key) = child(&server, "Ann");
    let (other, other_key) = child(&server, "Ben");
    let dataset = server.small_dataset();
    let ask = |key: &str, path: &str| server.ask(key, "GET", path, &Value::Null);
    assert_eq!(ask(&key, "/v1/datasets").json()["datasets"], json!([]));
    server.ask(&key, "POST", "/v1/jobs", &job(&dataset)).problem(422);
    assert_eq!(ask(&key, "/v1/accounts").json()["accounts"], json!([]));
    for (key, path) in [(&key, &other), (&other_key, &account), (&key, &account)] {
        ask(key, &format!("/v1/accounts/{path}")).problem(404);
    }
    let nested = server.ask(&key, "POST", "/v1/accounts", &json!({"name": "x"})).problem(403);
    assert!(text(&nested["detail"]).contains("no sub-accounts"));
    // Its parent is none of its children, and a stranger has none.
    let own = server.get("/v1/account").json();
    server.get(&format!("/v1/accounts/{}", text(&own["account"]))).problem(404);
    let stranger = ApiKey::generate(KeyMode::Test);
    server.runtime.block_on(server.app.store.add_key(&stranger)).expect("stored");
    let path = format!("/v1/accounts/{account}/transfer");
    server.ask(stranger.reveal(), "POST", &path, &take_back(1, "x")).problem(404);
}

#[test]
fn a_closed_child_has_no_keys_and_its_money_goes_back() {
    let server = Server::start();
    let (account, key) = child(&server, "Ann");
    let path = format!("/v1/accounts/{account}");
    let second = server.post(&format!("{path}/keys"), &json!({"name": "two", "scopes": ["jobs"]}));
    assert_eq!(second.status, 201);
    server.post(&format!("{path}/transfer"), &fund(9, "a"));
    for _ in 0..2 {
        assert_eq!(server.send("DELETE", &path, &[], b"").status, 204);
    }
    for key in [&key, text(&second.json()["key"])] {
        server.ask(key, "GET", "/v1/jobs", &Value::Null).problem(401);
    }
    server.post(&format!("{path}/keys"), &json!({"name": "x"})).problem(409);
    assert_eq!(server.post(&format!("{path}/transfer"), &take_back(9, "b")).status, 200);
    assert_eq!(spendable(&server, &server.key), TRIAL);
    assert!(server.get(&path).json()["closed_at"].is_string());
    server.post(&format!("{path}/transfer"), &fund(1, "c")).problem(409);
}

#[test]
fn what_a_closed_child_owned_is_its_parents() {
    let server = Server::start();
    let (account, key) = child(&server, "Ann");
    let path = format!("/v1/accounts/{account}");
    server.post(&format!("{path}/transfer"), &fund(TRIAL / 2, "a"));
    let site = json!({"name": "News", "origins": ["https://news.example"]});
    let site = server.ask(&key, "POST", "/v1/sites", &site).json();
    let own = server.key.clone();
    let mut server = server;
    server.key = key.clone();
    let dataset = server.small_dataset();
    let posted = server.post("/v1/jobs", &job(&dataset)).json();
    server.key = own;
    let problem = server.send("DELETE", &path, &[], b"").problem(409);
    assert_eq!(problem["type"], "urn:raven:problem:open-jobs");
    assert_eq!(server.ask(&key, "GET", "/v1/jobs", &Value::Null).status, 200, "still open");
    let job = format!("/v1/jobs/{}", text(&posted["id"]));
    assert_eq!(server.ask(&key, "POST", &format!("{job}/cancel"), &Value::Null).status, 202);
    assert_eq!(server.send("DELETE", &path, &[], b"").status, 204);
    let site = format!("/v1/sites/{}/account", text(&site["id"]));
    for path in [&site, &job, &format!("/v1/datasets/{dataset}")] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    // The escrow came back before, and is there to be taken back.
    let found = server.get(&path).json()["balance"]["available_nano_usd"].clone();
    assert_eq!(found, TRIAL / 2);
    audited(&server);
}

#[test]
fn a_parent_lists_and_revokes_the_keys_of_a_child() {
    let server = Server::start();
    let (account, key) = child(&server, "Ann");
    let (other, _) = child(&server, "Ben");
    let path = format!("/v1/accounts/{account}/keys");
    let listed = server.get(&path).json();
    let id = text(&listed["keys"][0]["id"]).to_owned();
    assert!(key.starts_with(text(&listed["keys"][0]["hint"])), "{listed}");
    let revoke = |key: &str, account: &str| {
        let path = format!("/v1/accounts/{account}/keys/{id}");
        server.ask(key, "DELETE", &path, &Value::Null)
    };
    revoke(&server.key, &other).problem(404);
    revoke(&key, &account).problem(404);
    let weak = server.post("/v1/keys", &json!({"name": "x", "scopes": ["keys"]})).json();
    revoke(text(&weak["key"]), &account).problem(403);
    assert_eq!(revoke(&server.key, &account).status, 204, "the last one too");
    server.ask(&key, "GET", "/v1/jobs", &Value::Null).problem(401);
    revoke(&server.key, &account).problem(404);
    let made = server.post(&path, &json!({"name": "again"}));
    assert_eq!(made.status, 201);
    let key = made.json()["key"].clone();
    assert_eq!(server.ask(text(&key), "GET", "/v1/jobs", &Value::Null).status, 200);
}

#[test]
fn a_family_has_no_more_than_one_account_may() {
    let mut server = Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.accounts.children_max = 2;
        settings.dataset_bytes_max = 20_000;
    });
    let (first, key) = child(&server, "Ann");
    let (second, other) = child(&server, "Ben");
    assert_eq!(server.get("/v1/accounts").json()["open_max"], 2);
    let problem = server.post("/v1/accounts", &json!({"name": "Cid"})).problem(429);
    assert_eq!((&problem["limit"], &problem["found"]), (&json!(2), &json!(2)));
    // Two sites of one family, whoever has them.
    let site = json!({"name": "News", "origins": ["https://news.example"]});
    assert_eq!(server.ask(&key, "POST", "/v1/sites", &site).status, 201);
    assert_eq!(server.post("/v1/sites", &site).status, 201);
    server.ask(&other, "POST", "/v1/sites", &site).problem(429);
    // Bytes of data sets and uploads, of which none has more than the rest leave.
    let upload = |key: &str, bytes: u64| {
        server.ask(key, "POST", "/v1/uploads", &json!({ "bytes": bytes })).status
    };
    assert_eq!((upload(&key, 15_000), upload(&other, 6_000)), (201, 429));
    assert_eq!(upload(&server.key, 5_000), 201);
    // One that is closed makes room for another.
    assert_eq!(server.send("DELETE", &format!("/v1/accounts/{second}"), &[], b"").status, 204);
    child(&server, "Cid");
    // Three open jobs.
    let mut settings = (*server.app.settings).clone();
    settings.dataset_bytes_max = 1 << 20;
    server.serve_with(settings);
    server.post(&format!("/v1/accounts/{first}/transfer"), &fund(TRIAL / 2, "a"));
    let spec = job(&server.small_dataset());
    for _ in 0..2 {
        assert_eq!(server.post("/v1/jobs", &spec).status, 202);
    }
    server.key = key;
    let spec = job(&server.small_dataset());
    assert_eq!(server.post("/v1/jobs", &spec).status, 202);
    assert_eq!(server.post("/v1/jobs", &spec).problem(429)["limit"], 3);
}

#[test]
fn what_cannot_be_moved_leaves_the_books_as_they_were() {
    let server = Server::start();
    let (account, _) = child(&server, "Ann");
    let path = format!("/v1/accounts/{account}/transfer");
    server.post(&path, &fund(700, "a"));
    let before = audited(&server);
    for (body, status, field) in [
        (fund(0, "b"), 422, "nano_usd"),
        (fund(-1, "b"), 422, "nano_usd"),
        (fund(i64::MIN, "b"), 422, "nano_usd"),
        (fund(1_000_000_000_000_001, "b"), 422, "nano_usd"),
        (json!({"nano_usd": 1e300, "direction": "fund", "reference": "b"}), 422, "nano_usd"),
        (json!({"nano_usd": 1.5, "direction": "fund", "reference": "b"}), 422, "nano_usd"),
        (json!({"nano_usd": u64::MAX, "direction": "fund", "reference": "b"}), 422, "nano_usd"),
        (fund(1, ""), 422, "reference"),
        (fund(1, "a b"), 422, "reference"),
        (fund(1, &"x".repeat(65)), 422, "reference"),
        (json!({"nano_usd": 1, "direction": "away", "reference": "b"}), 422, "direction"),
        (fund(701, "a"), 409, "reference"),
        (take_back(700, "a"), 409, "reference"),
    ] {
        let problem = server.post(&path, &body).problem(status);
        assert_eq!(problem["field"], field, "{body}: {problem}");
    }
    for (body, found) in [(fund(TRIAL, "b"), TRIAL), (take_back(701, "b"), 701)] {
        let problem = server.post(&path, &body).problem(402);
        assert_eq!(problem["found"], found);
    }
    for account in ["x", "operator", "requester:0000000000000063"] {
        server.post(&format!("/v1/accounts/{account}/transfer"), &fund(1, "b")).problem(404);
    }
    assert_eq!(audited(&server), before);
}

#[test]
fn a_child_is_known_by_one_external_id_and_lists_have_pages() {
    let server = Server::start();
    let spec = json!({"name": "Ann", "external_id": "user 7"});
    let made = server.post("/v1/accounts", &spec).json();
    let problem = server.post("/v1/accounts", &spec).problem(409);
    assert_eq!(problem["field"], "external_id");
    assert!(text(&problem["detail"]).contains(text(&made["account"])));
    for (spec, field) in [
        (json!({"name": ""}), "name"),
        (json!({"name": "x", "external_id": ""}), "external_id"),
        (json!({"name": "x", "external_id": "x".repeat(201)}), "external_id"),
    ] {
        assert_eq!(server.post("/v1/accounts", &spec).problem(422)["field"], field, "{spec}");
    }
    let (second, _) = child(&server, "Ben");
    let first = server.get("/v1/accounts?limit=1").json();
    assert_eq!(first["accounts"][0]["external_id"], "user 7");
    let next = server.get(&format!("/v1/accounts?limit=1&after={}", text(&first["next_after"])));
    assert_eq!(next.json()["accounts"][0]["account"], second);
    assert_eq!(server.get("/v1/accounts?limit=501").problem(422)["field"], "limit");
}

#[test]
fn keys_that_may_less_make_children_that_may_no_more() {
    let server = Server::start();
    let some = server.post("/v1/keys", &json!({"name": "x", "scopes": ["keys", "jobs"]})).json();
    let key = text(&some["key"]);
    let made = server.ask(key, "POST", "/v1/accounts", &json!({"name": "Ann"})).json();
    assert_eq!(made["scopes"], json!(["jobs", "keys"]));
    let path = format!("/v1/accounts/{}", text(&made["account"]));
    let more = json!({"name": "x", "scopes": ["account"]});
    server.ask(key, "POST", &format!("{path}/keys"), &more).problem(403);
    let problem = server.ask(key, "POST", &format!("{path}/transfer"), &fund(1, "a")).problem(403);
    assert_eq!(problem["type"], "urn:raven:problem:scope");
}

#[test]
fn what_a_closed_childs_site_waits_to_be_paid_goes_back() {
    let mut server = Server::start();
    let key = ApiKey::generate(KeyMode::Live);
    server.runtime.block_on(server.app.store.add_key(&key)).expect("stored");
    server.key = key.reveal().to_owned();
    let (account, key) = child(&server, "Ann");
    let spec = json!({"name": "News", "origins": ["https://news.example"]});
    let site = server.ask(&key, "POST", "/v1/sites", &spec).json();
    let path = format!("/v1/sites/{}/withdrawals", text(&site["id"]));
    let earned = Transfer {
        debit: Account::Operator,
        credit: Account::Site(parse_site(text(&site["id"])).expect("an id")),
        amount: NanoUsd(50_000),
        reason: Reason::PartnerShare,
    };
    let entries = [Entry { id: EntryId::of("test", &[]), at: 1, action: Action::Post(earned) }];
    server.runtime.block_on(server.app.store.enter(Book::Live, &entries)).expect("entered");
    let wish = json!({"nano_usd": 40_000, "address": "IBAN of Ann", "reference": "may"});
    assert_eq!(server.ask(&key, "POST", &path, &wish).status, 201);
    assert_eq!(server.send("DELETE", &format!("/v1/accounts/{account}"), &[], b"").status, 204);
    // The site and its money are the parent's now, and nobody pays them to Ann.
    let listed = server.get(&path).json();
    assert_eq!(listed["withdrawals"][0]["state"], "cancelled", "{listed}");
    let shown = server.get(&format!("/v1/sites/{}/account", text(&site["id"]))).json();
    assert_eq!(shown["balance"]["available_nano_usd"], 50_000);
    server.runtime.block_on(server.app.store.audit(Book::Live)).expect("books");
}
