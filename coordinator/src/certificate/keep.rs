//! Publishing states while a job trains.

use crate::blobs::{BlobError, Blobs};
use crate::runtime::executor::State;
use crate::store::{Snapshot, Store, StoreError};
use raven_engine::Record;
use std::sync::Arc;

/// Bytes that one job's published states may take, where the operator says nothing else.
pub const BYTES_DEFAULT: u64 = 256 << 20;

/// Why a state is not published.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// Makes the state of a record durable where it is to be published. The caller
/// holds what is put until the record refers to it.
///
/// # Errors
/// [`KeepError`].
pub async fn snapshot(
    store: &Store,
    blobs: &Blobs,
    budget: u64,
    record: &Record,
    state: Option<&Arc<State>>,
) -> Result<Option<Snapshot>, KeepError> {
    let is_point = record.train.is_some() || record.step == 0;
    let Some(state) = state.filter(|_| is_point) else { return Ok(None) };
    if !store.snapshot_due(record.job, record.step).await? {
        return Ok(None);
    }
    let (blobs, state) = (blobs.clone(), state.clone());
    let put = move || {
        let frame = state.frame();
        blobs.put(state.id(), &frame)?;
        Ok::<_, BlobError>(Snapshot { state: state.id(), bytes: frame.len() as u64, budget })
    };
    Ok(Some(tokio::task::spawn_blocking(put).await??))
}
