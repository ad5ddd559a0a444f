//! The operator's commands for keys, withdrawals and the token's rate.

use crate::support::process::run;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::secret::{Secret, SecretKind};
use raven_coordinator::settlement::{Pay, Request};
use raven_coordinator::store::{Book, Store, requester};
use raven_coordinator::time::UnixMs;
use raven_engine::money::NanoUsd;
use std::path::Path;

/// What a command that ends well has printed.
fn told(data: &Path, line: &str) -> String {
    let output = run(data, &line.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// What a command that ends badly has complained of.
fn refused(data: &Path, line: &str) -> String {
    let output = run(data, &line.split(' ').collect::<Vec<_>>());
    assert!(!output.status.success(), "{line}");
    String::from_utf8(output.stderr).expect("text")
}

async fn open(data: &Path) -> Store {
    Store::open(&data.join("raven.sqlite")).await.expect("a store")
}

#[test]
fn a_new_account_has_a_key_on_stdout_and_a_code_on_stderr() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let output = run(&data, &["keys", "create", "--live"]);
    let key = String::from_utf8(output.stdout).expect("text");
    let key = ApiKey::parse(key.trim()).expect("nothing but the key");
    let code = String::from_utf8(output.stderr).expect("text");
    let code = code.trim().rsplit(' ').next().expect("a code").to_owned();
    Secret::parse(SecretKind::Recovery, &code).expect("a code");
    // Another key, by the first one's hint; and by the account's name, once that is revoked.
    let line = format!("keys create --of {} --scopes jobs,account", key.hint());
    let second = ApiKey::parse(&told(&data, &line)).expect("a key");
    assert_eq!(second.mode(), KeyMode::Live, "of the account's book");
    assert_eq!(told(&data, &format!("keys revoke {}", key.reveal())), "revoked");
    let third = told(&data, "keys create --of requester:0000000000000001");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open(&data).await;
        let third = ApiKey::parse(&third).expect("a key");
        let owner = store.find_key(&third).await.expect("read");
        assert!(owner.is_some());
        assert_eq!(store.find_key(&second).await.expect("read"), owner);
        let known = store.known_key(&second, UnixMs::now()).await.expect("read").expect("known");
        assert_eq!(known.scopes.names(), ["jobs", "account"]);
        store.close().await;
    });
    assert!(refused(&data, "keys create --of rk_live_zzzzzz").contains("no account"));
}

#[test]
fn a_payment_in_tokens_is_entered_at_the_rate_of_its_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let key = ApiKey::parse(&told(&data, "keys create --live")).expect("a key");
    let line = format!("deposit --micro-tokens 1500001 --payment p {}", key.reveal());
    assert!(refused(&data, &line).contains("there is no rate"));
    told(&data, "token-rate set 50000001");
    // 75,000,051.500001 nano-USD.
    let at_rate = "as 1500001 millionths of a token at 0.050000001 USD in the live book; \
                   0.075000052 USD are there to spend";
    assert_eq!(told(&data, &line), format!("entered {at_rate}"));
    std::thread::sleep(std::time::Duration::from_millis(2));
    told(&data, "token-rate set 70000000");
    assert_eq!(told(&data, &line), format!("entered before {at_rate}"));
    let other = format!("deposit --nano-usd 75000052 --payment p {}", key.reveal());
    assert!(refused(&data, &other).contains("it stands for another entry already"));
    assert!(told(&data, "audit").contains("live: 1 entries"));
}

#[test]
fn an_operator_lists_approves_and_refuses_withdrawals() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let key = ApiKey::parse(&told(&data, "keys create --live")).expect("a key");
    let line = format!("deposit --nano-usd 5000000000 --payment p {}", key.reveal());
    assert_eq!(told(&data, &line), "entered in the live book; 5.000000000 USD are there to spend");
    assert!(told(&data, &line).starts_with("entered before"));
    let rate = told(&data, "token-rate set 50000000");
    assert!(rate.starts_with("a token is worth 0.050000000 USD from "), "{rate}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (first, second) = runtime.block_on(async {
        let store = open(&data).await;
        let owner = store.find_key(&key).await.expect("read").expect("known");
        let wish = |pay, reference: &str| Request {
            book: Book::Live,
            account: requester(owner),
            amount: NanoUsd(2_000_000_000),
            address: "IBAN 1".into(),
            pay,
            reference: reference.into(),
        };
        let now = UnixMs::now();
        let first = store.hold_withdrawal(&wish(Pay::Usd, "a"), now).await.expect("held").id;
        let second = store.hold_withdrawal(&wish(Pay::Tokens, "b"), now).await.expect("held").id;
        store.close().await;
        (first, second)
    });
    let listed = told(&data, "withdrawals list");
    assert_eq!(listed.lines().count(), 2, "{listed}");
    // The one that has waited longest stands first, with the time that is left.
    assert!(listed.starts_with(&format!("{first} pending ")), "{listed}");
    assert!(listed.lines().all(|line| line.contains(" expires ")), "{listed}");
    let error = refused(&data, &format!("withdrawals approve {first}"));
    assert!(error.contains("is not begun"), "{error}");
    let begun = told(&data, &format!("withdrawals begin {first}"));
    assert!(begun.starts_with(&format!("{first} paying: 2.000000000 USD")), "{begun}");
    assert!(refused(&data, &format!("withdrawals begin {first}")).contains("is paying already"));
    assert!(told(&data, "withdrawals list").starts_with(&format!("{first} paying ")));
    assert!(listed.contains("2.000000000 USD as 40000000 millionths of a token of requester:"));
    let approved = told(&data, &format!("withdrawals approve {first} --note bank-7"));
    assert!(approved.starts_with(&format!("{first} approved: 2.000000000 USD")), "{approved}");
    for verb in ["approve", "refuse"] {
        let error = refused(&data, &format!("withdrawals {verb} {first}"));
        assert!(error.contains("is approved already"), "{error}");
    }
    told(&data, &format!("withdrawals refuse {second}"));
    assert_eq!(told(&data, "withdrawals list"), "");
    assert_eq!(told(&data, "withdrawals list --all").lines().count(), 2);
    let error = refused(&data, "withdrawals approve wd_00000000000000ff");
    assert!(error.contains("no withdrawal has the id"), "{error}");
    // Two of them hold the begun one anew.
    assert!(told(&data, "audit").contains("live: 7 entries"), "{}", told(&data, "audit"));
    assert!(told(&data, &line).ends_with("3.000000000 USD are there to spend"));
}
