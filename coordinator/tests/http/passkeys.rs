//! Accounts and ways into them by passkeys.

use crate::authenticator::{BACKED_UP, ELIGIBLE, EXTENDED, PRESENT, Passkey, VERIFIED, options};
use crate::server::{Answer, Server};
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::front::{Front, FrontConfig};
use raven_coordinator::http::router;
use raven_coordinator::passkey::base64url::{decode, encode};
use raven_coordinator::passkey::{Assertion, Known, PublicKey, Registration, RelyingParty};
use raven_coordinator::store::{PASSKEYS_MAX, SESSION_MS, SESSIONS_MAX};
use raven_coordinator::time::UnixMs;
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub const PLACE: &str = "http://localhost:8080";

/// A server at which browsers make passkeys, and these make accounts.
pub fn start() -> Server {
    Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.origin = PLACE.into();
        settings.accounts.passkeys = true;
    })
}

pub fn post(server: &Server, path: &str, body: &Value) -> Answer {
    server.ask("none", "POST", path, body)
}

pub fn sign_up_with(server: &Server, passkey: &mut Passkey, book: &str) -> Answer {
    let begun = post(server, "/v1/passkeys/sign-up", &json!({"name": "laptop"})).json();
    let credential = passkey.create(options(&begun));
    let body = json!({"name": "laptop", "book": book, "credential": credential});
    post(server, "/v1/passkeys/sign-up/finish", &body)
}

/// An account of play money, and its passkey.
pub fn sign_up(server: &Server) -> (Passkey, Value) {
    let mut passkey = Passkey::new(PLACE);
    let made = sign_up_with(server, &mut passkey, "test");
    assert_eq!((made.status, made.header("cache-control")), (201, "no-store"), "{}", made.text());
    (passkey, made.json())
}

pub fn begin_sign_in(server: &Server) -> Value {
    post(server, "/v1/passkeys/sign-in", &Value::Null).json()
}

fn finish_sign_in(server: &Server, credential: &Value) -> Answer {
    post(server, "/v1/passkeys/sign-in/finish", &json!({ "credential": credential }))
}

pub fn sign_in(server: &Server, passkey: &mut Passkey) -> Answer {
    finish_sign_in(server, &passkey.get(options(&begin_sign_in(server))))
}

pub fn key(made: &Value) -> &str {
    made["key"].as_str().expect("a key")
}

pub fn get(server: &Server, key: &str, path: &str) -> Answer {
    server.ask(key, "GET", path, &Value::Null)
}

/// Adds another passkey of an account.
pub fn add(server: &Server, key: &str, passkey: &mut Passkey) -> Answer {
    let wish = json!({"name": "phone"});
    let begun = server.ask(key, "POST", "/v1/account/passkeys/begin", &wish);
    assert_eq!(begun.status, 200, "{}", begun.text());
    let credential = passkey.create(options(&begun.json()));
    let body = json!({"name": "phone", "credential": credential});
    server.ask(key, "POST", "/v1/account/passkeys", &body)
}

/// The same where `other` agrees, whose challenge `ask` finds in what the wish began with.
pub fn add_by(
    server: &Server,
    key: &str,
    passkey: &mut Passkey,
    other: &mut Passkey,
    ask: impl FnOnce(&Value) -> Value,
) -> Answer {
    let wish = json!({"name": "phone"});
    let begun = server.ask(key, "POST", "/v1/account/passkeys/begin", &wish);
    assert_eq!(begun.status, 200, "{}", begun.text());
    let begun = begun.json();
    let confirmation = other.get(&ask(&begun));
    let credential = passkey.create(options(&begun));
    let body = json!({"name": "phone", "credential": credential, "confirmation": confirmation});
    server.ask(key, "POST", "/v1/account/passkeys", &body)
}

pub fn confirmed(server: &Server, key: &str, passkey: &mut Passkey, other: &mut Passkey) -> Answer {
    add_by(server, key, passkey, other, |begun| begun["confirm"].clone())
}

fn remove(server: &Server, key: &str, id: &Value) -> Answer {
    let path = format!("/v1/account/passkeys/{}", id.as_str().expect("an id"));
    server.ask(key, "DELETE", &path, &Value::Null)
}

pub fn kind(problem: &Value) -> &str {
    problem["type"].as_str().and_then(|kind| kind.strip_prefix("urn:raven:problem:")).expect("one")
}

#[test]
fn a_passkey_makes_an_account_and_signs_in_to_it_for_half_a_day() {
    let server = start();
    for path in ["/v1/passkeys/sign-up", "/v1/passkeys/sign-in"] {
        assert_eq!(get(&server, "none", path).json(), json!({"open": true}));
    }
    let begun = post(&server, "/v1/passkeys/sign-up", &json!({"name": "laptop"})).json();
    let asked = options(&begun);
    assert_eq!(asked["rp"], json!({"id": "localhost", "name": "Raven"}));
    assert_eq!((&asked["timeout"], &asked["attestation"]), (&json!(300_000), &json!("none")));
    assert_eq!(asked["authenticatorSelection"]["userVerification"], "required");
    assert_eq!(asked["authenticatorSelection"]["residentKey"], "required");
    let (mut passkey, made) = sign_up(&server);
    let account = get(&server, key(&made), "/v1/account").json();
    assert_eq!((&account["account"], &account["book"]), (&made["account"], &json!("test")));
    // What an account of a link begins with, and no more.
    assert_eq!(account["balance"]["available_nano_usd"], 1_000_000_000_000u64);
    let asked = begin_sign_in(&server);
    let asked = options(&asked);
    assert_eq!((&asked["rpId"], &asked["allowCredentials"]), (&json!("localhost"), &json!([])));
    assert_eq!(asked["userVerification"], "required");
    let now = UnixMs::now();
    let entered = sign_in(&server, &mut passkey);
    assert_eq!((entered.status, entered.header("cache-control")), (201, "no-store"));
    let entered = entered.json();
    assert_eq!(entered["account"], made["account"]);
    let ends = UnixMs::parse(entered["expires_at"].as_str().expect("text")).expect("a time");
    assert!((ends.0 - now.0 - SESSION_MS).abs() < 60_000, "{ends:?}");
    assert_eq!(get(&server, key(&entered), "/v1/account").json(), account);
    // It stands among the others, and ends like them.
    let keys = get(&server, key(&made), "/v1/keys").json();
    let listed = &keys["keys"][0];
    assert_eq!((&listed["id"], &listed["expires_at"]), (&entered["id"], &entered["expires_at"]));
    let path = format!("/v1/keys/{}", entered["id"].as_str().expect("an id"));
    assert_eq!(server.ask(key(&entered), "DELETE", &path, &Value::Null).status, 204);
    get(&server, key(&entered), "/v1/account").problem(401);
    let code = json!({ "code": made["recovery_code"] });
    assert_eq!(post(&server, "/v1/recover", &code).status, 201);
}

#[test]
fn real_money_begins_at_nothing() {
    let server = start();
    let made = sign_up_with(&server, &mut Passkey::new(PLACE), "live").json();
    assert!(key(&made).starts_with("rk_live_"));
    let balance = &get(&server, key(&made), "/v1/account").json()["balance"];
    assert_eq!(balance["available_nano_usd"], 0);
    let refused = sign_up_with(&server, &mut Passkey::new(PLACE), "play").problem(422);
    assert_eq!(refused["field"], "book");
}

/// Makes a browser or a device say something else.
type Twist = fn(&mut Passkey);

/// What is wrong with one, and what it is told.
const TWISTS: [(Twist, &str); 14] = [
    (|it| it.client = json!({"type": "payment.get"}), "passkey-type"),
    (|it| it.client = json!({"challenge": encode(&[7; 32])}), "passkey-challenge"),
    (|it| it.client = json!({"challenge": "AAAA"}), "passkey-challenge"),
    (|it| it.client = json!({"challenge": 7}), "passkey-form"),
    (|it| it.origin = "http://localhost:8081".into(), "passkey-origin"),
    (|it| it.origin = "http://localhost.example".into(), "passkey-origin"),
    (|it| it.client = json!({"crossOrigin": true}), "passkey-origin"),
    (|it| it.client = json!({"topOrigin": "https://x.example"}), "passkey-origin"),
    (|it| it.rp_id = "example.org".into(), "passkey-relying-party"),
    (|it| it.flags = PRESENT, "passkey-verification"),
    (|it| it.flags = VERIFIED, "passkey-verification"),
    (|it| it.flags |= BACKED_UP, "passkey-form"),
    (|it| it.tail = vec![0xa0], "passkey-form"),
    (
        |it| {
            it.flags |= EXTENDED;
            it.tail = vec![0xa0, 0];
        },
        "passkey-form",
    ),
];

#[test]
fn an_answer_that_does_not_hold_is_refused_by_its_name() {
    let server = start();
    let (mut passkey, _) = sign_up(&server);
    for (at, (twist, name)) in TWISTS.into_iter().enumerate() {
        let mut other = Passkey::new(PLACE);
        twist(&mut other);
        let refused = sign_up_with(&server, &mut other, "test").problem(422);
        assert_eq!(kind(&refused), name, "sign-up {at}: {refused}");
        let (flags, rp_id, origin) = (passkey.flags, passkey.rp_id.clone(), passkey.origin.clone());
        twist(&mut passkey);
        let refused = sign_in(&server, &mut passkey).problem(401);
        assert_eq!(kind(&refused), name, "sign-in {at}: {refused}");
        assert!(refused["field"].as_str().is_some_and(|field| field.starts_with("credential.")));
        (passkey.flags, passkey.rp_id, passkey.origin) = (flags, rp_id, origin);
        (passkey.client, passkey.tail) = (json!({}), Vec::new());
    }
    // What an authenticator adds without being asked is read over.
    passkey.flags |= EXTENDED;
    passkey.tail = vec![0xa1, 0x61, b'x', 0xf5];
    assert_eq!(sign_in(&server, &mut passkey).status, 201);
}

#[test]
fn a_challenge_is_good_once_and_for_what_it_was_given_for() {
    let server = start();
    let (mut passkey, made) = sign_up(&server);
    let begun = begin_sign_in(&server);
    let credential = passkey.get(options(&begun));
    assert_eq!(finish_sign_in(&server, &credential).status, 201);
    let used = finish_sign_in(&server, &credential).problem(401);
    assert_eq!(kind(&used), "passkey-challenge");
    let again = passkey.get(options(&begun));
    assert_eq!(kind(&finish_sign_in(&server, &again).problem(401)), "passkey-challenge");
    // One for signing up, for signing in, and for adding to an account, each for the others.
    let wish = json!({"name": "x"});
    let to_sign_up = post(&server, "/v1/passkeys/sign-up", &wish).json();
    let to_add = server.ask(key(&made), "POST", "/v1/account/passkeys/begin", &wish).json();
    let mut to_sign_in = begin_sign_in(&server);
    for begun in [&to_sign_up, &to_add] {
        let refused = finish_sign_in(&server, &passkey.get(options(begun))).problem(401);
        assert_eq!(kind(&refused), "passkey-challenge");
    }
    to_sign_in["options"]["user"] = json!({"id": "AAAA"});
    for (begun, path, key) in [
        (&to_sign_in, "/v1/passkeys/sign-up/finish", "none"),
        (&to_add, "/v1/passkeys/sign-up/finish", "none"),
        (&to_sign_up, "/v1/account/passkeys", key(&made)),
        (&to_add, "/v1/account/passkeys", &server.key),
    ] {
        let credential = Passkey::new(PLACE).create(options(begun));
        let body = json!({"name": "x", "credential": credential});
        let refused = server.ask(key, "POST", path, &body).problem(422);
        assert_eq!(kind(&refused), "passkey-challenge", "{path}");
    }
    // The same new passkey twice: its challenge is used, whatever else there is.
    let credential = Passkey::new(PLACE).create(options(&to_sign_up));
    let body = json!({"name": "x", "credential": credential});
    assert_eq!(post(&server, "/v1/passkeys/sign-up/finish", &body).status, 201);
    post(&server, "/v1/passkeys/sign-up/finish", &body).problem(422);
}

#[test]
fn nobody_signs_in_with_what_is_somebody_elses() {
    let server = start();
    let ((mut ann, _), (mut ben, _)) = (sign_up(&server), sign_up(&server));
    let stranger = sign_in(&server, &mut Passkey::new(PLACE)).problem(401);
    assert_eq!((kind(&stranger), &stranger["field"]), ("passkey-unknown", &json!("credential.id")));
    // Ben's signature under Ann's name, wholly and with his own account.
    let (own_id, own_user) = (ben.id.clone(), ben.user.clone());
    (ben.id, ben.user) = (ann.id.clone(), ann.user.clone());
    assert_eq!(kind(&sign_in(&server, &mut ben).problem(401)), "passkey-signature");
    ben.user = own_user;
    assert_eq!(kind(&sign_in(&server, &mut ben).problem(401)), "passkey-user");
    (ben.id, ben.user) = (own_id, ann.user.clone());
    assert_eq!(kind(&sign_in(&server, &mut ben).problem(401)), "passkey-user");
    for field in ["signature", "authenticatorData", "clientDataJSON"] {
        let mut credential = ann.get(options(&begin_sign_in(&server)));
        let text = credential["response"][field].as_str().expect("text");
        let last = if field == "clientDataJSON" { text.len() - 20 } else { text.len() - 6 };
        let other = if &text[last..=last] == "A" { "B" } else { "A" };
        let changed = format!("{}{other}{}", &text[..last], &text[last + 1..]);
        credential["response"][field] = json!(changed);
        let refused = finish_sign_in(&server, &credential).problem(401);
        assert!(["passkey-signature", "passkey-form", "passkey-origin"].contains(&kind(&refused)));
    }
    // A passkey that is an account's already is no other one's, nor the same one's again.
    let mut copy = Passkey::new(PLACE);
    copy.id = ann.id.clone();
    assert_eq!(kind(&sign_up_with(&server, &mut copy, "test").problem(409)), "passkey-taken");
    let refused = add(&server, &server.key, &mut copy).problem(409);
    assert_eq!(kind(&refused), "passkey-taken");
    assert_eq!(sign_in(&server, &mut ann).status, 201);
}

#[test]
fn a_passkey_that_counts_backwards_was_copied() {
    let server = start();
    let mut passkey = Passkey::new(PLACE);
    passkey.count = 5;
    assert_eq!(sign_up_with(&server, &mut passkey, "test").status, 201);
    assert_eq!(sign_in(&server, &mut passkey).status, 201);
    for count in [5, 3] {
        passkey.count = count;
        let refused = sign_in(&server, &mut passkey).problem(401);
        assert_eq!((kind(&refused), &refused["limit"]), ("passkey-count", &json!(6)));
        assert_eq!(refused["found"], count + 1);
    }
    passkey.count = 0;
    assert_eq!(kind(&sign_in(&server, &mut passkey).problem(401)), "passkey-count");
    passkey.count = 6;
    assert_eq!(sign_in(&server, &mut passkey).status, 201);
    // Whether it may be on several devices does not change.
    passkey.flags |= ELIGIBLE;
    assert_eq!(kind(&sign_in(&server, &mut passkey).problem(401)), "passkey-backup");
}

#[test]
fn what_is_too_long_or_no_base64url_is_refused_by_its_field() {
    let server = start();
    let (mut passkey, _) = sign_up(&server);
    let good = passkey.get(options(&begin_sign_in(&server)));
    for (field, most) in [
        ("clientDataJSON", 4096usize),
        ("authenticatorData", 4096),
        ("signature", 1024),
        ("userHandle", 64),
    ] {
        let mut credential = good.clone();
        credential["response"][field] = json!("A".repeat(most.div_ceil(3) * 4 + 4));
        let refused = finish_sign_in(&server, &credential).problem(422);
        assert_eq!(refused["field"], format!("credential.response.{field}"));
        assert_eq!(refused["limit"], most, "{refused}");
        for text in ["+A==", "A", "Zg=="] {
            credential["response"][field] = json!(text);
            finish_sign_in(&server, &credential).problem(422);
        }
        credential["response"].as_object_mut().expect("an object").remove(field);
        finish_sign_in(&server, &credential).problem(422);
    }
    let mut credential = good.clone();
    credential["id"] = json!("A".repeat(1368));
    assert_eq!(finish_sign_in(&server, &credential).problem(422)["limit"], 1023);
    credential["id"] = json!("A".repeat(2 << 20));
    finish_sign_in(&server, &credential).problem(413);
    let long = json!({"attestationObject": "A".repeat(30_000), "clientDataJSON": ""});
    let body = json!({"name": "x", "credential": {"id": "AA", "response": long}});
    let refused = post(&server, "/v1/passkeys/sign-up/finish", &body).problem(422);
    assert_eq!(refused["field"], "credential.response.attestationObject");
    for name in ["", " ", "a\nb", &"x".repeat(101)] {
        let refused = post(&server, "/v1/passkeys/sign-up", &json!({ "name": name })).problem(422);
        assert_eq!(refused["field"], "name");
        let body = json!({"credential": good, "key_name": name});
        let refused = post(&server, "/v1/passkeys/sign-in/finish", &body).problem(422);
        assert_eq!(refused["field"], "key_name");
    }
    assert_eq!(finish_sign_in(&server, &good).status, 201, "it was used up by none of these");
}

#[test]
fn a_passkey_gives_back_the_account_whose_keys_are_lost() {
    let server = start();
    let (mut passkey, made) = sign_up(&server);
    let begun = begin_sign_in(&server);
    let body = json!({"credential": passkey.get(options(&begun)), "key_name": "after the loss"});
    let found = post(&server, "/v1/passkeys/sign-in/finish", &body).json();
    assert_eq!((&found["account"], &found["expires_at"]), (&made["account"], &Value::Null));
    // It lasts, so it revokes the lost one.
    let keys = get(&server, key(&found), "/v1/keys").json();
    assert_eq!(keys["keys"][0]["name"], "after the loss");
    assert_eq!(keys["keys"][0]["passkey"], made["passkey"], "whoever looks for thieves sees it");
    assert_eq!(keys["keys"][1]["passkey"], Value::Null);
    let path = format!("/v1/keys/{}", keys["keys"][1]["id"].as_str().expect("an id"));
    assert_eq!(server.ask(key(&found), "DELETE", &path, &Value::Null).status, 204);
    get(&server, key(&made), "/v1/account").problem(401);
    // The key that ends makes no key that lasts: that takes the passkey again.
    let session = sign_in(&server, &mut passkey).json();
    let spec = json!({"name": "x"});
    server.ask(key(&session), "POST", "/v1/keys", &spec).problem(403);
}

#[test]
fn an_account_has_several_passkeys_and_keeps_a_way_in() {
    let server = start();
    let (mut laptop, made) = sign_up(&server);
    let session = sign_in(&server, &mut laptop).json();
    let mut phone = Passkey::new(PLACE);
    phone.flags |= ELIGIBLE | BACKED_UP;
    let begun =
        server.ask(key(&session), "POST", "/v1/account/passkeys/begin", &json!({"name": "phone"}));
    let begun = begun.json();
    assert_eq!(options(&begun)["excludeCredentials"][0]["id"], encode(&laptop.id));
    let added = confirmed(&server, key(&session), &mut phone, &mut laptop);
    assert_eq!(added.status, 201, "{}", added.text());
    let added = added.json();
    assert_eq!(added["confirmed_by"], made["passkey"]);
    assert_eq!((&added["name"], &added["synced"]), (&json!("phone"), &json!(true)));
    assert_eq!(added["added_by"], session["id"]);
    assert_eq!(phone.user, laptop.user, "an account has one name among passkeys");
    let of_phone = sign_in(&server, &mut phone).json();
    assert_eq!(of_phone["account"], made["account"]);
    let listed = get(&server, key(&of_phone), "/v1/account/passkeys").json();
    let names: Vec<&Value> =
        listed["passkeys"].as_array().expect("a list").iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["phone", "laptop"]);
    assert!(listed["passkeys"][0]["last_used"].is_string());
    // What the lost one gave ends with it, and what that made; the others go on.
    let spec = json!({"name": "x", "expires_at": session["expires_at"]});
    let child = server.ask(key(&session), "POST", "/v1/keys", &spec);
    assert_eq!(child.status, 201, "{}", child.text());
    assert_eq!(remove(&server, key(&of_phone), &made["passkey"]).status, 204);
    remove(&server, key(&of_phone), &made["passkey"]).problem(404);
    for gone in [key(&session), key(&child.json())] {
        get(&server, gone, "/v1/account").problem(401);
    }
    assert_eq!(kind(&sign_in(&server, &mut laptop).problem(401)), "passkey-unknown");
    // The last one stays, unless somebody asks who has a key that lasts.
    let refused = remove(&server, key(&of_phone), &added["id"]).problem(409);
    assert_eq!(kind(&refused), "last-way-in");
    assert_eq!(sign_in(&server, &mut phone).status, 201);
    assert_eq!(remove(&server, key(&made), &added["id"]).status, 204);
    // And a passkey that was removed comes back to nobody.
    assert_eq!(kind(&add(&server, key(&made), &mut phone).problem(409)), "passkey-taken");
    for id in ["x", "passkey_1", "passkey_00000000000000ff"] {
        remove(&server, key(&made), &json!(id)).problem(404);
    }
}

#[test]
fn only_a_key_that_may_do_everything_and_lasts_adds_a_passkey() {
    let server = start();
    let wish = json!({"name": "x"});
    let begin = |key: &str| server.ask(key, "POST", "/v1/account/passkeys/begin", &wish);
    let make = |spec: Value| {
        let made = server.post("/v1/keys", &spec).json();
        made["key"].as_str().expect("a key").to_owned()
    };
    let some = make(json!({"name": "x", "scopes": ["account", "keys"]}));
    assert_eq!(kind(&begin(&some).problem(403)), "scope");
    get(&server, &some, "/v1/account/passkeys").problem(403);
    get(&server, "none", "/v1/account/passkeys").problem(401);
    let short = make(json!({"name": "x", "expires_at": "2999-01-01T00:00:00Z"}));
    assert!(begin(&short).problem(403)["detail"].as_str().is_some_and(|text| text.contains("end")));
    // Nor where another one has added one, without its word.
    let begun = begin(&server.key).json();
    assert_eq!(begun["confirm"], Value::Null, "a key that lasts needs nobody's");
    assert_eq!(
        add(&server, &server.key, &mut Passkey::new(PLACE)).json()["confirmed_by"],
        Value::Null
    );
    // Nor by a challenge that another key was given.
    let begun = begin(&server.key).json();
    let credential = Passkey::new(PLACE).create(options(&begun));
    let body = json!({"name": "x", "credential": credential});
    server.ask(&short, "POST", "/v1/account/passkeys", &body).problem(403);
    for _ in 1..PASSKEYS_MAX {
        assert_eq!(add(&server, &server.key, &mut Passkey::new(PLACE)).status, 201);
    }
    let refused = begin(&server.key).problem(429);
    assert_eq!((kind(&refused), &refused["limit"]), ("quota", &json!(PASSKEYS_MAX)));
    // Another account's is none of this one's.
    let (_, made) = sign_up(&server);
    remove(&server, &server.key, &made["passkey"]).problem(404);
}

#[test]
fn a_code_of_recovery_takes_the_passkeys_with_the_keys() {
    let server = start();
    let (mut passkey, made) = sign_up(&server);
    let code = json!({ "code": made["recovery_code"] });
    let found = post(&server, "/v1/recover", &code).json();
    assert_eq!(kind(&sign_in(&server, &mut passkey).problem(401)), "passkey-unknown");
    let listed = get(&server, key(&found), "/v1/account/passkeys").json();
    assert_eq!(listed["passkeys"], json!([]));
    // So it takes those that a key of such a key added to a sub-account, and nobody else's.
    let make = |key: &str, path: &str| server.ask(key, "POST", path, &json!({"name": "x"})).json();
    let child = make(key(&found), "/v1/accounts");
    let (mut of_thief, mut of_ben) = (Passkey::new(PLACE), Passkey::new(PLACE));
    assert_eq!(add(&server, key(&child), &mut of_thief).status, 201);
    let ben = sign_up_with(&server, &mut of_ben, "test").json();
    let code = json!({ "code": found["recovery_code"] });
    assert_eq!(post(&server, "/v1/recover", &code).status, 201);
    assert_eq!(kind(&sign_in(&server, &mut of_thief).problem(401)), "passkey-unknown");
    assert_eq!(sign_in(&server, &mut of_ben).json()["account"], ben["account"]);
}

#[test]
fn a_closed_sub_account_is_nobodys_to_enter() {
    let server = start();
    let child = server.post("/v1/accounts", &json!({"name": "Ann"})).json();
    let mut passkey = Passkey::new(PLACE);
    assert_eq!(add(&server, key(&child), &mut passkey).status, 201);
    assert_eq!(sign_in(&server, &mut passkey).json()["account"], child["account"]);
    let path = format!("/v1/accounts/{}", child["account"].as_str().expect("text"));
    assert_eq!(server.ask(&server.key, "DELETE", &path, &Value::Null).status, 204);
    assert_eq!(kind(&sign_in(&server, &mut passkey).problem(401)), "passkey-unknown");
}

#[test]
fn who_signs_in_again_and_again_ends_the_oldest_sign_in() {
    let server = start();
    let (mut passkey, made) = sign_up(&server);
    let keys: Vec<String> = (0..=SESSIONS_MAX)
        .map(|_| key(&sign_in(&server, &mut passkey).json()).to_owned())
        .collect();
    get(&server, &keys[0], "/v1/account").problem(401);
    for held in [&*keys[1], &keys[keys.len() - 1], key(&made)] {
        assert_eq!(get(&server, held, "/v1/account").status, 200);
    }
}

#[test]
fn a_passkey_that_vouches_for_itself_is_taken_and_other_vouchers_are_not() {
    let server = start();
    let mut passkey = Passkey::new(PLACE);
    passkey.format = "packed";
    assert_eq!(sign_up_with(&server, &mut passkey, "test").status, 201);
    assert_eq!(sign_in(&server, &mut passkey).status, 201);
    let mut other = Passkey::new(PLACE);
    other.format = "fido-u2f";
    let refused = sign_up_with(&server, &mut other, "test").problem(422);
    assert_eq!(kind(&refused), "passkey-attestation");
}

#[test]
fn passkeys_and_links_count_together_for_a_network() {
    let server = start();
    let (_stop, stopping) = tokio::sync::watch::channel(false);
    let front = Front::new(FrontConfig::default(), stopping);
    let routes = front.before(router(server.app.clone()));
    let ask = |path: &str| {
        let body = json!({"name": "laptop"}).to_string();
        let mut request = axum::http::Request::builder()
            .method("POST")
            .uri(path)
            .body(axum::body::Body::from(body))
            .expect("a request");
        let peer = std::net::SocketAddr::from(([10, 0, 0, 1], 1));
        request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
        server.runtime.block_on(routes.clone().oneshot(request)).expect("answers").status()
    };
    // Refused for its form, and counted all the same.
    assert_eq!(ask("/v1/sign-up"), 422);
    for _ in 0..4 {
        assert_eq!(ask("/v1/passkeys/sign-up"), 200);
    }
    for path in ["/v1/passkeys/sign-up", "/v1/sign-up"] {
        assert_eq!(ask(path), 429);
    }
    assert_eq!(ask("/v1/passkeys/sign-in"), 200, "whoever has an account comes in");
}

#[test]
fn where_nobody_makes_passkeys_or_accounts_of_them_that_is_said() {
    let wish = json!({"name": "laptop"});
    let server = Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.origin = PLACE.into();
    });
    assert_eq!(get(&server, "none", "/v1/passkeys/sign-up").json(), json!({"open": false}));
    assert_eq!(get(&server, "none", "/v1/passkeys/sign-in").json(), json!({"open": true}));
    post(&server, "/v1/passkeys/sign-up", &wish).problem(404);
    let mut passkey = Passkey::new(PLACE);
    assert_eq!(add(&server, &server.key, &mut passkey).status, 201);
    assert_eq!(sign_in(&server, &mut passkey).status, 201);
    let nameless = Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.origin = "http://127.0.0.1:8080".into();
        settings.accounts.passkeys = true;
    });
    for (path, body) in [("sign-up", &wish), ("sign-in", &Value::Null)] {
        let path = format!("/v1/passkeys/{path}");
        assert_eq!(get(&nameless, "none", &path).json(), json!({"open": false}));
        assert_eq!(kind(&post(&nameless, &path, body).problem(404)), "no-passkeys");
    }
    nameless.post("/v1/account/passkeys/begin", &wish).problem(404);
}

#[test]
fn passkeys_outlive_a_process_and_its_challenges_do_not() {
    let server = start();
    let mut passkey = Passkey::new(PLACE);
    assert_eq!(add(&server, &server.key, &mut passkey).status, 201);
    let begun = begin_sign_in(&server);
    let server = server.restart();
    let late = finish_sign_in(&server, &passkey.get(options(&begun))).problem(401);
    assert_eq!(kind(&late), "passkey-challenge");
    assert_eq!(sign_in(&server, &mut passkey).status, 201);
}

/// Every text that differs from `bytes` in one of its bits, or ends early.
fn spoiled(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let changed = (0..bytes.len() * 8).map(|bit| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    changed.chain((0..bytes.len()).map(|length| bytes[..length].to_vec()))
}

#[test]
fn no_answer_with_a_changed_bit_is_the_passkeys() {
    let party = RelyingParty::of(PLACE).expect("a name");
    let read = |value: &Value| decode(value.as_str().expect("text")).expect("base64url");
    let mut passkey = Passkey::new(PLACE);
    passkey.format = "packed";
    let challenge = json!({"challenge": encode(&[7; 32]), "user": {"id": "AAAA"}});
    let made = passkey.create(&challenge);
    let registration = Registration {
        id: passkey.id.clone(),
        client_data: read(&made["response"]["clientDataJSON"]),
        attestation: read(&made["response"]["attestationObject"]),
    };
    let new = party.register(&registration).expect("taken");
    for attestation in spoiled(&registration.attestation) {
        assert!(party.register(&Registration { attestation, ..registration.clone() }).is_err());
    }
    let found = passkey.get(&challenge);
    let assertion = Assertion {
        client_data: read(&found["response"]["clientDataJSON"]),
        authenticator_data: read(&found["response"]["authenticatorData"]),
        signature: read(&found["response"]["signature"]),
        user: passkey.user.clone(),
    };
    let public_key = PublicKey::parse(&new.public_key).expect("a key");
    let known = Known { public_key, user: passkey.user, is_synced: new.is_synced };
    assert!(party.assert(&assertion, &known).is_ok());
    for client_data in spoiled(&assertion.client_data) {
        let assertion = Assertion { client_data, ..assertion.clone() };
        assert!(party.assert(&assertion, &known).is_err());
    }
    for authenticator_data in spoiled(&assertion.authenticator_data) {
        let assertion = Assertion { authenticator_data, ..assertion.clone() };
        assert!(party.assert(&assertion, &known).is_err());
    }
    for signature in spoiled(&assertion.signature) {
        assert!(party.assert(&Assertion { signature, ..assertion.clone() }, &known).is_err());
    }
}
