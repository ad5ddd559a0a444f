//! Checking a model against its certificate, and its certificate against a
//! computation of one's own.
//!
//! First everything that costs nothing: signature, graphs, chain, model file,
//! kernel. Then rounds are drawn, and the stretches between published states
//! that hold them are run again, every round of them, bit for bit.

use super::bundle::{Bundle, BundleError, KERNEL_BYTES_MAX, ROUNDS_PER_FILE};
use super::chain::{Follower, RoundLine};
use super::document::{self, Body, Certificate, CertificateError, GraphIds, Measured};
use super::issue;
use super::key::Signatory;
use super::replay::{Replay, ReplayError, Replayed};
use crate::blobs::{BlobError, Blobs};
use crate::job::{JobContext, JobError};
use crate::model_file::{self, DataNote, ModelFileError};
use crate::runtime::executor::{KernelError, KernelModule};
use crate::runtime::session::hex;
use raven_graph::philox::permutation;
use raven_graph::{GraphError, Limits, ValidGraph};
use raven_protocol::{BlobId, FrameLimits, KernelId};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A model holds no more than a state, and a header.
const MODEL_BYTES_MAX: u64 = FrameLimits::TO_CONTRIBUTOR.frame_bytes_max();

/// What is checked, and how much of it.
#[derive(Clone, Debug)]
pub struct Check<'a> {
    pub bundle: &'a Path,
    pub model: &'a Path,
    /// The kernel that rounds are run on; the bundle's where there is none.
    pub kernel: Option<&'a Path>,
    /// Whose certificate it must be.
    pub signer: Option<Signatory>,
    pub draw: Draw,
    /// Whether the model is measured on the held-out rows as well.
    pub evaluate: bool,
    /// Decides which rounds are drawn.
    pub seed: u64,
    /// For shards on their way to the kernel, and a kernel out of a bundle.
    pub scratch: &'a Path,
    /// Where the compiled kernel is kept; a folder that nobody else writes to.
    pub cache: Option<&'a Path>,
}

/// Which rounds are run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// So many, drawn from all with equal chances, none twice.
    Rounds(u32),
    All,
}

/// Why a model is not checked to the end: something cannot be read, or is not
/// what the certificate says.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: {bytes} bytes, {limit} are the most", path.display())]
    TooLong { path: PathBuf, bytes: u64, limit: u64 },
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the certificate: {0}")]
    Certificate(#[from] CertificateError),
    #[error("the certificate is signed by {found}, not by {expected}")]
    Signer { expected: Signatory, found: Signatory },
    #[error("the job's document: {0}")]
    Job(#[from] JobError),
    #[error("the graph {name}: {error}")]
    Graph { name: &'static str, error: GraphError },
    #[error("the graph {name} of the bundle is not the certified one")]
    OtherGraph { name: &'static str },
    #[error("the certificate has more rounds than its job: {found} of {limit}")]
    Rounds { limit: u32, found: u32 },
    #[error("the chain breaks at round {round}: the list of rounds was changed")]
    Chain { round: u32 },
    #[error("the chain does not end with the certified link")]
    ChainEnd,
    #[error("the published state of round {round} is not the chain's")]
    Published { round: u32 },
    #[error("the model's sha256 is {found}, the certificate is for {expected}")]
    Model { expected: String, found: String },
    #[error("the model's state: {0}")]
    ModelState(#[from] ModelFileError),
    #[error("the bundle has no kernel: name one by --kernel")]
    NoKernel,
    #[error("the kernel is {found}, the certificate is for {expected}")]
    OtherKernel { expected: KernelId, found: KernelId },
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error("round {round}: {error}")]
    Replay { round: u32, error: ReplayError },
}

/// A claim of the certificate's signer that does not hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// The graphs are not what the job's document comes to.
    Graphs,
    /// The model holds other weights than the certified state.
    Model,
    /// The seed comes to another first state.
    FirstState { found: BlobId },
    /// A round comes to another state.
    State { round: u32, certified: BlobId, found: BlobId },
    /// A round's tasks come to other digests than were accepted.
    Tasks { round: u32 },
    /// The model comes to other sums on the held-out rows.
    Evaluation { found: Measured },
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Graphs => f.write_str(
                "the certified graphs are not what this program makes of the job's document; \
                 take the version that the certificate was issued by",
            ),
            Difference::Model => f.write_str("the model does not hold the certified state"),
            Difference::FirstState { found } => write!(f, "the seed comes to state {found}"),
            Difference::State { round, certified, found } => {
                write!(f, "round {round} comes to {found}, {certified} is certified")
            }
            Difference::Evaluation { found: Measured { loss_sum, correct, count } } => {
                write!(f, "{count} held-out rows come to a summed loss of {loss_sum}")?;
                correct.map_or(Ok(()), |correct| write!(f, " and {correct} right"))
            }
            Difference::Tasks { round } => {
                write!(f, "round {round}: its tasks come to other digests than were accepted")
            }
        }
    }
}

/// What was checked, and what came of it.
#[derive(Clone, Debug)]
pub struct Report {
    pub rounds: u32,
    /// Rounds that were drawn.
    pub drawn: u32,
    /// Rounds that were run again and came to the certified bits.
    pub verified: u32,
    /// Of those, rounds whose tasks' digests were compared too.
    pub tasks_verified: u32,
    pub differences: Vec<Difference>,
}

impl Report {
    /// What the checks prove, in sentences.
    pub fn summary(&self) -> String {
        let Report { rounds, drawn, verified, tasks_verified, .. } = self;
        let share = f64::from(*verified) * 100.0 / f64::from((*rounds).max(1));
        let mut text = format!(
            "{verified} of {rounds} rounds ({share:.1} %) were run again and came to the certified \
             bits, {tasks_verified} of them task by task."
        );
        if !self.differences.is_empty() {
            text += &format!(" {} claims do not hold.", self.differences.len());
        } else if verified == rounds {
            text += " Nothing is left to trust: the model is what this data and seed come to.";
        } else {
            let missed = 0.95f64.powf(f64::from(*drawn)) * 100.0;
            let one = (1.0 - f64::from(*drawn) / f64::from((*rounds).max(1))) * 100.0;
            text += &format!(
                " Were a fraction f of all rounds wrong, a draw of {drawn} would miss all of them with \
                 a probability of at most (1-f)^{drawn}: {missed:.2} % for f = 5 %, {one:.1} % for a \
                 single round, which is enough to put another model in. --all leaves nothing."
            );
        }
        text
    }
}

/// Checks a model. What is found is told to `say`, a line at a time. Blocks, for
/// as long as the rounds take.
///
/// # Errors
/// [`VerifyError`]. Claims that do not hold are in the report.
pub fn verify(check: &Check<'_>, say: &mut dyn FnMut(&str)) -> Result<Report, VerifyError> {
    let bundle = Bundle::open(check.bundle)?;
    let Certificate { body, signatory } = document::read(&bundle.certificate()?)?;
    if let Some(expected) = check.signer.filter(|expected| *expected != signatory) {
        return Err(VerifyError::Signer { expected, found: signatory });
    }
    say(&format!("certificate  of {} ({}), signed by {signatory}", body.job, body.state));
    let mut differences = Vec::new();
    let context = context(&bundle, &body, &mut differences)?;
    follow(&bundle, &body, &context)?;
    say(&format!("chain        {} rounds, follows to its certified end", body.rounds.count));
    model(check, &bundle, &body, &context, &mut differences)?;
    let (sha256, round) = (&body.model.sha256, body.model.round);
    say(&format!("model        sha256 {sha256}, the state after round {round}"));
    let kernel = kernel(check, &bundle, &body)?;
    let source =
        if check.kernel.is_some() { "named here" } else { "of the bundle: compare its id" };
    say(&format!("kernel       {}, {source}", body.kernel));
    differences.iter().for_each(|difference| say(&format!("differs      {difference}")));
    let blobs = Blobs::open(&check.scratch.join("blobs"))?;
    let replay = Replay::new(&bundle, Arc::new(context), &body.setbacks, &kernel, blobs);
    let replay = replay.map_err(|error| VerifyError::Replay { round: 0, error })?;
    let drawn = drawn(check, body.rounds.count);
    let mut run =
        Run { bundle: &bundle, body: &body, replay, tasks_verified: 0, verified: 0, differences };
    // A first state that the seed does not come to would taint every round, and
    // a draw of rounds need not come across it: it is looked at always.
    run.first_state(say)?;
    run.segments(&drawn, say)?;
    if check.evaluate {
        run.evaluate(say)?;
    }
    let Run { verified, tasks_verified, differences, .. } = run;
    let (rounds, drawn) = (body.rounds.count, drawn.len() as u32);
    Ok(Report { rounds, drawn, verified, tasks_verified, differences })
}

/// Lowers the certified document, and compares the graphs with those published.
fn context(
    bundle: &Bundle,
    body: &Body,
    differences: &mut Vec<Difference>,
) -> Result<JobContext, VerifyError> {
    for (name, id) in body.graphs.named() {
        let text = bundle.graph(name)?;
        let graph = ValidGraph::from_json(&text, &Limits::default());
        let graph = graph.map_err(|error| VerifyError::Graph { name, error })?;
        if graph.id() != id {
            return Err(VerifyError::OtherGraph { name });
        }
    }
    let context = issue::lower(body.job, body.kernel, body.seed, &body.spec, &body.dataset)?;
    if GraphIds::of(&context) != body.graphs {
        differences.push(Difference::Graphs);
    }
    Ok(context)
}

/// Follows the chain over all rounds, past every published state.
fn follow(bundle: &Bundle, body: &Body, context: &JobContext) -> Result<(), VerifyError> {
    let raven_engine::Algorithm::SyncSgd(sgd) = &context.plan.algorithm;
    let limit = raven_engine::Layout::of(sgd).map_or(0, |layout| layout.total_rounds);
    let found = body.rounds.count;
    if found > limit {
        return Err(VerifyError::Rounds { limit, found });
    }
    let mut follower = Follower::new(body.job, body.rounds.first);
    let mut published = body.snapshots.iter().skip(1).peekable();
    for behind in (0..found).step_by(ROUNDS_PER_FILE as usize) {
        for line in bundle.rounds(behind)? {
            if !follower.follow(&line) {
                return Err(VerifyError::Chain { round: follower.round().saturating_add(1) });
            }
            if let Some(own) = published.next_if(|own| own.round == line.round)
                && own.state != line.state
            {
                return Err(VerifyError::Published { round: own.round });
            }
        }
    }
    let is_end = follower.round() == found
        && follower.link() == body.rounds.link
        && follower.state() == body.rounds.last;
    if is_end { Ok(()) } else { Err(VerifyError::ChainEnd) }
}

/// A whole file of at most `limit` bytes.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, VerifyError> {
    let failed = |error| VerifyError::Io { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    // One more than may be there, so that a file that grows is noticed too.
    let bytes = file.take(limit + 1).read_to_end(&mut content).map_err(failed)? as u64;
    if bytes > limit {
        return Err(VerifyError::TooLong { path: path.to_owned(), bytes, limit });
    }
    Ok(content)
}

/// Compares the model's file with the certificate, and with what its state comes to.
fn model(
    check: &Check<'_>,
    bundle: &Bundle,
    body: &Body,
    context: &JobContext,
    differences: &mut Vec<Difference>,
) -> Result<(), VerifyError> {
    let found = hex(&Sha256::digest(read_file(check.model, MODEL_BYTES_MAX)?));
    let expected = body.model.sha256.clone();
    if found != expected {
        return Err(VerifyError::Model { expected, found });
    }
    let facts = &body.dataset.facts;
    let note = DataNote {
        features: &facts.features,
        scale: facts.scale,
        target: facts.target,
        table: facts.table.as_ref(),
    };
    let frame = bundle.state(body.model.state)?;
    let file = model_file::write(&frame, &context.params, &body.spec.model, &note)?;
    if file.sha256 != expected {
        differences.push(Difference::Model);
    }
    Ok(())
}

/// The certified kernel, compiled.
fn kernel(check: &Check<'_>, bundle: &Bundle, body: &Body) -> Result<KernelModule, VerifyError> {
    let bytes = match check.kernel {
        Some(path) => read_file(path, KERNEL_BYTES_MAX)?,
        None => bundle.kernel()?.ok_or(VerifyError::NoKernel)?,
    };
    let (expected, found) = (body.kernel, KernelId(*blake3::hash(&bytes).as_bytes()));
    if expected != found {
        return Err(VerifyError::OtherKernel { expected, found });
    }
    // What was hashed is what is compiled, whatever becomes of the named file.
    let path = check.scratch.join("kernel.wasm");
    std::fs::write(&path, bytes).map_err(|error| VerifyError::Io { path: path.clone(), error })?;
    Ok(KernelModule::load(&path, check.cache)?)
}

/// The rounds that are drawn, counted from 1.
fn drawn(check: &Check<'_>, rounds: u32) -> BTreeSet<u32> {
    match check.draw {
        Draw::Rounds(wanted) if wanted < rounds => {
            let order = permutation(check.seed, 0, rounds);
            order.into_iter().take(wanted as usize).map(|round| round + 1).collect()
        }
        _ => (1..=rounds).collect(),
    }
}

/// Rounds on their way.
struct Run<'a> {
    bundle: &'a Bundle,
    body: &'a Body,
    replay: Replay<'a>,
    verified: u32,
    tasks_verified: u32,
    differences: Vec<Difference>,
}

impl Run<'_> {
    /// Runs the stretches that hold a drawn round.
    fn segments(
        &mut self,
        drawn: &BTreeSet<u32>,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), VerifyError> {
        for pair in self.body.snapshots.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let own = drawn.range(from.round + 1..=to.round).count();
            if own == 0 {
                continue;
            }
            let before = self.differences.len();
            self.segment(from.round, from.state, to.round)?;
            let word = if self.differences.len() == before { "verified" } else { "differs" };
            say(&format!("rounds       {}..{} {word}, {own} drawn", from.round + 1, to.round));
            for difference in &self.differences[before..] {
                say(&format!("differs      {difference}"));
            }
        }
        Ok(())
    }

    fn first_state(&mut self, say: &mut dyn FnMut(&str)) -> Result<(), VerifyError> {
        let state = self.replay.first_state();
        let found = state.map_err(|error| VerifyError::Replay { round: 0, error })?.id();
        if found == self.body.rounds.first {
            say("seed         comes to the first state");
        } else {
            let difference = Difference::FirstState { found };
            say(&format!("differs      {difference}"));
            self.differences.push(difference);
        }
        Ok(())
    }

    fn evaluate(&mut self, say: &mut dyn FnMut(&str)) -> Result<(), VerifyError> {
        let (model, round) = (&self.body.model, self.body.model.round);
        let Some(certified) = model.evaluation else { return Ok(()) };
        let state = self.replay.state(model.state);
        let metrics = state.and_then(|state| self.replay.evaluate(state));
        let metrics = metrics.map_err(|error| VerifyError::Replay { round, error })?;
        let found = Measured {
            loss_sum: metrics.loss_sum,
            correct: certified.correct.map(|_| metrics.correct),
            count: metrics.count,
        };
        let loss = found.loss_sum / found.count;
        let right = found.correct.map(|correct| format!(", {correct} right"));
        let right = right.unwrap_or_default();
        say(&format!("held-out     {} rows: loss {loss}{right}", found.count));
        if found != certified {
            let difference = Difference::Evaluation { found };
            say(&format!("differs      {difference}"));
            self.differences.push(difference);
        }
        Ok(())
    }

    /// Runs the rounds behind `from`, up to `to`, until one differs.
    fn segment(&mut self, from: u32, state: BlobId, to: u32) -> Result<(), VerifyError> {
        let failed = |round| move |error| VerifyError::Replay { round, error };
        let mut state = self.replay.state(state).map_err(failed(from))?;
        let mut lines: Vec<RoundLine> = Vec::new();
        for round in from + 1..=to {
            let behind = (round - 1) / ROUNDS_PER_FILE * ROUNDS_PER_FILE;
            if lines.first().is_none_or(|first| first.round != behind + 1) {
                lines = self.bundle.rounds(behind)?;
            }
            // The chain was followed over all of them.
            let line = lines.get((round - 1 - behind) as usize);
            let line = line.ok_or(VerifyError::Chain { round })?;
            let replayed = self.replay.round(state, line).map_err(failed(round))?;
            let Replayed { state: next, tasks } = replayed;
            if next.id() != line.state {
                let (certified, found) = (line.state, next.id());
                self.differences.push(Difference::State { round, certified, found });
                return Ok(());
            }
            self.verified += 1;
            // A record of fewer tasks than there were says nothing of the others.
            let both = line.tasks.zip(tasks).filter(|(own, found)| own.count == found.count);
            match both {
                Some((own, found)) if own == found => self.tasks_verified += 1,
                Some(_) => self.differences.push(Difference::Tasks { round }),
                None => {}
            }
            state = next;
        }
        Ok(())
    }
}
