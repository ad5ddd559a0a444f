//! A disk that is full, a database that is held, and blobs that rot or vanish:
//! each leaves a clear state and nothing that is wrong.

use crate::support::contributor::{Contributor, Habits};
use crate::support::kernel_file;
use crate::support::process::{Installation, Process, blob_files, digits_job, flip_a_byte};
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::sweep::sweep;
use raven_graph::{DType, TensorType};
use raven_protocol::{Earnings, Keeps, TensorPart};
use serde_json::json;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const RETURNS: Habits = Habits {
    slow: Duration::ZERO,
    dies_after: None,
    returns: true,
    cuts_upload_after: None,
    traffic: None,
    gpu: false,
    keeps: Keeps::Key,
    earnings: Earnings::Mine,
    poison: None,
    device: None,
};

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

/// A coordinator whose data folder is a small file system of its own.
fn on_small_disk(installation: &Installation, mount: &Path) -> Process {
    let script = "mount -t tmpfs -o size=40m raven \"$1\" && cp -a \"$2\"/. \"$1\" && shift 2 && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(mount).arg(installation.data());
    command.arg(env!("CARGO_BIN_EXE_coordinator")).args(["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--disk-free-bytes-min", "1000000", "--data"]).arg(mount);
    command.env("RAVEN_PRIVATE_POOL", "yes");
    command.arg("--kernel").arg(kernel_file());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let url = line.trim().strip_prefix("listening on ").map(str::to_owned);
    Process { url: url.unwrap_or_else(|| panic!("{line:?} names no address")), child }
}

/// Writes until nothing more fits.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).expect("a file");
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_makes_jobs_wait_and_they_go_on_once_there_is_room() {
    let epochs = 12;
    let calm = undisturbed(epochs);
    let installation = Installation::new();
    let key = installation.key.as_str();
    let mount = installation.path().join("small");
    std::fs::create_dir(&mount).expect("a folder");
    let process = on_small_disk(&installation, &mount);
    // The mount is seen by that process alone; this is the way into its view.
    let inside = PathBuf::from(format!("/proc/{}/root{}", process.pid(), mount.display()));
    let filler = inside.join("filler");
    let dataset = process.upload_digits(key);
    let path = process.post_job(key, &digits_job(&dataset, epochs));
    let contributor = Contributor::start(process.address(), 1, RETURNS);
    wait("begun", || process.call(key, &path, None).1["round"].as_u64() > Some(20));
    fill(&filler);
    wait("told", || process.try_call(key, "/readyz", None).is_some_and(|a| a.status == 507));
    let ready = process.try_call(key, "/readyz", None).expect("answers");
    assert!(ready.body.contains("urn:raven:problem:storage-full"), "{}", ready.body);
    wait("said why", || {
        let (_, job) = process.call(key, &path, None);
        job["reason"].as_str().is_some_and(|reason| reason.contains("disk is full"))
    });
    let (_, held) = process.call(key, &path, None);
    assert_eq!(held["state"], "running", "it waits: {held}");
    std::thread::sleep(Duration::from_millis(1500));
    let (_, later) = process.call(key, &path, None);
    assert_eq!(later["round"], held["round"], "nothing is promised meanwhile");
    let metrics = process.try_call(key, "/metrics", None).expect("answers").body;
    assert!(metrics.contains("raven_storage_trouble{kind=\"storage-full\"} 1"), "{metrics}");
    // An upload is told the same at once.
    let (status, refused) = upload_status(&process, key);
    assert_eq!(status, 507, "{refused}");
    std::fs::remove_file(&filler).expect("removed");
    let began = Instant::now();
    while process.call(key, &path, None).1["state"] != "completed" {
        if began.elapsed() > Duration::from_secs(30) {
            let (_, job) = process.call(key, &path, None);
            let gone = contributor.is_gone();
            panic!("{job}\ncontributor gone: {gone}\n{}", process.terminate());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let job = process.finished(key, &path, PATIENCE);
    assert_eq!((&job["state"], &job["reason"]), (&json!("completed"), &json!(null)));
    assert_eq!(job["model_sha256"], calm.as_str());
    assert_eq!(job["cost"]["flops"], job["cost"]["flops_planned"]);
    assert_eq!(process.try_call(key, "/readyz", None).expect("answers").status, 200);
    drop(contributor);
    let log = process.terminate();
    assert!(log.contains("records are stored again"), "{log}");
}

/// An upload of a few rows; answers status and body.
fn upload_status(process: &Process, key: &str) -> (u16, String) {
    let spec = json!({"name": "d", "format": "csv", "target": "classes", "classes": 2});
    let body = format!(
        "--b\r\ncontent-disposition: form-data; name=\"spec\"\r\n\r\n{spec}\r\n\
         --b\r\ncontent-disposition: form-data; name=\"table\"; filename=\"t\"\r\n\r\n\
         1,0\n2,1\n3,0\n4,1\n\r\n--b--\r\n"
    );
    let mut answer = ureq::post(format!("{}/v1/datasets", process.url))
        .config()
        .http_status_as_error(false)
        .build()
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "multipart/form-data; boundary=b")
        .send(body)
        .expect("answers");
    let text = answer.body_mut().read_to_string().expect("text");
    (answer.status().as_u16(), text)
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
fn a_rotten_checkpoint_costs_the_work_since_the_one_before() {
    const EPOCHS: u32 = 8;
    let calm = undisturbed(EPOCHS);
    for vanished in [false, true] {
        let installation = Installation::new();
        let (key, data) = (installation.key.as_str(), installation.data());
        let process = Process::start(&data);
        let dataset = process.upload_digits(key);
        let shards: BTreeSet<PathBuf> = blob_files(&data).into_iter().collect();
        let contributor = Contributor::start(process.address(), 1, RETURNS);
        let path = process.post_job(key, &digits_job(&dataset, EPOCHS));
        wait("a few epochs", || process.call(key, &path, None).1["epoch"].as_u64() >= Some(3));
        process.kill();
        drop(contributor);
        let mut states = blob_files(&data);
        states.retain(|file| !shards.contains(file));
        let written =
            |file: &PathBuf| file.metadata().and_then(|file| file.modified()).expect("a time");
        states.sort_by_key(written);
        let newest = states.last().expect("a checkpoint");
        match vanished {
            true => std::fs::remove_file(newest).expect("removed"),
            false => flip_a_byte(newest),
        }
        let process = Process::start(&data);
        let contributor = Contributor::start(process.address(), 2, RETURNS);
        let job = process.finished(key, &path, PATIENCE);
        assert_eq!(job["model_sha256"], calm.as_str(), "{job}");
        assert_eq!(job["cost"]["flops"], job["cost"]["flops_planned"], "nothing is charged twice");
        drop(contributor);
        process.terminate();
    }
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
    let server = crate::server::Server::start();
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
                    let answer = server.upload(&spec, &crate::server::files::small_idx());
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
    let server = crate::server::Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.blob_bytes_max = Some(1000);
    });
    server.small_dataset();
    let used = server.app.blobs.used();
    assert!(used >= 1000);
    let spec = json!({"name": "n", "format": "idx", "target": "classes", "classes": 4});
    let problem = server.upload(&spec, &crate::server::files::small_idx()).problem(507);
    assert_eq!(problem["type"], "urn:raven:problem:storage-full");
    assert_eq!((&problem["limit"], &problem["found"]), (&json!(1000), &json!(used)));
    let server = crate::server::Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.disk_free_bytes_min = u64::MAX;
    });
    let problem = server.upload(&spec, &crate::server::files::small_idx()).problem(507);
    assert_eq!(problem["type"], "urn:raven:problem:storage-full");
}
