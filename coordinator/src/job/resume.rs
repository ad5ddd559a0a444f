//! Stored jobs that go on after a restart.

use super::{JobContext, JobError, Lowering, lower_job, terms};
use crate::store::{JobRow, Store, StoreError};
use raven_engine::ResumePoint;
use raven_protocol::{KernelId, Seed};

/// Why a stored job cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    #[error("the coordinator was restarted with another kernel than the job is pinned to")]
    OtherKernel,
    #[error("the job's data set is no longer stored")]
    NoDataset,
    #[error("the job's document is no longer accepted: {0}")]
    Refused(#[from] JobError),
    #[error("lowering the job's model failed")]
    Lowering,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Lowers a stored job again and finds its last checkpoint.
///
/// # Errors
/// [`ResumeError`], a sentence for the job's owner.
pub async fn resume(
    store: &Store,
    row: &JobRow,
    kernel: KernelId,
) -> Result<(JobContext, Option<ResumePoint>), ResumeError> {
    if row.kernel != kernel {
        return Err(ResumeError::OtherKernel);
    }
    let dataset = store.dataset(row.owner, row.dataset).await?.ok_or(ResumeError::NoDataset)?;
    let train_shards = store.shards(row.dataset, false).await?;
    let test_shards = store.shards(row.dataset, true).await?;
    let point = store.resume_point(row.id, None).await?;
    let (spec, job) = (row.spec.clone(), row.id);
    let lowered = tokio::task::spawn_blocking(move || {
        // The seed was filled in before the document was stored.
        let seed = Seed(spec.seed.map_or(0, |seed| seed.0));
        let dataset = &dataset.facts;
        lower_job(&spec, Lowering { job, seed, kernel, dataset, train_shards, test_shards })
    });
    let (mut context, _) = lowered.await.map_err(|_| ResumeError::Lowering)??;
    // As it was quoted, not as a job would be now.
    context.terms = terms(&row.spec, &row.facts);
    if row.escrow.0 > 0 {
        // With what was put in after it was posted.
        context.terms.escrow = Some(row.escrow);
    }
    Ok((context, point))
}
