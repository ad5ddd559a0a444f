//! Makes records durable, one after another: first the state's blob, then the
//! record, then blobs that no checkpoint needs any more are removed.

use super::driver::Input;
use super::executor::State;
use super::metrics::Metrics;
use crate::blobs::{BlobError, Blobs};
use crate::store::{Clock, Store};
use raven_engine::{ContributorId, EffectError, EffectId, Outcome, Record};
use raven_protocol::{BlobId, JobId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc};

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
    /// A record, with the state that it names, where that is to be kept and
    /// this process has it.
    Record { record: Box<Record>, state: Option<Arc<State>>, clock: Clock },
    /// That a contributor is shown a slice of the weights.
    Shown { contributor: ContributorId, slice: u32 },
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
        metrics: Arc<Metrics>,
        inputs: mpsc::Sender<Input>,
        notices: broadcast::Sender<JobId>,
    ) -> Self {
        Persister { store, blobs, metrics, inputs, notices, kept: HashMap::new() }
    }

    /// Serves until the driver is gone. Holds at most one record per job.
    pub async fn run(mut self, mut savings: mpsc::UnboundedReceiver<Saving>) {
        while let Some(Saving { effect, job, item }) = savings.recv().await {
            let is_record = matches!(item, Item::Record { .. });
            let result = match item {
                Item::Record { record, state, clock } => self.save(&record, state, clock).await,
                Item::Shown { contributor, slice } => {
                    let shown = self.store.show_slice(job, contributor, slice).await;
                    shown.map_err(|error| failure("store", &error))
                }
            };
            if let Err(error) = &result {
                tracing::error!(%job, %error, "something was not stored");
            }
            let is_stored = result.is_ok();
            let outcome = result.map(|()| Outcome::Persisted);
            if self.inputs.send(Input::Saved { job, effect, outcome }).await.is_err() {
                tracing::debug!(%job, "nobody waits for the store any more");
            }
            if is_stored && is_record {
                // Nobody may be listening.
                let _ = self.notices.send(job);
            }
        }
    }

    async fn save(
        &mut self,
        record: &Record,
        state: Option<Arc<State>>,
        clock: Clock,
    ) -> Result<(), EffectError> {
        self.know(record.job).await?;
        if let Some(kept) = kept_state(record) {
            self.put(kept, state).await?;
            self.kept.entry(record.job).or_default().insert(kept);
        }
        self.store.persist_timed(record, clock).await.map_err(|error| failure("store", &error))?;
        self.metrics.records.add(1);
        self.metrics.tasks_accepted.add(record.credits.len() as u64);
        let flops = record.credits.iter().map(|credit| credit.flops).sum();
        self.metrics.flops_accepted.add(flops);
        if let Err(error) = self.sweep(record).await {
            // The record is durable; a file too many harms nobody.
            tracing::warn!(job = %record.job, %error, "old checkpoints were not removed");
        }
        Ok(())
    }

    /// Checkpoints of an earlier process are let go of by this one as well.
    async fn know(&mut self, job: JobId) -> Result<(), EffectError> {
        if !self.kept.contains_key(&job) {
            let known = self.store.checkpoint_blobs(job).await;
            let known = known.map_err(|error| failure("store", &error))?;
            self.kept.insert(job, known.into_iter().collect());
        }
        Ok(())
    }

    /// Makes a state's blob durable before a record names it.
    async fn put(&self, id: BlobId, state: Option<Arc<State>>) -> Result<(), EffectError> {
        let blobs = self.blobs.clone();
        let put = move || match state {
            Some(state) => blobs.put(id, &state.frame()),
            None if blobs.contains(id) => Ok(()),
            None => Err(BlobError::Missing { id }),
        };
        let put = tokio::task::spawn_blocking(put).await;
        let put = put.map_err(|error| failure("blobs", &error))?;
        put.map_err(|error| failure("blobs", &error))
    }

    /// Removes the files of states that are no checkpoint of any job now.
    async fn sweep(&mut self, record: &Record) -> Result<(), EffectError> {
        let job = record.job;
        let wanted: HashSet<BlobId> = self
            .store
            .checkpoint_blobs(job)
            .await
            .map_err(|error| failure("store", &error))?
            .into_iter()
            .collect();
        let known = self.kept.entry(job).or_default();
        let stale: Vec<BlobId> = known.difference(&wanted).copied().collect();
        known.clone_from(&wanted);
        for blob in stale {
            // Jobs of one model and seed share states.
            let shared = self.store.is_checkpoint(blob).await;
            if shared.map_err(|error| failure("store", &error))? {
                continue;
            }
            let blobs = self.blobs.clone();
            let removed = tokio::task::spawn_blocking(move || blobs.remove(blob)).await;
            let removed = removed.map_err(|error| failure("blobs", &error))?;
            removed.map_err(|error| failure("blobs", &error))?;
        }
        if record.phase.is_end() {
            self.kept.remove(&job);
        }
        Ok(())
    }
}

fn failure(stage: &'static str, error: &dyn std::fmt::Display) -> EffectError {
    EffectError { stage, reason: error.to_string() }
}
