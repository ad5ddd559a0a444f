//! The program itself: its command line, its end, and its next start.

use crate::server::files::{TRAIN, images, labels};
use crate::support::kernel_file;
use crate::support::process::{Process, create_key, program, run};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn a_job_outlives_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let key = create_key(&data);

    let first = Process::start(&data);
    let spec = json!({"name": "d", "format": "idx", "target": "classes", "classes": 4});
    let y = crate::server::files::idx(8, &[TRAIN as u32], &labels(0, TRAIN));
    let files = [("train_x", images(0, TRAIN)), ("train_y", y)];
    let document = crate::server::job(&first.upload(&key, &spec, &files));
    let (status, job) = first.call(&key, "/v1/jobs", Some(&document));
    assert_eq!(status, 202, "{job}");
    let path = format!("/v1/jobs/{}", job["id"].as_str().expect("an id"));
    // Its first weights are a checkpoint; then it waits for someone to come.
    let waiting = |process: &Process| {
        let began = Instant::now();
        loop {
            let (_, job) = process.call(&key, &path, None);
            if job["state"] == "waiting_for_contributors" {
                return job;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{job}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    waiting(&first);

    // The folder belongs to one process at a time.
    let kernel = kernel_file();
    let second = run(
        &data,
        &["serve", "--listen", "127.0.0.1:0", "--kernel", kernel.to_str().expect("text")],
    );
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another coordinator"));
    let log = first.terminate();
    assert!(log.contains("stopping"), "{log}");

    let next = Process::start(&data);
    let again = waiting(&next);
    assert_eq!((&again["id"], &again["seed"]), (&job["id"], &job["seed"]));
    let (status, _) = next.call(&key, &format!("{path}/cancel"), Some(&Value::Null));
    assert_eq!(status, 202);
    let began = Instant::now();
    while next.call(&key, &path, None).1["state"] != "cancelled" {
        assert!(began.elapsed() < Duration::from_secs(10), "not cancelled");
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = next.terminate();
    assert!(log.contains("going on with a job"), "{log}");

    // An ended job stays ended, and a revoked key opens nothing.
    assert!(run(&data, &["keys", "revoke", &key]).status.success());
    let last = Process::start(&data);
    assert_eq!(last.call(&key, &path, None).0, 401);
    let log = last.terminate();
    assert!(!log.contains("going on with a job"), "{log}");
}

#[test]
fn an_upload_goes_on_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let created = run(&data, &["keys", "create"]);
    let key = String::from_utf8(created.stdout).expect("text").trim().to_owned();
    let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 253) as u8).collect();
    let patch = |process: &Process, path: &str, offset: usize, piece: &[u8]| -> Value {
        let mut answer = ureq::patch(format!("{}{path}", process.url))
            .header("authorization", format!("Bearer {key}"))
            .header("upload-offset", offset.to_string())
            .send(piece)
            .expect("taken");
        let text = answer.body_mut().read_to_string().expect("text");
        serde_json::from_str(&text).expect("JSON")
    };
    let mut first = Process::start(&data);
    let (status, upload) = first.call(&key, "/v1/uploads", Some(&json!({"bytes": bytes.len()})));
    assert_eq!(status, 201, "{upload}");
    let path = format!("/v1/uploads/{}", upload["id"].as_str().expect("an id"));
    assert_eq!(patch(&first, &path, 0, &bytes[..70_000])["offset"], 70_000);
    first.child.kill().expect("killed");
    first.child.wait().expect("gone");
    let next = Process::start(&data);
    let (_, shown) = next.call(&key, &path, None);
    assert_eq!((&shown["offset"], &shown["complete"]), (&json!(70_000), &json!(false)));
    assert_eq!(patch(&next, &path, 70_000, &bytes[70_000..])["complete"], true);
    let stored = std::fs::read_dir(data.join("incoming")).expect("a folder").flatten().next();
    assert_eq!(std::fs::read(stored.expect("the file").path()).expect("read"), bytes);
    next.terminate();
}

#[test]
fn mistakes_on_the_command_line_are_told() {
    let wrong = program().args(["serve", "--port", "1"]).output().expect("runs");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("unknown argument: --port"));
    let help = program().arg("--help").output().expect("runs");
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("coordinator serve --data DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    for (arguments, told) in [
        (["serve", "--listen", "0.0.0.0:0"].as_slice(), "set admin_token_file first"),
        (&["serve", "--listen", "127.0.0.1:0", "--origin", "https://x.example/"], "--origin: "),
        // No browser makes a passkey for an address without a name.
        (&["serve", "--listen", "127.0.0.1:0", "--passkey-sign-up", "yes"], "where passkeys make"),
    ] {
        let refused = run(data, arguments);
        assert!(!refused.status.success());
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(stderr.contains(told), "{stderr}");
    }
    let missing = run(data, &["serve", "--listen", "127.0.0.1:0", "--kernel", "/nonexistent.wasm"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nonexistent.wasm"));
}
