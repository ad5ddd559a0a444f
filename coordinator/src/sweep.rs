//! Removes blobs that nothing refers to: states and shards whose owners were
//! never stored, or are gone.

use crate::blobs::{BlobError, Blobs};
use crate::store::{Store, StoreError};
use std::collections::HashSet;
use std::time::Duration;

/// Between two sweeps: what was deleted leaves the disk within this time.
const EVERY: Duration = Duration::from_secs(600);

/// Why a sweep ended early. What it has not removed it will find again.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error("a sweep: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// One sweep, safe beside uploads and jobs; answers how many blobs it removed.
///
/// # Errors
/// [`SweepError`].
pub async fn sweep(store: &Store, blobs: &Blobs) -> Result<u32, SweepError> {
    let sweep = blobs.begin_sweep();
    // In this order: what becomes referred to after the list was read is held by its writer.
    let kept: HashSet<_> = store.referenced_blobs().await?.into_iter().collect();
    let blobs = blobs.clone();
    let removed = tokio::task::spawn_blocking(move || -> Result<u32, BlobError> {
        let mut removed = 0;
        for id in blobs.list()?.into_iter().filter(|id| !kept.contains(id)) {
            removed += u32::from(blobs.sweep_away(&sweep, id)?);
        }
        blobs.end_sweep(&sweep);
        Ok(removed)
    });
    let removed = removed.await??;
    if removed > 0 {
        tracing::info!(removed, "blobs that nothing refers to");
    }
    Ok(removed)
}

/// Sweeps for as long as it is polled.
pub async fn sweep_for_ever(store: Store, blobs: Blobs) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = sweep(&store, &blobs).await {
            tracing::warn!(%error, "a sweep ended early");
        }
    }
}
