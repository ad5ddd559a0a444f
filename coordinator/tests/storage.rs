//! A database that is held, and blobs that rot or vanish:
//! each leaves a clear state and nothing that is wrong.

mod server;
mod support;

use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::sweep::sweep;
use raven_graph::{DType, TensorType};
use raven_protocol::TensorPart;
use serde_json::json;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::contributor::{Contributor, Habits};
use support::process::{Installation, Process, blob_files, digits_job, flip_a_byte};

const PATIENCE: Duration = Duration::from_secs(120);
const RETURNS: Habits =
    Habits { slow: Duration::ZERO, dies_after: None, returns: true, cuts_upload_after: None };

fn wait(what: &str, probe: impl Fn() -> bool) {
    let began = Instant::now();
    while !probe() {
        assert!(began.elapsed() < PATIENCE, "not {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// The model of an undisturbed training.
fn undisturbed(epochs: u32) -> String {
    let installation = Installation::new();
    let key = installation.key.as_str();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(key);
    let contributor = Contributor::start(process.address(), 1, RETURNS);
    let path = process.post_job(key, &digits_job(&dataset, epochs));
    let job = process.finished(key, &path, PATIENCE);
    drop(contributor);
    process.terminate();
    job["model_sha256"].as_str().expect("a digest").to_owned()
}

#[test]
fn a_held_database_makes_jobs_wait() {
    let epochs = 8;
    let calm = undisturbed(epochs);
    let installation = Installation::new();
    let key = installation.key.as_str();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(key);
    let path = process.post_job(key, &digits_job(&dataset, epochs));
    let contributor = Contributor::start(process.address(), 1, RETURNS);
    wait("begun", || process.call(key, &path, None).1["round"].as_u64() > Some(5));
    // Another program, such as a careless backup, takes the database for itself.
    let file = SqliteConnectOptions::new().filename(installation.data().join("raven.sqlite"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut other = runtime.block_on(async {
        let mut other = SqliteConnection::connect_with(&file).await.expect("opens");
        sqlx::query("PRAGMA busy_timeout = 10000").execute(&mut other).await.expect("set");
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("held");
        other
    });
    wait("told", || process.try_call(key, "/readyz", None).is_some_and(|a| a.status == 503));
    let ready = process.try_call(key, "/readyz", None).expect("answers");
    assert!(ready.body.contains("urn:raven:problem:store-busy"), "{}", ready.body);
    wait("said why", || {
        let (_, job) = process.call(key, &path, None);
        job["reason"].as_str().is_some_and(|reason| reason.contains("another process"))
    });
    runtime.block_on(async {
        sqlx::query("ROLLBACK").execute(&mut other).await.expect("let go");
        other.close().await.expect("closed");
    });
    let job = process.finished(key, &path, PATIENCE);
    assert_eq!(job["model_sha256"], calm.as_str(), "{job}");
    assert_eq!(job["cost"]["flops"], job["cost"]["flops_planned"]);
    drop(contributor);
    process.terminate();
}

#[test]
fn a_rotten_checkpoint_fails_its_job_by_name_and_no_other() {
    let installation = Installation::new();
    let (key, data) = (installation.key.as_str(), installation.data());
    let process = Process::start(&data);
    let dataset = process.upload_digits(key);
    let shards: BTreeSet<PathBuf> = blob_files(&data).into_iter().collect();
    let path = process.post_job(key, &digits_job(&dataset, 2));
    // Its first weights are a checkpoint; nobody is there to go on.
    let states = || -> Vec<PathBuf> {
        blob_files(&data).into_iter().filter(|file| !shards.contains(file)).collect()
    };
    wait("a checkpoint", || {
        process.call(key, &path, None).1["state"] == "waiting_for_contributors"
            && !states().is_empty()
    });
    process.kill();
    let rotten = states().remove(0);
    flip_a_byte(&rotten);
    let process = Process::start(&data);
    let (_, job) = process.call(key, &path, None);
    let name = rotten.file_stem().and_then(|name| name.to_str()).expect("a name");
    assert_eq!(job["state"], "failed", "{job}");
    let reason = job["reason"].as_str().expect("a reason");
    assert!(reason.contains(name) && reason.contains("content"), "{reason}");
    let ready = process.try_call(key, "/readyz", None).expect("answers");
    assert_eq!(ready.status, 200, "one job's fault is not the coordinator's");
    assert!(ready.body.contains("degraded: 1 damaged") && ready.body.contains(name), "{ready:?}");
    // Another job of the same seed makes the same first weights, and heals the blob.
    let contributor = Contributor::start(process.address(), 1, RETURNS);
    let other = process.post_job(key, &digits_job(&dataset, 2));
    let job = process.finished(key, &other, PATIENCE);
    assert_eq!(job["state"], "completed", "{job}");
    drop(contributor);
    assert_eq!(process.try_call(key, "/readyz", None).expect("answers").body, "ready\n");
    process.terminate();
}

#[test]
fn rotten_and_vanished_shards_fail_the_jobs_that_need_them() {
    for vanished in [false, true] {
        let installation = Installation::new();
        let (key, data) = (installation.key.as_str(), installation.data());
        let process = Process::start(&data);
        let dataset = process.upload_digits(key);
        for shard in blob_files(&data) {
            match vanished {
                true => std::fs::remove_file(shard).expect("removed"),
                false => flip_a_byte(&shard),
            }
        }
        let path = process.post_job(key, &digits_job(&dataset, 2));
        let contributor = Contributor::start(process.address(), 1, RETURNS);
        let job = process.finished(key, &path, PATIENCE);
        assert_eq!(job["state"], "failed", "{job}");
        let reason = job["reason"].as_str().expect("a reason");
        assert!(reason.contains("its data is damaged: blob "), "{reason}");
        let ready = process.try_call(key, "/readyz", None).expect("answers").body;
        assert!(ready.contains("degraded: "), "{ready}");
        drop(contributor);
        // The same upload again writes them anew, and the next job has its data.
        let again = process.upload_digits(key);
        let path = process.post_job(key, &digits_job(&again, 1));
        let contributor = Contributor::start(process.address(), 2, RETURNS);
        let job = process.finished(key, &path, PATIENCE);
        assert_eq!(job["state"], "completed", "{job}");
        drop(contributor);
        process.terminate();
    }
}

#[test]
fn a_sweep_beside_uploads_takes_only_what_nothing_refers_to() {
    let server = server::Server::start();
    let blobs = server.app.blobs.clone();
    let orphan = |byte: u8| {
        let data = [byte; 64];
        let ty = TensorType::new(DType::U8, [64]);
        let part = TensorPart { name: "x".into(), ty, data: &data };
        blobs.put_tensors(&[part]).expect("stored").0
    };
    let kept = server.small_dataset();
    let orphans: Vec<_> = (0..20).map(orphan).collect();
    let swept = || server.runtime.block_on(sweep(&server.app.store, &blobs)).expect("swept");
    assert_eq!(swept(), 20);
    assert!(orphans.iter().all(|id| !blobs.contains(*id)));
    assert_eq!(swept(), 0);
    // Sweeps all the time, while the same and other data sets are uploaded.
    std::thread::scope(|scope| {
        let uploads = scope.spawn(|| {
            (0..6)
                .map(|number| {
                    let spec = json!({"name": "n", "format": "idx", "target": "classes",
                                      "classes": 4, "scale": f64::from(number + 1)});
                    let answer = server.upload(&spec, &server::files::small_idx());
                    assert_eq!(answer.status, 201, "{}", answer.text());
                })
                .count()
        });
        let mut sweeps = 0;
        while !uploads.is_finished() {
            swept();
            sweeps += 1;
        }
        println!("{sweeps} sweeps beside {} uploads", uploads.join().expect("uploaded"));
    });
    for id in server.runtime.block_on(server.app.store.referenced_blobs()).expect("listed") {
        assert!(blobs.get(id).is_ok(), "{id} is referred to");
    }
    assert_eq!(server.get(&format!("/v1/datasets/{kept}")).status, 200);
}

#[test]
fn uploads_beyond_the_quota_are_refused_before_they_are_read() {
    let server = server::Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.blob_bytes_max = Some(1000);
    });
    server.small_dataset();
    let used = server.app.blobs.used();
    assert!(used >= 1000);
    let spec = json!({"name": "n", "format": "idx", "target": "classes", "classes": 4});
    let problem = server.upload(&spec, &server::files::small_idx()).problem(507);
    assert_eq!(problem["type"], "urn:raven:problem:storage-full");
    assert_eq!((&problem["limit"], &problem["found"]), (&json!(1000), &json!(used)));
    let server = server::Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.disk_free_bytes_min = u64::MAX;
    });
    let problem = server.upload(&spec, &server::files::small_idx()).problem(507);
    assert_eq!(problem["type"], "urn:raven:problem:storage-full");
}
