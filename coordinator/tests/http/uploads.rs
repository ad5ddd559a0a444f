//! Files that arrive in pieces, break off, and go on; data sets that end.

use crate::server::files::*;
use crate::server::{Answer, Server, job, record};
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::http::upkeep;
use raven_coordinator::store::{Book, Store};
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use raven_engine::{Cause, ContributorId, JobPhase, JobState, Record};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::TcpStream;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn begin(server: &Server, bytes: usize, sha256: Option<String>) -> String {
    let answer = server.post("/v1/uploads", &json!({"bytes": bytes, "sha256": sha256}));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.header("location"), format!("/v1/uploads/{id}"));
    assert_eq!(answer.header("upload-offset"), "0");
    id
}

fn piece(server: &Server, id: &str, offset: usize, bytes: &[u8]) -> Answer {
    let offset = offset.to_string();
    server.send("PATCH", &format!("/v1/uploads/{id}"), &[("upload-offset", &offset)], bytes)
}

fn whole(server: &Server, bytes: &[u8]) -> String {
    let id = begin(server, bytes.len(), Some(sha256(bytes)));
    let answer = piece(server, &id, 0, bytes);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["complete"], true);
    id
}

fn idx_spec() -> Value {
    json!({"name": "small", "format": "idx", "target": "classes", "classes": 4, "scale": 0.5})
}

#[test]
fn pieces_make_the_data_set_that_one_request_makes() {
    let server = Server::start();
    let direct = server.get(&format!("/v1/datasets/{}", server.small_dataset())).json();
    let mut files = serde_json::Map::new();
    for (name, bytes) in small_idx() {
        let id = begin(&server, bytes.len(), Some(sha256(&bytes)));
        for (index, part) in bytes.chunks(100).enumerate() {
            let answer = piece(&server, &id, index * 100, part);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let received = index * 100 + part.len();
            assert_eq!(answer.header("upload-offset"), received.to_string());
            assert_eq!(answer.json()["complete"], received == bytes.len());
        }
        files.insert(name.into(), json!(id));
    }
    assert_eq!(server.get("/v1/uploads").json()["uploads"].as_array().map(Vec::len), Some(4));
    let body = json!({"spec": idx_spec(), "files": files});
    let answer = server.post("/v1/datasets", &body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let mut facts = answer.json();
    facts["id"] = direct["id"].clone();
    assert_eq!(facts, direct);
    // What was made use of is gone, with its bytes.
    assert_eq!(server.get("/v1/uploads").json(), json!({"uploads": []}));
    let left = std::fs::read_dir(server.folder.path().join("incoming")).expect("a folder");
    assert_eq!(left.count(), 0);
    server.post("/v1/datasets", &body).problem(422);
}

#[test]
fn a_request_that_is_sent_again_begins_and_uses_up_nothing_twice() {
    let server = Server::start();
    let files: serde_json::Map<String, Value> = small_idx()
        .into_iter()
        .map(|(name, bytes)| {
            let body = json!({"bytes": bytes.len()});
            let [first, second] = [0, 1].map(|_| server.post_once("/v1/uploads", &body, name));
            assert_eq!((first.status, second.status), (201, 201), "{}", second.text());
            assert_eq!(second.header("idempotency-replayed"), "true");
            assert_eq!(first.json(), second.json());
            let id = first.json()["id"].as_str().expect("an id").to_owned();
            assert_eq!(piece(&server, &id, 0, &bytes).json()["complete"], true);
            (name.to_owned(), json!(id))
        })
        .collect();
    let body = json!({"spec": idx_spec(), "files": files});
    let first = server.post_once("/v1/datasets", &body, "d");
    assert_eq!(first.status, 201, "{}", first.text());
    let second = server.post_once("/v1/datasets", &body, "d");
    assert_eq!((second.status, second.json()), (201, first.json()));
    server.post("/v1/datasets", &body).problem(422);
}

#[test]
fn offsets_are_checked_and_told() {
    let server = Server::start();
    let id = begin(&server, 10, None);
    let path = format!("/v1/uploads/{id}");
    assert_eq!(piece(&server, &id, 0, b"abcd").status, 200);
    for wrong in [0, 3, 5, 10] {
        let answer = piece(&server, &id, wrong, b"xy");
        assert_eq!(answer.header("upload-offset"), "4", "the right one is told");
        let problem = answer.problem(409);
        assert_eq!(
            (&problem["field"], &problem["found"]),
            (&json!("Upload-Offset"), &json!(wrong))
        );
    }
    assert_eq!(server.send("PATCH", &path, &[], b"x").problem(422)["field"], "Upload-Offset");
    let head = server.send("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.header("upload-offset")), (200, "4"));
    assert_eq!(head.header("upload-length"), "10");
    // More than was declared is refused; what fits is kept.
    let problem = piece(&server, &id, 4, b"0123456789").problem(413);
    assert_eq!(problem["limit"], 10);
    let offset: usize =
        server.send("HEAD", &path, &[], b"").header("upload-offset").parse().expect("a number");
    assert_eq!(piece(&server, &id, offset, &b"abcdefghij"[offset..]).json()["complete"], true);
    let problem = piece(&server, &id, 10, b"k").problem(413);
    assert_eq!(problem["limit"], 10);
    // An unfinished file is no file yet.
    let half = begin(&server, 10, None);
    let body = json!({"spec": idx_spec(), "files": {"train_x": half}});
    assert_eq!(server.post("/v1/datasets", &body).problem(409)["field"], "files.train_x");
    for (files, field) in [
        (json!({"train_x": "up_0000000000000001"}), "files.train_x"),
        (json!({"train_x": "nonsense"}), "files.train_x"),
        (json!({"table": id}), "table"),
        (json!({"train_x": id}), "train_x.magic"),
    ] {
        let problem = server.post("/v1/datasets", &json!({"spec": idx_spec(), "files": files}));
        assert_eq!(problem.problem(422)["field"], field);
    }
    // A refused data set leaves its files for another try.
    assert_eq!(server.get(&path).json()["complete"], true);
    assert_eq!(server.send("DELETE", &path, &[], b"").status, 204);
    server.get(&path).problem(404);
    piece(&server, &id, 0, b"x").problem(404);
}

#[test]
fn a_wrong_hash_starts_again() {
    let server = Server::start();
    let id = begin(&server, 4, Some(sha256(b"good")));
    let answer = piece(&server, &id, 0, b"evil");
    assert_eq!(answer.problem(422)["field"], "sha256");
    let shown = server.get(&format!("/v1/uploads/{id}")).json();
    assert_eq!((&shown["offset"], &shown["complete"]), (&json!(0), &json!(false)));
    assert_eq!(piece(&server, &id, 0, b"good").json()["complete"], true);
}

/// Sends the head of a PATCH that promises `length` bytes, and some of them.
fn broken_off(server: &Server, id: &str, offset: usize, length: usize, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(server.address).expect("connects");
    let head = format!(
        "PATCH /v1/uploads/{id} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         upload-offset: {offset}\r\ncontent-length: {length}\r\n\r\n",
        server.key
    );
    socket.write_all(head.as_bytes()).expect("sent");
    socket.write_all(bytes).expect("sent");
    socket
}

fn offset(server: &Server, id: &str) -> usize {
    let shown = server.get(&format!("/v1/uploads/{id}")).json();
    shown["offset"].as_u64().expect("an offset") as usize
}

#[test]
fn what_broke_off_goes_on_from_its_last_byte() {
    let server = Server::start();
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let id = begin(&server, bytes.len(), Some(sha256(&bytes)));
    // A client that goes away in the middle of a piece.
    drop(broken_off(&server, &id, 0, bytes.len(), &bytes[..40_000]));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while offset(&server, &id) < 40_000 {
        assert!(std::time::Instant::now() < deadline, "{} of 40000", offset(&server, &id));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // One that hangs, with its bytes written, is overtaken by its own second try.
    let mut hanging = broken_off(&server, &id, 40_000, 60_000, &bytes[40_000..50_000]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut at = 40_000;
    let answer = loop {
        let answer = piece(&server, &id, at, &bytes[at..]);
        if answer.status != 409 {
            break answer;
        }
        at = answer.header("upload-offset").parse().expect("an offset");
    };
    assert_eq!(at, 50_000, "the hanging request's bytes count");
    assert_eq!(answer.json()["complete"], true, "{}", answer.text());
    let mut told = String::new();
    hanging.read_to_string(&mut told).ok();
    assert!(told.starts_with("HTTP/1.1 409"), "{told}");
    let stored = std::fs::read_dir(server.folder.path().join("incoming")).expect("a folder");
    let path = stored.flatten().next().expect("the file").path();
    assert_eq!(std::fs::read(path).expect("read"), bytes);
}

#[test]
fn bodies_that_trickle_lose_their_place() {
    let silence_max = std::time::Duration::from_millis(400);
    let limits = UploadLimits { silence_max, ..UploadLimits::default() };
    let server = Server::start_with(limits);
    let id = begin(&server, 100, None);
    let mut trickle = broken_off(&server, &id, 0, 100, b"");
    let mut sent = 0;
    // A byte every tenth of a second is no silence, and no progress either.
    while trickle.write_all(b"x").is_ok() && sent < 20 {
        sent += 1;
        std::thread::sleep(std::time::Duration::from_millis(100));
        if offset(&server, &id) > 0 {
            break;
        }
    }
    let mut told = String::new();
    trickle.read_to_string(&mut told).ok();
    assert!(told.starts_with("HTTP/1.1 408"), "{told}");
    let kept = offset(&server, &id);
    assert!((1..20).contains(&kept), "{kept} bytes of {sent}");
    // A form that never ends.
    let mut socket = TcpStream::connect(server.address).expect("connects");
    let head = format!(
        "POST /v1/datasets HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary=b\r\ncontent-length: 100000\r\n\r\n--b\r\n",
        server.key
    );
    socket.write_all(head.as_bytes()).expect("sent");
    let mut told = String::new();
    socket.read_to_string(&mut told).ok();
    assert!(told.starts_with("HTTP/1.1 408"), "{told}");
    assert_eq!(server.upload(&idx_spec(), &small_idx()).status, 201, "others go on");
}

#[test]
fn bytes_that_were_never_noted_are_overwritten_after_a_restart() {
    let server = Server::start();
    let id = begin(&server, 8, None);
    assert_eq!(piece(&server, &id, 0, b"abcd").status, 200);
    // A crash between writing and noting leaves a longer file, whatever is in it.
    let path = std::fs::read_dir(server.folder.path().join("incoming")).expect("a folder");
    let path = path.flatten().next().expect("the file").path();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("opens");
    file.write_all(b"??????").expect("written");
    std::fs::write(path.with_file_name("00000000000000ff"), b"stray").expect("written");
    server.runtime.block_on(upkeep::remove_strays(&server.app)).expect("swept");
    assert!(path.exists() && !path.with_file_name("00000000000000ff").exists());
    let again = server.folder.path().join("raven.sqlite");
    let row = server.runtime.block_on(async {
        let store = Store::open(&again).await.expect("opens");
        store.uploads(server.owner, UnixMs::now(), 10).await.expect("listed")[0]
    });
    assert_eq!((row.received, row.bytes), (4, 8));
    assert_eq!(piece(&server, &id, 4, b"efgh").json()["complete"], true);
    assert_eq!(std::fs::read(&path).expect("read"), b"abcdefgh");
}

#[test]
fn uploads_have_bounds_and_an_end() {
    let limits = UploadLimits { file_bytes_max: 5 << 20, ..UploadLimits::default() };
    let server = Server::start_with(limits);
    let refused = |body: Value| server.post("/v1/uploads", &body);
    let problem = refused(json!({"bytes": (5 << 20) + 1})).problem(422);
    assert_eq!((&problem["field"], &problem["limit"]), (&json!("bytes"), &json!(5 << 20)));
    assert_eq!(refused(json!({"bytes": 0})).problem(422)["field"], "bytes");
    assert_eq!(refused(json!({"bytes": 1, "sha256": "XY"})).problem(422)["field"], "sha256");
    assert_eq!(refused(json!({"bytes": 1, "colour": 1})).problem(422)["field"], "colour");
    // Declared bytes count, received or not: 8 MiB are the key's share.
    let first = begin(&server, 5 << 20, None);
    let problem = refused(json!({"bytes": 4 << 20})).problem(429);
    assert_eq!(problem["limit"], 8 << 20);
    // Another key sees nothing of it.
    let stranger = [("authorization", "Bearer rk_test_stranger")];
    assert_eq!(server.get_with(&format!("/v1/uploads/{first}"), &stranger).status, 401);
    let sweep = |days| {
        let now = UnixMs::now().plus_days(days);
        server.runtime.block_on(upkeep::sweep(&server.app, now)).expect("swept");
    };
    sweep(0);
    assert_eq!(server.get(&format!("/v1/uploads/{first}")).status, 200);
    sweep(2);
    server.get(&format!("/v1/uploads/{first}")).problem(404);
    let left = std::fs::read_dir(server.folder.path().join("incoming")).expect("a folder");
    assert_eq!(left.count(), 0);
    for _ in 0..100 {
        begin(&server, 1, None);
    }
    assert_eq!(refused(json!({"bytes": 1})).problem(429)["limit"], 100);
}

/// Ends a job of the quiet network.
fn end(server: &Server, id: &str) {
    let job = id.parse().expect("an id");
    let phase = JobPhase::Failed;
    let state = JobState::Failed { cause: Cause::Coordinator, reason: "test".into() };
    let record = Record { phase, state, ..record(job, 0) };
    server.runtime.block_on(server.app.store.persist(&record)).expect("persisted");
}

#[test]
fn a_data_set_is_deleted_with_its_own_blobs_once_no_open_job_uses_it() {
    let server = Server::start();
    let (first, second) = (server.small_dataset(), server.small_dataset());
    let shared = server.blob_count();
    assert!(shared > 0);
    let posted = server.post("/v1/jobs", &job(&first));
    assert_eq!(posted.status, 202, "{}", posted.text());
    let path = format!("/v1/datasets/{first}");
    let problem = server.send("DELETE", &path, &[], b"").problem(409);
    assert_eq!(problem["found"], 1);
    assert_eq!(server.get(&path).status, 200);
    let job_id = posted.json()["id"].as_str().expect("an id").to_owned();
    end(&server, &job_id);
    assert_eq!(server.send("DELETE", &path, &[], b"").status, 204);
    assert_eq!(server.blob_count(), shared, "the second data set has the same rows");
    server.get(&path).problem(404);
    server.send("DELETE", &path, &[], b"").problem(404);
    let listed = server.get("/v1/datasets").json();
    assert_eq!(listed["datasets"].as_array().map(Vec::len), Some(1));
    // The job that used it is still there, and no new one can be posted.
    let shown = server.get(&format!("/v1/jobs/{job_id}")).json();
    assert_eq!((&shown["state"], &shown["dataset"]), (&json!("failed"), &json!(first)));
    assert_eq!(server.post("/v1/jobs", &job(&first)).problem(422)["field"], "dataset");
    assert_eq!(server.send("DELETE", &format!("/v1/datasets/{second}"), &[], b"").status, 204);
    assert_eq!(server.blob_count(), 0, "nothing refers to the rows any more");
    // The same rows can come again.
    server.small_dataset();
    assert_eq!(server.blob_count(), shared);
}

#[test]
fn a_data_set_ends_with_its_days_unless_a_job_needs_it() {
    let server = Server::start();
    let mut spec = idx_spec();
    for days in [0, 3651] {
        spec["retain_days"] = json!(days);
        assert_eq!(server.upload(&spec, &small_idx()).problem(422)["field"], "spec.retain_days");
    }
    spec["retain_days"] = json!(3);
    let facts = server.upload(&spec, &small_idx()).json();
    let ends = facts["expires_at"].as_str().expect("a time");
    assert!(ends > UnixMs::now().plus_days(2).rfc3339().as_str(), "{ends}");
    assert!(ends < UnixMs::now().plus_days(4).rfc3339().as_str(), "{ends}");
    let id = facts["id"].as_str().expect("an id");
    let kept = server.small_dataset();
    let sweep = |days| {
        let now = UnixMs::now().plus_days(days);
        server.runtime.block_on(upkeep::sweep(&server.app, now)).expect("swept");
    };
    let status = || server.get(&format!("/v1/datasets/{id}")).status;
    sweep(2);
    assert_eq!(status(), 200);
    let posted = server.post("/v1/jobs", &job(id)).json();
    sweep(4);
    assert_eq!(status(), 200, "an open job uses it");
    end(&server, posted["id"].as_str().expect("an id"));
    sweep(4);
    assert_eq!(status(), 404);
    sweep(5000);
    assert_eq!(server.get(&format!("/v1/datasets/{kept}")).status, 200);
    whole(&server, b"still taken");
}

#[test]
fn an_upload_that_cannot_be_removed_keeps_nothing_else_from_its_end() {
    let server = Server::start();
    let (first, second) = (begin(&server, 1, None), begin(&server, 1, None));
    // In the place of the first one's file there is a folder that is not empty.
    let file = server.folder.path().join("incoming").join(first.trim_start_matches("up_"));
    let _ = std::fs::remove_file(&file);
    std::fs::create_dir_all(file.join("x")).expect("a folder");
    let owner = Account::Contributor(ContributorId([5; 32]));
    let transfer = Transfer {
        debit: Account::Operator,
        credit: owner,
        amount: NanoUsd(500),
        reason: Reason::Earning,
    };
    let id = EntryId::of("test", &[]);
    let entries = [Entry { id, at: 1, action: Action::Post(transfer) }];
    let store = &server.app.store;
    server.runtime.block_on(store.enter(Book::Test, &entries)).expect("entered");
    let later = UnixMs::now().plus_days(400);
    for turn in 0..2 {
        let swept = server.runtime.block_on(upkeep::sweep(&server.app, later));
        assert_eq!(swept.is_err(), turn == 0, "it is told, and given up with the row");
    }
    for id in [first, second] {
        server.get(&format!("/v1/uploads/{id}")).problem(404);
    }
    let left = server.runtime.block_on(store.balance(Book::Test, owner)).expect("read");
    assert_eq!(left.posted, 0, "what nobody claimed went to the reserve all the same");
}
