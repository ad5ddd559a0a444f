//! A strict job's certificate, from its training to a buyer who trusts nobody:
//! what is true is verified, and what was tampered with is found.

mod support;

use raven_coordinator::blobs::blob_frame;
use raven_coordinator::certificate::bundle::{
    CERTIFICATE, KERNEL, rounds_file, shard_file, state_file,
};
use raven_coordinator::certificate::chain::{Follower, RoundLine, link, origin};
use raven_coordinator::certificate::verify::{
    Check, Difference, Draw, Report, VerifyError, verify,
};
use raven_coordinator::certificate::{Body, CertificateKey, Signatory, document, issue, tar};
use raven_protocol::frame::TensorPart;
use raven_protocol::{BlobId, Frame, FrameLimits};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};
use support::process::{Installation, Process, digits_job, program};
use support::{cache_dir, kernel_file};

const PATIENCE: Duration = Duration::from_secs(240);

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

fn fetch(process: &Process, key: &str, path: &str) -> (u16, Vec<u8>) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let agent = ureq::Agent::new_with_config(config);
    let url = format!("{}{path}", process.url);
    let answer = agent.get(url).header("authorization", format!("Bearer {key}")).call();
    let mut answer = answer.expect("answers");
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec().expect("a body");
    (answer.status().as_u16(), body)
}

/// A bundle's files by name, and the order in which they came.
#[derive(Clone)]
struct Files {
    order: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Files {
    fn read(bytes: &[u8]) -> Self {
        let (mut at, mut order, mut files) = (0, Vec::new(), BTreeMap::new());
        while bytes[at] != 0 {
            let name = bytes[at..at + 100].split(|byte| *byte == 0).next().expect("a name");
            let name = String::from_utf8(name.to_vec()).expect("text");
            let length = std::str::from_utf8(&bytes[at + 124..at + 135]).expect("octal");
            let length = usize::from_str_radix(length, 8).expect("octal");
            at += tar::BLOCK;
            files.insert(name.clone(), bytes[at..at + length].to_vec());
            order.push(name);
            at += length + tar::padding(length as u64);
        }
        Files { order, files }
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in &self.order {
            let content = &self.files[name];
            bytes.extend_from_slice(&tar::header(name, content.len() as u64));
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len() + tar::padding(content.len() as u64), 0);
        }
        bytes.extend_from_slice(&tar::END);
        bytes
    }

    fn put(&mut self, name: &str, content: Vec<u8>) {
        if self.files.insert(name.to_owned(), content).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn certificate(&self) -> String {
        String::from_utf8(self.files[CERTIFICATE].clone()).expect("text")
    }

    fn body(&self) -> Body {
        document::read(&self.certificate()).expect("a certificate").body
    }

    fn lines(&self) -> Vec<RoundLine> {
        let files = self.files.iter().filter(|(name, _)| name.starts_with("rounds/"));
        let texts = files.map(|(_, bytes)| std::str::from_utf8(bytes).expect("text"));
        let lines = texts.flat_map(str::lines);
        lines.map(|line| serde_json::from_str(line).expect("a line")).collect()
    }

    /// Puts these rounds in, linked anew, and a body that is true to them.
    fn relink(&mut self, body: &mut Body, lines: &mut [RoundLine]) {
        let (mut previous, mut before) = (origin(body.job, body.rounds.first), body.rounds.first);
        for line in lines.iter_mut() {
            line.link = link(previous, line.round, before, line.state, line.tasks.as_ref());
            (previous, before) = (line.link, line.state);
        }
        (body.rounds.link, body.rounds.last) = (previous, before);
        for chunk in lines.chunks(256) {
            let text: Vec<String> =
                chunk.iter().map(|line| serde_json::to_string(line).expect("written")).collect();
            let text = text.join("\n") + "\n";
            self.put(&rounds_file(chunk[0].round - 1), text.into_bytes());
        }
    }

    /// Signs a body with a key of one's own.
    fn sign(&mut self, body: &Body) {
        let text = document::sign(body, &CertificateKey::from_secret([9; 32])).expect("signed");
        self.put(CERTIFICATE, text.into_bytes());
    }
}

/// A finished job, as its buyer has it.
struct Sold {
    folder: tempfile::TempDir,
    bundle: Files,
    model: Vec<u8>,
}

impl Sold {
    fn fetch(process: &Process, key: &str, job: &str) -> Self {
        let (status, bytes) = fetch(process, key, &format!("{job}/bundle"));
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
        let (status, model) = fetch(process, key, &format!("{job}/model"));
        assert_eq!(status, 200);
        let folder = tempfile::tempdir().expect("a folder");
        Sold { folder, bundle: Files::read(&bytes), model }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    fn check(
        &self,
        bundle: &Files,
        model: &[u8],
        draw: Draw,
        signer: Option<Signatory>,
    ) -> Result<Report, VerifyError> {
        self.check_on(Some(&kernel_file()), bundle, model, draw, signer)
    }

    fn check_on(
        &self,
        kernel: Option<&Path>,
        bundle: &Files,
        model: &[u8],
        draw: Draw,
        signer: Option<Signatory>,
    ) -> Result<Report, VerifyError> {
        let scratch = tempfile::tempdir().expect("a folder");
        let (bundle, model) =
            (self.file("bundle.tar", &bundle.write()), self.file("model.safetensors", model));
        let check = Check {
            bundle: &bundle,
            model: &model,
            kernel,
            signer,
            draw,
            evaluate: draw == Draw::All,
            seed: 7,
            scratch: scratch.path(),
            cache: Some(&cache_dir()),
        };
        verify(&check, &mut |line| println!("  {line}"))
    }

    /// The same with nothing changed but the bundle.
    fn altered(&self, change: impl FnOnce(&mut Files)) -> Result<Report, VerifyError> {
        let mut bundle = self.bundle.clone();
        change(&mut bundle);
        self.check(&bundle, &self.model, Draw::All, None)
    }

    fn verified(&self, draw: Draw) -> Report {
        let began = Instant::now();
        let report = self.check(&self.bundle, &self.model, draw, None).expect("checked");
        println!("{draw:?} in {} ms: {}", began.elapsed().as_millis(), report.summary());
        assert_eq!(report.differences, []);
        report
    }
}

/// A state's frame with one bit of one weight flipped, and its id.
fn other_state(frame: &[u8]) -> (BlobId, Vec<u8>) {
    let frame = Frame::decode(frame, &FrameLimits::TO_CONTRIBUTOR).expect("a frame");
    let data: Vec<Vec<u8>> = frame
        .tensors()
        .enumerate()
        .map(|(index, view)| {
            let mut data = view.data.to_vec();
            data[0] ^= u8::from(index == 0);
            data
        })
        .collect();
    let parts: Vec<TensorPart<'_>> = frame
        .tensors()
        .zip(&data)
        .map(|(view, data)| TensorPart { name: view.name.to_owned(), ty: view.ty(), data })
        .collect();
    blob_frame(&parts)
}

/// Every leaf of a document, changed; by its path.
fn changes(value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, inner)| {
                changes(inner).into_iter().map(move |(path, changed)| {
                    let mut whole = map.clone();
                    whole.insert(key.clone(), changed);
                    (format!(".{key}{path}"), Value::Object(whole))
                })
            })
            .collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .take(2)
            .flat_map(|(index, inner)| {
                changes(inner).into_iter().map(move |(path, changed)| {
                    let mut whole = list.clone();
                    whole[index] = changed;
                    (format!("[{index}]{path}"), Value::Array(whole))
                })
            })
            .collect(),
        Value::String(text) => {
            let last = if text.ends_with('0') { "1" } else { "0" };
            let cut = text.char_indices().last().map_or(0, |(at, _)| at);
            vec![(String::new(), json!(format!("{}{last}", &text[..cut])))]
        }
        Value::Number(_) => vec![(String::new(), json!(value.as_f64().expect("small") + 1.0))],
        Value::Bool(flag) => vec![(String::new(), json!(!flag))],
        Value::Null => vec![(String::new(), json!(1))],
    }
}

fn verify_model(arguments: &[&str]) -> Output {
    program().arg("verify-model").args(arguments).output().expect("runs")
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

/// Every number of a document, replaced by others.
fn numbers(value: &Value) -> Vec<(String, Value)> {
    let others = [json!(0), json!(1), json!(u32::MAX), json!(u64::MAX), json!(-1), json!(1e300)];
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, inner)| {
                numbers(inner).into_iter().map(move |(path, changed)| {
                    let mut whole = map.clone();
                    whole.insert(key.clone(), changed);
                    (format!(".{key}{path}"), Value::Object(whole))
                })
            })
            .collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .take(2)
            .flat_map(|(index, inner)| {
                numbers(inner).into_iter().map(move |(path, changed)| {
                    let mut whole = list.clone();
                    whole[index] = changed;
                    (format!("[{index}]{path}"), Value::Array(whole))
                })
            })
            .collect(),
        Value::Number(_) => others.map(|other| (format!("={other}"), other)).to_vec(),
        _ => Vec::new(),
    }
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
    let serve = ["--listen", "127.0.0.1:0", "--certificate-bytes", "130000"];
    let process = Process::start_with(&installation.data(), &serve);
    let dataset = process.upload_digits(key);
    let job = process.post_job(key, &strict_job(&dataset, 3, "replica"));
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
    assert_eq!(report.verified, report.rounds);
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
    let stranger = support::process::create_key(&installation.data());
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
