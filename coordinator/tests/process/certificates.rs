//! A strict job's certificate, from its training to a buyer who trusts nobody:
//! what is true is verified, and what was tampered with is found.

use crate::sold::{Files, Sold, changes, fetch, numbers, other_state};
use crate::support::contributor::{Contributor, Habits};
use crate::support::process::{Installation, Process, digits_job, free_address, program};
use crate::support::{cache_dir, kernel_file};
use raven_coordinator::certificate::bundle::{
    CERTIFICATE, KERNEL, rounds_file, shard_file, state_file,
};
use raven_coordinator::certificate::chain::Follower;
use raven_coordinator::certificate::verify::{Difference, Draw, VerifyError};
use raven_coordinator::certificate::{Body, CertificateKey, document, issue};
use raven_graph::philox::philox4x32;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(240);
/// Bits of a bundle that are flipped one after another.
const FLIPS: u32 = 60;

/// A job of which the operator's own node does everything.
fn strict_job(dataset: &str, epochs: u32, placement: &str) -> Value {
    let mut job = digits_job(dataset, epochs);
    for (field, value) in [
        ("numerics", json!("strict")),
        ("fallback", json!("operator")),
        ("fallback_after_s", json!(1)),
        ("placement", json!(placement)),
    ] {
        job[field] = value;
    }
    job
}

fn verify_model(arguments: &[&str]) -> Output {
    program()
        .arg("verify-model")
        .args(arguments)
        .arg("--cache")
        .arg(cache_dir())
        .output()
        .expect("runs")
}

#[test]
fn what_is_true_is_verified_and_every_tampering_is_found() {
    let installation = Installation::new();
    let key = installation.key.as_str();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(key);
    let job = process.post_job(key, &strict_job(&dataset, 2, "replica"));
    let answer = process.finished(key, &job, PATIENCE);
    assert_eq!(answer["state"], "completed", "{answer}");
    let sold = Sold::fetch(&process, key, &job);
    let body = sold.bundle.body();
    assert_eq!(body.model.sha256, answer["model_sha256"]);
    assert_eq!(body.rounds.count, answer["round"]);
    let (status, again) = fetch(&process, key, &format!("{job}/certificate"));
    assert_eq!((status, again), (200, sold.bundle.certificate().into_bytes()));
    let (_, signer) = process.call("", "/v1/certificate-key", None);
    let signer = signer["public_key"].as_str().expect("a key").to_owned();

    let all = sold.verified(Draw::All);
    let rounds = body.rounds.count;
    assert_eq!((all.verified, all.tasks_verified, all.drawn), (rounds, rounds, rounds));
    let some = sold.verified(Draw::Rounds(3));
    assert!(some.verified >= 3 && some.verified < rounds && some.drawn == 3, "{some:?}");

    files_that_were_tampered_with(&sold, &signer);
    flipped_bits_are_found_or_mean_nothing(&sold);
    kernels_that_were_tampered_with(&sold);
    certificates_that_were_tampered_with(&sold);
    hostile_numbers_are_refused_without_a_panic(&sold);
    claims_that_do_not_hold(&sold);
    the_command_says_so_by_its_status(&sold, &process, key, &job, &signer);
    process.terminate();
}

fn files_that_were_tampered_with(sold: &Sold, signer: &str) {
    let mut model = sold.model.clone();
    let last = model.len() - 1;
    model[last] ^= 1;
    let refused = sold.check(&sold.bundle, &model, Draw::All, None);
    assert!(matches!(refused, Err(VerifyError::Model { .. })), "{refused:?}");
    let body = sold.bundle.body();
    let flip = |name: String| {
        let refused = sold.altered(|files| {
            let content = files.files.get_mut(&name).expect("the file");
            let last = content.len() - 1;
            content[last] ^= 1;
        });
        let error = refused.expect_err(&name).to_string();
        println!("{name}: {error}");
        error
    };
    assert!(flip(state_file(body.model.state)).contains("its content is that of"));
    assert!(flip(state_file(body.rounds.first)).contains("its content is that of"));
    assert!(flip(shard_file(body.dataset.train[0].blob)).contains("its content is that of"));
    for graph in ["init", "train", "evaluate", "optimizer"] {
        flip(format!("graphs/{graph}.json"));
    }
    let other = sold.altered(|files| {
        let init = files.files["graphs/init.json"].clone();
        files.put("graphs/train.json", init);
    });
    assert!(matches!(other, Err(VerifyError::OtherGraph { name: "train" })), "{other:?}");
    let cut = sold.altered(|files| {
        let lines = files.files.get_mut(&rounds_file(0)).expect("rounds");
        let end = lines[..lines.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines");
        lines.truncate(end + 1);
    });
    assert!(matches!(cut, Err(VerifyError::ChainEnd)), "{cut:?}");
    let changed = sold.altered(|files| {
        let mut lines = files.lines();
        lines[4].state = lines[3].state;
        let text: Vec<String> =
            lines.iter().map(|line| serde_json::to_string(line).expect("written")).collect();
        files.put(&rounds_file(0), text.join("\n").into_bytes());
    });
    assert!(matches!(changed, Err(VerifyError::Chain { round: 5 })), "{changed:?}");
    // A list that is true to itself ends with another link.
    let relinked = sold.altered(|files| {
        let (mut body, mut lines) = (files.body(), files.lines());
        lines[4].tasks = None;
        files.relink(&mut body, &mut lines);
    });
    assert!(matches!(relinked, Err(VerifyError::ChainEnd)), "{relinked:?}");
    let pinned = signer.parse().expect("a key");
    let known = sold.check(&sold.bundle, &sold.model, Draw::Rounds(1), Some(pinned));
    assert_eq!(known.expect("checked").differences, []);
    let mut forged = sold.bundle.clone();
    forged.sign(&body);
    let refused = sold.check(&forged, &sold.model, Draw::All, Some(pinned));
    assert!(matches!(refused, Err(VerifyError::Signer { .. })), "{refused:?}");
}

/// Bits anywhere in a bundle. Of what is not found all is verified: headers of
/// frames say what their content's id says anyway, and padding says nothing.
fn flipped_bits_are_found_or_mean_nothing(sold: &Sold) {
    let (whole, mut found) = (sold.bundle.write(), 0);
    for flip in 0..FLIPS {
        let words = philox4x32([flip, 0, 0, 0], [11, 13]);
        let at = ((u64::from(words[0]) * whole.len() as u64) >> 32) as usize;
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (words[1] % 8);
        match sold.check_bytes(Some(&kernel_file()), &bytes, &sold.model, Draw::All, None) {
            Ok(report) => assert_eq!(report.differences, [], "byte {at}"),
            Err(error) => {
                found += 1;
                println!("byte {at}: {error}");
            }
        }
    }
    println!("{found} of {FLIPS} flipped bits were found");
    assert!(found * 2 > FLIPS);
}

/// The kernel may come with the bundle, and is then looked at as closely.
fn kernels_that_were_tampered_with(sold: &Sold) {
    let mut files = sold.bundle.clone();
    let check = |files: &Files| sold.check_on(None, files, &sold.model, Draw::Rounds(1), None);
    assert!(matches!(check(&files), Err(VerifyError::NoKernel)));
    let mut module = std::fs::read(kernel_file()).expect("the kernel");
    files.put(KERNEL, module.clone());
    assert_eq!(check(&files).expect("checked").differences, []);
    let last = module.len() - 1;
    module[last] ^= 1;
    files.put(KERNEL, module);
    assert!(matches!(check(&files), Err(VerifyError::OtherKernel { .. })));
}

/// Bodies of anybody's, signed by a key of their own, with numbers as they should not be.
fn hostile_numbers_are_refused_without_a_panic(sold: &Sold) {
    let body = serde_json::to_value(sold.bundle.body()).expect("JSON");
    let key = CertificateKey::from_secret([9; 32]);
    let (mut refused, mut taken) = (0, 0);
    for (path, value) in numbers(&body) {
        let Ok(body) = serde_json::from_value::<Body>(value) else {
            refused += 1;
            continue;
        };
        let text = document::sign(&body, &key).expect("signed");
        let read = document::read(&text).ok().map(|certificate| certificate.body);
        let lowered = read.and_then(|body| {
            issue::lower(body.job, body.kernel, body.seed, &body.spec, &body.dataset).ok()
        });
        match lowered {
            Some(_) => {
                taken += 1;
                println!("{path} is taken");
            }
            None => refused += 1,
        }
    }
    println!("{refused} refused, {taken} taken");
    assert!(refused > 2 * taken, "{refused} refused, {taken} taken");
}

fn certificates_that_were_tampered_with(sold: &Sold) {
    let text = sold.bundle.certificate();
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let raw = &text[..text.find(",\"public_key\"").expect("a key")];
    let outer = &text[raw.len()..];
    let all = changes(&document["body"]);
    println!("{} fields of a certificate", all.len());
    assert!(all.len() > 60, "{}", all.len());
    for (path, body) in all {
        let changed = format!("{{\"body\":{body}{outer}");
        assert!(document::read(&changed).is_err(), "{path}");
        let refused = sold.altered(|files| files.put(CERTIFICATE, changed.into_bytes()));
        assert!(matches!(refused, Err(VerifyError::Certificate(_))), "{path}: {refused:?}");
    }
    for (field, value) in [("public_key", "0".repeat(64)), ("signature", "0".repeat(128))] {
        let own = document[field].as_str().expect("text");
        assert!(document::read(&text.replace(own, &value)).is_err(), "{field}");
    }
    for at in 0..text.len() {
        assert!(document::read(&text[..at]).is_err(), "cut at {at}");
    }
}

/// A coordinator that signs what is not so.
fn claims_that_do_not_hold(sold: &Sold) {
    let claims = |name: &str, change: &dyn Fn(&mut Files, &mut Body)| {
        let report = sold.altered(|files| {
            let mut body = files.body();
            change(files, &mut body);
            files.sign(&body);
        });
        let differences = report.expect(name).differences;
        println!("{name}: {differences:?}");
        differences
    };
    // Another seed, step size or order of rows leads elsewhere.
    let seed = claims("seed", &|_, body| {
        body.seed.0 = 8;
        body.spec.seed.as_mut().expect("a seed").0 = 8;
    });
    assert!(matches!(seed[0], Difference::FirstState { .. }), "{seed:?}");
    let rate = claims("schedule", &|_, body| {
        body.spec.training.schedule =
            serde_json::from_value(json!({"kind": "constant", "learning_rate": 0.0021}))
                .expect("one");
    });
    assert!(matches!(rate[0], Difference::State { round: 1, .. }), "{rate:?}");
    let graphs = claims("weight decay", &|_, body| body.spec.training.weight_decay = 0.01);
    assert_eq!(graphs[0], Difference::Graphs);
    // The last state was made better by hand, and everything says so.
    let last = claims("a state", &|files, body| {
        let mut lines = files.lines();
        let (id, frame) = other_state(&files.files[&state_file(body.rounds.last)]);
        lines.last_mut().expect("rounds").state = id;
        files.put(&state_file(id), frame);
        files.relink(body, &mut lines);
        if body.model.round == body.rounds.count {
            body.model.state = id;
        }
        body.snapshots.last_mut().expect("states").state = id;
    });
    let is_last = |difference: &Difference| matches!(difference, Difference::State { round, .. } if *round == sold.bundle.body().rounds.count);
    assert!(last.iter().any(is_last), "{last:?}");
    // The digests of tasks that nobody returned.
    let tasks = claims("tasks", &|files, body| {
        let mut lines = files.lines();
        lines[2].tasks.as_mut().expect("tasks").digest.0[0] ^= 1;
        files.relink(body, &mut lines);
    });
    assert_eq!(tasks, [Difference::Tasks { round: 3 }]);
    let measured = claims("an evaluation", &|_, body| {
        body.model.evaluation.as_mut().expect("measured").correct = Some(360.0);
    });
    assert!(matches!(measured[..], [Difference::Evaluation { .. }]), "{measured:?}");
    // Another model altogether, under a certificate that is true otherwise.
    let other = sold.check(
        &{
            let mut files = sold.bundle.clone();
            let mut body = files.body();
            body.model.sha256 = sha256(b"another model");
            files.sign(&body);
            files
        },
        b"another model",
        Draw::Rounds(1),
        None,
    );
    assert_eq!(other.expect("checked").differences, [Difference::Model]);
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    raven_coordinator::runtime::session::hex(&Sha256::digest(bytes))
}

fn the_command_says_so_by_its_status(
    sold: &Sold,
    process: &Process,
    key: &str,
    job: &str,
    signer: &str,
) {
    let id = job.rsplit('/').next().expect("an id");
    let kernel = kernel_file();
    let kernel = kernel.to_str().expect("text");
    let began = Instant::now();
    let ours = ["--url", &process.url, "--job", id, "--key", key, "--kernel", kernel];
    let good = verify_model(&[&ours[..], &["--sample", "2", "--signer", signer]].concat());
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    println!("{text}in {} ms", began.elapsed().as_millis());
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert!(text.contains("(1-f)^2") && text.contains(signer), "{text}");

    let path = |path: &Path| path.to_str().expect("text").to_owned();
    let model = path(&sold.file("model.safetensors", &sold.model));
    let mut lie = sold.bundle.clone();
    let mut body = lie.body();
    body.seed.0 = 8;
    body.spec.seed.as_mut().expect("a seed").0 = 8;
    lie.sign(&body);
    let lie = path(&sold.file("lie.tar", &lie.write()));
    let differs = verify_model(&[&lie, "--model", &model, "--kernel", kernel, "--sample", "1"]);
    assert_eq!(differs.status.code(), Some(1), "{differs:?}");

    let good = path(&sold.file("bundle.tar", &sold.bundle.write()));
    let wrong = path(&sold.file("wrong.safetensors", b"no model"));
    let junk = path(&sold.file("junk.wasm", b"\0asm and no kernel"));
    for (arguments, told) in [
        (vec![good.as_str(), "--model", wrong.as_str(), "--kernel", kernel], "sha256"),
        (vec![&good, "--model", &model, "--kernel", &junk], "the kernel is"),
        (vec![&good, "--model", &model], "--kernel"),
        (vec![&junk, "--model", &model, "--kernel", kernel], "the bundle"),
        (vec![&good, "--model", "/nonexistent", "--kernel", kernel], "/nonexistent"),
        (vec!["--url", &process.url, "--job", "job_0000000000000001", "--key", key], "404"),
    ] {
        let refused = verify_model(&arguments);
        let error = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
}

#[test]
fn a_model_that_stayed_with_the_coordinator_is_verified_too() {
    let installation = Installation::new();
    let key = installation.key.as_str();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(key);
    let job = process.post_job(key, &strict_job(&dataset, 1, "master"));
    let answer = process.finished(key, &job, PATIENCE);
    assert_eq!(answer["state"], "completed", "{answer}");
    let sold = Sold::fetch(&process, key, &job);
    let report = sold.verified(Draw::All);
    assert_eq!((report.verified, report.tasks_verified), (report.rounds, report.rounds));
    process.terminate();
}

#[test]
fn a_chain_outlives_kills_and_few_states_suffice() {
    let installation = Installation::new();
    let key = installation.key.as_str();
    // Room for three states of about 30 kB beside the first.
    let address = free_address();
    let listen = address.to_string();
    let serve = ["--listen", &listen, "--certificate-bytes", "130000"];
    let process = Process::start_with(&installation.data(), &serve);
    let dataset = process.upload_digits(key);
    // Contributors cut batches as their speed has it, and come back after a kill.
    let habits = Habits { slow: Duration::from_millis(5), returns: true, ..Habits::default() };
    let contributors: Vec<_> = (1..=2).map(|n| Contributor::start(address, n, habits)).collect();
    let mut document = strict_job(&dataset, 3, "replica");
    document["fallback"] = json!("wait");
    let job = process.post_job(key, &document);
    let past = |process: &Process, round: u64| {
        let began = Instant::now();
        while process.call(key, &job, None).1["round"].as_u64().expect("a number") < round {
            assert!(began.elapsed() < PATIENCE, "no round {round}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    past(&process, 30);
    process.kill();
    let process = Process::start_with(&installation.data(), &serve);
    let answer = process.finished(key, &job, PATIENCE);
    assert_eq!(answer["state"], "completed", "{answer}");
    let sold = Sold::fetch(&process, key, &job);
    let body = sold.bundle.body();
    println!("published: {:?}", body.snapshots.iter().map(|own| own.round).collect::<Vec<_>>());
    // Those of the job itself, the best and the last two, come on top.
    assert!((4..=7).contains(&body.snapshots.len()), "{:?}", body.snapshots);
    let mut follower = Follower::new(body.job, body.rounds.first);
    assert!(sold.bundle.lines().iter().all(|line| follower.follow(line)));
    assert_eq!(follower.round(), answer["rounds"]);
    let report = sold.verified(Draw::All);
    assert_eq!((report.verified, report.tasks_verified), (report.rounds, report.rounds));
    drop(contributors);
    process.terminate();
}

#[test]
fn who_has_no_certificate_is_told_why_and_a_certificate_outlives_its_data() {
    let installation = Installation::new();
    let key = installation.key.as_str();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(key);
    let problem = |path: &str, asked: u16| {
        let (status, body) = fetch(&process, key, path);
        assert_eq!(status, asked, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice::<Value>(&body).expect("a problem")
    };
    let mut relaxed = strict_job(&dataset, 1, "replica");
    relaxed["numerics"] = json!("relaxed");
    let relaxed = process.post_job(key, &relaxed);
    for route in ["certificate", "bundle"] {
        let refused = problem(&format!("{relaxed}/{route}"), 409);
        assert_eq!(refused["type"], "urn:raven:problem:no-certificate", "{refused}");
        assert_eq!(refused["field"], "numerics");
    }
    let mut long = strict_job(&dataset, 1, "replica");
    long["fallback"] = json!("wait");
    let waiting = process.post_job(key, &long);
    let refused = problem(&format!("{waiting}/certificate"), 409);
    assert_eq!(refused["field"], "state", "{refused}");
    process.call(key, &format!("{waiting}/cancel"), Some(&json!({})));
    process.finished(key, &waiting, PATIENCE);

    let job = process.post_job(key, &strict_job(&dataset, 1, "replica"));
    process.finished(key, &job, PATIENCE);
    process.finished(key, &relaxed, PATIENCE);
    let stranger = crate::support::process::create_key(&installation.data());
    assert_eq!(fetch(&process, &stranger, &format!("{job}/certificate")).0, 404);
    assert_eq!(fetch(&process, "", &format!("{job}/bundle")).0, 401);
    // Deleted before anybody asked for the certificate.
    let url = format!("{}/v1/datasets/{dataset}", process.url);
    let gone = ureq::delete(url).header("authorization", format!("Bearer {key}")).call();
    assert_eq!(gone.expect("deleted").status(), 204);
    let (status, text) = fetch(&process, key, &format!("{job}/certificate"));
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&text));
    document::read(std::str::from_utf8(&text).expect("text")).expect("a certificate");
    assert_eq!(problem(&format!("{job}/bundle"), 409)["field"], "dataset");
    process.terminate();
}

#[test]
fn rounds_that_were_combined_robustly_are_verified_too() {
    let installation = Installation::new();
    let key = installation.key.as_str();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(key);
    let mut document = strict_job(&dataset, 1, "replica");
    document["training"]["micro_batch"] = json!(4);
    document["training"]["combine"] = json!({"rule": "trimmed_mean", "groups": 8, "trim": 1});
    let job = process.post_job(key, &document);
    let answer = process.finished(key, &job, PATIENCE);
    assert_eq!(answer["state"], "completed", "{answer}");
    let sold = Sold::fetch(&process, key, &job);
    let rounds = sold.bundle.body().rounds.count;
    let all = sold.verified(Draw::All);
    assert_eq!((all.verified, all.tasks_verified), (rounds, rounds));
}
