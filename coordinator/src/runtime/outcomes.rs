//! Stores how many results came to what, many at a time: a count that is lost in
//! a crash is no more than a few seconds of a statistic.

use super::metrics::{Counter, Metrics};
use crate::store::Store;
use raven_engine::ContributorId;
use raven_protocol::ResultOutcome;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Counts are gathered for so long.
const EVERY: Duration = Duration::from_secs(2);
/// Counts that wait while nothing can be stored.
const TALLIES_MAX: usize = 100_000;

/// What became of results by contributor, and is not stored yet.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<BTreeMap<(ContributorId, ResultOutcome), u64>>);

impl Tallies {
    /// Counts `results` more.
    pub fn add(&self, contributor: ContributorId, outcome: ResultOutcome, results: u64) {
        *self.lock().entry((contributor, outcome)).or_default() += results;
    }

    fn take(&self) -> BTreeMap<(ContributorId, ResultOutcome), u64> {
        std::mem::take(&mut *self.lock())
    }

    /// Puts back what was not stored, unless too many wait already: then it is lost, as it
    /// would be in a crash.
    fn put_back(&self, counts: BTreeMap<(ContributorId, ResultOutcome), u64>) {
        let mut waiting = self.lock();
        if waiting.len() + counts.len() > TALLIES_MAX {
            return;
        }
        for (key, count) in counts {
            *waiting.entry(key).or_default() += count;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(ContributorId, ResultOutcome), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the runtime stops, and stores what is left then.
pub async fn store_outcomes(
    store: Store,
    metrics: Arc<Metrics>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut stored: BTreeMap<ResultOutcome, u64> = BTreeMap::new();
    let mut is_over = false;
    while !is_over {
        // A stop whose sender is gone is a stop as well.
        is_over = tokio::time::timeout(EVERY, stopping.wait_for(|stop| *stop)).await.is_ok();
        let tallies = metrics.tallies.take();
        if !tallies.is_empty()
            && let Err(error) = store.add_contributor_outcomes(&tallies).await
        {
            tracing::warn!(%error, "outcomes of contributors were not stored");
            metrics.tallies.put_back(tallies);
        }
        let counted = ResultOutcome::ALL.into_iter().zip(metrics.outcomes.iter().map(Counter::get));
        let new: BTreeMap<ResultOutcome, u64> = counted
            .map(|(outcome, count)| (outcome, count - stored.get(&outcome).unwrap_or(&0)))
            .filter(|&(_, count)| count > 0)
            .collect();
        if new.is_empty() {
            continue;
        }
        match store.add_outcomes(&new).await {
            Ok(()) => {
                for (outcome, count) in new {
                    *stored.entry(outcome).or_default() += count;
                }
            }
            // They go with the next.
            Err(error) => tracing::warn!(%error, "outcomes of results were not stored"),
        }
    }
}
