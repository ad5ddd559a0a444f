//! What the pages for people ask for besides what programs do.

use crate::server::{Server, WITHDRAWAL_LEAST};
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::http::router;
use raven_coordinator::mail::{FolderMailer, Mailer};
use raven_coordinator::secret::{Secret, SecretKind};
use raven_coordinator::www::Www;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt as _;

/// A server that writes mail to a folder.
fn with_mail(folder: &tempfile::TempDir) -> Server {
    let mailer = FolderMailer::open(folder.path()).expect("a folder");
    Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.accounts.mailer = Some(Arc::new(mailer) as Arc<dyn Mailer>);
    })
}

#[test]
fn a_page_knows_whether_people_may_sign_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let ask = |server: &Server| server.ask("none", "GET", "/v1/sign-up", &Value::Null).json();
    assert_eq!(ask(&with_mail(&folder)), json!({ "open": true }));
    assert_eq!(ask(&Server::start()), json!({ "open": false }));
}

/// The status of a link and where it leads, where the page for people was built.
fn follow(server: &Server, path: &str) -> (u16, String) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("sign-up.html"), "the page").expect("written");
    let mut app = server.app.clone();
    app.www = Arc::new(Www::read(Some(folder.path())).expect("readable"));
    let request = axum::http::Request::builder().uri(path).body(axum::body::Body::empty());
    let asked = router(app).oneshot(request.expect("a request"));
    let answer = server.runtime.block_on(asked).expect("answers");
    let place = answer.headers().get("location").map(|place| place.to_str().expect("text"));
    (answer.status().as_u16(), place.unwrap_or_default().to_owned())
}

#[test]
fn a_link_leads_to_the_page_and_its_token_to_no_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = with_mail(&folder);
    let token = Secret::generate(SecretKind::SignUp);
    let path = format!("/v1/sign-up/{}", token.reveal());
    assert_eq!(follow(&server, &path), (303, format!("/sign-up#{}", token.reveal())));
    assert_eq!(follow(&server, "/sign-up").0, 200);
    // What is no token leads nowhere, and neither does any where nobody may sign up.
    for path in
        ["/v1/sign-up/su_x", "/v1/sign-up/%0d%0aset-cookie:a=b", "/v1/sign-up/%2f%2fe.example"]
    {
        assert_eq!(follow(&server, path), (422, String::new()), "{path}");
    }
    assert_eq!(follow(&Server::start(), &path), (404, String::new()));
    // The page that the server has itself has the button, too.
    let page = server.ask("none", "GET", &path, &Value::Null);
    assert_eq!((page.status, page.header("cache-control")), (200, "no-store"));
}

#[test]
fn lists_of_withdrawals_say_how_much_is_paid_out_at_least() {
    let server = Server::start();
    let site = server.post("/v1/sites", &json!({"name": "a", "origins": ["https://a.example"]}));
    let of_site = format!("/v1/sites/{}/withdrawals", site.json()["id"].as_str().expect("an id"));
    for path in ["/v1/account/withdrawals", &of_site] {
        let listed = server.get(path).json();
        assert_eq!(listed["least_nano_usd"], WITHDRAWAL_LEAST.0, "{path}: {listed}");
        assert_eq!(listed["withdrawals"], json!([]));
    }
}
