//! What an operator sees of the program: how it goes down, what its settings
//! refuse, whom it turns away, and what it tells of itself.

use crate::support::process::{Installation, Process, digits_job, program, run};
use crate::support::socket::Socket;
use crate::support::{Coordinator, kernel_file, tls};
use ed25519_dalek::SigningKey;
use raven_coordinator::signing::SigningKeys;
use raven_coordinator::ticket::{Seat, TICKET_MS, TicketError, Tickets, signing_folder};
use raven_coordinator::time::UnixMs;
use raven_engine::{ContributorId, NetworkPrefix};
use raven_protocol::{GoodbyeReason, KernelId};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn kernel_id() -> KernelId {
    KernelId(*blake3::hash(&std::fs::read(kernel_file()).expect("the kernel")).as_bytes())
}

async fn session(process: &Process) -> Socket {
    let mut socket = Socket::connect(process.address()).await;
    socket.open(&SigningKey::from_bytes(&[1; 32]), kernel_id()).await;
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_goes_down_tells_everyone_when_to_come_back() {
    let installation = Installation::new();
    let key = installation.key.as_str();
    let mut process = Process::start(&installation.data());
    let dataset = process.upload_digits(key);
    let job = process.post_job(key, &digits_job(&dataset, 1));
    let mut events = TcpStream::connect(process.address()).expect("connects");
    let request =
        format!("GET {job}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    events.write_all(request.as_bytes()).expect("sent");
    // As long as it has not answered its goodbye, the coordinator is going down.
    let contributor = session(&process).await;
    let asked = Instant::now();
    process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = process.try_call(key, "/v1/jobs", None).expect("still answers");
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"), "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(process.try_call(key, "/readyz", None).expect("answers").status, 503);
    assert_eq!(process.try_call(key, "/healthz", None).expect("answers").status, 200);
    let ended = contributor.ended().await;
    assert_eq!(ended.reason, Some(GoodbyeReason::Draining), "{ended:?}");
    assert_eq!(ended.retry_after_ms, Some(5000));
    let status = process.ended(Duration::from_secs(20));
    println!("ended after {} ms", asked.elapsed().as_millis());
    assert!(status.success(), "{status}: {}", process.log());
    let mut stream = String::new();
    events.read_to_string(&mut stream).expect("the stream ends");
    assert!(stream.contains("event: state") && stream.contains("retry: 5000"), "{stream}");
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_twice_it_ends_at_once() {
    let installation = Installation::new();
    let mut process = Process::start(&installation.data());
    // Says nothing and reads nothing, so that the first request takes a while.
    let _contributor = session(&process).await;
    process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(process.child.try_wait().expect("a status").is_none(), "it waits for the goodbye");
    process.signal("TERM");
    let status = process.ended(Duration::from_secs(1));
    assert_eq!(status.code(), Some(1));
    assert!(process.log().contains("asked twice"));
    // Nothing is lost by it: the next process starts as after a kill.
    Process::start(&installation.data()).terminate();
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("changed");
    path
}

#[test]
fn settings_are_refused_by_their_name_and_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |file: &str, variable: Option<(&str, &str)>, arguments: &[&str]| {
        let path = write(folder.path(), "raven.toml", file);
        let mut command = program();
        command.arg("serve").arg("--config").arg(path).args(arguments);
        command.envs(variable);
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned()
    };
    let data = "data = '/nonexistent/raven'\n";
    let error = refused(&format!("{data}sesions_max = 3"), None, &[]);
    assert!(error.contains("raven.toml: unknown field \"sesions_max\""), "{error}");
    let error = refused(&format!("{data}listen = '0.0.0.0:0'"), None, &[]);
    assert!(error.contains("set admin_token_file first"), "{error}");
    let error = refused(data, Some(("RAVEN_SESSIONS_MAX", "-3")), &[]);
    assert!(error.starts_with("RAVEN_SESSIONS_MAX: \"-3\" is not"), "{error}");
    let error = refused(data, Some(("RAVEN_SESSIONS_MAX", "3")), &["--sessions-max", "0"]);
    assert!(error.starts_with("--sessions-max: \"0\" is not"), "{error}");
    let error = refused("listen = '127.0.0.1:0'", None, &[]);
    assert!(error.starts_with("--data is needed"), "{error}");
}

#[test]
fn the_example_of_a_configuration_is_taken() {
    let installation = Installation::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/raven.example.toml");
    let text = std::fs::read_to_string(example).expect("the example");
    // Every setting that it shows, those in comments too.
    let all = text.replace("# ", "").lines().filter(|line| line.contains(" = ")).fold(
        String::new(),
        |all, line| {
            let name = line.split(' ').next().expect("a name");
            let own = match name {
                "data" | "listen" | "origin" | "embed" | "www" | "kernel" => return all,
                "admin_token_file" => {
                    let token = "0123456789abcdefghijklmn";
                    let path = write(installation.path(), "token", token);
                    format!("admin_token_file = '{}'", path.display())
                }
                "smtp_password_file" => {
                    let path = write(installation.path(), "password", "secret");
                    format!("smtp_password_file = '{}'", path.display())
                }
                "smtp_authorities" => {
                    format!("smtp_authorities = '{}'", tls::authority().display())
                }
                _ => line.to_owned(),
            };
            all + &own + "\n"
        },
    );
    let path = write(installation.path(), "all.toml", &all);
    let path = path.to_str().expect("text");
    let process =
        Process::start_with(&installation.data(), &["--config", path, "--listen", "127.0.0.1:0"]);
    for setting in raven_coordinator::config::SETTINGS {
        assert!(text.contains(&format!("{} = ", setting.name)), "{} is not shown", setting.name);
    }
    let open = process.try_call("wrong", "/metrics", None).expect("answers");
    assert_eq!(open.status, 401, "an admin token is set");
    let metrics = process.try_call("0123456789abcdefghijklmn", "/metrics", None);
    assert_eq!(metrics.expect("answers").status, 200);
    process.terminate();
}

#[test]
fn more_requests_than_allowed_are_told_when_to_come_back() {
    let installation = Installation::new();
    let key = installation.key.as_str();
    let arguments = ["--listen", "127.0.0.1:0", "--key-requests-per-s", "1"];
    let burst = ["--key-requests-burst", "3", "--requests-burst", "5", "--requests-per-s", "1"];
    let trust = ["--trusted-proxies", "127.0.0.0/8"];
    let process =
        Process::start_with(&installation.data(), &[&arguments[..], &burst, &trust].concat());
    let ask = |client: &str, key: &str| {
        let mut stream = TcpStream::connect(process.address()).expect("connects");
        let request = format!(
            "GET /v1/jobs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             x-forwarded-for: {client}\r\nauthorization: Bearer {key}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let status = |answer: &str| answer.split(' ').nth(1).expect("a status").to_owned();
    // A slow machine gets tokens back on the way, so the last of them is looked for.
    let limited_after = |least: u32, ask: &dyn Fn(u32) -> String, allowed: &str| {
        for number in 0..least + 30 {
            let answer = ask(number);
            if status(&answer) == "429" {
                assert!(number >= least, "only {number} passed");
                return answer;
            }
            assert_eq!(status(&answer), allowed, "{answer}");
        }
        panic!("never limited");
    };
    // One key from many networks.
    let limited = limited_after(3, &|n| ask(&format!("203.0.{n}.1"), key), "200");
    assert!(limited.contains("\r\nretry-after: "), "{limited}");
    assert!(limited.contains("urn:raven:problem:rate"), "{limited}");
    assert!(limited.contains("requests with one key"), "{limited}");
    // Many keys, none of them known, from one network.
    let limited = limited_after(5, &|n| ask(&format!("198.51.100.{n}"), &format!("rk_{n}")), "401");
    assert!(limited.contains("requests of one network"), "{limited}");
    assert_eq!(status(&ask("198.51.101.1", "rk_other")), "401", "the network beside it");
    let metrics = process.try_call("", "/metrics", None).expect("never limited").body;
    assert!(metrics.contains("\nraven_requests_limited_total 2\n"), "{metrics}");
    process.terminate();
}

/// Names in a Prometheus expression that are metrics.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression
        .split(move |c| !is_part(c))
        .filter(|word| word.starts_with("raven_") || word.starts_with("process_"))
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    field => expressions(field, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_what_there_is_and_all_of_it() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/grafana-dashboard.json");
    let text = std::fs::read_to_string(file).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let shown: BTreeSet<&str> = found.iter().flat_map(|expression| names(expression)).collect();
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    let metrics = process.try_call("", "/metrics", None).expect("answers").body;
    process.terminate();
    let there: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(there.len() > 20, "{metrics}");
    let missing: Vec<_> = shown.difference(&there).collect();
    assert!(missing.is_empty(), "the dashboard asks for {missing:?}");
    let hidden: Vec<_> = there.difference(&shown).collect();
    assert!(hidden.is_empty(), "the dashboard does not show {hidden:?}");
}

#[test]
fn the_log_is_lines_of_json_with_the_ids_of_what_happened() {
    let installation = Installation::new();
    let arguments = ["--listen", "127.0.0.1:0", "--log-format", "json"];
    let mut command = Process::command(&installation.data(), &arguments);
    // To a file, since a pipe that nobody reads would stop the coordinator.
    let file = installation.path().join("log");
    command.stderr(std::fs::File::create(&file).expect("a file"));
    command.env("RUST_LOG", "raven_coordinator=debug");
    let process = Process::launch(command);
    let key = installation.key.as_str();
    let dataset = process.upload_digits(key);
    let job = process.post_job(key, &digits_job(&dataset, 1));
    let contributor = crate::support::contributor::Contributor::start(
        process.address(),
        1,
        crate::support::contributor::Habits::default(),
    );
    process.finished(key, &job, Duration::from_secs(60));
    drop(contributor);
    process.terminate_quietly();
    let log = std::fs::read_to_string(file).expect("the log");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is no JSON")))
        .collect();
    let job = job.trim_start_matches("/v1/jobs/");
    let find = |message: &str| {
        let line = lines.iter().find(|line| line["message"] == message);
        line.unwrap_or_else(|| panic!("no {message:?} in {log}"))
    };
    assert_eq!(find("a job has ended")["job"], job);
    let session = &find("a session has consented")["session"];
    assert!(session.as_str().is_some_and(|id| id.starts_with("ses_")), "{session}");
    let leased = find("leased");
    assert_eq!((&leased["job"], &leased["session"]), (&Value::from(job), session));
    for message in ["committed", "revealed"] {
        let line = find(message);
        for id in ["job", "round", "task", "lease"] {
            assert_eq!(line[id], leased[id], "{id} of {line}");
        }
        let span = &line["spans"][0];
        assert_eq!((&span["name"], &span["session"]), (&Value::from("session"), session));
    }
}

/// The lines of a doctor's report by what they are about, and its exit status.
fn examine(data: &Path, arguments: &[&str]) -> (i32, Vec<(String, String)>) {
    let kernel = kernel_file();
    let fixed = ["doctor", "--listen", "127.0.0.1:0", "--kernel", kernel.to_str().expect("text")];
    let output = run(data, &[&fixed[..], arguments].concat());
    let report = String::from_utf8(output.stdout).expect("text");
    let lines = report.lines().map(|line| {
        let mut words = line.split_whitespace();
        let verdict = words.next().expect("a verdict").to_owned();
        (words.next().expect("a subject").to_owned(), format!("{verdict} {line}"))
    });
    (output.status.code().expect("a code"), lines.collect())
}

fn verdict<'a>(report: &'a (i32, Vec<(String, String)>), what: &str) -> &'a str {
    let line = report.1.iter().find(|(subject, _)| subject == what);
    line.map(|(_, line)| line.as_str()).unwrap_or_else(|| panic!("{what}: {report:?}"))
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let installation = Installation::new();
    let data = installation.data();
    let report = examine(&data, &["--disk-free-bytes-min", "1"]);
    assert_eq!(report.0, 0, "{report:?}");
    for what in ["data", "store", "blobs", "disk", "signing", "kernel", "clock", "files", "port"] {
        assert!(verdict(&report, what).starts_with("ok "), "{report:?}");
    }
    assert!(verdict(&report, "embed").starts_with("warn "), "{report:?}");

    // Beside a running coordinator, with something in its store.
    let process = Process::start(&data);
    let key = installation.key.as_str();
    let dataset = process.upload_digits(key);
    process.post_job(key, &digits_job(&dataset, 1));
    let listen = process.address().to_string();
    let report = examine(&data, &[]);
    assert_eq!(report.0, 0, "{report:?}");
    assert!(verdict(&report, "blobs").contains("as they should be"), "{report:?}");
    let fixed = ["doctor", "--listen", &listen, "--kernel"];
    let kernel = kernel_file();
    let output = run(&data, &[&fixed[..], &[kernel.to_str().expect("text")]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("is taken, a coordinator serves here"), "{text}");
    process.terminate();

    let blob = crate::support::process::blob_files(&data).remove(0);
    crate::support::process::flip_a_byte(&blob);
    let keys = std::fs::read_dir(signing_folder(&data)).expect("keys");
    let secret = keys.map(|entry| entry.expect("an entry").path()).next().expect("a key");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o644)).expect("changed");
    let broken = write(installation.path(), "kernel.wasm", "not a module");
    let report = examine(&data, &[]);
    assert_eq!(report.0, 1);
    assert!(verdict(&report, "blobs").starts_with("BAD "), "{report:?}");
    assert!(verdict(&report, "signing").contains("0644"), "{report:?}");
    let output = run(&data, &["doctor", "--kernel", broken.to_str().expect("text")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("is no WebAssembly module"), "{text}");
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o755)).expect("changed");
    let report = examine(&data, &[]);
    assert!(verdict(&report, "data").contains("others may read it"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_outlive_a_change_of_the_signing_key() {
    let coordinator = Coordinator::start(|_| {}).await;
    let old = coordinator.ticket();
    let (who, prefix) = (ContributorId([1; 32]), NetworkPrefix([0; 16]));
    let seat = Seat { prefix, origin: None };
    let folder = signing_folder(coordinator.store.folder());
    let made = SigningKeys::rotate(&folder, UnixMs::now(), TICKET_MS).expect("rotated");
    let next = Tickets::new(coordinator.store.clone()).await.expect("tickets");
    let fresh = next.issue(coordinator.site, &seat, UnixMs::now());
    assert!(fresh.starts_with(&made.id) && !old.starts_with(&made.id));
    for ticket in [&old, &fresh] {
        assert_eq!(next.verify(ticket, &who, &prefix).await.expect("good").site, coordinator.site);
    }
    // Those who had read the keys before look again for one that they do not know.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(coordinator.tickets.verify(&fresh, &who, &prefix).await.is_ok());
    let forged = fresh.replacen(&made.id, "aaaaaaaa", 1);
    assert!(matches!(next.verify(&forged, &who, &prefix).await, Err(TicketError::Forged)));
    let expired = next.issue(coordinator.site, &seat, UnixMs(UnixMs::now().0 - TICKET_MS - 1));
    assert!(matches!(next.verify(&expired, &who, &prefix).await, Err(TicketError::Expired)));
}
