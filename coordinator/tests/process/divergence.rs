//! Jobs whose loss diverges: they go back to their last checkpoint at a lower
//! learning rate, to the same model however often the coordinator is killed, and
//! their certificates hold.

use crate::sold::Sold;
use crate::support::contributor::{Contributor, Habits};
use crate::support::killed::{Killed, undisturbed};
use crate::support::process::{Installation, Process, digits_job};
use raven_coordinator::certificate::verify::{Difference, Draw};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(240);

/// Learning rates of 2000 and 20 overshoot by far; 0.2 is fine.
fn reckless(dataset: &str, epochs: u32) -> Value {
    let mut job = digits_job(dataset, epochs);
    job["numerics"] = json!("strict");
    job["optimizer"] = json!({"kind": "sgd"});
    job["training"]["schedule"]["learning_rate"] = json!(2000.0);
    job["training"]["on_divergence"] = json!({
        "action": "roll_back", "factor": 2, "window": 5, "max": 6, "learning_rate_factor": 0.01
    });
    job
}

/// What a job came to, and what was accounted for it.
fn outcome(job: &Value) -> Vec<&Value> {
    assert_eq!(job["state"], "completed", "{job}");
    assert!(job["best"]["accuracy"].as_f64() > Some(0.8), "{job}");
    ["model_sha256", "setbacks", "best", "tasks"]
        .map(|field| &job[field])
        .into_iter()
        .chain([&job["cost"]["flops"]])
        .collect()
}

#[test]
fn a_job_that_diverges_comes_to_the_same_model_however_often_it_is_killed() {
    let (_, calm) = undisturbed(|dataset| reckless(dataset, 4), PATIENCE);
    outcome(&calm);
    let setbacks = calm["setbacks"].as_u64().expect("a count");
    assert!(setbacks >= 2, "{calm}");
    let (planned, flops) = (&calm["cost"]["flops_planned"], &calm["cost"]["flops"]);
    assert!(flops.as_u64() > planned.as_u64(), "what was undone was done and is paid: {calm}");

    let mut killed = Killed::begin(|dataset| reckless(dataset, 4));
    // Before the first setback, at each one, and between the last and the end.
    let moments = [(0, 2), (1, 0), (1, 2), (setbacks, 0), (setbacks, 30)];
    for (setbacks, rounds) in moments {
        let began = Instant::now();
        let job = loop {
            let job = killed.job();
            let is_so = job["setbacks"].as_u64() > Some(setbacks)
                || (job["setbacks"].as_u64() == Some(setbacks)
                    && job["round"].as_u64() >= Some(rounds));
            if is_so {
                break job;
            }
            assert!(began.elapsed() < PATIENCE, "{job}");
            std::thread::sleep(Duration::from_millis(2));
        };
        println!("killed at setback {} of round {}", job["setbacks"], job["round"]);
        assert_ne!(job["state"], "completed", "it ended before it was killed");
        killed.kill();
        killed.restart();
    }
    let (_, job) = killed.finish(PATIENCE);
    let found = outcome(&job);
    // It may have been cut into other tasks: all else is the same.
    let expected = outcome(&calm);
    assert_eq!((&found[..3], found[4]), (&expected[..3], expected[4]));
}

#[test]
fn the_certificate_of_a_job_that_was_set_back_is_verified_and_a_false_one_found() {
    let installation = Installation::new();
    let key = installation.key.as_str();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(key);
    let mut document = reckless(&dataset, 2);
    for (field, value) in [
        ("verification", json!("adaptive")),
        ("fallback", json!("operator")),
        ("fallback_after_s", json!(1)),
    ] {
        document[field] = value;
    }
    let path = process.post_job(key, &document);
    let job = process.finished(key, &path, PATIENCE);
    assert_eq!(job["state"], "completed", "{job}");
    let sold = Sold::fetch(&process, key, &path);
    let body = sold.bundle.body();
    assert_eq!(job["setbacks"], body.setbacks.len());
    assert!(body.setbacks.len() >= 2, "{:?}", body.setbacks);
    let all = sold.verified(Draw::All);
    assert_eq!((all.verified, all.tasks_verified), (body.rounds.count, body.rounds.count));
    // A signer who claims another learning rate is found out by the first round.
    let changed = sold.altered(|files| {
        let mut body = files.body();
        body.setbacks.pop();
        files.sign(&body);
    });
    let report = changed.expect("it is read");
    let is_first = |found: &Difference| matches!(found, Difference::State { round: 1, .. });
    assert!(report.differences.iter().any(is_first), "{:?}", report.differences);
    let changed = sold.altered(|files| {
        let mut body = files.body();
        body.setbacks.push(body.rounds.count - 1);
        files.sign(&body);
    });
    let error = changed.expect_err("no end of an epoch").to_string();
    assert!(error.contains("setbacks: at the ends of epochs"), "{error}");
    process.terminate();
}

#[test]
fn a_job_that_is_to_stop_ends_with_its_cause() {
    let installation = Installation::new();
    let key = installation.key.as_str();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(key);
    let contributor = Contributor::start(process.address(), 1, Habits::default());
    let mut document = reckless(&dataset, 2);
    document["training"]["on_divergence"] = json!({"action": "stop", "factor": 2, "window": 5});
    let path = process.post_job(key, &document);
    let job = process.finished(key, &path, PATIENCE);
    assert_eq!((&job["state"], &job["cause"]), (&json!("failed"), &json!("diverged")), "{job}");
    let reason = job["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("it diverges at step "), "{reason}");
    document["training"]["on_divergence"] = json!({"action": "roll_back", "max": 99});
    let (status, refused) = process.call(key, "/v1/jobs", Some(&document));
    assert_eq!(
        (status, &refused["field"]),
        (422, &json!("training.on_divergence.max")),
        "{refused}"
    );
    drop(contributor);
    process.terminate();
}
