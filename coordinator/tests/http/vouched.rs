//! What a key or a passkey may give on its own word, and what goes with either.

use crate::authenticator::{Passkey, options};
use crate::passkeys::{
    PLACE, add, add_by, begin_sign_in, confirmed, get, key, kind, post, sign_in, sign_up, start,
};
use raven_coordinator::keys::ApiKey;
use raven_coordinator::passkey::base64url::encode;
use raven_coordinator::store::{KEYS_MAX, SESSION_MS, SESSIONS_MAX};
use raven_coordinator::time::UnixMs;
use serde_json::{Value, json};

#[test]
fn who_is_signed_in_for_half_a_day_stays_no_longer_without_a_passkey() {
    let server = start();
    let ((mut own, _), (mut other, of_other)) = (sign_up(&server), sign_up(&server));
    let session = sign_in(&server, &mut own).json();
    let mut new = Passkey::new(PLACE);
    let refused = add(&server, key(&session), &mut new).problem(403);
    assert_eq!(
        (kind(&refused), &refused["field"]),
        ("passkey-unconfirmed", &json!("confirmation"))
    );
    // Another account's passkey, under its own challenge and under this one.
    let refused = confirmed(&server, key(&session), &mut new, &mut other).problem(401);
    assert_eq!(kind(&refused), "passkey-unknown");
    let session_of_other = sign_in(&server, &mut other).json();
    let begin_of_other = || {
        let wish = json!({"name": "x"});
        let begun = server.ask(key(&session_of_other), "POST", "/v1/account/passkeys/begin", &wish);
        begun.json()["confirm"].clone()
    };
    let of_other_account = begin_of_other();
    // An answer to another question.
    for asked in [options(&begin_sign_in(&server)).clone(), of_other_account] {
        let refused = add_by(&server, key(&session), &mut new, &mut own, |_| asked).problem(401);
        assert_eq!(kind(&refused), "passkey-challenge");
    }
    let refused =
        add_by(&server, key(&session), &mut new, &mut own, |begun| options(begun).clone());
    assert_eq!(kind(&refused.problem(401)), "passkey-challenge");
    assert_eq!(kind(&sign_in(&server, &mut new).problem(401)), "passkey-unknown");
    // And with the right one, once.
    let mut asked = Value::Null;
    let added = add_by(&server, key(&session), &mut new, &mut own, |begun| {
        asked = begun["confirm"].clone();
        asked.clone()
    });
    assert_eq!(added.status, 201, "{}", added.text());
    assert_eq!(added.json()["added_by"], session["id"]);
    let mut next = Passkey::new(PLACE);
    let again = add_by(&server, key(&session), &mut next, &mut own, |_| asked);
    assert_eq!(kind(&again.problem(401)), "passkey-challenge");
    // Who signs out takes no passkey along that another one has confirmed.
    let path = format!("/v1/keys/{}", session["id"].as_str().expect("an id"));
    assert_eq!(server.ask(key(&session), "DELETE", &path, &Value::Null).status, 204);
    assert_eq!(sign_in(&server, &mut new).status, 201);
    assert_eq!(of_other["account"], session_of_other["account"]);
}

#[test]
fn a_passkey_goes_with_the_key_that_added_it_and_takes_what_it_confirmed() {
    let server = start();
    let (mut own, made) = sign_up(&server);
    let keys = |key: &str| get(&server, key, "/v1/keys").json()["keys"].clone();
    let stolen = server.ask(key(&made), "POST", "/v1/keys", &json!({"name": "stolen"})).json();
    let (mut first, mut second) = (Passkey::new(PLACE), Passkey::new(PLACE));
    assert_eq!(add(&server, key(&stolen), &mut first).status, 201);
    let session = sign_in(&server, &mut first).json();
    assert_eq!(confirmed(&server, key(&session), &mut second, &mut first).status, 201);
    let of_second = sign_in(&server, &mut second).json();
    let spec = json!({"name": "x", "expires_at": of_second["expires_at"]});
    let child = server.ask(key(&of_second), "POST", "/v1/keys", &spec).json();
    let path = format!("/v1/keys/{}", stolen["id"].as_str().expect("an id"));
    assert_eq!(server.ask(key(&made), "DELETE", &path, &Value::Null).status, 204);
    for passkey in [&mut first, &mut second] {
        assert_eq!(kind(&sign_in(&server, passkey).problem(401)), "passkey-unknown");
    }
    for gone in [&session, &of_second, &child] {
        get(&server, key(gone), "/v1/account").problem(401);
    }
    // What is the account's by itself stays.
    assert_eq!(sign_in(&server, &mut own).json()["account"], made["account"]);
    assert!(keys(key(&made)).as_array().is_some_and(|keys| !keys.is_empty()));
    // The command line revokes alike.
    let lost = server.ask(key(&made), "POST", "/v1/keys", &json!({"name": "lost"})).json();
    let mut third = Passkey::new(PLACE);
    assert_eq!(add(&server, key(&lost), &mut third).status, 201);
    let parsed = ApiKey::parse(key(&lost)).expect("a key");
    assert!(server.runtime.block_on(server.app.store.revoke_key(&parsed)).expect("revoked"));
    assert_eq!(kind(&sign_in(&server, &mut third).problem(401)), "passkey-unknown");
}

/// A passkey that another one of the thief's has confirmed, and keys of these that last, too.
#[test]
fn of_a_stolen_key_all_goes_that_came_of_it_and_the_asking_key_stays() {
    let server = start();
    let (mut own, made) = sign_up(&server);
    let stolen = server.ask(key(&made), "POST", "/v1/keys", &json!({"name": "stolen"})).json();
    let (mut first, mut second) = (Passkey::new(PLACE), Passkey::new(PLACE));
    assert_eq!(add(&server, key(&stolen), &mut first).status, 201);
    let of_thief = sign_in(&server, &mut first).json();
    assert_eq!(confirmed(&server, key(&of_thief), &mut second, &mut first).status, 201);
    let lasting = |passkey: &mut Passkey| {
        let credential = passkey.get(options(&begin_sign_in(&server)));
        let body = json!({"credential": credential, "key_name": "mine now"});
        post(&server, "/v1/passkeys/sign-in/finish", &body).json()
    };
    let (of_first, of_second) = (lasting(&mut first), lasting(&mut second));
    assert_eq!(get(&server, key(&of_second), "/v1/account").status, 200);
    let session = sign_in(&server, &mut own).json();
    let path = format!("/v1/keys/{}?made=true", stolen["id"].as_str().expect("an id"));
    // What asks is of the account's own passkey, which the stolen key has not added.
    assert_eq!(server.ask(key(&session), "DELETE", &path, &Value::Null).status, 204);
    for gone in [&stolen, &of_thief, &of_first, &of_second] {
        get(&server, key(gone), "/v1/account").problem(401);
    }
    for passkey in [&mut first, &mut second] {
        assert_eq!(kind(&sign_in(&server, passkey).problem(401)), "passkey-unknown");
    }
    for stays in [&made, &session] {
        assert_eq!(get(&server, key(stays), "/v1/account").status, 200);
    }
}

#[test]
fn a_code_of_recovery_takes_what_a_passkey_of_a_sub_account_confirmed() {
    let server = start();
    let (_, made) = sign_up(&server);
    let child = server.ask(key(&made), "POST", "/v1/accounts", &json!({"name": "Ann"})).json();
    let (mut first, mut second) = (Passkey::new(PLACE), Passkey::new(PLACE));
    assert_eq!(add(&server, key(&child), &mut first).status, 201);
    let session = sign_in(&server, &mut first).json();
    assert_eq!(confirmed(&server, key(&session), &mut second, &mut first).status, 201);
    let code = json!({ "code": made["recovery_code"] });
    assert_eq!(post(&server, "/v1/recover", &code).status, 201);
    get(&server, key(&session), "/v1/account").problem(401);
    for passkey in [&mut first, &mut second] {
        assert_eq!(kind(&sign_in(&server, passkey).problem(401)), "passkey-unknown");
    }
}

#[test]
fn a_challenge_is_looked_at_before_the_passkey_is_and_is_used_by_it() {
    let server = start();
    let begun = post(&server, "/v1/passkeys/sign-up", &json!({"name": "x"})).json();
    let finish = |credential: &Value| {
        let body = json!({"name": "x", "credential": credential});
        kind(&post(&server, "/v1/passkeys/sign-up/finish", &body).problem(422)).to_owned()
    };
    let mut passkey = Passkey::new(PLACE);
    passkey.client = json!({"challenge": encode(&[7; 32])});
    let mut strange = passkey.create(options(&begun));
    strange["response"]["attestationObject"] = json!("AAAA");
    assert_eq!(finish(&strange), "passkey-challenge", "nothing else was read");
    passkey.client = json!({});
    let good = passkey.create(options(&begun));
    let mut broken = good.clone();
    broken["response"]["attestationObject"] = json!("AAAA");
    assert_eq!(finish(&broken), "passkey-form");
    assert_eq!(finish(&good), "passkey-challenge", "one answer for each challenge");
}

#[test]
fn sign_ins_are_beside_the_keys_and_those_that_hold_are_listed_first() {
    let server = start();
    let (mut passkey, made) = sign_up(&server);
    for _ in 0..SESSIONS_MAX {
        assert_eq!(sign_in(&server, &mut passkey).status, 201);
    }
    // The first key is one of them.
    let make = || server.ask(key(&made), "POST", "/v1/keys", &json!({"name": "x"}));
    for _ in 1..KEYS_MAX {
        assert_eq!(make().status, 201);
    }
    assert_eq!(make().problem(429)["found"], KEYS_MAX);
    let (store, wait) = (&server.app.store, &server.runtime);
    let known = wait.block_on(store.find_key(&ApiKey::parse(key(&made)).expect("a key")));
    let account = known.expect("read").expect("known");
    // Once the sign-ins are over, which are not the oldest, they come last.
    let later = UnixMs(UnixMs::now().0 + SESSION_MS + 1);
    let rows = wait.block_on(store.keys_of(account, KEYS_MAX as u32, later)).expect("read");
    assert!(rows.iter().all(|row| row.expires.is_none()), "{rows:?}");
    // A month after that they are forgotten, but for those that something came of.
    let last = sign_in(&server, &mut passkey).json();
    let mut phone = Passkey::new(PLACE);
    assert_eq!(confirmed(&server, key(&last), &mut phone, &mut passkey).status, 201);
    let gone = |days| wait.block_on(store.forget_sign_ins(later.plus_days(days))).expect("swept");
    assert_eq!((gone(29), gone(31), gone(31)), (0, SESSIONS_MAX, 0));
    let rows = wait.block_on(store.keys_of(account, 500, later)).expect("read");
    assert_eq!(rows.len() as u64, KEYS_MAX + 1);
    assert_eq!(sign_in(&server, &mut phone).status, 201);
}

#[test]
fn keys_that_a_sign_in_makes_say_when_they_end() {
    let server = start();
    let (mut passkey, made) = sign_up(&server);
    let session = sign_in(&server, &mut passkey).json();
    let listed = get(&server, key(&session), "/v1/keys").json();
    assert_eq!(listed["asked_by"], session["id"]);
    assert_eq!(listed["asked_until"], session["expires_at"]);
    assert_eq!(get(&server, key(&made), "/v1/keys").json()["asked_until"], Value::Null);
    let child = server.ask(key(&session), "POST", "/v1/accounts", &json!({"name": "Ann"})).json();
    assert_eq!(child["expires_at"], session["expires_at"]);
    let path = format!("/v1/accounts/{}/keys", child["account"].as_str().expect("text"));
    let of_child = get(&server, key(&session), &path).json();
    assert_eq!(of_child["keys"][0]["expires_at"], child["expires_at"]);
    assert_eq!(of_child["asked_until"], session["expires_at"]);
    // No longer than the sign-in, and as long as it.
    let make = |spec: Value| server.ask(key(&session), "POST", &path, &spec);
    make(json!({"name": "x"})).problem(403);
    let spec = json!({"name": "x", "expires_at": listed["asked_until"]});
    assert_eq!(make(spec).json()["expires_at"], session["expires_at"]);
    // One that a passkey gives to last makes one that lasts.
    let begun = begin_sign_in(&server);
    let body = json!({"credential": passkey.get(options(&begun)), "key_name": "lasts"});
    let lasting = post(&server, "/v1/passkeys/sign-in/finish", &body).json();
    let of_lasting = server.ask(key(&lasting), "POST", &path, &json!({"name": "x"})).json();
    assert_eq!(of_lasting["expires_at"], Value::Null);
}
