//! The same bits however often the coordinator is killed, and whatever becomes
//! of its contributors: nothing that was accepted is lost or counted twice.

use crate::support::contributor::{CUT_WORDS, Contributor, Habits};
use crate::support::killed::{Killed, undisturbed};
use crate::support::process::{Installation, Process, digits_job};
use raven_graph::philox::philox4x32;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(240);
/// A contributor of a process of its own is told by this what to do.
const CONTRIBUTE: &str = "RAVEN_TEST_CONTRIBUTE";

/// What a job came to, and what was accounted for it.
#[derive(Debug, PartialEq)]
struct Outcome {
    model_sha256: String,
    accuracy: String,
    /// Credited flops by round.
    flops: Vec<i64>,
}

/// A number below `bound`, drawn from the printed seed.
fn draw(seed: u64, index: u32, bound: u32) -> u32 {
    philox4x32([index, 0, 0, 0], [seed as u32, (seed >> 32) as u32])[0] % bound
}

/// From the environment, so that a failed run can be repeated; else from the clock.
#[expect(clippy::disallowed_methods, reason = "no two runs have one seed")]
fn printed_seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = std::env::var("RAVEN_KILL_SEED").ok().map(|text| text.parse().expect("a number"));
    let seed = seed.unwrap_or_else(now);
    println!("RAVEN_KILL_SEED={seed}");
    seed
}

/// Checks that every book says the same of the only job, and answers its outcome.
fn outcome(data: &Path, job: &serde_json::Value) -> Outcome {
    assert_eq!(job["state"], "completed", "{job}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let file = SqliteConnectOptions::new().filename(data.join("raven.sqlite")).read_only(true);
        let pool = SqlitePoolOptions::new().connect_with(file).await.expect("the store");
        let number = |sql: &'static str| {
            let pool = &pool;
            async move { sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await.expect("a number") }
        };
        let tasks = number("SELECT COUNT(*) FROM credits").await;
        // What is done again after a kill is the operator's to pay.
        let own = "SELECT COUNT(*) FROM credits WHERE payer = 'job'";
        assert_eq!(job["tasks"], number(own).await);
        assert_eq!(number("SELECT SUM(tasks) FROM job_contributors").await, tasks);
        assert_eq!(number("SELECT tasks FROM totals").await, tasks);
        let flops = number("SELECT SUM(flops) FROM credits").await;
        let own = number("SELECT SUM(flops) FROM credits WHERE payer = 'job'").await;
        assert_eq!(job["cost"]["flops"], own);
        assert_eq!(job["cost"]["flops_planned"], own, "all of the plan, and nothing twice");
        assert_eq!(number("SELECT SUM(flops) FROM job_contributors").await, flops);
        let total = "SELECT calculations * 50000000 + flops_rest FROM totals";
        assert_eq!(number(total).await, flops);
        assert_eq!(job["rounds"], number("SELECT COUNT(*) FROM rounds").await);
        let rows = sqlx::query(
            "SELECT SUM(flops) FROM credits WHERE payer = 'job' GROUP BY round ORDER BY round",
        );
        let rows = rows.fetch_all(&pool).await.expect("credits");
        let check = sqlx::query_scalar::<_, String>("PRAGMA integrity_check");
        assert_eq!(check.fetch_one(&pool).await.expect("a check"), "ok");
        Outcome {
            model_sha256: job["model_sha256"].as_str().expect("a digest").to_owned(),
            accuracy: job["best"]["accuracy"].to_string(),
            flops: rows.iter().map(|row| row.get(0)).collect(),
        }
    })
}

/// What it comes to where nothing disturbs it.
fn calm(epochs: u32) -> Outcome {
    let (installation, job) = undisturbed(|dataset| digits_job(dataset, epochs), PATIENCE);
    outcome(&installation.data(), &job)
}

#[test]
fn a_coordinator_killed_at_random_moments_ends_in_the_same_model() {
    let kills: u32 = std::env::var("RAVEN_KILLS").map_or(3, |text| text.parse().expect("a count"));
    let seed = printed_seed();
    let epochs = 8 + kills;
    let calm = calm(epochs);
    let mut killed = Killed::begin(|dataset| digits_job(dataset, epochs));
    let mut restarted = Vec::new();
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(draw(seed, 2 * kill, 700).into()));
        let state = &killed.job()["state"];
        assert_ne!(state, "completed", "it ended before kill {kill}; make it longer");
        killed.kill();
        if draw(seed, 2 * kill + 1, 4) == 0 {
            // Once more, before it has come up.
            killed.fail_to_start(Duration::from_millis(draw(seed, 1000 + kill, 150).into()));
        }
        let began = Instant::now();
        killed.restart();
        restarted.push(began.elapsed().as_millis());
    }
    println!("{kills} kills; ms until it listened again: {restarted:?}");
    let (installation, job) = killed.finish(PATIENCE);
    assert_eq!(outcome(&installation.data(), &job), calm);
}

/// A contributor in a process of its own, which can be killed and frozen.
struct Other(Child);

impl Other {
    fn start(address: SocketAddr, number: u8, cuts_upload_after: u64) -> Self {
        let program = std::env::current_exe().expect("this test's program");
        let arguments = ["kills::contributes", "--exact", "--ignored", "--nocapture"];
        let told = format!("{address} {number} {cuts_upload_after}");
        let mut command = Command::new(program);
        command.args(arguments).env(CONTRIBUTE, told).stdout(Stdio::piped());
        Other(command.spawn().expect("starts"))
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let done = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(done.expect("kill").success());
    }
}

impl Other {
    /// Kills it; answers what it printed.
    fn said(mut self) -> String {
        let _ = self.0.kill();
        let mut said = String::new();
        let mut stdout = self.0.stdout.take().expect("piped");
        stdout.read_to_string(&mut said).expect("text");
        said
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No test: the program of [`Other`].
#[test]
#[ignore = "runs as a contributor of other tests"]
fn contributes() {
    let Ok(told) = std::env::var(CONTRIBUTE) else { return };
    let mut words = told.split(' ');
    let mut word = || words.next().expect("three words");
    let address = word().parse().expect("an address");
    let number = word().parse().expect("a number");
    let cut = word().parse().expect("a count");
    let cuts_upload_after = (cut > 0).then_some(cut);
    let habits = Habits { returns: true, cuts_upload_after, ..Habits::default() };
    let contributor = Contributor::start(address, number, habits);
    while !contributor.is_gone() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn contributors_killed_frozen_and_cut_off_leave_the_same_model() {
    let epochs = 20;
    let calm = calm(epochs);
    let installation = Installation::new();
    let (key, data) = (&installation.key, installation.data());
    let process = Process::start(&data);
    let dataset = process.upload_digits(key);
    let address = process.address();
    let mut others: Vec<Other> =
        (1..=4).map(|n| Other::start(address, n, if n == 4 { 2 } else { 0 })).collect();
    let contributors = || {
        let (_, stats) = process.call(key, "/v1/stats", None);
        stats["contributors"].as_u64().expect("a count")
    };
    let wait = |what: &str, probe: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !probe() {
            assert!(began.elapsed() < PATIENCE, "not {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait("four contributors", &|| contributors() == 4);
    let path = process.post_job(key, &digits_job(&dataset, epochs));
    let round = || process.call(key, &path, None).1["round"].as_u64().expect("a round");
    wait("begun", &|| round() > 10);
    others[0].signal("KILL");
    wait("going on without the first", &|| round() > 40);
    others[1].signal("STOP");
    let frozen_at = Instant::now();
    let before = round();
    wait("going on without the second", &|| round() > before + 20);
    println!("20 rounds after a freeze took {} ms", frozen_at.elapsed().as_millis());
    let job = process.finished(key, &path, PATIENCE);
    let fourth = others.pop().expect("four").said();
    assert!(fourth.contains(CUT_WORDS), "no upload was broken off: {fourth}");
    let log = process.terminate();
    assert_eq!(outcome(&data, &job), calm, "{log}");
}
