//! Stores how many results came to what, many at a time: a count that is lost in
//! a crash is no more than a few seconds of a statistic.

use super::metrics::{Counter, Metrics};
use crate::store::Store;
use raven_protocol::ResultOutcome;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Counts are gathered for so long.
const EVERY: Duration = Duration::from_secs(2);

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
