//! Frames that workers may need: graphs and weights that the session brought, and
//! shards that were fetched with its grant. Bounded; what was used longest ago goes.

use super::Address;
use super::trust::Trust;
use axum::body::Bytes;
use raven_graph::GraphId;
use raven_protocol::{BlobId, FrameLimits, ShardRef};
use std::collections::{HashSet, VecDeque};
use std::io::Read;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Frames that are kept for all workers together, however short they are.
const KEPT_FRAMES_MAX: usize = 4096;
/// One shard must be here by then.
const FETCH_MAX: Duration = Duration::from_secs(30);

/// What a frame is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Graph(GraphId),
    /// Of this session alone.
    Blob(BlobId),
    /// Known by its content, whatever the session.
    Shard(BlobId),
}

/// Why a shard is not here.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShardError {
    #[error("shard {id}: {error}")]
    Http { id: BlobId, error: Box<ureq::Error> },
    #[error("shard {id}: {error}")]
    Read { id: BlobId, error: std::io::Error },
    #[error("shard {id}: {found} bytes came, it has {expected}")]
    Length { id: BlobId, found: u64, expected: u64 },
}

#[derive(Debug, Default)]
struct Kept {
    /// What was used last stands last.
    frames: VecDeque<(Name, Bytes)>,
    bytes: u64,
}

impl Kept {
    fn take(&mut self, name: Name) -> Option<Bytes> {
        let at = self.frames.iter().position(|(kept, _)| *kept == name)?;
        let (_, frame) = self.frames.remove(at)?;
        self.bytes -= frame.len() as u64;
        Some(frame)
    }

    fn put(&mut self, name: Name, frame: Bytes, bytes_max: u64) {
        self.take(name);
        self.bytes += frame.len() as u64;
        self.frames.push_back((name, frame));
        while self.frames.len() > KEPT_FRAMES_MAX
            || (self.bytes > bytes_max && self.frames.len() > 1)
        {
            if let Some((_, oldest)) = self.frames.pop_front() {
                self.bytes -= oldest.len() as u64;
            }
        }
    }
}

/// What is shared by all workers.
#[derive(Debug)]
pub(super) struct Frames {
    kept: Mutex<Kept>,
    to: Address,
    agent: ureq::Agent,
    grant: Mutex<String>,
    bytes_max: u64,
    /// Shards on their way: two tasks that need the same one fetch it once.
    coming: Mutex<HashSet<BlobId>>,
    came: Condvar,
}

/// Whoever fetches a shard; others wait until this is dropped.
struct Turn<'a> {
    frames: &'a Frames,
    id: BlobId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.frames.coming).remove(&self.id);
        self.frames.came.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Frames {
    pub(super) fn new(to: Address, trust: Option<&Trust>, bytes_max: u64) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(FETCH_MAX))
            .max_redirects(0)
            .tls_config(trust.map(Trust::http).unwrap_or_default())
            .build();
        let agent = ureq::Agent::new_with_config(config);
        let (kept, grant, coming) = (Mutex::default(), Mutex::default(), Mutex::default());
        Frames { kept, to, agent, grant, bytes_max, coming, came: Condvar::new() }
    }

    /// A session begins: shards are fetched with this from now on.
    pub(super) fn begin(&self, grant: String) {
        *lock(&self.grant) = grant;
    }

    /// A session is over: what it brought is forgotten, shards are kept.
    pub(super) fn end(&self) {
        let mut kept = lock(&self.kept);
        kept.frames.retain(|(name, _)| matches!(name, Name::Shard(_)));
        kept.bytes = kept.frames.iter().map(|(_, frame)| frame.len() as u64).sum();
    }

    pub(super) fn put(&self, name: Name, frame: Bytes) {
        lock(&self.kept).put(name, frame, self.bytes_max);
    }

    pub(super) fn get(&self, name: Name) -> Option<Bytes> {
        let mut kept = lock(&self.kept);
        let frame = kept.take(name)?;
        kept.put(name, frame.clone(), self.bytes_max);
        Some(frame)
    }

    pub(super) fn remove(&self, name: Name) {
        lock(&self.kept).take(name);
    }

    /// A shard, fetched where it is not here. Blocks.
    ///
    /// # Errors
    /// [`ShardError`].
    pub(super) fn shard(&self, shard: &ShardRef) -> Result<Bytes, ShardError> {
        let name = Name::Shard(shard.blob);
        let _turn = self.turn(shard.blob);
        if let Some(frame) = self.get(name) {
            return Ok(frame);
        }
        let frame = self.fetch(shard)?;
        self.put(name, frame.clone());
        Ok(frame)
    }

    /// Waits while somebody else fetches the same shard.
    fn turn(&self, id: BlobId) -> Turn<'_> {
        let mut coming = lock(&self.coming);
        while !coming.insert(id) {
            coming = self.came.wait(coming).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { frames: self, id }
    }

    fn fetch(&self, shard: &ShardRef) -> Result<Bytes, ShardError> {
        let (id, expected) = (shard.blob, shard.bytes);
        let length = |found| ShardError::Length { id, found, expected };
        // Measured before anything is allocated.
        if expected > FrameLimits::TO_CONTRIBUTOR.frame_bytes_max() {
            return Err(length(0));
        }
        let url = format!("{}/v1/blobs/{id}", self.to);
        let grant = format!("Bearer {}", *lock(&self.grant));
        let mut answer = self
            .agent
            .get(url)
            .header("authorization", grant)
            .call()
            .map_err(|error| ShardError::Http { id, error: Box::new(error) })?;
        let mut bytes = Vec::new();
        let reader = answer.body_mut().as_reader();
        let read = reader.take(expected + 1).read_to_end(&mut bytes);
        read.map_err(|error| ShardError::Read { id, error })?;
        let found = bytes.len() as u64;
        if found == expected { Ok(bytes.into()) } else { Err(length(found)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut kept = Kept::default();
        let name = |byte| Name::Blob(BlobId([byte; 32]));
        let frame = || Bytes::from(vec![0; 40]);
        kept.put(name(1), frame(), 100);
        kept.put(name(2), frame(), 100);
        let first = kept.take(name(1)).expect("kept");
        kept.put(name(1), first, 100);
        kept.put(name(3), frame(), 100);
        assert!(kept.take(name(2)).is_none());
        assert!(kept.take(name(1)).is_some() && kept.take(name(3)).is_some());
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn no_more_frames_are_kept_than_there_is_room_for_however_short_they_are() {
        let mut kept = Kept::default();
        for number in 0..KEPT_FRAMES_MAX as u64 + 3 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            kept.put(Name::Blob(BlobId(id)), Bytes::new(), 100);
        }
        assert_eq!(kept.frames.len(), KEPT_FRAMES_MAX);
        assert!(kept.take(Name::Blob(BlobId([0; 32]))).is_none(), "the oldest went");
    }

    #[test]
    fn the_same_shard_is_fetched_once_and_another_does_not_wait_for_it() {
        let frames = Frames::new("http://localhost".parse().expect("an address"), None, 1 << 20);
        let (one, other) = (BlobId([1; 32]), BlobId([2; 32]));
        let turn = frames.turn(one);
        drop(frames.turn(other));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let _turn = frames.turn(one);
                frames.get(Name::Shard(one)).is_some()
            });
            frames.put(Name::Shard(one), Bytes::from_static(b"rows"));
            drop(turn);
            assert!(waiting.join().expect("no panic"), "it came before the turn");
        });
    }

    #[test]
    fn the_end_of_a_session_leaves_shards() {
        let frames = Frames::new("http://localhost".parse().expect("an address"), None, 1 << 20);
        let id = BlobId([1; 32]);
        frames.put(Name::Blob(id), Bytes::from_static(b"weights"));
        frames.put(Name::Shard(id), Bytes::from_static(b"rows"));
        frames.end();
        assert!(frames.get(Name::Blob(id)).is_none());
        assert_eq!(frames.get(Name::Shard(id)).as_deref(), Some(&b"rows"[..]));
        assert_eq!(lock(&frames.kept).bytes, 4);
    }
}
