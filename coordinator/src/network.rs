//! What the HTTP side asks of the running network, and nothing more.

use crate::job::JobContext;
use crate::runtime::{NetworkSnapshot, RuntimeError, RuntimeHandle};
use futures_util::future::BoxFuture;
use raven_engine::ResumePoint;
use raven_engine::money::NanoUsd;
use raven_protocol::{BlobId, JobId, KernelId, SessionId};
use std::fmt;
use std::sync::Arc;
use tokio::sync::broadcast;

/// The network does not take the request, e.g. because it is going down. The
/// text is for the log and the owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("network: {reason}")]
pub struct NetworkError {
    pub reason: String,
}

/// The running network.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// The kernel that new jobs are pinned to.
    fn kernel(&self) -> KernelId;

    /// Starts a stored job, or goes on with it.
    fn add_job(
        &self,
        context: Arc<JobContext>,
        resume: Option<ResumePoint>,
    ) -> BoxFuture<'_, Result<(), NetworkError>>;

    /// Ends a job by its owner's wish. Its record becomes durable soon after.
    fn cancel_job(&self, job: JobId) -> BoxFuture<'_, Result<(), NetworkError>>;

    /// Tells a job what its escrow holds now. It is told again when it is next started.
    fn top_up(&self, job: JobId, escrow: NanoUsd) -> BoxFuture<'_, Result<(), NetworkError>>;

    /// The network a moment ago.
    fn snapshot(&self) -> Arc<NetworkSnapshot>;

    /// Jobs of which a record has just become durable.
    fn notices(&self) -> broadcast::Receiver<JobId>;

    /// Whether the token is that of an open session whose tasks read the blob.
    fn grant_allows(&self, token: &str, blob: BlobId) -> bool;

    /// The open session that holds the token.
    fn session_of(&self, _token: &str) -> Option<SessionId> {
        None
    }

    /// Why nothing moves any more, if that is so.
    fn failure(&self) -> Option<NetworkError>;

    /// Lines in Prometheus' text format.
    fn metrics(&self) -> String;
}

impl From<RuntimeError> for NetworkError {
    fn from(error: RuntimeError) -> Self {
        NetworkError { reason: error.to_string() }
    }
}

impl Network for RuntimeHandle {
    fn kernel(&self) -> KernelId {
        RuntimeHandle::kernel(self)
    }

    fn add_job(
        &self,
        context: Arc<JobContext>,
        resume: Option<ResumePoint>,
    ) -> BoxFuture<'_, Result<(), NetworkError>> {
        Box::pin(async move { Ok(RuntimeHandle::add_job(self, context, resume).await?) })
    }

    fn cancel_job(&self, job: JobId) -> BoxFuture<'_, Result<(), NetworkError>> {
        Box::pin(async move { Ok(RuntimeHandle::cancel_job(self, job).await?) })
    }

    fn top_up(&self, job: JobId, escrow: NanoUsd) -> BoxFuture<'_, Result<(), NetworkError>> {
        Box::pin(async move { Ok(RuntimeHandle::top_up(self, job, escrow).await?) })
    }

    fn snapshot(&self) -> Arc<NetworkSnapshot> {
        RuntimeHandle::snapshot(self)
    }

    fn notices(&self) -> broadcast::Receiver<JobId> {
        RuntimeHandle::notices(self)
    }

    fn grant_allows(&self, token: &str, blob: BlobId) -> bool {
        RuntimeHandle::grant_allows(self, token, blob)
    }

    fn session_of(&self, token: &str) -> Option<SessionId> {
        RuntimeHandle::session_of(self, token)
    }

    fn failure(&self) -> Option<NetworkError> {
        RuntimeHandle::failure(self).map(NetworkError::from)
    }

    fn metrics(&self) -> String {
        RuntimeHandle::render_metrics(self)
    }
}
