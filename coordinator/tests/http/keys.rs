//! Keys of an account: scopes, expiry, revocation.

use crate::server::{Answer, Server, job};
use raven_coordinator::keys::ApiKey;
use raven_coordinator::scopes::{Scope, Scopes};
use raven_coordinator::store::{NewKey, requester};
use raven_coordinator::time::UnixMs;
use serde_json::{Value, json};

/// A request with another key than the server's own.
fn ask(server: &Server, key: &str, method: &str, path: &str, body: &Value) -> Answer {
    server.ask(key, method, path, body)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn create(server: &Server, spec: &Value) -> Value {
    let answer = server.post("/v1/keys", spec);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.json()
}

#[test]
fn keys_of_one_account_have_one_balance_and_the_same_jobs() {
    let server = Server::start();
    let posted = server.post("/v1/jobs", &job(&server.small_dataset())).json();
    let second = create(&server, &json!({"name": "laptop"}));
    let key = text(&second["key"]);
    assert_eq!(second["scopes"], json!(["jobs", "datasets", "sites", "account", "keys"]));
    let path = format!("/v1/jobs/{}", text(&posted["id"]));
    assert_eq!(ask(&server, key, "GET", &path, &Value::Null).json()["id"], posted["id"]);
    let account = server.get("/v1/account").json();
    assert_eq!(ask(&server, key, "GET", "/v1/account", &Value::Null).json(), account);
    // The account outlives its first key: money and jobs stay within reach.
    let keys = server.get("/v1/keys").json();
    let first = text(&keys["keys"][1]["id"]).to_owned();
    assert!(server.key.starts_with(text(&keys["keys"][1]["hint"])), "{keys}");
    assert_eq!(ask(&server, key, "DELETE", &format!("/v1/keys/{first}"), &Value::Null).status, 204);
    server.get("/v1/account").problem(401);
    assert_eq!(ask(&server, key, "GET", "/v1/account", &Value::Null).json(), account);
    assert_eq!(ask(&server, key, "GET", &path, &Value::Null).status, 200);
    let keys = ask(&server, key, "GET", "/v1/keys", &Value::Null).json();
    assert!(keys["keys"][1]["revoked_at"].is_string(), "{keys}");
    assert!(!keys.to_string().contains(key), "a key is shown once");
}

#[test]
fn a_key_without_the_scope_is_told_which_one_is_needed() {
    let server = Server::start();
    let spec = json!({"name": "trainer", "scopes": ["jobs"]});
    let trainer = create(&server, &spec);
    let key = text(&trainer["key"]);
    assert_eq!(ask(&server, key, "GET", "/v1/jobs", &Value::Null).status, 200);
    for (method, path, needed) in [
        ("GET", "/v1/datasets", "datasets"),
        ("POST", "/v1/sites", "sites"),
        ("GET", "/v1/account", "account"),
        ("GET", "/v1/account/statement", "account"),
        ("GET", "/v1/keys", "keys"),
        ("POST", "/v1/keys", "keys"),
    ] {
        let problem = ask(&server, key, method, path, &json!({})).problem(403);
        assert_eq!(problem["type"], "urn:raven:problem:scope", "{path}");
        let detail = format!("this needs a key with the scope {needed}");
        assert_eq!(problem["detail"], detail, "{path}");
    }
}

#[test]
fn nobody_grants_what_it_does_not_have() {
    let server = Server::start();
    let soon = UnixMs(UnixMs::now().0 + 3_600_000);
    let spec = json!({"name": "hr", "scopes": ["keys", "jobs"], "expires_at": soon.rfc3339()});
    let some = create(&server, &spec);
    let key = text(&some["key"]);
    let post = |body: Value| ask(&server, key, "POST", "/v1/keys", &body);
    let problem = post(json!({"name": "x", "scopes": ["account"]})).problem(403);
    assert_eq!(
        (&problem["field"], &problem["type"]),
        (&json!("scopes"), &json!("urn:raven:problem:scope"))
    );
    // Nor for longer than it has it.
    assert_eq!(post(json!({"name": "x"})).problem(403)["field"], "expires_at");
    let later = UnixMs(soon.0 + 1).rfc3339();
    assert_eq!(post(json!({"name": "x", "expires_at": later})).problem(403)["field"], "expires_at");
    let child = post(json!({"name": "x", "expires_at": soon.rfc3339()})).json();
    assert_eq!(child["scopes"], json!(["jobs", "keys"]), "those of the asking key");
}

#[test]
fn what_a_key_cannot_be_is_refused() {
    let server = Server::start();
    for (spec, field) in [
        (json!({"name": ""}), "name"),
        (json!({"name": "a\nb"}), "name"),
        (json!({"name": "x".repeat(101)}), "name"),
        (json!({"name": "x", "scopes": []}), "scopes"),
        (json!({"name": "x", "scopes": ["jobs", "all"]}), "scopes[1]"),
        (json!({"name": "x", "expires_at": "tomorrow"}), "expires_at"),
        (json!({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}), "expires_at"),
    ] {
        assert_eq!(server.post("/v1/keys", &spec).problem(422)["field"], field, "{spec}");
    }
    server.post("/v1/keys", &json!({"scopes": ["jobs"]})).problem(422);
    assert_eq!(server.get("/v1/keys").json()["keys"].as_array().map(Vec::len), Some(1));
    for id in ["key_1", "key_0000000000000099", "x"] {
        assert_eq!(server.send("DELETE", &format!("/v1/keys/{id}"), &[], b"").status, 404);
    }
}

#[test]
fn the_last_key_that_makes_keys_stays() {
    let server = Server::start();
    create(&server, &json!({"name": "x", "scopes": ["jobs", "account"]}));
    let keys = server.get("/v1/keys").json();
    let own = text(&keys["keys"][1]["id"]).to_owned();
    let revoke = |id: &str| server.send("DELETE", &format!("/v1/keys/{id}"), &[], b"");
    revoke(&own).problem(409);
    let spec = json!({"name": "z", "scopes": ["keys"], "expires_at": "2999-01-01T00:00:00Z"});
    create(&server, &spec);
    revoke(&own).problem(409);
    let less = create(&server, &json!({"name": "y", "scopes": ["keys"]}));
    revoke(&own).problem(409);
    let other = create(&server, &json!({"name": "whole"}));
    let path = format!("/v1/keys/{}", text(&less["id"]));
    assert_eq!(server.send("DELETE", &path, &[], b"").status, 204);
    assert_eq!(revoke(&own).status, 204, "another one may do everything for ever");
    let key = text(&other["key"]);
    let path = format!("/v1/keys/{}", text(&other["id"]));
    ask(&server, key, "DELETE", &path, &Value::Null).problem(409);
}

#[test]
fn a_key_revokes_none_that_may_do_more() {
    let server = Server::start();
    let weak = create(&server, &json!({"name": "hr", "scopes": ["keys", "jobs"]}));
    let strong = create(&server, &json!({"name": "bank"}));
    let equal = create(&server, &json!({"name": "other", "scopes": ["jobs"]}));
    let revoke = |id: &Value| {
        let path = format!("/v1/keys/{}", text(id));
        ask(&server, text(&weak["key"]), "DELETE", &path, &Value::Null)
    };
    let problem = revoke(&strong["id"]).problem(403);
    assert_eq!(problem["type"], "urn:raven:problem:scope");
    assert_eq!(server.get("/v1/account").status, 200);
    assert_eq!(revoke(&equal["id"]).status, 204);
    // Who made which is shown.
    let keys = server.get("/v1/keys").json();
    assert_eq!(keys["keys"][0]["name"], "bank");
    let first = keys["keys"].as_array().expect("keys").iter().find(|key| key["name"] == "");
    assert_eq!(keys["keys"][0]["made_by"], first.expect("the first")["id"]);
}

#[test]
fn an_event_stream_ends_with_its_key() {
    let server = Server::start();
    let posted = server.post("/v1/jobs", &job(&server.small_dataset())).json();
    let other = create(&server, &json!({"name": "x", "scopes": ["jobs"]}));
    let path = format!("/v1/jobs/{}/events", text(&posted["id"]));
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| ask(&server, text(&other["key"]), "GET", &path, &Value::Null));
        std::thread::sleep(std::time::Duration::from_millis(500));
        let revoked = server.send("DELETE", &format!("/v1/keys/{}", text(&other["id"])), &[], b"");
        assert_eq!(revoked.status, 204);
        // It would go on for ever: the job never ends.
        let answer = stream.join().expect("the stream ends");
        assert_eq!(answer.status, 200);
    });
}

#[test]
fn a_key_holds_until_its_time_and_its_use_is_told_to_the_day() {
    let server = Server::start();
    let key = ApiKey::generate(raven_coordinator::keys::KeyMode::Test);
    let now = UnixMs::now();
    let scopes = Scopes::from(Scope::Jobs);
    let expires = Some(UnixMs(now.0 + 1_000));
    let new = NewKey { name: "x", scopes, expires, ..NewKey::whole(&key) };
    let store = &server.app.store;
    server.runtime.block_on(store.add_key_of(server.owner, &new)).expect("stored");
    let known =
        |at: i64| server.runtime.block_on(store.known_key(&key, UnixMs(at))).expect("readable");
    assert_eq!(known(now.0 + 999).map(|known| known.account), Some(server.owner));
    assert_eq!(known(now.0 + 1_000), None);
    // It is noted beside the request.
    let used = (0..200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let rows = server
            .runtime
            .block_on(store.keys_of(server.owner, 9, UnixMs::now()))
            .expect("readable");
        rows.into_iter().find(|row| row.name == "x")?.used
    });
    let day = used.expect("noted").0;
    assert_eq!(day % 86_400_000, 0);
    assert!((0..=86_400_000).contains(&(now.0 + 999 - day)), "{day}");
}

#[test]
fn accounts_are_found_by_name_and_by_the_hint_of_a_key() {
    let server = Server::start();
    let store = &server.app.store;
    let hint = ApiKey::parse(&server.key).expect("a key").hint().to_owned();
    for text in [requester(server.owner).to_string(), hint] {
        let found = server.runtime.block_on(store.accounts_named(&text)).expect("readable");
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(found[0].0, server.owner);
    }
    for text in ["", "operator", "rk_test_", "requester:0000000000000063"] {
        let found = server.runtime.block_on(store.accounts_named(text)).expect("readable");
        assert!(found.is_empty(), "{text}");
    }
}

#[test]
fn a_stolen_key_goes_with_all_that_came_of_it_where_its_owner_says_so() {
    let server = Server::start();
    let stolen = create(&server, &json!({"name": "stolen"}));
    let by = text(&stolen["key"]);
    let spec = json!({ "name": "x" });
    let made = ask(&server, by, "POST", "/v1/keys", &spec).json();
    let next = ask(&server, text(&made["key"]), "POST", "/v1/keys", &spec).json();
    let child = ask(&server, text(&next["key"]), "POST", "/v1/accounts", &spec).json();
    let own = create(&server, &json!({"name": "another one of the owner's"}));
    let is_good = |key: &Value| {
        server.ask(text(&key["key"]), "GET", "/v1/account", &Value::Null).status == 200
    };
    let revoke = |query: &str| {
        server.send("DELETE", &format!("/v1/keys/{}{query}", text(&stolen["id"])), &[], b"")
    };
    revoke("?made=maybe").problem(400);
    assert_eq!(revoke("").status, 204);
    assert!(!is_good(&stolen));
    let made_of_it = [&made, &next, &child];
    assert!(made_of_it.iter().all(|key| is_good(key)), "what it made stays");
    revoke("").problem(404);
    assert_eq!(revoke("?made=true").status, 204, "also where it was revoked before");
    assert!(!made_of_it.iter().any(|key| is_good(key)));
    assert!(is_good(&own));
    assert_eq!(server.get("/v1/account").status, 200);
    revoke("?made=true").problem(404);
}

#[test]
fn a_key_that_revokes_what_made_it_stays_itself() {
    let server = Server::start();
    let keys = server.get("/v1/keys").json();
    let first = text(&keys["keys"][0]["id"]).to_owned();
    let mine = create(&server, &json!({"name": "mine"}));
    let other = create(&server, &json!({"name": "other"}));
    let from_mine = ask(&server, text(&mine["key"]), "POST", "/v1/keys", &json!({"name": "x"}));
    let path = format!("/v1/keys/{first}?made=true");
    // One that may do less does not even ask.
    let weak = create(&server, &json!({"name": "weak", "scopes": ["keys"]}));
    ask(&server, text(&weak["key"]), "DELETE", &path, &Value::Null).problem(403);
    assert_eq!(ask(&server, text(&mine["key"]), "DELETE", &path, &Value::Null).status, 204);
    let status = |key: &Value| ask(&server, text(key), "GET", "/v1/account", &Value::Null).status;
    assert_eq!(status(&json!(server.key)), 401);
    assert_eq!((status(&other["key"]), status(&weak["key"])), (401, 401));
    assert_eq!((status(&mine["key"]), status(&from_mine.json()["key"])), (200, 200));
}

#[test]
fn the_last_key_stays_though_others_that_it_made_would_go_with_it() {
    let server = Server::start();
    let keys = server.get("/v1/keys").json();
    let first = text(&keys["keys"][0]["id"]).to_owned();
    let other = create(&server, &json!({"name": "whole, and made by it"}));
    let path = format!("/v1/keys/{first}?made=true");
    server.send("DELETE", &path, &[], b"").problem(409);
    assert_eq!(ask(&server, text(&other["key"]), "GET", "/v1/keys", &Value::Null).status, 200);
}
