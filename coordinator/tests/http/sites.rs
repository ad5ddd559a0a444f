//! A partner's sites: proofs of their origins, switches, the funnel, earnings and the
//! estimator, against a partner's server and a name server on this machine.

use crate::server::{ORIGIN, Server};
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::http::upkeep;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::runtime::SessionRecord;
use raven_coordinator::store::{Book, parse_site};
use raven_coordinator::time::UnixMs;
use raven_coordinator::verify::{Resolvers, Verifier};
use raven_coordinator::work_token::{self, TokenError};
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::{NanoUsd, PicoUsd};
use raven_engine::rates::Rates;
use raven_engine::{ContributorId, NetworkPrefix};
use raven_protocol::{Device, DeviceClass, KernelId, NumericClass, SessionId};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const LOCAL: &str = "http://127.0.0.1:8080";
const DAY_MS: i64 = 86_400_000;

/// A server with one file that can be changed; anything else is not there.
fn partner(path: &'static str, text: Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut request = [0; 2048];
            let length = socket.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let text = text.lock().expect("no panic").clone();
            let answer = match request.split(' ').nth(1) == Some(path) && !text.is_empty() {
                true => format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n{text}",
                    text.len()
                ),
                false => "HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
            };
            let _ = socket.write_all(answer.as_bytes());
        }
    });
    origin
}

/// A name server with one TXT record for every name.
fn name_server(record: Arc<Mutex<String>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut query) {
            let record = record.lock().expect("no panic").clone();
            let mut answer = query[..length].to_vec();
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            answer[6..8].copy_from_slice(&[0, 1]);
            answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
            answer.extend((record.len() as u16 + 1).to_be_bytes());
            answer.push(record.len() as u8);
            answer.extend(record.as_bytes());
            let _ = socket.send_to(&answer, peer);
        }
    });
    address
}

/// Registers a site; answers its id and key.
fn register(server: &Server, origins: &[&str]) -> (String, String) {
    let site = server.post("/v1/sites", &json!({"name": "News", "origins": origins}));
    assert_eq!(site.status, 201, "{}", site.text());
    let site = site.json();
    let text = |field: &str| site[field].as_str().expect("text").to_owned();
    (text("id"), text("site_key"))
}

fn prove(server: &Server, id: &str) -> Value {
    // A site has its rest between two looks.
    let answer = (0..20).find_map(|_| {
        let answer = server.post(&format!("/v1/sites/{id}/prove"), &json!({}));
        if answer.status == 429 {
            thread::sleep(Duration::from_millis(500));
        }
        (answer.status != 429).then_some(answer)
    });
    let answer = answer.expect("looked at");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn states(server: &Server, id: &str) -> Vec<String> {
    let site = server.get(&format!("/v1/sites/{id}")).json();
    let origins = site["origins"].as_array().expect("origins").clone();
    origins.iter().map(|origin| origin["state"].as_str().expect("a state").to_owned()).collect()
}

fn look_again(server: &Server, days: i64) {
    let now = UnixMs(UnixMs::now().0 + days * DAY_MS + 1);
    server.runtime.block_on(upkeep::sweep(&server.app, now)).map_err(|_| "failed").expect("swept");
}

#[test]
fn a_file_on_the_origin_proves_it_until_it_was_missing_for_three_days() {
    let server = Server::start_at(LOCAL, UploadLimits::default());
    let file = Arc::new(Mutex::new(String::new()));
    let origin = partner("/.well-known/raven-site.txt", file.clone());
    let live = live_owner(&server);
    let (id, key) = live.register(&server, &[&origin]);
    assert!(key.starts_with("pk_live_"), "{key} earns real money");
    let first = live.prove(&server, &id);
    assert_eq!((&first["proven"], &first["file_text"]), (&json!(false), &json!(key)));
    assert_eq!(first["dns_text"], format!("raven-site={key}"));
    let looked = &first["origins"][0]["looked"];
    assert_eq!(looked["file"]["reason"], "bad_status", "{first}");
    assert_eq!(looked["dns"]["result"], "not_asked", "an address has no records");
    *file.lock().expect("no panic") = format!("pk_test_other\n{key}x\n");
    assert_eq!(live.prove(&server, &id)["origins"][0]["looked"]["file"]["result"], "no_key");
    *file.lock().expect("no panic") = format!("pk_test_other\r\n  {key} \r\n");
    let proven = live.prove(&server, &id);
    assert_eq!((&proven["proven"], &proven["origins"][0]["by"]), (&json!(true), &json!("file")));
    assert_eq!(live.state(&server, &id), ["proven"]);
    // A day later the file is gone; two looks are forgiven, and one that finds it forgets them.
    let gone = std::mem::take(&mut *file.lock().expect("no panic"));
    look_again(&server, 1);
    look_again(&server, 2);
    assert_eq!(live.state(&server, &id), ["proven"]);
    *file.lock().expect("no panic") = gone;
    look_again(&server, 3);
    file.lock().expect("no panic").clear();
    for day in 4..6 {
        look_again(&server, day);
        assert_eq!(live.state(&server, &id), ["proven"], "day {day}");
    }
    look_again(&server, 6);
    assert_eq!(live.state(&server, &id), ["lapsed"]);
}

/// The owner of a live key: nothing counts as proven by itself.
struct Live(String);

fn live_owner(server: &Server) -> Live {
    let key = ApiKey::generate(KeyMode::Live);
    server.runtime.block_on(server.app.store.add_key(&key)).expect("a key");
    Live(key.reveal().to_owned())
}

impl Live {
    fn ask(
        &self,
        server: &Server,
        method: &str,
        path: &str,
        body: &Value,
    ) -> crate::server::Answer {
        let text = body.to_string();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(server.url(path))
            .header("authorization", format!("Bearer {}", self.0));
        let request = request.body(text.into_bytes()).expect("a request");
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let answer = ureq::Agent::new_with_config(config).run(request).expect("answers");
        let (parts, mut body) = answer.into_parts();
        let body = body.read_to_vec().expect("a body");
        crate::server::Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn register(&self, server: &Server, origins: &[&str]) -> (String, String) {
        let spec = json!({"name": "News", "origins": origins});
        let site = self.ask(server, "POST", "/v1/sites", &spec).json();
        let text = |field: &str| site[field].as_str().expect("text").to_owned();
        (text("id"), text("site_key"))
    }

    fn prove(&self, server: &Server, id: &str) -> Value {
        loop {
            let answer = self.ask(server, "POST", &format!("/v1/sites/{id}/prove"), &json!({}));
            match answer.status {
                429 => thread::sleep(Duration::from_millis(500)),
                200 => return answer.json(),
                _ => panic!("{}", answer.text()),
            }
        }
    }

    fn state(&self, server: &Server, id: &str) -> Vec<String> {
        let site = self.ask(server, "GET", &format!("/v1/sites/{id}"), &json!({})).json();
        let origins = site["origins"].as_array().expect("origins").clone();
        origins.iter().map(|it| it["state"].as_str().expect("a state").to_owned()).collect()
    }
}

#[test]
fn the_later_proof_of_one_origin_wins() {
    let server = Server::start_at(LOCAL, UploadLimits::default());
    let file = Arc::new(Mutex::new(String::new()));
    let origin = partner("/.well-known/raven-site.txt", file.clone());
    let live = live_owner(&server);
    let (first, first_key) = live.register(&server, &[&origin]);
    let (second, second_key) = live.register(&server, &[&origin]);
    *file.lock().expect("no panic") = format!("{first_key}\n{second_key}\n");
    live.prove(&server, &first);
    assert_eq!(
        (live.state(&server, &first), live.state(&server, &second)),
        (vec!["proven".into()], vec!["unproven".into()])
    );
    live.prove(&server, &second);
    assert_eq!(
        (live.state(&server, &first), live.state(&server, &second)),
        (vec!["lapsed".into()], vec!["proven".into()])
    );
}

#[test]
fn a_txt_record_of_the_host_proves_it_on_every_port() {
    let record = Arc::new(Mutex::new("raven-site=pk_test_other".to_owned()));
    let resolvers = Resolvers(vec![name_server(record.clone())]);
    let mut server = Server::start();
    server.app.verifier = Arc::new(Verifier::with_resolvers(resolvers));
    let settings = (*server.app.settings).clone();
    server.serve_with(settings);
    // Nobody has these names, so that only their records can be read.
    let origins = ["https://news.invalid", "https://news.invalid:8443"];
    let (id, key) = register(&server, &origins);
    let looked = prove(&server, &id);
    assert_eq!(looked["origins"][0]["looked"]["dns"]["result"], "no_key", "{looked}");
    assert_eq!(looked["origins"][0]["looked"]["dns_name"], "_raven.news.invalid");
    *record.lock().expect("no panic") = format!("raven-site={key}");
    let proven = prove(&server, &id);
    assert_eq!(proven["proven"], true, "{proven}");
    assert_eq!(states(&server, &id), ["proven", "proven"]);
    assert_eq!(proven["origins"][1]["by"], "dns");
}

#[test]
fn a_public_coordinator_reads_no_proof_from_a_private_address() {
    let server = Server::start();
    let asked = Arc::new(AtomicBool::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let noted = asked.clone();
    thread::spawn(move || {
        for _ in listener.incoming() {
            noted.store(true, Ordering::Relaxed);
        }
    });
    let live = live_owner(&server);
    let origins = [format!("http://{address}"), format!("https://{address}")];
    let (id, _) = live.register(&server, &[&origins[0], &origins[1]]);
    let looked = live.prove(&server, &id);
    let reasons: Vec<&Value> =
        (0..2).map(|at| &looked["origins"][at]["looked"]["file"]["reason"]).collect();
    assert_eq!(reasons, ["not_https", "address_refused"]);
    assert!(!asked.load(Ordering::Relaxed), "nobody was asked");
    assert_eq!(live.state(&server, &id), ["unproven", "unproven"], "a live key has no trials");
}

#[test]
fn pages_of_this_machine_count_for_test_keys() {
    let server = Server::start();
    let origins = ["http://localhost:1", "http://a.localhost:1", "http://[::1]:1", "http://x.test"];
    let (id, _) = register(&server, &origins);
    assert_eq!(states(&server, &id), ["test", "test", "test", "unproven"]);
}

#[test]
fn a_site_is_changed_field_by_field_and_revoked_for_good() {
    let server = Server::start();
    let (id, key) = register(&server, &["https://n.example"]);
    let path = format!("/v1/sites/{id}");
    let change = |body: Value| server.send("PATCH", &path, &[], body.to_string().as_bytes());
    let changed = change(json!({"paused": true, "refused_categories": ["finance", "vision"]}));
    assert_eq!(changed.status, 200, "{}", changed.text());
    let changed = changed.json();
    assert_eq!((&changed["state"], &changed["paused"]), (&json!("paused"), &json!(true)));
    assert_eq!(changed["refused_categories"], json!(["vision", "finance"]));
    // A paused site shows nothing, and its page is told as of an unknown one.
    let frame = format!("/embed/frame.html?site={key}");
    let dark = server.get_with(&frame, &[]);
    assert_eq!(dark.status, 404);
    assert!(dark.header("content-security-policy").ends_with("; frame-ancestors 'none'"));
    assert!(!dark.text().contains("raven-ticket"));
    let changed = change(json!({"paused": false})).json();
    assert_eq!(changed["refused_categories"], json!(["vision", "finance"]), "it stays");
    assert_eq!(server.get_with(&frame, &[]).status, 200);
    let changed = change(json!({"origins": ["https://m.example"], "refused_categories": []}));
    assert_eq!(changed.json()["origins"][0]["origin"], "https://m.example");
    let policy = server.get_with(&frame, &[]).header("content-security-policy").to_owned();
    assert!(policy.ends_with("; frame-ancestors https://m.example"), "{policy}");
    for (body, field) in [
        (json!({"origins": []}), "origins"),
        (json!({"origins": ["https://a.example", "nonsense"]}), "origins[1]"),
        (json!({"refused_categories": ["weapons"]}), "refused_categories[0]"),
        (json!({"paused": "yes"}), "paused"),
        (json!({"name": "x"}), "name"),
    ] {
        assert_eq!(change(body.clone()).problem(422)["field"], field, "{body}");
    }
    // Others see nothing of it and change nothing.
    let live = live_owner(&server);
    for method in ["GET", "PATCH", "DELETE"] {
        assert_eq!(live.ask(&server, method, &path, &json!({})).status, 404, "{method}");
    }
    let sites = server.get("/v1/sites").json();
    assert_eq!(sites["sites"][0]["id"], json!(id));
    assert_eq!(server.send("DELETE", &path, &[], &[]).status, 204);
    assert_eq!(server.send("DELETE", &path, &[], &[]).status, 204);
    assert_eq!(server.get("/v1/sites").json()["sites"], json!([]));
    assert_eq!(server.get(&path).json()["state"], "revoked");
    change(json!({"paused": false})).problem(409);
    server.post(&format!("{path}/prove"), &json!({})).problem(409);
    assert_eq!(server.get_with(&frame, &[]).status, 404);
}

#[test]
fn views_and_blocked_frames_are_counted_by_what_the_browser_tells() {
    let server = Server::start();
    let (id, key) = register(&server, &["https://n.example"]);
    let frame = format!("/embed/frame.html?site={key}");
    let from = |page: &str| server.get_with(&frame, &[("referer", page)]);
    assert_eq!(from("https://n.example/").status, 200);
    assert_eq!(from("https://n.example/a/b?c").status, 200);
    // A page that copied the tag.
    let dark = from("https://copy.example/");
    assert_eq!(dark.status, 404);
    assert!(dark.header("content-security-policy").ends_with("; frame-ancestors 'none'"));
    assert!(!dark.text().contains("raven-ticket"), "no ticket, no fee");
    // The frame itself, for a fresh ticket, tells nothing and is no view.
    assert_eq!(server.get_with(&frame, &[]).status, 200);
    let site = server.get(&format!("/v1/sites/{id}")).json();
    let days = site["days"].as_array().expect("days");
    assert_eq!(days.len(), 1, "{site}");
    let counted = ["views", "blocked", "yes", "worked"].map(|name| days[0][name].clone());
    assert_eq!(counted, [2, 1, 0, 0]);
    // They outlive the process.
    let server = server.restart();
    let site = server.get(&format!("/v1/sites/{id}")).json();
    assert_eq!((&site["days"][0]["views"], &site["days"][0]["blocked"]), (&json!(2), &json!(1)));
}

#[test]
fn a_frame_renews_its_ticket_for_the_page_that_it_was_given_to() {
    let server = Server::start();
    let (id, key) = register(&server, &["https://n.example", "https://m.example"]);
    let (_, other) = register(&server, &["https://o.example"]);
    let ticket_in = |answer: &crate::server::Answer| {
        let page = answer.text();
        let (_, rest) = page.split_once("raven-ticket\" content=\"").expect("a ticket");
        rest.split_once('"').expect("its end").0.to_owned()
    };
    let origin_in = |ticket: &str| ticket.split('.').nth(5).expect("an origin").to_owned();
    let frame = format!("/embed/frame.html?site={key}");
    let first = ticket_in(&server.get_with(&frame, &[("referer", "https://n.example/")]));
    assert_ne!(origin_in(&first), "-");
    let renew = |ticket: &str| server.get_with(&frame, &[("raven-ticket", ticket)]);
    let second = ticket_in(&renew(&first));
    assert_ne!(second, first);
    assert_eq!(origin_in(&second), origin_in(&first));
    // It is no view, and no ticket but one of this site's is renewed.
    let site = server.get(&format!("/v1/sites/{id}")).json();
    assert_eq!(site["days"][0]["views"], 1);
    let of_another = format!("/embed/frame.html?site={other}");
    let forged = first.replace(&origin_in(&first), "-");
    for answer in [
        server.get_with(&of_another, &[("raven-ticket", &first)]),
        renew(&forged),
        renew(""),
        renew("x"),
    ] {
        assert_eq!(answer.status, 404);
        assert!(!answer.text().contains("raven-ticket"));
    }
    let body = json!({"origins": ["https://m.example"]}).to_string();
    let changed = server.send("PATCH", &format!("/v1/sites/{id}"), &[], body.as_bytes());
    assert_eq!(changed.status, 200);
    assert_eq!(renew(&second).status, 404, "the page is not the site's any more");
}

#[test]
fn a_visitors_token_is_good_for_its_site_alone() {
    let server = Server::start();
    let (id, _) = register(&server, &["https://n.example"]);
    let (other, _) = register(&server, &["https://m.example"]);
    let session = SessionRecord {
        session: SessionId(5),
        contributor: ContributorId([1; 32]),
        site: parse_site(&id),
        origin: None,
        ticket: None,
        prefix: NetworkPrefix([0; 16]),
        device: Device { class: DeviceClass::Phone, cores: 1, memory_bytes: 1, flops_per_s: 1 },
        numeric: NumericClass::Cpu { kernel: KernelId([7; 32]) },
        share: 1.0,
        workers: 1,
        refuses: raven_engine::CategorySet::EMPTY,
        view: None,
        receipt: "{}".into(),
        signature: String::new(),
    };
    server.runtime.block_on(server.app.store.session_opened(&session)).expect("stored");
    *server.network.session.lock().expect("no panic") = Some(SessionId(5));
    let ask = |grant: &str| {
        let headers = [("authorization", format!("Bearer {grant}"))];
        let request = ureq::post(server.url("/v1/work-tokens"));
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        let answer = request.config().http_status_as_error(false).build().send_empty();
        let (parts, mut body) = answer.expect("answers").into_parts();
        let body = body.read_to_vec().expect("a body");
        crate::server::Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    };
    assert_eq!(ask("nobody's").status, 401);
    assert_eq!(server.get_with("/v1/work-tokens", &[]).status, 405);
    let answer = ask(crate::server::GRANT);
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    let answer = answer.json();
    let token = answer["token"].as_str().expect("a token").to_owned();
    let check = |id: &str, token: &str| {
        let answer =
            server.post(&format!("/v1/sites/{id}/work-tokens/check"), &json!({"token": token}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let good = check(&id, &token);
    assert_eq!((&good["valid"], &good["work"]), (&json!(true), &answer["work"]));
    assert_eq!(good["work"]["site"], json!(id));
    assert_eq!(good["work"]["visit_calculations"], 0);
    let reason =
        |id: &str, token: &str| check(id, token)["reason"].as_str().unwrap_or("none").to_owned();
    assert_eq!(reason(&other, &token), "other_site");
    let last = if token.ends_with('0') { "1" } else { "0" };
    assert_eq!(reason(&id, &format!("{}{last}", &token[..token.len() - 1])), "tampered");
    assert_eq!(reason(&id, "wt1.x.y"), "malformed");
    // Offline, with nothing but the published key.
    let signer = server.get("/v1/certificate-key").json();
    let signer = signer["public_key"].as_str().expect("a key").parse().expect("a key");
    let site = parse_site(&id).expect("an id");
    assert!(work_token::check(&token, site, &signer, UnixMs::now()).is_ok());
    let later = UnixMs(UnixMs::now().0 + work_token::TOKEN_MS);
    assert_eq!(work_token::check(&token, site, &signer, later), Err(TokenError::Expired));
    let live = live_owner(&server);
    let path = format!("/v1/sites/{id}/work-tokens/check");
    assert_eq!(live.ask(&server, "POST", &path, &json!({"token": token})).status, 404);
}

fn pay(server: &Server, account: Account, name: &str, amount: i64, at: i64, held: bool) {
    let (debit, reason) = (Account::Operator, Reason::PartnerShare);
    let transfer = Transfer { debit, credit: account, amount: NanoUsd(amount), reason };
    let id = EntryId::of("test", &[name.as_bytes()]);
    let action = match held {
        true => Action::Hold { transfer, expires: None },
        false => Action::Post(transfer),
    };
    let entries = [Entry { id, at, action }];
    server.runtime.block_on(server.app.store.enter(Book::Test, &entries)).expect("entered");
}

#[test]
fn earnings_are_by_day_and_as_a_table() {
    let server = Server::start();
    let (id, _) = register(&server, &["https://n.example"]);
    let account = Account::Site(parse_site(&id).expect("an id"));
    let day = |day: i64| day * DAY_MS + 5;
    // 2026-01-01 is day 20454.
    pay(&server, account, "a", 100, day(20_454), false);
    pay(&server, account, "b", 11, day(20_454), true);
    pay(&server, account, "c", 7, day(20_456), false);
    pay(&server, account, "d", 1_000, day(20_457), false);
    let path = format!("/v1/sites/{id}/earnings");
    let span = "?from=2026-01-01&to=2026-01-03";
    let answer = server.get(&format!("{path}{span}")).json();
    let line = |day: &str, available: i64, pending: i64| {
        json!({"day": day, "available_nano_usd": available, "pending_nano_usd": pending,
               "paid_out_nano_usd": 0})
    };
    assert_eq!(answer["days"], json!([line("2026-01-01", 100, 11), line("2026-01-03", 7, 0)]));
    assert_eq!(answer["balance"]["available_nano_usd"], 1_107);
    assert_eq!(answer["balance"]["pending_nano_usd"], 11);
    let csv = server.get(&format!("{path}.csv{span}"));
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(
        csv.text(),
        "day,book,available_nano_usd,pending_nano_usd,paid_out_nano_usd,views,blocked,shown,yes,worked\r\n\
         2026-01-01,test,100,11,0,0,0,0,0,0\r\n2026-01-02,test,0,0,0,0,0,0,0,0\r\n\
         2026-01-03,test,7,0,0,0,0,0,0,0\r\n"
    );
    for (span, field) in [
        ("?from=2026-01-02&to=2026-01-01", "from"),
        ("?from=2025-01-01&to=2026-06-01", "from"),
        ("?from=yesterday", "from"),
        ("?to=2026-02-30", "to"),
    ] {
        assert_eq!(server.get(&format!("{path}{span}")).problem(422)["field"], field, "{span}");
    }
    assert_eq!(server.get("/v1/sites/site_0000000000000001/earnings").status, 404);
}

#[test]
fn an_estimate_is_the_formula_to_the_nano_usd() {
    let server = Server::start();
    let spec = |change: fn(&mut Value)| {
        let mut spec = json!({"page_views": 100_000, "seconds": 90, "yes_rate_ppm": 10_000,
            "share_ppm": 50_000, "devices_ppm": {"desktop": 1_000_000}});
        change(&mut spec);
        server.post("/v1/estimate", &spec)
    };
    let answer = spec(|_| {}).json();
    // 1,000 visitors of the worked example: 900 calculations of 16,000 pico-USD each.
    assert_eq!((&answer["visitors"], &answer["calculations"]), (&json!(1_000), &json!(900_000)));
    assert_eq!(answer["contributors_nano_usd"], 14_400_000);
    assert_eq!(answer["site_nano_usd"], 432_000);
    // At what this coordinator pays.
    let twice = Rates { desktop: PicoUsd(32_000), ..Rates::USUAL };
    let other = Server::start_with_settings(UploadLimits::default(), |it| it.rates = twice);
    let body = json!({"page_views": 100_000, "seconds": 90, "yes_rate_ppm": 10_000,
        "share_ppm": 50_000, "devices_ppm": {"desktop": 1_000_000}});
    let answer = other.post("/v1/estimate", &body).json();
    assert_eq!(answer["contributors_nano_usd"], 28_800_000);
    assert_eq!(answer["assumed"]["desktop"]["pico_usd_per_calculation"], 32_000);
    let most = spec(|it| {
        *it = json!({"page_views": 1_000_000_000_000u64, "seconds": 86_400,
            "yes_rate_ppm": 1_000_000, "share_ppm": 1_000_000, "devices_ppm": {"desktop": 1_000_000}});
    });
    assert_eq!(most.status, 200, "{}", most.text());
    type Change = fn(&mut Value);
    let refused: [(Change, &str); 7] = [
        (|it| it["devices_ppm"] = json!({"server": 1_000_000}), "devices_ppm.server"),
        (|it| it["page_views"] = json!(1_000_000_000_001u64), "page_views"),
        (|it| it["seconds"] = json!(86_401), "seconds"),
        (|it| it["yes_rate_ppm"] = json!(1_000_001), "yes_rate_ppm"),
        (|it| it["share_ppm"] = json!(-1), "share_ppm"),
        (|it| it["devices_ppm"] = json!({"desktop": 1}), "devices_ppm"),
        (|it| it["devices_ppm"] = json!({"toaster": 1_000_000}), "devices_ppm"),
    ];
    for (change, field) in refused {
        let problem = spec(change).problem(422);
        assert!(problem["field"].as_str().expect("a field").starts_with(field), "{problem}");
    }
    assert_eq!(server.app.settings.origin, ORIGIN);
}

#[test]
fn a_revoked_sites_money_is_within_reach_of_whoever_asks_for_revoked_ones() {
    let server = Server::start();
    let register = |name: &str| {
        let spec = json!({"name": name, "origins": ["https://news.example"]});
        server.post("/v1/sites", &spec).json()["id"].clone()
    };
    let (first, second) = (register("First"), register("Second"));
    let path = format!("/v1/sites/{}", first.as_str().expect("an id"));
    assert_eq!(server.send("DELETE", &path, &[], b"").status, 204);
    let listed = |query: &str| {
        let sites = server.get(&format!("/v1/sites{query}")).json()["sites"].clone();
        let sites = sites.as_array().expect("sites").clone();
        sites.iter().map(|site| (site["id"].clone(), site["state"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(listed(""), [(second.clone(), json!("live"))]);
    assert_eq!(listed("?revoked=true"), [(second, json!("live")), (first, json!("revoked"))]);
    server.get("/v1/sites?revoked=x").problem(400);
    for of in ["", "/account", "/account/statement", "/withdrawals", "/earnings", "/earnings.csv"] {
        assert_eq!(server.get(&format!("{path}{of}")).status, 200, "{of}");
    }
}
