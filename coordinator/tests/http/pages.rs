//! Sites, the frame and its policy, event streams, blobs, the model file.

use crate::server::files::{TEST, TRAIN, labels, npy, pixels};
use crate::server::{FRAME, GRANT, ORIGIN, Server, job, record};
use raven_coordinator::store::{DatasetId, DatasetRow, KeyId, StoreError, StoredShard, parse_site};
use raven_engine::{
    CompletedReason, ContributorId, JobPhase, JobState, Metrics, NetworkPrefix, Record,
};
use raven_graph::{DType, TensorType};
use raven_protocol::frame::TensorPart;
use raven_protocol::{BlobId, JobId, ShardRef};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

fn site(server: &Server) -> Value {
    let answer = server.post(
        "/v1/sites",
        &json!({"name": "Local <News>", "origins": ["http://news.localhost:8081", "https://n.example"]}),
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

fn key_of(site: &Value) -> &str {
    site["site_key"].as_str().expect("a key")
}

#[test]
fn the_frame_may_be_shown_by_its_sites_origins_only() {
    let server = Server::start();
    let site = site(&server);
    let path = format!("/embed/frame.html?site={}", key_of(&site));
    let answer = server.get_with(&path, &[]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), "no-store");
    let policy = answer.header("content-security-policy");
    let ancestors = "; frame-ancestors http://news.localhost:8081 https://n.example";
    assert!(policy.ends_with(ancestors), "{policy}");
    for part in [
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "style-src 'self'",
        "connect-src 'self' ws://coordinator.test",
    ] {
        assert!(policy.contains(part), "{policy} lacks {part}");
    }
    assert!(!policy.contains("unsafe-inline"));
    let page = answer.text();
    assert!(page.contains("<b>Local &lt;News&gt;</b>") && !page.contains("{{"), "{page}");
    let ticket = page.split("content=\"").nth(1).and_then(|rest| rest.split('"').next());
    let ticket = ticket.expect("a ticket").to_owned();
    let (who, prefix) = (ContributorId([1; 32]), NetworkPrefix([0; 16]));
    let verify =
        |ticket: &str| server.runtime.block_on(server.app.tickets.verify(ticket, &who, &prefix));
    assert_eq!(verify(&ticket).expect("good").site_key, key_of(&site));
    for at in 0..ticket.len() {
        let mut forged = ticket.clone().into_bytes();
        forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
        assert!(verify(&String::from_utf8(forged).expect("ASCII")).is_err(), "{at}");
    }
    // Unknown and revoked sites may be shown nowhere.
    let id = parse_site(site["id"].as_str().expect("an id")).expect("an id");
    assert!(server.runtime.block_on(server.app.store.revoke_site(id)).expect("revoked"));
    assert!(verify(&ticket).is_err());
    for path in [
        path.as_str(),
        "/embed/frame.html?site=pk_test_x",
        "/embed/frame.html",
        "/embed/frame.html?site=%27%3B+frame-ancestors+%2A",
    ] {
        let answer = server.get_with(path, &[]);
        assert_eq!(answer.status, 404);
        let policy = answer.header("content-security-policy");
        assert!(policy.ends_with("; frame-ancestors 'none'"), "{policy}");
        assert!(!answer.text().contains("raven-ticket"));
        assert!(answer.text().contains("<html lang=\"en\">"), "a screen reader knows its language");
    }
}

#[test]
fn a_page_may_ask_why_its_frame_stays_dark() {
    let server = Server::start();
    let site = site(&server);
    let ask = |key: &str, origin: &str| {
        let answer = server.get_with(&format!("/embed/check?site={key}"), &[("origin", origin)]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("cache-control"), "no-store");
        let answer = answer.json();
        let text = |field: &str| answer[field].as_str().expect("text").to_owned();
        (text("site"), text("origin"))
    };
    let both = |site: &str, origin: &str| (site.to_owned(), origin.to_owned());
    let key = key_of(&site);
    assert_eq!(ask(key, "https://n.example"), both("registered", "registered"));
    assert_eq!(ask(key, "https://n.example.evil"), both("registered", "not_registered"));
    assert_eq!(ask("pk_test_x", "https://n.example"), both("unknown", "not_registered"));
    let id = parse_site(site["id"].as_str().expect("an id")).expect("an id");
    assert!(server.runtime.block_on(server.app.store.revoke_site(id)).expect("revoked"));
    assert_eq!(ask(key, "https://n.example"), both("unknown", "not_registered"));
}

#[test]
fn tickets_expire() {
    use raven_coordinator::ticket::{FIRST_USE_MS, Seat};
    use raven_coordinator::time::UnixMs;
    let server = Server::start();
    let id = parse_site(site(&server)["id"].as_str().expect("an id")).expect("an id");
    let (who, prefix) = (ContributorId([1; 32]), NetworkPrefix([0; 16]));
    let seat = Seat { prefix, origin: None };
    let issued = |ago: i64| server.app.tickets.issue(id, &seat, UnixMs(UnixMs::now().0 - ago));
    let verify =
        |ticket: String| server.runtime.block_on(server.app.tickets.verify(&ticket, &who, &prefix));
    assert!(verify(issued(FIRST_USE_MS - 60_000)).is_ok());
    assert!(verify(issued(FIRST_USE_MS + 1)).expect_err("too old").to_string().contains("expired"));
}

#[test]
fn tags_pin_a_version_that_never_changes() {
    let server = Server::start();
    let site = site(&server);
    let version = server.app.embed.version();
    let loader = &server.app.embed.loader().expect("a loader").name;
    let key = key_of(&site);
    assert_eq!(
        site["snippet"],
        format!("<script async src=\"{ORIGIN}/embed/raven.js?site={key}\"></script>")
    );
    let pinned = site["snippet_pinned"].as_str().expect("a tag");
    assert!(pinned.contains(&format!("/embed/{loader}?site=")), "{pinned}");
    assert!(pinned.contains("integrity=\"sha384-"), "{pinned}");
    let immutable = "public, max-age=31536000, immutable";
    for (path, kind, cache) in [
        ("/embed/raven.js".to_owned(), "text/javascript; charset=utf-8", "public, max-age=300"),
        (format!("/embed/{loader}"), "text/javascript; charset=utf-8", immutable),
        (format!("/embed/v/{version}/frame.css"), "text/css; charset=utf-8", immutable),
        (format!("/embed/v/{version}/kernel/raven_kernel.wasm"), "application/wasm", immutable),
    ] {
        let answer = server.get_with(&path, &[("accept-encoding", "gzip")]);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), kind, "{path}");
        assert_eq!(answer.header("cache-control"), cache, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
    let packed = server.get_with("/embed/raven.js", &[("accept-encoding", "br, gzip;q=0.5")]);
    assert_eq!(packed.header("content-encoding"), "gzip");
    let plain = server.get_with("/embed/raven.js", &[("accept-encoding", "gzip;q=0")]);
    assert_eq!(plain.header("content-encoding"), "");
    assert!(plain.body.len() > packed.body.len());
    for path in [
        "/embed/other.js".to_owned(),
        "/embed/raven-0000000000000000.js".to_owned(),
        format!("/embed/raven-{version}.js"),
        "/embed/frame.css".to_owned(),
        format!("/embed/v/{version}/frame.html"),
        format!("/embed/v/{version}/../raven.js"),
        format!("/embed/v/{version}/%2e%2e/raven.js"),
        "/embed/v/0000000000000000/frame.css".to_owned(),
    ] {
        server.get_with(&path, &[]).problem(404);
    }
    assert!(FRAME.contains("{{ticket}}"));
}

#[test]
fn sites_are_checked() {
    let server = Server::start();
    for (body, field) in [
        (json!({"name": "", "origins": ["https://a.example"]}), "name"),
        (json!({"name": "a", "origins": []}), "origins"),
        (
            json!({"name": "a", "origins": ["https://a.example", "https://a.example/x"]}),
            "origins[1]",
        ),
        (json!({"name": "a", "origins": ["*"]}), "origins[0]"),
        (json!({"name": "a", "origins": ["https://a.example"], "x": 1}), "x"),
        (json!({"name": "a"}), "origins"),
    ] {
        let problem = server.post("/v1/sites", &body).problem(422);
        let found = problem["field"].as_str().unwrap_or_default();
        // A field that is missing has no path; its name is in the detail.
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(found == field || found.is_empty() && detail.contains(field), "{problem}");
    }
}

#[test]
fn a_key_has_its_share_of_sites_and_streams() {
    let server = Server::start();
    let body = json!({"name": "a", "origins": ["https://a.example"]});
    for _ in 0..2 {
        assert_eq!(server.post("/v1/sites", &body).status, 201);
    }
    assert_eq!(server.post("/v1/sites", &body).problem(429)["limit"], 2);
    let events = format!("/v1/jobs/{}/events", posted(&server));
    let enter = |owner| server.app.streams.enter(owner).expect("a place");
    let held = [enter(server.owner), enter(server.owner)];
    let problem = server.get(&events).problem(429);
    assert_eq!((&problem["limit"], &problem["found"]), (&json!(2), &json!(2)));
    drop(held);
    let other = |number| KeyId(server.owner.0 + number);
    let _held = [enter(other(1)), enter(other(1)), enter(other(2))];
    server.get(&events).problem(503);
    let _held: Vec<_> = (0..2).map(|_| server.app.uploads.clone().try_acquire_owned()).collect();
    server.upload(&json!({}), &[]).problem(503);
}

/// Reads events from the stream until `count` came; answers ids and names.
fn events(server: &Server, job: JobId, last: Option<&str>, count: usize) -> Vec<(String, String)> {
    let mut stream = TcpStream::connect(server.address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let last = last.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
    let request = format!(
        "GET /v1/jobs/{job}/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n{last}\
         connection: close\r\n\r\n",
        server.key
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let (mut found, mut name, mut id) = (Vec::new(), String::new(), String::new());
    for line in BufReader::new(stream).lines() {
        let line = line.expect("a line");
        if let Some(value) = line.strip_prefix("event: ") {
            name = value.into();
        } else if let Some(value) = line.strip_prefix("id: ") {
            id = value.into();
        } else if line.is_empty() && !id.is_empty() {
            found.push((std::mem::take(&mut id), std::mem::take(&mut name)));
        }
        if found.len() == count {
            return found;
        }
    }
    found
}

fn posted(server: &Server) -> JobId {
    let answer = server.post("/v1/jobs", &job(&server.small_dataset()));
    answer.json()["id"].as_str().expect("an id").parse().expect("an id")
}

fn persist(server: &Server, record: Record) {
    let job = record.job;
    server.runtime.block_on(server.app.store.persist(&record)).expect("persisted");
    let _ = server.network.notices.send(job);
}

fn metrics() -> Option<Metrics> {
    Some(Metrics { loss_sum: 10.0, correct: 5.0, count: 20.0 })
}

fn completed(job: JobId, step: u32) -> Record {
    let state = JobState::Completed { reason: CompletedReason::EpochsDone };
    Record { phase: JobPhase::Completed, state, evaluation: metrics(), ..record(job, step) }
}

#[test]
fn event_streams_resume_without_a_gap() {
    let server = Server::start();
    let job = posted(&server);
    (1..=3).for_each(|step| persist(&server, Record { train: metrics(), ..record(job, step) }));
    let first = events(&server, job, None, 4);
    let names: Vec<&str> = first.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["state", "round", "state", "round"]);
    let resumed = events(&server, job, Some(&first[3].0), 1);
    assert_eq!(resumed[0].1, "round");
    assert!(resumed[0].0.parse::<i64>().expect("a number") > first[3].0.parse().expect("a number"));
    // What happens while someone listens arrives at once; the end ends the stream.
    std::thread::scope(|scope| {
        let listener = scope.spawn(|| {
            let started = Instant::now();
            (events(&server, job, Some(&resumed[0].0), 100), started.elapsed())
        });
        std::thread::sleep(Duration::from_millis(300));
        persist(&server, Record { train: metrics(), ..record(job, 4) });
        persist(&server, completed(job, 5));
        let (events, took) = listener.join().expect("no panic");
        let names: Vec<&str> = events.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["round", "evaluation", "state"]);
        assert!(took < Duration::from_secs(3), "{took:?}");
        let path = format!("/v1/jobs/{job}/events");
        let last = events[2].0.as_str();
        let bearer = format!("Bearer {}", server.key);
        let with =
            |id: &str| server.get_with(&path, &[("authorization", &bearer), ("last-event-id", id)]);
        assert_eq!(with(last).status, 204, "an EventSource is told to stop");
        assert_eq!(with("abc").problem(422)["field"], "Last-Event-ID");
        let all = with("0");
        assert_eq!(all.header("content-type"), "text/event-stream");
        assert_eq!(all.text().matches("event: ").count(), 8);
    });
}

#[test]
fn event_streams_end_with_the_process() {
    let server = Server::start();
    let job = posted(&server);
    std::thread::scope(|scope| {
        let listener = scope.spawn(|| events(&server, job, None, 100));
        std::thread::sleep(Duration::from_millis(200));
        server.stop.send_replace(true);
        assert_eq!(listener.join().expect("no panic").len(), 1);
    });
    server.get("/readyz").problem(503);
    assert_eq!(server.get("/healthz").status, 200);
    server.post("/v1/jobs", &json!({})).problem(422);
}

#[test]
fn blobs_need_a_grant_for_that_blob() {
    let server = Server::start();
    server.small_dataset();
    let blob = server.app.blobs.list().expect("listed")[0];
    let path = format!("/v1/blobs/{blob}");
    let grant = format!("Bearer {GRANT}");
    let fetch = |path: &str, token: &str| server.get_with(path, &[("authorization", token)]);
    server.get_with(&path, &[]).problem(401);
    fetch(&path, &grant).problem(403);
    server.get(&path).problem(403);
    server.network.granted.lock().expect("no panic").push(blob);
    let answer = fetch(&path, &grant);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), "private, max-age=31536000, immutable");
    assert_eq!(answer.body, server.app.blobs.get(blob).expect("there"));
    fetch(&path, "Bearer another").problem(403);
    for other in ["/v1/blobs/..%2fraven.sqlite", "/v1/blobs/00"] {
        fetch(other, &grant).problem(403);
    }
    // A byte that rotted on disk is never served.
    let name = blob.to_string();
    let file = server.folder.path().join("blobs").join(&name[..2]).join(format!("{name}.blob"));
    let mut bytes = std::fs::read(&file).expect("the file");
    let last = bytes.len() - 1;
    bytes[last] ^= 4;
    std::fs::write(&file, bytes).expect("written");
    fetch(&path, &grant).problem(500);
}

#[test]
fn quotas_hold_however_many_requests_come_at_once() {
    let server = Server::start();
    let dataset = server.small_dataset();
    let site = json!({"name": "a", "origins": ["https://a.example"]});
    let at_once = |path: &str, body: &Value| {
        let answers: Vec<u16> = std::thread::scope(|scope| {
            let post = || scope.spawn(|| server.post(path, body).status);
            let posts: Vec<_> = (0..8).map(|_| post()).collect();
            posts.into_iter().map(|post| post.join().expect("answers")).collect()
        });
        assert!(answers.iter().all(|status| [201, 202, 429].contains(status)), "{answers:?}");
        answers.iter().filter(|&&status| status != 429).count()
    };
    assert_eq!(at_once("/v1/sites", &site), 2);
    assert_eq!(at_once("/v1/jobs", &job(&dataset)), 3);
    // Both uploads were let in; together they are too large.
    let row = |id| {
        let facts = server.runtime.block_on(server.app.store.datasets(server.owner, 1));
        DatasetRow { id: DatasetId(id), facts: facts.expect("read")[0].facts.clone() }
    };
    let shards = [StoredShard {
        test: false,
        shard: ShardRef { blob: BlobId([1; 32]), first_row: 0, rows: 1, bytes: 5 << 20 },
    }];
    let add = |id| {
        let (row, max) = (row(id), server.app.settings.dataset_bytes_max);
        server.runtime.block_on(server.app.store.add_dataset(
            server.owner,
            &row,
            &shards,
            max,
            None,
        ))
    };
    add(1).expect("stored");
    let refused = add(2).expect_err("too much");
    assert!(matches!(refused, StoreError::Quota { .. }), "{refused}");
}

/// Sends a request as it stands; answers status and content type.
fn raw(server: &Server, method: &str, path: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(server.address).expect("connects");
    let key = &server.key;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("answers");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let kind = answer.lines().find_map(|line| line.strip_prefix("content-type: "));
    (status.expect("a status"), kind.unwrap_or("").to_owned())
}

#[test]
fn every_refusal_of_every_route_is_a_problem() {
    let server = Server::start();
    let routes = [
        "/v1/datasets",
        "/v1/datasets/%FF",
        "/v1/jobs",
        "/v1/jobs/%FF",
        "/v1/jobs/%FF/events",
        "/v1/jobs/%FF/model",
        "/v1/jobs/%FF/model/load_model.py",
        "/v1/jobs/%FF/cancel",
        "/v1/sites",
        "/v1/nodes",
        "/v1/stats",
        "/v1/blobs/%FF",
        "/embed/%FF",
        "/embed/frame.html",
        "/embed/v/%FF/%FF",
        "/embed/frame.html?site=a&site=b",
        "/healthz",
        "/readyz",
        "/metrics",
        "/",
        "/nothing/of/the/kind",
        "/%FF",
    ];
    let mut refused = 0;
    for path in routes {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"] {
            let (status, kind) = raw(&server, method, path);
            // The frame of a site that is not registered is a page that says so.
            let is_page = path == "/embed/frame.html" && method == "GET";
            if status >= 400 && !is_page {
                assert_eq!(kind, "application/problem+json", "{method} {path}: {status}");
                refused += 1;
            }
        }
    }
    assert_eq!(raw(&server, "GET", "/embed/frame.html?site=a&site=b").0, 400);
    assert_eq!(raw(&server, "GET", "/v1/jobs/%FF").0, 400);
    assert_eq!(raw(&server, "PATCH", "/v1/jobs").0, 405);
    println!("{refused} refusals");
    assert!(refused > 100);
}

#[test]
fn a_failed_runtime_is_not_ready() {
    let server = Server::start();
    assert_eq!(server.get("/readyz").text(), "ready\n");
    server.network.failed.store(true, std::sync::atomic::Ordering::Relaxed);
    server.get("/readyz").problem(503);
    assert_eq!(server.get("/healthz").status, 200, "it still answers");
}

#[test]
fn unknown_routes_and_methods_are_problems() {
    let server = Server::start();
    server.get("/v1/nothing").problem(404);
    server.get("/etc/passwd").problem(404);
    server.post("/v1/nothing", &json!({})).problem(404);
    server.post("/v1/stats", &json!({})).problem(405);
    assert_eq!(server.get("/readyz").text(), "ready\n");
    assert_eq!(server.get("/v1/nodes").json(), json!({"nodes": [], "total": 0}));
    let answer = server.get("/v1/jobs");
    assert_eq!(
        answer.header("content-security-policy"),
        "default-src 'none'; frame-ancestors 'none'"
    );
    assert_eq!(answer.header("cache-control"), "no-store");
}

/// Deterministic weights in about -0.5..0.5.
fn weights(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

/// Stores a state of the job's parameters and slots as its best checkpoint.
fn finish(server: &Server, job: JobId, seed: u32) -> (BlobId, Vec<Vec<f32>>) {
    let jobs = server.network.jobs.lock().expect("no panic");
    let context = jobs.iter().find(|context| context.job() == job).expect("the job").clone();
    drop(jobs);
    let values: Vec<Vec<f32>> = context
        .params
        .iter()
        .chain(&context.slots)
        .enumerate()
        .map(|(index, spec)| {
            let count = spec.ty.shape.elements().expect("small") as usize;
            weights(count, seed + index as u32)
        })
        .collect();
    let bytes: Vec<Vec<u8>> =
        values.iter().map(|values| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let parts: Vec<TensorPart<'_>> = context
        .params
        .iter()
        .chain(&context.slots)
        .zip(&bytes)
        .map(|(spec, data)| TensorPart {
            name: spec.name.clone(),
            ty: TensorType::new(DType::F32, spec.ty.shape.clone()),
            data,
        })
        .collect();
    let (state, _) = server.app.blobs.put_tensors(&parts).expect("stored");
    let last = Record { weights: Some(state), checkpoint: true, best: true, ..completed(job, 10) };
    persist(server, last);
    (state, values)
}

/// The network of [`job`], written out plainly: conv 3x3 same, relu, pool 2, dense.
fn forward(image: &[u8], values: &[Vec<f32>]) -> Vec<f64> {
    let (side, filters) = (8usize, 3usize);
    let pixel = |row: isize, column: isize| {
        let inside = (0..side as isize).contains(&row) && (0..side as isize).contains(&column);
        if inside { f64::from(image[row as usize * side + column as usize]) * 0.5 } else { 0.0 }
    };
    let mut flat = Vec::new();
    for filter in 0..filters {
        let at = |row: usize, column: usize| {
            let mut sum = f64::from(values[1][filter]);
            for i in 0..3 {
                for j in 0..3 {
                    let weight = f64::from(values[0][filter * 9 + i * 3 + j]);
                    sum += weight * pixel((row + i) as isize - 1, (column + j) as isize - 1);
                }
            }
            sum.max(0.0)
        };
        for row in (0..side).step_by(2) {
            for column in (0..side).step_by(2) {
                let window = [(0, 0), (0, 1), (1, 0), (1, 1)];
                flat.push(
                    window.map(|(i, j)| at(row + i, column + j)).into_iter().fold(0.0, f64::max),
                );
            }
        }
    }
    (0..4)
        .map(|unit| {
            let products = flat.iter().enumerate();
            products.map(|(i, x)| x * f64::from(values[2][i * 4 + unit])).sum::<f64>()
                + f64::from(values[3][unit])
        })
        .collect()
}

/// A Python that has NumPy: `PYTHON`, or the one on the path.
fn python() -> String {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let probe = Command::new(&python).args(["-c", "import numpy"]).output();
    let has_numpy = probe.is_ok_and(|output| output.status.success());
    assert!(has_numpy, "{python} has no NumPy: set PYTHON to one that has");
    python
}

#[test]
fn the_model_file_runs_under_numpy_to_the_accuracy_of_a_plain_forward_pass() {
    let server = Server::start();
    let job = posted(&server);
    server.get(&format!("/v1/jobs/{job}/model")).problem(409);
    let (_, values) = finish(&server, job, 5);
    let model = server.get(&format!("/v1/jobs/{job}/model"));
    assert_eq!(model.status, 200, "{}", model.text());
    let shown = server.get(&format!("/v1/jobs/{job}")).json();
    let digest = shown["model_sha256"].as_str().expect("a digest");
    assert_eq!(model.header("etag"), format!("\"{digest}\""));
    let tag = [
        ("authorization", format!("Bearer {}", server.key)),
        ("if-none-match", format!("\"{digest}\"")),
    ];
    let tag: Vec<(&str, &str)> = tag.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(server.get_with(&format!("/v1/jobs/{job}/model"), &tag).status, 304);
    let script = server.get(&format!("/v1/jobs/{job}/model/load_model.py"));
    assert!(script.text().contains(digest) && !script.text().contains("{{"));
    // Only the weights, not the optimizer's state.
    let header_bytes = u64::from_le_bytes(model.body[..8].try_into().expect("8 bytes")) as usize;
    assert_eq!(header_bytes % 8, 0);
    assert_eq!(model.body.len() - 8 - header_bytes, 4 * (27 + 3 + 192 + 4));
    let header: Value = serde_json::from_slice(&model.body[8..8 + header_bytes]).expect("JSON");
    assert_eq!(header["0.weight"]["shape"], json!([3, 1, 3, 3]));
    assert!(header.get("m.0.weight").is_none());

    let images = pixels(TRAIN, TEST);
    let hits = images.chunks(64).zip(labels(TRAIN, TEST)).filter(|(image, label)| {
        let logits = forward(image, &values);
        let top = (0..4).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("four");
        top == usize::from(*label)
    });
    let expected = hits.count() as f64 / TEST as f64;
    let folder = server.folder.path();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).expect("written");
    };
    write("load_model.py", &script.body);
    write("model.safetensors", &model.body);
    write("x.npy", &npy("|u1", "(20, 8, 8)", &images));
    write("y.npy", &npy("|u1", "(20,)", &labels(TRAIN, TEST)));
    let files = crate::server::files::small_idx();
    write("images.gz", &files[2].1);
    write("labels", &files[3].1);
    for arguments in [["--data", "x.npy", "y.npy"], ["--idx", "images.gz", "labels"]] {
        let output = Command::new(python())
            .current_dir(folder)
            .args(["load_model.py", "model.safetensors"])
            .args(arguments)
            .output()
            .expect("python3 runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(answer["samples"], TEST);
        let accuracy = answer["accuracy"].as_f64().expect("an accuracy");
        assert!((accuracy - expected).abs() < 1e-9, "{accuracy} is not {expected}");
    }
}

#[test]
fn equal_weights_give_equal_files_whatever_the_job() {
    let server = Server::start();
    let (a, b) = (posted(&server), posted(&server));
    let digests: Vec<String> = [(a, 5), (b, 5)]
        .into_iter()
        .map(|(job, seed)| {
            finish(&server, job, seed);
            let shown = server.get(&format!("/v1/jobs/{job}")).json();
            shown["model_sha256"].as_str().expect("a digest").to_owned()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0].len(), 64);
}
