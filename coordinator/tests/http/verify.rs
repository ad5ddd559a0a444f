//! `POST /v1/sites/{id}/verify` against a partner's server on this machine.

use crate::server::Server;
use raven_coordinator::dataset::UploadLimits;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const ORIGIN: &str = "http://127.0.0.1:8080";

/// Serves pages by path until the test ends.
fn partner(pages: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            answer(socket, &pages);
        }
    });
    origin
}

fn answer(mut socket: TcpStream, pages: &impl Fn(&str) -> Vec<u8>) {
    let mut request = [0; 4096];
    let length = socket.read(&mut request).unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..length]);
    let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
    // A reader that has enough hangs up.
    let _ = socket.write_all(&pages(&path));
}

fn page(text: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        text.len()
    );
    [head.as_bytes(), text.as_bytes()].concat()
}

fn head(status: &str, rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{rest}connection: close\r\ncontent-length: 0\r\n\r\n")
        .into_bytes()
}

/// Registers a site and answers its id and tag.
fn register(server: &Server, origins: &[&str]) -> (String, String) {
    let site = server.post("/v1/sites", &json!({"name": "News", "origins": origins}));
    assert_eq!(site.status, 201, "{}", site.text());
    let site = site.json();
    let text = |field: &str| site[field].as_str().expect("text").to_owned();
    (text("id"), text("snippet"))
}

/// Looks at a page of the site, or at the first page of each of its origins.
fn look(server: &Server, id: &str, page: Option<&str>) -> Vec<Value> {
    let body = page.map_or(json!({}), |page| json!({"page": page}));
    let answer = server.post(&format!("/v1/sites/{id}/verify"), &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let pages = answer["pages"].as_array().expect("pages").clone();
    assert_eq!(answer["live"], pages.iter().any(|page| page["result"] == "live"), "{answer}");
    pages
}

#[test]
fn a_page_with_the_tag_is_live_wherever_it_moved() {
    let server = Server::start_at(ORIGIN, UploadLimits::default());
    // The partner learns its tag after it was registered.
    let tag = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let serving = tag.clone();
    let origin = partner(move |path| match path {
        "/" => page(&format!("<h1>News</h1>{}", serving.get().expect("registered"))),
        "/moved" => head("301 Moved", "location: /\r\n"),
        _ => head("404 Not Found", ""),
    });
    let name = origin.replace("127.0.0.1", "news.localhost");
    let (id, snippet) = register(&server, &[&origin, &name]);
    tag.set(snippet).expect("once");
    let live = |url: &str| json!({"url": url, "result": "live", "pinned": false});
    let expected = [live(&format!("{origin}/")), live(&format!("{name}/"))];
    assert_eq!(look(&server, &id, None), expected);
    // A site has its rest, and a repetition its answer.
    let path = format!("/v1/sites/{id}/verify");
    let again = server.post(&path, &json!({})).problem(429);
    assert!(again["type"].as_str().expect("a type").ends_with(":too-soon"), "{again}");
    thread::sleep(Duration::from_secs(5));
    let first = server.post_once(&path, &json!({}), "a look");
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(server.post_once(&path, &json!({}), "a look").body, first.body);
    thread::sleep(Duration::from_secs(5));
    let moved = &look(&server, &id, Some(&format!("{origin}/moved")))[0];
    assert_eq!(
        (&moved["result"], &moved["landed"]),
        (&json!("live"), &json!(format!("{origin}/")))
    );
}

#[test]
fn everything_else_has_its_reason() {
    let server = Server::start_at(ORIGIN, UploadLimits::default());
    let elsewhere = partner(|_| panic!("asked"));
    let other = format!("<script src={ORIGIN}/embed/raven.js?site=pk_test_x></script>");
    let slow = |_: &str| {
        thread::sleep(Duration::from_secs(30));
        Vec::new()
    };
    let cases = [
        (partner(|_| page("<p>no tag</p>")), "no_tag", ""),
        (partner(move |_| page(&other)), "other_key", ""),
        (
            partner(move |_| head("302 Found", &format!("location: {elsewhere}/\r\n"))),
            "unread",
            "not_registered",
        ),
        (partner(|_| head("302 Found", "location: /\r\n")), "unread", "too_many_redirects"),
        (partner(|_| head("200 OK", "content-type: image/png\r\n")), "unread", "not_html"),
        (partner(|_| head("410 Gone", "content-type: text/html\r\n")), "unread", "bad_status"),
        (partner(|_| b"nonsense\r\n\r\n".to_vec()), "unread", "unreachable"),
        (partner(|_| page(&"<p>x".repeat(600_000))), "no_tag", ""),
        (partner(slow), "unread", "timed_out"),
        // Nobody listens there.
        ("http://127.0.0.1:1".to_owned(), "unread", "unreachable"),
    ];
    let origins: Vec<&str> = cases.iter().map(|(origin, ..)| origin.as_str()).collect();
    let (id, _) = register(&server, &origins);
    let started = Instant::now();
    let found = look(&server, &id, None);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(found.len(), cases.len());
    for ((_, result, reason), found) in cases.iter().zip(&found) {
        assert_eq!(found["result"], *result, "{found}");
        assert_eq!(found["reason"].as_str().unwrap_or(""), *reason, "{found}");
    }
    assert_eq!(found[7]["cut_off"], true, "{}", found[7]);
}

#[test]
fn a_public_coordinator_asks_no_private_address() {
    let server = Server::start();
    let origin = partner(|_| panic!("asked"));
    let secure = origin.replace("http", "https");
    let (id, _) = register(&server, &[&secure, &origin, "https://x.localhost:1"]);
    let found = look(&server, &id, None);
    let reasons: Vec<_> = found.iter().map(|page| &page["reason"]).collect();
    assert_eq!(reasons, ["address_refused", "not_https", "address_refused"]);
}

#[test]
fn only_pages_of_ones_own_sites_are_looked_at() {
    let server = Server::start_at(ORIGIN, UploadLimits::default());
    let (id, _) = register(&server, &["http://127.0.0.1:9"]);
    let path = format!("/v1/sites/{id}/verify");
    for page in ["http://127.0.0.1:10/", "nonsense"] {
        assert_eq!(
            server.post(&path, &json!({"page": page})).problem(422)["field"],
            "page",
            "{page}"
        );
    }
    server.post(&path, &json!({"pages": []})).problem(422);
    server.post("/v1/sites/site_0000000000000001/verify", &json!({})).problem(404);
    server.post("/v1/sites/x/verify", &json!({})).problem(404);
    server.post(&path, &json!({"page": "x".repeat(1 << 20)})).problem(413);
    let url = server.url(&path);
    let anonymous = ureq::post(&url).config().http_status_as_error(false).build().send("{}");
    assert_eq!(anonymous.expect("an answer").status(), 401);
}
