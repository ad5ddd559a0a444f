//! Accounts for people, by a link in a message.

use crate::server::{Answer, ORIGIN, Server};
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::front::{Front, FrontConfig};
use raven_coordinator::http::router;
use raven_coordinator::mail::{FolderMailer, Mailer};
use raven_coordinator::secret::{Secret, SecretKind};
use raven_coordinator::store::{Book, LINK_MS, SignUp};
use raven_coordinator::time::UnixMs;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt as _;

/// A server that writes mail to a folder.
fn start(folder: &tempfile::TempDir) -> Server {
    let mailer = FolderMailer::open(folder.path()).expect("a folder");
    Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.accounts.mailer = Some(Arc::new(mailer) as Arc<dyn Mailer>);
    })
}

/// The messages so far, oldest first.
fn messages(folder: &tempfile::TempDir) -> Vec<String> {
    let files = std::fs::read_dir(folder.path()).expect("a folder");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).expect("text")).collect()
}

fn wish(server: &Server, body: &Value) -> Answer {
    server.ask("none", "POST", "/v1/sign-up", body)
}

/// The path of the link in a message.
fn link(message: &str) -> String {
    let url = message.lines().find(|line| line.starts_with(ORIGIN)).expect("a link");
    url.strip_prefix(ORIGIN).expect("a path").trim().to_owned()
}

#[test]
fn a_link_makes_an_account_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder);
    assert_eq!(wish(&server, &json!({"email": "Ann@example.org"})).status, 202);
    let message = messages(&folder).pop().expect("a message");
    assert!(message.starts_with("To: Ann@example.org\r\n"), "{message}");
    let path = link(&message);
    // Looking at it is not following it: mail is read by programs too.
    for _ in 0..2 {
        let page = server.ask("none", "GET", &path, &Value::Null);
        assert_eq!((page.status, page.header("cache-control")), (200, "no-store"));
        assert!(page.header("content-security-policy").contains("form-action 'self'"));
        assert!(page.text().contains("<form method=\"post\">"));
    }
    let made = server.ask("none", "POST", &path, &Value::Null);
    assert_eq!((made.status, made.header("cache-control")), (201, "no-store"));
    let made = made.json();
    let key = made["key"].as_str().expect("a key");
    let account = server.ask(key, "GET", "/v1/account", &Value::Null).json();
    assert_eq!((&account["account"], &account["book"]), (&made["account"], &json!("test")));
    let code = json!({ "code": made["recovery_code"] });
    assert_eq!(server.ask("none", "POST", "/v1/recover", &code).status, 201);
    server.ask("none", "POST", &path, &Value::Null).problem(404);
}

#[test]
fn who_lost_the_answer_follows_the_link_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder);
    wish(&server, &json!({"email": "ann@example.org"}));
    let path = link(&messages(&folder)[0]);
    let follow = || server.ask("none", "POST", &path, &Value::Null);
    let (lost, found) = (follow().json(), follow().json());
    assert_eq!(lost["account"], found["account"]);
    let show = |made: &Value| {
        let key = made["key"].as_str().expect("a key");
        server.ask(key, "GET", "/v1/account", &Value::Null)
    };
    show(&lost).problem(401);
    let code = json!({ "code": lost["recovery_code"] });
    server.ask("none", "POST", "/v1/recover", &code).problem(401);
    assert_eq!(show(&found).status, 200);
    // Whoever has used the key has got it.
    follow().problem(404);
    let code = json!({ "code": found["recovery_code"] });
    assert_eq!(server.ask("none", "POST", "/v1/recover", &code).status, 201);
}

#[test]
fn one_network_asks_for_five_accounts_in_fifteen_minutes() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder);
    let (_stop, stopping) = tokio::sync::watch::channel(false);
    let front = Front::new(FrontConfig::default(), stopping);
    let routes = front.before(router(server.app.clone()));
    let ask = |network: u8, method: &str, at: usize| {
        let body = json!({"email": format!("ann{at}@example.org")}).to_string();
        let mut request = axum::http::Request::builder()
            .method(method)
            .uri("/v1/sign-up")
            .header("content-type", "application/json")
            .body(axum::body::Body::from(body))
            .expect("a request");
        let peer = std::net::SocketAddr::from(([10, 0, network, at as u8], 1));
        request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
        server.runtime.block_on(routes.clone().oneshot(request)).expect("answers")
    };
    for at in 0..5 {
        assert_eq!(ask(1, "POST", at).status(), 202);
    }
    let refused = ask(1, "POST", 5);
    assert_eq!(refused.status(), 429);
    let seconds = refused.headers()["retry-after"].to_str().expect("text");
    assert!((100..=181).contains(&seconds.parse::<u64>().expect("seconds")), "{seconds}");
    assert_eq!(messages(&folder).len(), 5);
    assert_eq!(ask(2, "POST", 6).status(), 202, "another network's");
    assert_eq!(ask(1, "GET", 0).status(), 200, "other requests go on");
}

#[test]
fn who_has_an_account_is_told_by_mail_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder);
    let first = wish(&server, &json!({"email": "ann@example.org", "book": "live"}));
    let path = link(&messages(&folder)[0]);
    let made = server.ask("none", "POST", &path, &Value::Null).json();
    assert!(made["key"].as_str().is_some_and(|key| key.starts_with("rk_live_")), "{made}");
    let again = wish(&server, &json!({"email": "ANN@example.org"}));
    assert_eq!((again.status, again.json()), (first.status, first.json()));
    let messages = messages(&folder);
    assert_eq!(messages.len(), 2);
    assert!(messages[1].contains("which has one") && !messages[1].contains("su_"));
}

#[test]
fn an_address_is_sent_three_links_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder);
    for _ in 0..5 {
        assert_eq!(wish(&server, &json!({"email": "ann@example.org"})).status, 202);
    }
    assert_eq!(messages(&folder).len(), 3);
    // The others are good for nothing once one was followed.
    let paths: Vec<String> = messages(&folder).iter().map(|message| link(message)).collect();
    assert_eq!(server.ask("none", "POST", &paths[1], &Value::Null).status, 201);
    for path in [&paths[0], &paths[2]] {
        server.ask("none", "POST", path, &Value::Null).problem(404);
    }
}

#[test]
fn a_link_is_good_for_fifteen_minutes() {
    let server = Server::start();
    let store = &server.app.store;
    let (token, code) =
        (Secret::generate(SecretKind::SignUp), Secret::generate(SecretKind::Recovery));
    let email = "ann@example.org".parse().expect("an address");
    server.runtime.block_on(async {
        let begun = store.begin_sign_up(&email, Book::Test, &token, UnixMs(1)).await;
        assert_eq!(begun.expect("noted"), SignUp::Link);
        let late = store.finish_sign_up(&token, &code, UnixMs(1 + LINK_MS)).await;
        assert!(late.expect("readable").is_none());
        let early = store.finish_sign_up(&token, &code, UnixMs(LINK_MS)).await;
        assert!(early.expect("readable").is_some());
    });
}

#[test]
fn what_is_no_address_is_refused_and_where_there_is_no_mail_so_is_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder);
    for (body, field) in [
        (json!({"email": "ann"}), "email"),
        (json!({"email": "a@x.org\nBcc: b@x.org"}), "email"),
        (json!({"email": "a@x.org", "book": "play"}), "book"),
    ] {
        assert_eq!(wish(&server, &body).problem(422)["field"], field, "{body}");
    }
    assert!(messages(&folder).is_empty());
    server.ask("none", "GET", "/v1/sign-up/su_x", &Value::Null).problem(422);
    let closed = Server::start();
    wish(&closed, &json!({"email": "ann@example.org"})).problem(404);
}
