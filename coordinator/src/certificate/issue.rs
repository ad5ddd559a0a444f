//! Making a certificate once a strict job has ended.

use super::bundle::ROUNDS_PER_FILE;
use super::chain::Follower;
use super::document::{
    self, Body, CertificateError, Chosen, Dataset, GraphIds, Model, Published, Rounds, VERSION,
};
use super::key::{CertificateKey, KeyError};
use crate::blobs::{BlobError, Blobs};
use crate::job::{JobContext, JobError, JobSpec, Lowering, WhenSpent, lower_job};
use crate::store::{CheckpointRow, JobRow, Store, StoreError};
use crate::ticket::signing_folder;
use crate::time::UnixMs;
use raven_engine::{Category, Fallback};
use raven_protocol::{BlobId, JobId, KernelId, Numerics, Seed};
use std::collections::BTreeMap;

/// Why a job has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("the job has not ended yet")]
    NotEnded,
    #[error("only strict jobs have certificates: relaxed results need not be the same bits")]
    Relaxed,
    #[error("the job began before there were certificates, or ended before its first state")]
    NoChain,
    #[error("{0}")]
    Refused(String),
    #[error("the job's data set was deleted before its certificate was issued")]
    NoData,
    #[error("the record of round {round} does not follow the one before")]
    Broken { round: u32 },
    #[error("{recorded} of {done} rounds are recorded")]
    Gap { recorded: u32, done: u32 },
    #[error("the model is of no recorded round")]
    StrayModel,
    #[error("the job's document is no longer accepted: {0}")]
    Lowering(#[from] JobError),
    #[error("its own certificate is not accepted: {0}")]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

impl IssueError {
    /// Whether trying again would come to the same.
    pub fn is_final(&self) -> bool {
        match self {
            IssueError::NoChain
            | IssueError::Refused(_)
            | IssueError::NoData
            | IssueError::Broken { .. }
            | IssueError::Gap { .. }
            | IssueError::StrayModel
            | IssueError::Lowering(_)
            | IssueError::Certificate(_) => true,
            IssueError::NotEnded
            | IssueError::Relaxed
            | IssueError::Key(_)
            | IssueError::Store(_)
            | IssueError::Blobs(_)
            | IssueError::Task(_) => false,
        }
    }
}

/// The posted document without what has no part in the computation: a buyer
/// need not know what the model has cost.
fn certified(spec: &JobSpec) -> JobSpec {
    JobSpec {
        listed: false,
        category: Category::default(),
        deadline: None,
        budget: None,
        hold_nano_usd_max: None,
        when_spent: WhenSpent::default(),
        fallback: Fallback::default(),
        fallback_after_s: 0,
        ..spec.clone()
    }
}

/// Whether a job may have a certificate, by what is known of it.
///
/// # Errors
/// [`IssueError::NotEnded`] and [`IssueError::Relaxed`].
pub fn admit(row: &JobRow) -> Result<(), IssueError> {
    match (row.spec.numerics, row.phase.is_end()) {
        (Numerics::Relaxed, _) => Err(IssueError::Relaxed),
        (Numerics::Strict, false) => Err(IssueError::NotEnded),
        (Numerics::Strict, true) => Ok(()),
    }
}

/// The key that a store's certificates are signed with. Blocks.
///
/// # Errors
/// [`KeyError`].
pub fn key_of(store: &Store) -> Result<CertificateKey, KeyError> {
    CertificateKey::open(&signing_folder(store.folder()))
}

/// Issues the certificate of an ended job, whose model is made of the
/// checkpoint and has that digest. Nothing is stored.
///
/// # Errors
/// [`IssueError`].
pub async fn issue(
    store: &Store,
    blobs: &Blobs,
    row: &JobRow,
    model: CheckpointRow,
    sha256: String,
) -> Result<String, IssueError> {
    admit(row)?;
    let chain = store.chain(row.id).await?.ok_or(IssueError::NoChain)?;
    if let Some(reason) = chain.refused {
        return Err(IssueError::Refused(reason));
    }
    let mut published = published(store, blobs, row.id).await?;
    let rounds = follow(store, row, chain.origin, &mut published).await?;
    if published.get(&model.step).is_none_or(|own| own.state != model.weights) {
        return Err(IssueError::StrayModel);
    }
    let evaluation = store.measured(row.id, model.step).await?;
    let dataset = dataset(store, row).await?;
    let setbacks = store.setbacks(row.id).await?;
    let spec = certified(&row.spec);
    let (job, kernel) = (row.id, row.kernel);
    let ended = row.ended.map_or_else(String::new, UnixMs::rfc3339);
    let (store, state) = (store.clone(), row.phase);
    let issued = tokio::task::spawn_blocking(move || {
        let seed = Seed(spec.seed.map_or(0, |seed| seed.0));
        let context = lower(job, kernel, seed, &spec, &dataset)?;
        let body = Body {
            version: VERSION,
            job,
            ended_at: ended,
            state,
            kernel,
            graphs: GraphIds::of(&context),
            dataset,
            seed,
            numerics: Numerics::Strict,
            spec,
            rounds,
            setbacks,
            model: Model {
                sha256,
                state: model.weights,
                round: model.step,
                chosen: if model.best { Chosen::Best } else { Chosen::Last },
                evaluation,
            },
            snapshots: published.into_values().collect(),
        };
        let text = document::sign(&body, &key_of(&store)?)?;
        // What nobody could read must not be handed out.
        document::read(&text)?;
        Ok::<_, IssueError>(text)
    });
    issued.await?
}

/// Lowers a job as its certificate has it. Takes up to seconds.
///
/// # Errors
/// [`JobError`].
pub fn lower(
    job: JobId,
    kernel: KernelId,
    seed: Seed,
    spec: &JobSpec,
    dataset: &Dataset,
) -> Result<JobContext, JobError> {
    let lowering = Lowering {
        job,
        seed,
        kernel,
        dataset: &dataset.facts,
        train_shards: dataset.train.clone(),
        test_shards: dataset.test.clone(),
    };
    lower_job(spec, lowering).map(|(context, _)| context)
}

async fn dataset(store: &Store, row: &JobRow) -> Result<Dataset, IssueError> {
    let mut facts = store.dataset_facts(row.dataset).await?.ok_or(IssueError::NoData)?;
    facts.expires_at = None;
    let train = store.shards(row.dataset, false).await?;
    let test = store.shards(row.dataset, true).await?;
    if train.is_empty() {
        return Err(IssueError::NoData);
    }
    Ok(Dataset { id: row.dataset.to_string(), facts, train, test })
}

/// The states that are kept for others, and those that the job keeps for itself, by round.
async fn published(
    store: &Store,
    blobs: &Blobs,
    job: JobId,
) -> Result<BTreeMap<u32, Published>, IssueError> {
    let mut published = BTreeMap::new();
    for row in store.snapshots(job).await? {
        let own = Published { round: row.step, state: row.state, bytes: row.bytes };
        published.insert(row.step, own);
    }
    for checkpoint in store.checkpoints(job).await? {
        let (blobs, state) = (blobs.clone(), checkpoint.weights);
        let bytes = match tokio::task::spawn_blocking(move || blobs.get(state)).await? {
            Ok(frame) => frame.len() as u64,
            // Where it is one that a certificate must have, its own check says so.
            Err(error) if error.is_damage() => {
                tracing::warn!(%job, %error, "a state is not published");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let own = Published { round: checkpoint.step, state, bytes };
        published.insert(checkpoint.step, own);
    }
    Ok(published)
}

/// Follows the chain to its end; what is published of other states than its own is left out.
async fn follow(
    store: &Store,
    row: &JobRow,
    origin: BlobId,
    published: &mut BTreeMap<u32, Published>,
) -> Result<Rounds, IssueError> {
    let mut follower = Follower::new(row.id, origin);
    let is_own = |published: &mut BTreeMap<u32, Published>, round: u32, state: BlobId| {
        if published.get(&round).is_some_and(|own| own.state != state) {
            published.remove(&round);
        }
    };
    is_own(published, 0, origin);
    loop {
        let lines = store.links(row.id, follower.round(), ROUNDS_PER_FILE).await?;
        for line in &lines {
            if !follower.follow(line) {
                return Err(IssueError::Broken { round: line.round });
            }
            is_own(published, line.round, line.state);
        }
        if lines.len() < ROUNDS_PER_FILE as usize {
            break;
        }
    }
    let count = follower.round();
    if count != row.step {
        return Err(IssueError::Gap { recorded: count, done: row.step });
    }
    Ok(Rounds { count, first: origin, last: follower.state(), link: follower.link() })
}
