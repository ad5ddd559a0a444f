//! Links that go to people through a relay that is spoken to under TLS.

use super::mail::{Mood, PACE, Relay, start, until, waiting, wish};
use crate::server::Server;
use crate::support::process::Process;
use crate::support::tls;
use raven_coordinator::authorities;
use raven_coordinator::mail::{Authorities, Login, Outbox, Pace, Relay as Place, Security};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

/// Offers that go on until a test is over.
const PATIENT: Pace = Pace { attempts_max: 10_000, ..PACE };

fn own() -> Authorities {
    Authorities(authorities::read(&tls::authority()).expect("certificates"))
}

/// Hands letters over to a relay behind TLS; dropping the answer ends it.
fn run(
    server: &Server,
    outbox: &Outbox,
    (host, port, security): (&str, u16, Security),
    authorities: &Authorities,
) -> watch::Sender<bool> {
    let (stop, stopping) = watch::channel(false);
    let from = "raven@example.org".parse().expect("an address");
    let place = Place { host: host.into(), port, security, user: Some("raven".into()) };
    let login = Login { user: "raven".into(), password: "secret".into() };
    let _inside = server.runtime.enter();
    let post = outbox.run(&place, authorities, Some(&login), &from, PATIENT, stopping);
    server.runtime.spawn(post.expect("a relay"));
    stop
}

/// A front that speaks TLS before the relay, from the first byte or when it is asked to; its
/// certificate names localhost and 127.0.0.1.
fn front(host: &str, relay: &Relay, security: Security) -> u16 {
    let behind = ([127, 0, 0, 1], relay.port).into();
    match security {
        Security::StartTls => tls::starttls(host, behind),
        Security::Tls | Security::Loopback => tls::proxy(host, behind),
    }
}

#[test]
fn a_relay_that_an_authority_vouches_for_takes_letters_under_tls() {
    for security in [Security::Tls, Security::StartTls] {
        let folder = tempfile::tempdir().expect("a folder");
        let (server, outbox) = start(folder.path());
        let relay = Relay::start(&server, &[Mood::Takes]);
        let port = front("127.0.0.1", &relay, security);
        let _stop = run(&server, &outbox, ("localhost", port, security), &own());
        assert_eq!(wish(&server, "ann@example.com").status, 202);
        until("sent", || relay.letters().len() == 1 && waiting(folder.path()) == 0);
        assert_eq!(relay.commands("AUTH"), ["AUTH PLAIN AHJhdmVuAHNlY3JldA=="], "{security:?}");
        assert_eq!(relay.commands("RCPT"), ["RCPT TO:<ann@example.com>"]);
    }
}

#[test]
fn a_relay_that_nobody_vouches_for_gets_nothing_and_the_letter_waits() {
    for security in [Security::Tls, Security::StartTls] {
        let folder = tempfile::tempdir().expect("a folder");
        let (server, outbox) = start(folder.path());
        let relay = Relay::start(&server, &[Mood::Takes]);
        let port = front("127.0.0.1", &relay, security);
        assert_eq!(wish(&server, "ann@example.com").status, 202);
        // One whose authority browsers do not know, and one with another's name.
        let elsewhere = front("127.0.0.2", &relay, security);
        for (host, port, believed) in
            [("localhost", port, Authorities::default()), ("127.0.0.2", elsewhere, own())]
        {
            let seen = relay.connections();
            let stop = run(&server, &outbox, (host, port, security), &believed);
            until("tried twice", || relay.connections() >= seen + 2);
            stop.send_replace(true);
            for verb in ["AUTH", "MAIL", "RCPT", "DATA"] {
                assert_eq!(relay.commands(verb), [""; 0], "{security:?} {host}");
            }
            assert_eq!((relay.letters().len(), waiting(folder.path())), (0, 1), "{host}");
        }
        // Once the operator says whom to believe it goes out.
        let next = Outbox::open(folder.path()).expect("a folder");
        let _stop = run(&server, &next, ("localhost", port, security), &own());
        until("sent", || relay.letters().len() == 1 && waiting(folder.path()) == 0);
    }
}

#[test]
fn a_coordinator_believes_the_authorities_of_its_settings() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let relay = Relay::start_in(&runtime, &[Mood::Takes]);
    let smtp = format!("smtps://localhost:{}", front("127.0.0.1", &relay, Security::Tls));
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    crate::support::process::warm_cache(&data);
    let arguments =
        ["--listen", "127.0.0.1:0", "--smtp", &smtp, "--mail-from", "raven@example.org"];
    let body = json!({ "email": "ann@example.com" });
    // Without them the certificate is nobody's.
    let first = Process::start_with(&data, &arguments);
    let (status, told) = first.call("none", "/v1/sign-up", Some(&body));
    assert_eq!(status, 202, "{told}");
    until("tried", || relay.connections() >= 1);
    std::thread::sleep(Duration::from_millis(300));
    first.terminate();
    assert_eq!((relay.commands("EHLO").len(), waiting(&data.join("letters"))), (0, 1));
    let authority = tls::authority();
    let more = ["--smtp-authorities", authority.to_str().expect("a path")];
    let next = Process::start_with(&data, &[&arguments[..], &more].concat());
    until("sent", || relay.letters().len() == 1 && waiting(&data.join("letters")) == 0);
    next.terminate();
}
