//! Amounts in RAVEN tokens, at the rate that was in force.

use crate::server::Server;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::settlement::Deposit;
use raven_coordinator::store::StoreError;
use raven_coordinator::time::UnixMs;
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};
use sqlx::Executor as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

fn set(server: &Server, nano_usd: i64) -> UnixMs {
    // The next millisecond, so that what was entered before has the rate before.
    std::thread::sleep(std::time::Duration::from_millis(2));
    let set = server.app.store.set_token_rate(nano_usd, UnixMs::now);
    server.runtime.block_on(set).expect("set").from
}

#[test]
fn everyone_may_know_what_a_token_is_worth_and_was() {
    let server = Server::start();
    let show = || server.get_with("/v1/token-rate", &[]).json();
    assert_eq!(show(), json!({"now": null, "history": []}));
    set(&server, 50_000_000);
    let last = set(&server, 40_000_000);
    let shown = show();
    assert_eq!(shown["now"], json!({"nano_usd_per_token": 40_000_000, "from": last.rfc3339()}));
    assert_eq!(shown["history"][0], shown["now"]);
    assert_eq!(shown["history"][1]["nano_usd_per_token"], 50_000_000);
    // A clock that was set back changes nothing of the past.
    let early = server.app.store.set_token_rate(30_000_000, || UnixMs(1));
    let error = server.runtime.block_on(early).expect_err("refused");
    assert!(matches!(error, StoreError::RateToCome { from } if from == last), "{error}");
    assert_eq!(show(), shown);
}

#[test]
fn statements_show_tokens_at_the_rate_of_each_entry() {
    let server = Server::start();
    assert_eq!(server.get("/v1/account").json()["tokens"], Value::Null);
    set(&server, 3_000_000);
    let child = server.post("/v1/accounts", &json!({"name": "Ann"})).json();
    let path = format!("/v1/accounts/{}/transfer", child["account"].as_str().expect("text"));
    let fund = |amount: i64, reference: &str| {
        let body = json!({"nano_usd": amount, "direction": "fund", "reference": reference});
        assert_eq!(server.post(&path, &body).status, 200);
    };
    fund(5, "a");
    set(&server, 1_000_000);
    fund(5, "b");
    let lines = server.get("/v1/account/statement").json();
    let seen: Vec<_> = (0..3).map(|at| lines["lines"][at]["micro_tokens"].clone()).collect();
    // Rounded towards nothing; the trial balance came before there was a rate.
    assert_eq!(seen, [json!(-5), json!(-1), Value::Null]);
    let account = server.get("/v1/account").json();
    assert_eq!(account["tokens"]["rate"]["nano_usd_per_token"], 1_000_000);
    assert_eq!(account["tokens"]["available_micro_tokens"], 1_000_000_000_000_i64 - 10);
    assert_eq!(account["tokens"]["held_micro_tokens"], 0);
}

#[test]
fn a_withdrawal_in_tokens_keeps_the_rate_at_which_it_was_asked_for() {
    let server = Server::start();
    let key = ApiKey::generate(KeyMode::Live);
    let owner = server.runtime.block_on(server.app.store.add_key(&key)).expect("stored");
    let deposit = Deposit { owner, amount: NanoUsd(90_000).into(), payment: "p".into() };
    server.runtime.block_on(server.app.settlement.deposit(deposit)).expect("entered");
    let path = "/v1/account/withdrawals";
    let wish = |reference: &str, pay: &str| {
        let body = json!({
            "nano_usd": 20_000, "address": "0xabc", "reference": reference, "pay": pay,
        });
        server.ask(key.reveal(), "POST", path, &body)
    };
    let problem = wish("a", "tokens").problem(409);
    assert_eq!(
        (&problem["type"], &problem["field"]),
        (&json!("urn:raven:problem:no-token-rate"), &json!("pay"))
    );
    wish("a", "gold").problem(422);
    set(&server, 3_000_000);
    let asked = wish("a", "tokens").json();
    assert_eq!((&asked["pay"], &asked["micro_tokens"]), (&json!("tokens"), &json!(6_666)));
    let dollars = wish("b", "usd").json();
    assert_eq!((&dollars["pay"], &dollars["micro_tokens"]), (&json!("usd"), &json!(6_666)));
    set(&server, 1_000_000);
    // The rate is that of the day on which it was asked for, also when it is asked again.
    assert_eq!(wish("a", "tokens").json(), asked);
    assert_eq!(wish("a", "usd").problem(409)["field"], "reference");
    let listed = server.ask(key.reveal(), "GET", path, &Value::Null).json();
    assert_eq!(listed["withdrawals"][1]["micro_tokens"], 6_666);
    assert_eq!(listed["withdrawals"][1]["token_rate"]["nano_usd_per_token"], 3_000_000);
}

#[test]
fn rates_cannot_be_changed_by_accident() {
    let server = Server::start();
    set(&server, 3_000_000);
    let path = server.folder.path().join("raven.sqlite");
    server.runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path);
        let pool = SqlitePool::connect_with(options).await.expect("a file");
        for sql in ["UPDATE token_rates SET nano_usd = 1", "DELETE FROM token_rates"] {
            let error = pool.execute(sql).await.expect_err("refused");
            assert!(error.to_string().contains("appended"), "{error}");
        }
        pool.close().await;
    });
}
