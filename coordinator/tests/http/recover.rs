//! Accounts that are given back to whoever has lost their keys.

use crate::server::{Answer, Server};
use serde_json::{Value, json};

fn recover(server: &Server, code: &Value) -> Answer {
    server.ask("none", "POST", "/v1/recover", &json!({ "code": code }))
}

fn code(server: &Server) -> Value {
    let answer = server.send("POST", "/v1/account/recovery-code", &[], b"");
    assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"));
    answer.json()["recovery_code"].clone()
}

#[test]
fn a_code_gives_the_account_a_new_key_and_takes_the_old_ones() {
    let server = Server::start();
    let account = server.get("/v1/account").json();
    let second = server.post("/v1/keys", &json!({"name": "stolen"})).json();
    let first_code = code(&server);
    let newer = code(&server);
    recover(&server, &first_code).problem(401);
    let answer = recover(&server, &newer);
    assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"));
    let found = answer.json();
    assert_eq!(found["account"], account["account"]);
    let key = found["key"].as_str().expect("a key");
    assert!(key.starts_with("rk_test_"));
    assert_eq!(server.ask(key, "GET", "/v1/account", &Value::Null).json(), account);
    server.get("/v1/account").problem(401);
    let stolen = second["key"].as_str().expect("a key");
    server.ask(stolen, "GET", "/v1/account", &Value::Null).problem(401);
    // Its key was used: the code is good for nothing more. The next one came with the key.
    recover(&server, &newer).problem(401);
    assert_eq!(recover(&server, &found["recovery_code"]).status, 201);
}

#[test]
fn who_lost_the_answer_recovers_again_and_keys_say_since_when_there_is_a_code() {
    let server = Server::start();
    assert_eq!(server.get("/v1/keys").json()["recovery_set_at"], Value::Null);
    let own = code(&server);
    assert!(server.get("/v1/keys").json()["recovery_set_at"].is_string());
    let (lost, found) = (recover(&server, &own).json(), recover(&server, &own).json());
    let get = |made: &Value| {
        server.ask(made["key"].as_str().expect("a key"), "GET", "/v1/keys", &Value::Null)
    };
    get(&lost).problem(401);
    assert!(get(&found).json()["recovery_set_at"].is_string());
    recover(&server, &lost["recovery_code"]).problem(401);
    recover(&server, &own).problem(401);
    assert_eq!(recover(&server, &found["recovery_code"]).status, 201);
}

#[test]
fn what_is_no_code_is_told_why() {
    let server = Server::start();
    let good = code(&server);
    let text = good.as_str().expect("text");
    let changed = format!("{}{}", &text[..49], if text.ends_with('a') { 'b' } else { 'a' });
    for (sent, told) in [
        (json!("rk_test_x"), "code: must begin with rr_"),
        (json!("rr_x"), "code: must have 50 characters, found 4"),
        (json!(changed), "code: its checksum does not match: it was mistyped or cut"),
    ] {
        let problem = recover(&server, &sent).problem(422);
        assert_eq!((&problem["detail"], &problem["field"]), (&json!(told), &json!("code")));
    }
    recover(&server, &Value::Null).problem(422);
    assert_eq!(recover(&server, &json!(format!(" {text}\n"))).status, 201, "as it was copied");
}

#[test]
fn a_key_that_may_not_do_everything_makes_no_code() {
    let server = Server::start();
    let some = server.post("/v1/keys", &json!({"name": "x", "scopes": ["account", "keys"]})).json();
    let key = some["key"].as_str().expect("a key");
    let problem = server.ask(key, "POST", "/v1/account/recovery-code", &Value::Null).problem(403);
    assert_eq!(problem["type"], "urn:raven:problem:scope");
    // Nor one that ends: it would outlast itself.
    let spec = json!({"name": "x", "expires_at": "2999-01-01T00:00:00Z"});
    let some = server.post("/v1/keys", &spec).json();
    let key = some["key"].as_str().expect("a key");
    server.ask(key, "POST", "/v1/account/recovery-code", &Value::Null).problem(403);
}
