//! Links that go to people through a relay: a small one of the test's own, which takes letters,
//! refuses them, asks to come back, or says nothing.

use crate::server::{Answer, ORIGIN, Server};
use crate::support::process::Process;
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::mail::{Authorities, Login, Mailer, Outbox, Pace, Relay as Place, Security};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the relay answers to each letter's reader, in their order; the last one for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Takes,
    Refuses,
    Later,
    /// After `DATA`, when it is too late to be polite.
    DropsAtData,
    Stalls,
    WantsAnotherPassword,
}

#[derive(Debug, Default)]
struct Seen {
    /// Commands of all connections.
    commands: Vec<String>,
    letters: Vec<String>,
    connections: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) port: u16,
    seen: Arc<Mutex<Seen>>,
    moods: Arc<Mutex<Vec<Mood>>>,
}

impl Relay {
    pub(super) fn start(server: &Server, moods: &[Mood]) -> Self {
        Self::start_in(&server.runtime, moods)
    }

    pub(super) fn start_in(runtime: &tokio::runtime::Runtime, moods: &[Mood]) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let moods = Arc::new(Mutex::new(moods.to_vec()));
        let relay = Relay { port, seen: Arc::default(), moods };
        let own = relay.clone();
        runtime.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let relay = own.clone();
                tokio::spawn(async move { relay.speak(socket).await });
            }
        });
        relay
    }

    fn mood(&self) -> Mood {
        let mut moods = self.moods.lock().expect("a lock");
        if moods.len() > 1 { moods.remove(0) } else { moods[0] }
    }

    async fn speak(self, socket: TcpStream) {
        let (read, mut write) = socket.into_split();
        let mut lines = BufReader::new(read).lines();
        let mood = self.mood();
        self.seen.lock().expect("a lock").connections += 1;
        if mood == Mood::Stalls {
            return std::future::pending().await;
        }
        let mut greeting: &[u8] = b"220 relay.test ESMTP\r\n";
        loop {
            if write.write_all(greeting).await.is_err() {
                return;
            }
            let Ok(Some(line)) = lines.next_line().await else { return };
            self.seen.lock().expect("a lock").commands.push(line.clone());
            greeting = match line.split(' ').next().unwrap_or_default() {
                "EHLO" => b"250-relay.test\r\n250 AUTH PLAIN\r\n",
                "AUTH" if mood == Mood::WantsAnotherPassword => b"535 5.7.8 who are you\r\n",
                "AUTH" => b"235 welcome\r\n",
                "RCPT" if mood == Mood::Refuses => b"550 5.1.1 nobody of that name\r\n",
                "RCPT" if mood == Mood::Later => b"451 4.7.1 greylisted, come back\r\n",
                "DATA" if mood == Mood::DropsAtData => return,
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await.expect("written");
                    let mut letter = String::new();
                    while let Ok(Some(line)) = lines.next_line().await {
                        if line == "." {
                            break;
                        }
                        letter.push_str(line.strip_prefix('.').unwrap_or(&line));
                        letter.push('\n');
                    }
                    self.seen.lock().expect("a lock").letters.push(letter);
                    b"250 taken\r\n"
                }
                "QUIT" => b"221 bye\r\n",
                _ => b"250 well\r\n",
            };
        }
    }

    pub(super) fn letters(&self) -> Vec<String> {
        self.seen.lock().expect("a lock").letters.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.lock().expect("a lock").connections
    }

    pub(super) fn commands(&self, verb: &str) -> Vec<String> {
        let seen = self.seen.lock().expect("a lock");
        seen.commands.iter().filter(|line| line.starts_with(verb)).cloned().collect()
    }
}

pub(super) const PACE: Pace = Pace {
    attempts_max: 4,
    first_wait: Duration::from_millis(20),
    stall: Duration::from_millis(400),
};

/// A server whose letters wait in `folder`, and what ends the one who takes them from there.
pub(super) fn start(folder: &Path) -> (Server, Outbox) {
    let outbox = Outbox::open(folder).expect("a folder");
    let mailer = Arc::new(outbox.clone()) as Arc<dyn Mailer>;
    let server = Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.accounts.mailer = Some(mailer);
    });
    (server, outbox)
}

/// Begins to hand letters over; dropping the answer ends it.
fn run(server: &Server, outbox: &Outbox, port: u16, login: Option<&Login>) -> watch::Sender<bool> {
    run_at(PACE, server, outbox, port, login)
}

fn run_at(
    pace: Pace,
    server: &Server,
    outbox: &Outbox,
    port: u16,
    login: Option<&Login>,
) -> watch::Sender<bool> {
    let relay = format!("smtp://127.0.0.1:{port}").parse().expect("a relay");
    run_with(pace, server, outbox, &relay, login)
}

pub(super) fn run_with(
    pace: Pace,
    server: &Server,
    outbox: &Outbox,
    relay: &Place,
    login: Option<&Login>,
) -> watch::Sender<bool> {
    let (stop, stopping) = watch::channel(false);
    let from = "raven@example.org".parse().expect("an address");
    let _inside = server.runtime.enter();
    let post =
        outbox.run(relay, &Authorities::default(), login, &from, pace, stopping).expect("a relay");
    server.runtime.spawn(post);
    stop
}

pub(super) fn wish(server: &Server, email: &str) -> Answer {
    server.ask("none", "POST", "/v1/sign-up", &json!({ "email": email }))
}

pub(super) fn waiting(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_link_comes_by_mail_and_makes_an_account() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, outbox) = start(folder.path());
    let relay = Relay::start(&server, &[Mood::Takes]);
    let login = Login { user: "raven".into(), password: "secret".into() };
    let _stop = run(&server, &outbox, relay.port, Some(&login));
    assert_eq!(wish(&server, "ann@example.com").status, 202);
    until("sent", || relay.letters().len() == 1 && waiting(folder.path()) == 0);
    let letter = &relay.letters()[0];
    let (head, text) = letter.split_once("\n\n").expect("a head");
    for line in ["From: raven@example.org", "To: ann@example.com", "Subject: Your account"] {
        assert_eq!(head.lines().filter(|it| *it == line).count(), 1, "{line}: {head}");
    }
    assert!(head.contains("\nDate: ") && head.contains("@example.org>\n"), "{head}");
    assert_eq!(relay.commands("EHLO"), ["EHLO example.org"]);
    assert_eq!(relay.commands("AUTH"), ["AUTH PLAIN AHJhdmVuAHNlY3JldA=="]);
    assert_eq!(relay.commands("RCPT"), ["RCPT TO:<ann@example.com>"]);
    let link = text.lines().find_map(|line| line.strip_prefix(ORIGIN)).expect("a link");
    assert_eq!(server.ask("none", "POST", link, &Value::Null).status, 201);
}

#[test]
fn whoever_asks_is_told_the_same_whatever_the_relay_says_of_the_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, outbox) = start(folder.path());
    let relay = Relay::start(&server, &[Mood::Takes, Mood::Refuses, Mood::Stalls]);
    let _stop = run(&server, &outbox, relay.port, None);
    let taken = wish(&server, "ann@example.com");
    until("sent", || relay.letters().len() == 1);
    let text = relay.letters()[0].clone();
    let link = text.lines().find_map(|line| line.strip_prefix(ORIGIN)).expect("a link").to_owned();
    assert_eq!(server.ask("none", "POST", &link, &Value::Null).status, 201);
    // One who has an account, at an address that the relay does not know; then one that it says nothing of.
    let began = Instant::now();
    for email in ["ann@example.com", "nobody@example.com"] {
        let told = wish(&server, email);
        assert_eq!((told.status, told.json()), (taken.status, taken.json()));
    }
    assert!(began.elapsed() < PACE.stall * 4, "nobody waits for the relay");
    until("asked", || relay.connections() >= 3);
}

#[test]
fn what_is_refused_for_good_is_given_up_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, outbox) = start(folder.path());
    let relay = Relay::start(&server, &[Mood::Refuses]);
    let _stop = run(&server, &outbox, relay.port, None);
    assert_eq!(wish(&server, "nobody@example.com").status, 202);
    until("given up", || relay.connections() > 0 && waiting(folder.path()) == 0);
    std::thread::sleep(PACE.first_wait * 4);
    assert_eq!((relay.connections(), relay.letters().len()), (1, 0));
}

#[test]
fn a_relay_that_is_not_ready_is_asked_again_a_few_times() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, outbox) = start(folder.path());
    let moods =
        [Mood::Later, Mood::WantsAnotherPassword, Mood::DropsAtData, Mood::Takes, Mood::Later];
    let relay = Relay::start(&server, &moods);
    let login = Login { user: "raven".into(), password: "secret".into() };
    let _stop = run(&server, &outbox, relay.port, Some(&login));
    wish(&server, "ann@example.com");
    until("sent", || relay.letters().len() == 1 && waiting(folder.path()) == 0);
    assert_eq!(relay.connections(), 4);
    // From here on it never is.
    wish(&server, "ben@example.com");
    until("given up", || relay.connections() == 8 && waiting(folder.path()) == 0);
    std::thread::sleep(PACE.first_wait * 30);
    assert_eq!((relay.connections(), relay.letters().len()), (8, 1));
    let metrics = server.get("/metrics").text();
    for line in [
        "raven_letters_total{outcome=\"sent\"} 1",
        "raven_letters_total{outcome=\"given_up\"} 1",
        "raven_letters_total{outcome=\"refused\"} 0",
        "raven_letters_put_off_total 6",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
    }
}

#[test]
fn a_relay_that_says_nothing_holds_nobody_up_for_long() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, outbox) = start(folder.path());
    let relay = Relay::start(&server, &[Mood::Stalls, Mood::Takes]);
    let _stop = run(&server, &outbox, relay.port, None);
    let began = Instant::now();
    assert_eq!(wish(&server, "ann@example.com").status, 202);
    until("sent", || relay.letters().len() == 1 && waiting(folder.path()) == 0);
    assert!(began.elapsed() >= PACE.stall, "it was given its time");
}

#[test]
fn an_addressee_who_is_slow_delays_nobody_elses_link() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, outbox) = start(folder.path());
    let relay = Relay::start(&server, &[Mood::Stalls, Mood::Takes]);
    let pace = Pace { stall: Duration::from_secs(60), ..PACE };
    let _stop = run_at(pace, &server, &outbox, relay.port, None);
    wish(&server, "ann@example.com");
    until("begun", || relay.connections() == 1);
    for (sent, email) in ["ben@example.com", "cleo@example.com"].into_iter().enumerate() {
        wish(&server, email);
        until("sent", || relay.letters().len() == sent + 1);
    }
    assert_eq!(waiting(folder.path()), 1, "hers is under way still");
}

#[test]
fn a_letter_waits_for_the_next_process_but_not_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, outbox) = start(folder.path());
    let relay = Relay::start(&server, &[Mood::Stalls, Mood::Takes]);
    let stop = run(&server, &outbox, relay.port, None);
    wish(&server, "ann@example.com");
    until("begun", || relay.connections() == 1);
    // The process ends while the letter is on its way, and another letter is half written.
    stop.send_replace(true);
    std::fs::write(folder.path().join(".1-half.eml"), "To: ben@exam").expect("written");
    // One that is too old, as it would be after a long night.
    let old = "To: cleo@example.com\r\nSubject: x\r\n\r\nx";
    std::fs::write(folder.path().join("1000000000000-old.eml"), old).expect("written");
    std::fs::write(folder.path().join("9000000000000-odd.eml"), "To: a\nTo: b@x.org")
        .expect("written");
    let next = Outbox::open(folder.path()).expect("a folder");
    let _stop = run(&server, &next, relay.port, None);
    until("sent", || relay.letters().len() == 1 && waiting(folder.path()) == 0);
    assert!(relay.letters()[0].contains("To: ann@example.com\n"));
    assert_eq!(relay.commands("RCPT").len(), 1, "nobody else was written to");
}

#[test]
fn an_address_that_would_write_a_head_of_its_own_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, outbox) = start(folder.path());
    let relay = Relay::start(&server, &[Mood::Takes]);
    let _stop = run(&server, &outbox, relay.port, None);
    for email in [
        "ann@example.com\r\nBcc: ben@example.com",
        "ann@example.com\nSubject: x",
        "ann@example.com\u{0}",
        "ann@example.com,ben@example.com",
        "<ann@example.com>",
        "ann@example.com> RCPT TO:<ben@example.com",
        "ann@exa\u{2028}mple.com",
    ] {
        assert_eq!(wish(&server, email).problem(422)["field"], "email", "{email:?}");
    }
    assert_eq!((waiting(folder.path()), relay.connections()), (0, 0));
}

#[test]
fn a_relay_elsewhere_that_offers_no_tls_is_told_nothing() {
    for security in [Security::StartTls, Security::Tls] {
        let folder = tempfile::tempdir().expect("a folder");
        let (server, outbox) = start(folder.path());
        let relay = Relay::start(&server, &[Mood::Takes]);
        let login = Login { user: "raven".into(), password: "secret".into() };
        let (host, port) = ("127.0.0.1".to_owned(), relay.port);
        let place = Place { host, port, security, user: Some("raven".into()) };
        let _stop = run_with(PACE, &server, &outbox, &place, Some(&login));
        wish(&server, "ann@example.com");
        until("given up", || waiting(folder.path()) == 0);
        assert_eq!(relay.connections(), PACE.attempts_max as usize, "{security:?}");
        for verb in ["AUTH", "MAIL", "RCPT", "DATA"] {
            assert_eq!(relay.commands(verb), [""; 0], "{security:?}");
        }
    }
}

#[test]
fn a_letter_outlives_a_process_that_is_killed() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let relay = Relay::start_in(&runtime, &[Mood::Stalls, Mood::Takes]);
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    crate::support::process::warm_cache(&data);
    let smtp = format!("smtp://127.0.0.1:{}", relay.port);
    let arguments =
        ["--listen", "127.0.0.1:0", "--smtp", &smtp, "--mail-from", "raven@example.org"];
    let first = Process::start_with(&data, &arguments);
    let body = json!({ "email": "ann@example.com" });
    let (status, told) = first.call("none", "/v1/sign-up", Some(&body));
    assert_eq!(status, 202, "{told}");
    until("begun", || relay.connections() == 1);
    let origin = first.url.clone();
    first.kill();
    let next = Process::start_with(&data, &arguments);
    until("sent", || relay.letters().len() == 1 && waiting(&data.join("letters")) == 0);
    let letter = relay.letters()[0].clone();
    let link = letter.lines().find_map(|line| line.strip_prefix(&origin)).expect("a link");
    let (status, made) = next.call("none", link, Some(&Value::Null));
    assert_eq!(status, 201, "{made}");
    next.terminate();
}
