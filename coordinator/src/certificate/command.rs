//! `coordinator verify-model`: what a buyer runs.

use super::key::Signatory;
use super::verify::{Check, Draw, Report, VerifyError, verify};
use crate::random;
use raven_protocol::JobId;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rounds that are drawn where the command line does not say how many.
pub const SAMPLE_DEFAULT: u32 = 10;
/// Of a bundle: data sets of 16 GiB and states beside them.
const BUNDLE_BYTES_MAX: u64 = 64 << 30;
const MODEL_BYTES_MAX: u64 = 1 << 30;
/// Of what a server says about a refusal.
const PROBLEM_BYTES_MAX: u64 = 64 << 10;
/// For a connection, and for an answer's head: a certificate may still have to be made.
const CONNECT: Duration = Duration::from_secs(20);
const HEAD: Duration = Duration::from_secs(120);

/// Everything was verified.
const VERIFIED: u8 = 0;
/// The signer has certified what does not hold.
const DIFFERS: u8 = 1;
/// A file cannot be read, or is not the certified one.
const UNREADABLE: u8 = 2;

/// Where model and bundle come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Files { bundle: PathBuf, model: PathBuf },
    Coordinator { url: String, job: JobId, key: String },
}

/// One invocation.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyModel {
    pub source: Source,
    pub kernel: Option<PathBuf>,
    /// Keeps the compiled kernel for the next time; nobody else may write to it.
    pub cache: Option<PathBuf>,
    pub draw: Draw,
    pub evaluate: bool,
    /// Drawn where it is absent.
    pub seed: Option<u64>,
    pub signer: Option<Signatory>,
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{url}: {error}")]
    Http { url: String, error: ureq::Error },
    #[error("{url}: status {status}: {detail}")]
    Refused { url: String, status: u16, detail: String },
    #[error("{url}: more than {limit} bytes")]
    TooLong { url: String, limit: u64 },
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// A folder for the time of one check.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, CommandError> {
        let path =
            std::env::temp_dir().join(format!("raven-verify-{:016x}", random::nonzero_u64()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| CommandError::Io { path: path.clone(), error })?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Downloads to a file.
fn fetch(url: String, key: &str, target: &Path, limit: u64) -> Result<(), CommandError> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(HEAD))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let answer = agent.get(&url).header("authorization", format!("Bearer {key}")).call();
    let answer = answer.map_err(|error| CommandError::Http { url: url.clone(), error })?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    if status != 200 {
        let detail = body.with_config().limit(PROBLEM_BYTES_MAX).read_to_string();
        return Err(CommandError::Refused { url, status, detail: detail.unwrap_or_default() });
    }
    let failed = |error| CommandError::Io { path: target.to_owned(), error };
    let mut file = File::create(target).map_err(failed)?;
    // One more than may come, so that too much is told from just enough.
    let mut reader = body.into_with_config().limit(limit + 1).reader();
    let bytes = io::copy(&mut reader, &mut file).map_err(failed)?;
    if bytes > limit { Err(CommandError::TooLong { url, limit }) } else { Ok(()) }
}

fn run_in(scratch: &Path, asked: &VerifyModel) -> Result<Report, CommandError> {
    let (bundle, model) = match &asked.source {
        Source::Files { bundle, model } => (bundle.clone(), model.clone()),
        Source::Coordinator { url, job, key } => {
            let (bundle, model) = (scratch.join("bundle.tar"), scratch.join("model.safetensors"));
            let path = format!("{}/v1/jobs/{job}", url.trim_end_matches('/'));
            fetch(format!("{path}/model"), key, &model, MODEL_BYTES_MAX)?;
            fetch(format!("{path}/bundle"), key, &bundle, BUNDLE_BYTES_MAX)?;
            (bundle, model)
        }
    };
    let seed = asked.seed.unwrap_or_else(random::nonzero_u64);
    if let Draw::Rounds(count) = asked.draw {
        println!("draw         {count} rounds by --seed {seed:#018x}");
    }
    let check = Check {
        bundle: &bundle,
        model: &model,
        kernel: asked.kernel.as_deref(),
        signer: asked.signer,
        draw: asked.draw,
        evaluate: asked.evaluate,
        seed,
        scratch,
        cache: asked.cache.as_deref(),
    };
    Ok(verify(&check, &mut |line| println!("{line}"))?)
}

/// Checks a model and answers the program's exit status: 0 where everything
/// was verified, 1 where the certificate claims what does not hold, 2 where a file
/// cannot be read or is not the certified one. Blocks.
pub fn run(asked: &VerifyModel) -> u8 {
    let report = Scratch::new().and_then(|scratch| run_in(&scratch.0, asked));
    match report {
        Ok(report) => {
            println!("{}", report.summary());
            if report.differences.is_empty() { VERIFIED } else { DIFFERS }
        }
        Err(error) => {
            eprintln!("coordinator: {error}");
            UNREADABLE
        }
    }
}
