//! Brings the shards of one worker's next task, so that the worker itself never waits
//! for the link and hears its orders meanwhile.

use super::frames::Frames;
use super::worker::{Said, Word, refusal};
use axum::body::Bytes;
use raven_protocol::{BlobId, LeaseId, RefuseReason, ShardRef};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// A task whose shards are to come.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) lease: LeaseId,
    pub(super) frame: Bytes,
    pub(super) came: Instant,
    pub(super) shards: Vec<ShardRef>,
}

/// The lease whose shards are still wanted; others are given up between two shards.
pub(super) type Wanted = Arc<Mutex<Option<LeaseId>>>;

pub(super) struct Fetcher {
    pub(super) worker: usize,
    pub(super) frames: Arc<Frames>,
    pub(super) errands: Receiver<Errand>,
    pub(super) wanted: Wanted,
    pub(super) words: UnboundedSender<Word>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Fetcher {
    /// Runs errands until nobody has any more.
    pub(super) fn run(self) {
        while let Ok(Errand { lease, frame, came, shards }) = self.errands.recv() {
            let said = match self.fetch(lease, &shards) {
                Ok(Some(shards)) => Said::Fetched { frame, came, shards },
                Ok(None) => continue,
                Err(detail) => Said::Last(refusal(lease, RefuseReason::Failed, &detail)),
            };
            // Where nobody listens all is over.
            let _ = self.words.send(Word { worker: self.worker, lease, said });
        }
    }

    /// The shards, or nothing where they are not wanted any more.
    fn fetch(
        &self,
        lease: LeaseId,
        shards: &[ShardRef],
    ) -> Result<Option<Vec<(BlobId, Bytes)>>, String> {
        let mut fetched = Vec::with_capacity(shards.len());
        for shard in shards {
            let wanted = *self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if wanted != Some(lease) || self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let frame = self.frames.shard(shard).map_err(|error| error.to_string())?;
            fetched.push((shard.blob, frame));
        }
        Ok(Some(fetched))
    }
}
