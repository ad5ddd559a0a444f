//! A finished job as its buyer has it: bundle and model, to be checked as they
//! are or with something changed.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use crate::support::process::Process;
use crate::support::{cache_dir, kernel_file};
use raven_coordinator::blobs::blob_frame;
use raven_coordinator::certificate::bundle::{CERTIFICATE, rounds_file};
use raven_coordinator::certificate::chain::{RoundLine, link, origin};
use raven_coordinator::certificate::verify::{Check, Draw, Report, VerifyError, verify};
use raven_coordinator::certificate::{Body, CertificateKey, Signatory, document, tar};
use raven_protocol::frame::TensorPart;
use raven_protocol::{BlobId, Frame, FrameLimits};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub fn fetch(process: &Process, key: &str, path: &str) -> (u16, Vec<u8>) {
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
pub struct Files {
    pub order: Vec<String>,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Files {
    pub fn read(bytes: &[u8]) -> Self {
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

    pub fn write(&self) -> Vec<u8> {
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

    pub fn put(&mut self, name: &str, content: Vec<u8>) {
        if self.files.insert(name.to_owned(), content).is_none() {
            self.order.push(name.to_owned());
        }
    }

    pub fn certificate(&self) -> String {
        String::from_utf8(self.files[CERTIFICATE].clone()).expect("text")
    }

    pub fn body(&self) -> Body {
        document::read(&self.certificate()).expect("a certificate").body
    }

    pub fn lines(&self) -> Vec<RoundLine> {
        let files = self.files.iter().filter(|(name, _)| name.starts_with("rounds/"));
        let texts = files.map(|(_, bytes)| std::str::from_utf8(bytes).expect("text"));
        let lines = texts.flat_map(str::lines);
        lines.map(|line| serde_json::from_str(line).expect("a line")).collect()
    }

    /// Puts these rounds in, linked anew, and a body that is true to them.
    pub fn relink(&mut self, body: &mut Body, lines: &mut [RoundLine]) {
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
    pub fn sign(&mut self, body: &Body) {
        let text = document::sign(body, &CertificateKey::from_secret([9; 32])).expect("signed");
        self.put(CERTIFICATE, text.into_bytes());
    }
}

/// A finished job, as its buyer has it.
pub struct Sold {
    pub folder: tempfile::TempDir,
    pub bundle: Files,
    pub model: Vec<u8>,
}

impl Sold {
    pub fn fetch(process: &Process, key: &str, job: &str) -> Self {
        let (status, bytes) = fetch(process, key, &format!("{job}/bundle"));
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
        let (status, model) = fetch(process, key, &format!("{job}/model"));
        assert_eq!(status, 200);
        let folder = tempfile::tempdir().expect("a folder");
        Sold { folder, bundle: Files::read(&bytes), model }
    }

    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    pub fn check(
        &self,
        bundle: &Files,
        model: &[u8],
        draw: Draw,
        signer: Option<Signatory>,
    ) -> Result<Report, VerifyError> {
        self.check_on(Some(&kernel_file()), bundle, model, draw, signer)
    }

    pub fn check_on(
        &self,
        kernel: Option<&Path>,
        bundle: &Files,
        model: &[u8],
        draw: Draw,
        signer: Option<Signatory>,
    ) -> Result<Report, VerifyError> {
        self.check_bytes(kernel, &bundle.write(), model, draw, signer)
    }

    pub fn check_bytes(
        &self,
        kernel: Option<&Path>,
        bundle: &[u8],
        model: &[u8],
        draw: Draw,
        signer: Option<Signatory>,
    ) -> Result<Report, VerifyError> {
        let scratch = tempfile::tempdir().expect("a folder");
        let (bundle, model) =
            (self.file("bundle.tar", bundle), self.file("model.safetensors", model));
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
    pub fn altered(&self, change: impl FnOnce(&mut Files)) -> Result<Report, VerifyError> {
        let mut bundle = self.bundle.clone();
        change(&mut bundle);
        self.check(&bundle, &self.model, Draw::All, None)
    }

    pub fn verified(&self, draw: Draw) -> Report {
        let began = Instant::now();
        let report = self.check(&self.bundle, &self.model, draw, None).expect("checked");
        println!("{draw:?} in {} ms: {}", began.elapsed().as_millis(), report.summary());
        assert_eq!(report.differences, []);
        report
    }
}

/// A state's frame with one bit of one weight flipped, and its id.
pub fn other_state(frame: &[u8]) -> (BlobId, Vec<u8>) {
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

/// A document once for everything that `leaf` makes of one of its leaves, by the
/// leaf's path; of a list the first two are looked at.
fn replaced(value: &Value, leaf: &dyn Fn(&Value) -> Vec<(String, Value)>) -> Vec<(String, Value)> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, inner)| {
                replaced(inner, leaf).into_iter().map(move |(path, changed)| {
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
                replaced(inner, leaf).into_iter().map(move |(path, changed)| {
                    let mut whole = list.clone();
                    whole[index] = changed;
                    (format!("[{index}]{path}"), Value::Array(whole))
                })
            })
            .collect(),
        other => leaf(other),
    }
}

/// Every leaf of a document, changed; by its path.
pub fn changes(value: &Value) -> Vec<(String, Value)> {
    replaced(value, &|leaf| {
        let changed = match leaf {
            Value::String(text) => {
                let last = if text.ends_with('0') { "1" } else { "0" };
                let cut = text.char_indices().last().map_or(0, |(at, _)| at);
                json!(format!("{}{last}", &text[..cut]))
            }
            Value::Bool(flag) => json!(!flag),
            Value::Null => json!(1),
            number => json!(number.as_f64().expect("small") + 1.0),
        };
        vec![(String::new(), changed)]
    })
}

/// Every number of a document, replaced by others.
pub fn numbers(value: &Value) -> Vec<(String, Value)> {
    let others = [json!(0), json!(1), json!(u32::MAX), json!(u64::MAX), json!(-1), json!(1e300)];
    replaced(value, &|leaf| match leaf {
        Value::Number(_) => {
            others.iter().map(|other| (format!("={other}"), other.clone())).collect()
        }
        _ => Vec::new(),
    })
}
