//! A long run in small: jobs one after the other, contributors that come and
//! go, and nothing that grows. `RAVEN_SOAK_MINUTES` says how long; it is run by
//! `scripts/lib/soak.sh`, not with the other tests.

use crate::support::contributor::{Contributor, Habits};
use crate::support::process::{Installation, Process, digits_job};
use raven_graph::philox::philox4x32;
use serde_json::json;
use std::io::Read as _;
use std::time::{Duration, Instant};

const SEED: [u32; 2] = [0x736f_616b, 0];
const SAMPLE_EVERY: Duration = Duration::from_secs(3);
/// Contributors at a time.
const CROWD: usize = 3;

/// What grows where something leaks.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    resident_mib: f64,
    open_files: f64,
    leases: f64,
    payloads: f64,
    connections: f64,
    contributors: f64,
}

fn sample(process: &Process) -> Sample {
    let metrics = process.try_call("", "/metrics", None).expect("answers").body;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
    };
    Sample {
        resident_mib: value("process_resident_memory_bytes") / f64::from(1 << 20),
        open_files: value("process_open_fds"),
        leases: value("raven_leases_open"),
        payloads: value("raven_payloads_held"),
        connections: value("raven_connections_open"),
        contributors: value("raven_contributors"),
    }
}

/// The middle value of one figure over some samples.
fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "takes as long as it is told"]
fn nothing_grows_while_jobs_and_contributors_come_and_go() {
    let minutes: f64 = std::env::var("RAVEN_SOAK_MINUTES")
        .map_or(1.0, |text| text.parse().expect("a number of minutes"));
    let length = Duration::from_secs_f64(minutes * 60.0);
    let installation = Installation::new();
    let key = installation.key.as_str();
    let mut process = Process::start(&installation.data());
    // A log that nobody reads would fill its pipe and stop the coordinator.
    let mut log = process.child.stderr.take().expect("piped");
    let reading = std::thread::spawn(move || {
        let (mut buffer, mut bytes) = ([0; 4096], 0u64);
        while let Ok(read @ 1..) = log.read(&mut buffer) {
            bytes += read as u64;
        }
        bytes
    });
    let dataset = process.upload_digits(key);
    let draw = |index: u32, bound: u32| philox4x32([index, 0, 0, 0], SEED)[0] % bound;
    let mut number = 0u32;
    let join = |number: &mut u32| {
        *number += 1;
        let habits = Habits {
            // Some break off an upload, some go without a word, the rest until they are dropped.
            cuts_upload_after: (draw(*number, 4) == 0).then_some(5),
            dies_after: (draw(*number, 4) == 1).then_some(40),
            ..Habits::default()
        };
        Contributor::start(process.address(), (*number % 200) as u8 + 1, habits)
    };
    let mut crowd: Vec<Contributor> = (0..CROWD).map(|_| join(&mut number)).collect();
    let (began, mut sampled, mut churned) = (Instant::now(), Instant::now(), Instant::now());
    let (mut jobs, mut open, mut samples) = (0u32, Vec::new(), Vec::new());
    while began.elapsed() < length || !open.is_empty() {
        if open.len() < 2 && began.elapsed() < length {
            let mut document = digits_job(&dataset, 2);
            document["seed"] = json!(jobs);
            document["placement"] = json!(if jobs % 3 == 2 { "master" } else { "replica" });
            open.push(process.post_job(key, &document));
            jobs += 1;
        }
        open.retain(|path| {
            let (_, job) = process.call(key, path, None);
            assert_ne!(job["state"], "failed", "{job}");
            job["state"] != "completed"
        });
        for contributor in &mut crowd {
            if contributor.is_gone() {
                *contributor = join(&mut number);
            }
        }
        if churned.elapsed() > Duration::from_secs(2) {
            churned = Instant::now();
            let at = draw(number + 1_000_000, CROWD as u32) as usize;
            crowd[at] = join(&mut number);
        }
        if sampled.elapsed() > SAMPLE_EVERY && began.elapsed() < length {
            sampled = Instant::now();
            samples.push(sample(&process));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    crowd.into_iter().for_each(|contributor| {
        contributor.kill();
    });
    let quiet_since = Instant::now();
    let last = loop {
        let last = sample(&process);
        if last.contributors == 0.0 && last.connections <= 2.0 {
            break last;
        }
        // A peer that is gone without a word is noticed by the ping that it does not answer.
        assert!(quiet_since.elapsed() < Duration::from_secs(90), "{last:?}");
        std::thread::sleep(Duration::from_millis(500));
    };
    let fifth = samples.len() / 5;
    let (early, late) = (&samples[fifth..2 * fifth], &samples[samples.len() - fifth..]);
    assert!(fifth > 0, "too short to say anything");
    let resident = |samples| median(samples, |sample| sample.resident_mib);
    let files = |samples| median(samples, |sample| sample.open_files);
    println!(
        "{:.0} s, {jobs} jobs, {number} contributors; memory {:.1} MiB in the second fifth, {:.1} in the last; \
         files {} and {}; at the end {} leases, {} results, {} connections, {} files",
        began.elapsed().as_secs_f64(),
        resident(early),
        resident(late),
        files(early),
        files(late),
        last.leases,
        last.payloads,
        last.connections,
        last.open_files,
    );
    assert_eq!((last.leases, last.payloads), (0.0, 0.0), "{last:?}");
    // Allocators keep some of what they were given; a leak of a kilobyte a task would be more.
    assert!(resident(late) <= resident(early) * 1.1 + 16.0, "memory grows");
    assert!(files(late) <= files(early) + 8.0, "files are left open");
    process.terminate_quietly();
    println!("{} bytes of log", reading.join().expect("read"));
}
