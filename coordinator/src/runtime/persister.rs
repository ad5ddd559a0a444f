//! Makes records durable in their order: first the states' blobs, then the records, those
//! that wait at the same time by one commit, then blobs that no checkpoint needs any more
//! are removed.

use super::driver::Input;
use super::executor::State;
use super::metrics::Metrics;
use crate::blobs::{BlobError, Blobs};
use crate::certificate::keep::{self, KeepError};
use crate::health::Trouble;
use crate::store::{Clock, Persisting, Snapshot, Store, StoreError};
use raven_engine::{ContributorId, EffectError, EffectId, Outcome, Record};
use raven_protocol::{BlobId, JobId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tracing::Instrument as _;

/// Between two tries while the disk is full or the database held.
const RETRY: Duration = Duration::from_millis(500);

/// Records that are committed together, and what they credit together at most.
const GROUP_MAX: usize = 64;
const GROUP_CREDITS_MAX: usize = 8_192;

/// Something to be made durable.
#[derive(Debug)]
pub struct Saving {
    /// Answered when it is.
    pub effect: EffectId,
    /// Whose it is.
    pub job: JobId,
    /// What it is.
    pub item: Item,
}

/// What is made durable.
#[derive(Debug)]
pub enum Item {
    /// A record, with the state that it names, where that may be kept or
    /// published and this process has it.
    Record { record: Box<Record>, state: Option<Arc<State>>, clock: Clock },
    /// That a contributor is shown a slice of the weights.
    Shown { contributor: ContributorId, slice: u32 },
}

/// Why a record is not durable.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error("{0}")]
    Blobs(#[from] BlobError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<KeepError> for SaveError {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Blobs(error) => SaveError::Blobs(error),
            KeepError::Store(error) => SaveError::Store(error),
            KeepError::Task(error) => SaveError::Task(error),
        }
    }
}

impl SaveError {
    fn trouble(&self) -> Option<Trouble> {
        match self {
            SaveError::Blobs(error) => error.trouble(),
            SaveError::Store(error) => error.trouble(),
            SaveError::Task(_) => None,
        }
    }

    fn stage(&self) -> &'static str {
        match self {
            SaveError::Store(_) => "store",
            SaveError::Blobs(_) | SaveError::Task(_) => "blobs",
        }
    }
}

/// How many savings at the head of `waiting` go together: records, each of another job, that
/// credit little enough for nobody to wait long for the others. At least one.
fn group_len(waiting: &VecDeque<Saving>) -> usize {
    let (mut jobs, mut credits) = (HashSet::new(), 0);
    let fits = |saving: &&Saving| {
        let Item::Record { record, .. } = &saving.item else { return false };
        credits += record.credits.len();
        credits <= GROUP_CREDITS_MAX && jobs.insert(saving.job)
    };
    waiting.iter().take(GROUP_MAX).take_while(fits).count().max(1)
}

/// The state that a record keeps as a checkpoint.
pub fn kept_state(record: &Record) -> Option<BlobId> {
    record.weights.filter(|_| record.checkpoint || record.best)
}

/// One task, so that records become durable in the order in which they were
/// made and no blob is removed while another record is about to need it.
#[derive(Debug)]
pub struct Persister {
    store: Store,
    blobs: Blobs,
    /// Bytes of one job's published states.
    certificate_bytes: u64,
    metrics: Arc<Metrics>,
    inputs: mpsc::Sender<Input>,
    notices: broadcast::Sender<JobId>,
    /// Checkpoints on disk that this process knows of, by job.
    kept: HashMap<JobId, HashSet<BlobId>>,
}

impl Persister {
    /// A persister that answers on `inputs` and tells listeners on `notices`.
    pub fn new(
        store: Store,
        blobs: Blobs,
        certificate_bytes: u64,
        metrics: Arc<Metrics>,
        inputs: mpsc::Sender<Input>,
        notices: broadcast::Sender<JobId>,
    ) -> Self {
        let kept = HashMap::new();
        Persister { store, blobs, certificate_bytes, metrics, inputs, notices, kept }
    }

    /// Serves until the driver is gone. Holds at most one record per job.
    pub async fn run(mut self, mut savings: mpsc::UnboundedReceiver<Saving>) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match savings.recv().await {
                    Some(saving) => waiting.push_back(saving),
                    None => return,
                }
            }
            while let Ok(saving) = savings.try_recv() {
                waiting.push_back(saving);
            }
            let together: Vec<Saving> = waiting.drain(..group_len(&waiting)).collect();
            self.serve(together).await;
        }
    }

    /// Saves what stands together, as one where it is several, and answers each: first what
    /// is durable, since the others may have to be tried again and again.
    async fn serve(&mut self, together: Vec<Saving>) {
        let stored = self.save_group(&together).await;
        let mut rest = Vec::new();
        for (saving, is_stored) in together.into_iter().zip(stored) {
            match is_stored {
                true => self.answer(&saving, Ok(())).await,
                false => rest.push(saving),
            }
        }
        // What did not fit into the group is saved by itself: that finds out why.
        for saving in rest {
            let span =
                tracing::info_span!("saving", job = %saving.job, step = tracing::field::Empty);
            if let Item::Record { record, .. } = &saving.item {
                span.record("step", record.step);
            }
            let result = self.save_in_the_end(saving.job, &saving.item).instrument(span).await;
            self.answer(&saving, result).await;
        }
    }

    async fn answer(&self, saving: &Saving, result: Result<(), SaveError>) {
        let Saving { effect, job, item } = saving;
        if let Err(error) = &result {
            tracing::error!(%job, %error, "something was not stored");
        }
        let is_stored = result.is_ok();
        let failed =
            |error: SaveError| EffectError { stage: error.stage(), reason: error.to_string() };
        let outcome = result.map(|()| Outcome::Persisted).map_err(failed);
        let saved = Input::Saved { job: *job, effect: *effect, outcome };
        if self.inputs.send(saved).await.is_err() {
            tracing::debug!(%job, "nobody waits for the store any more");
        }
        if is_stored && matches!(item, Item::Record { .. }) {
            // Nobody may be listening.
            let _ = self.notices.send(*job);
        }
    }

    /// Makes the records of several jobs durable by one commit. Answers which of `together`
    /// are; one alone is left to [`Persister::save_in_the_end`].
    async fn save_group(&mut self, together: &[Saving]) -> Vec<bool> {
        let mut stored = vec![false; together.len()];
        if together.len() < 2 {
            return stored;
        }
        // Until the records refer to their states.
        let hold = self.blobs.hold();
        let mut places = Vec::with_capacity(together.len());
        let mut group = Vec::with_capacity(together.len());
        for (place, saving) in together.iter().enumerate() {
            let Item::Record { record, state, clock } = &saving.item else { continue };
            if let Ok(snapshot) = self.keep_state(record, state.clone()).await {
                places.push(place);
                group.push(Persisting { record, clock: *clock, snapshot });
            }
        }
        let results = match self.store.persist_group(&group).await {
            Ok(results) => results,
            Err(error) => {
                tracing::debug!(%error, "records are stored one by one");
                return stored;
            }
        };
        drop(hold);
        for ((place, one), result) in places.into_iter().zip(group).zip(results) {
            stored[place] = result.is_ok();
            if result.is_ok() {
                self.is_durable(one.record).await;
            }
        }
        stored
    }

    /// Saves something, and tries again for as long as the disk is at fault:
    /// the job waits, and goes on from here once there is room.
    async fn save_in_the_end(&mut self, job: JobId, item: &Item) -> Result<(), SaveError> {
        loop {
            let result = match item {
                Item::Record { record, state, clock } => {
                    self.save(record, state.clone(), *clock).await
                }
                Item::Shown { contributor, slice } => {
                    let shown = self.store.show_slice(job, *contributor, *slice).await;
                    shown.map_err(SaveError::from)
                }
            };
            let trouble = result.as_ref().err().and_then(SaveError::trouble);
            self.store.health().set(trouble);
            if trouble.is_none() || self.inputs.is_closed() {
                return result;
            }
            self.metrics.record_retries.add(1);
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn save(
        &mut self,
        record: &Record,
        state: Option<Arc<State>>,
        clock: Clock,
    ) -> Result<(), SaveError> {
        // Until the record refers to its state.
        let _hold = self.blobs.hold();
        let snapshot = self.keep_state(record, state).await?;
        self.store.persist_published(record, clock, snapshot).await?;
        self.is_durable(record).await;
        Ok(())
    }

    /// Makes the state durable that a record keeps or publishes.
    async fn keep_state(
        &mut self,
        record: &Record,
        state: Option<Arc<State>>,
    ) -> Result<Option<Snapshot>, SaveError> {
        self.know(record.job).await?;
        let budget = self.certificate_bytes;
        let snapshot =
            keep::snapshot(&self.store, &self.blobs, budget, record, state.as_ref()).await?;
        if let Some(kept) = kept_state(record) {
            // A published state is durable already.
            if snapshot.is_none() {
                self.put(kept, state).await?;
            }
            self.kept.entry(record.job).or_default().insert(kept);
        }
        Ok(snapshot)
    }

    /// Counts a record that is durable, and removes what no checkpoint needs any more.
    async fn is_durable(&mut self, record: &Record) {
        self.metrics.records.add(1);
        self.metrics.tasks_accepted.add(record.credits.len() as u64);
        let flops = record.credits.iter().map(|credit| credit.flops).sum();
        self.metrics.flops_accepted.add(flops);
        if let Err(error) = self.sweep(record).await {
            // The record is durable; a file too many harms nobody.
            tracing::warn!(job = %record.job, %error, "old checkpoints were not removed");
        }
    }

    /// Checkpoints of an earlier process are let go of by this one as well.
    async fn know(&mut self, job: JobId) -> Result<(), SaveError> {
        if !self.kept.contains_key(&job) {
            let known = self.store.checkpoint_blobs(job).await?;
            self.kept.insert(job, known.into_iter().collect());
        }
        Ok(())
    }

    /// Makes a state's blob durable before a record names it.
    async fn put(&self, id: BlobId, state: Option<Arc<State>>) -> Result<(), SaveError> {
        let blobs = self.blobs.clone();
        let put = move || match state {
            Some(state) => blobs.put(id, &state.frame()),
            None if blobs.contains(id) => Ok(()),
            None => Err(BlobError::Missing { id }),
        };
        Ok(tokio::task::spawn_blocking(put).await??)
    }

    /// Removes the files of states that are no checkpoint of any job now.
    async fn sweep(&mut self, record: &Record) -> Result<(), SaveError> {
        let job = record.job;
        let wanted: HashSet<BlobId> = self.store.checkpoint_blobs(job).await?.into_iter().collect();
        let known = self.kept.entry(job).or_default();
        let stale: Vec<BlobId> = known.difference(&wanted).copied().collect();
        known.clone_from(&wanted);
        for blob in stale {
            // Jobs of one model and seed share states.
            if self.store.is_checkpoint(blob).await? {
                continue;
            }
            let blobs = self.blobs.clone();
            tokio::task::spawn_blocking(move || blobs.remove(blob)).await??;
        }
        if record.phase.is_end() {
            self.kept.remove(&job);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_engine::{JobPhase, JobState, Proof};

    fn saving(job: u64, credits: usize) -> Saving {
        let job = JobId(job);
        let credit = raven_engine::Credit {
            backend: raven_protocol::Backend::Cpu,
            task: raven_protocol::TaskId { job, round: 0, stage: 0, part: 0 },
            contributor: ContributorId([1; 32]),
            session: raven_protocol::SessionId(1),
            site: None,
            beneficiary: raven_engine::Beneficiary::Contributor,
            flops: 1,
            rate: raven_engine::money::PicoUsd(1),
            digest: raven_protocol::ResultDigest([9; 32]),
            proof: Proof::Single,
            attempt: 0,
            payer: raven_engine::Payer::Job,
        };
        let record = Record {
            job,
            phase: JobPhase::Running,
            state: JobState::Running { epoch: 0, step: 1, steps: 100 },
            step: 1,
            epoch: 0,
            weights: None,
            checkpoint: false,
            best: false,
            train: None,
            evaluation: None,
            learning_rate: None,
            contributors: 0,
            credits: vec![credit; credits],
            voids: Vec::new(),
            rolled_back: false,
            set_back: None,
            rounds_paid: 0,
            accepted: Vec::new(),
            earlier: None,
        };
        let item = Item::Record { record: Box::new(record), state: None, clock: Clock::default() };
        Saving { effect: EffectId(job.0), job, item }
    }

    fn shown(job: u64) -> Saving {
        let item = Item::Shown { contributor: ContributorId([1; 32]), slice: 0 };
        Saving { effect: EffectId(job), job: JobId(job), item }
    }

    #[test]
    fn records_of_different_jobs_go_together_as_far_as_they_are_small() {
        let len = |waiting: Vec<Saving>| group_len(&waiting.into());
        assert_eq!(len(vec![saving(1, 3), saving(2, 3), saving(3, 3)]), 3);
        assert_eq!(len(vec![saving(1, 3), saving(2, 3), saving(1, 3)]), 2, "in their order");
        assert_eq!(len(vec![saving(1, 3), shown(2), saving(3, 3)]), 1);
        assert_eq!(len(vec![shown(2), saving(3, 3)]), 1);
        let large = GROUP_CREDITS_MAX;
        assert_eq!(len(vec![saving(1, large - 1), saving(2, 1), saving(3, 1)]), 2);
        assert_eq!(len(vec![saving(1, large + 1), saving(2, 1)]), 1, "one at least");
        assert_eq!(len((0..100).map(|job| saving(job, 0)).collect()), GROUP_MAX);
    }

    #[tokio::test]
    async fn what_the_group_could_not_store_is_answered_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("raven.sqlite")).await.expect("opened");
        let blobs = Blobs::open(&folder.path().join("blobs")).expect("blobs");
        let (inputs, mut answers) = mpsc::channel(8);
        let notices = broadcast::channel(8).0;
        let persister = Persister::new(store, blobs, 0, Arc::default(), inputs, notices);
        let (sender, savings) = mpsc::unbounded_channel();
        // No job of these is stored; each has to be told so.
        for saving in [saving(1, 1), saving(2, 1), shown(3)] {
            sender.send(saving).expect("sent");
        }
        drop(sender);
        persister.run(savings).await;
        let mut told = Vec::new();
        while let Some(Input::Saved { job, effect, outcome }) = answers.recv().await {
            told.push((job.0, effect.0, outcome.map_err(|error| error.stage).err()));
        }
        assert_eq!(told[..2], [(1, 1, Some("store")), (2, 2, Some("store"))]);
        assert_eq!(told.len(), 3);
    }
}
