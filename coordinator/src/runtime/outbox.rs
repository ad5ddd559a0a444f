//! What waits to leave on one socket: bounded in bytes and messages.

use crate::runtime::session::Refusal;
use axum::body::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Frames that may wait. A worker has a few leases, each a task, a reveal and a
/// cancel; beyond that the peer has stopped reading.
const MESSAGES_MAX: usize = 4096;
/// Bytes that may wait beside one frame of any size, so that the largest
/// allowed weights can still be sent.
const BYTES_MAX: usize = 64 << 20;

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// [`MESSAGES_MAX`] frames wait already.
    Messages,
    /// More than [`BYTES_MAX`] bytes wait already.
    Bytes,
}

impl Overflow {
    /// A sentence for the peer.
    pub fn detail(self) -> String {
        match self {
            Overflow::Messages => format!("unread messages: the limit is {MESSAGES_MAX}"),
            Overflow::Bytes => format!("unread bytes: the limit is {BYTES_MAX}"),
        }
    }
}

/// Makes a frame when its turn has come; `None` where it cannot be made. It may block.
pub type Build = Box<dyn FnOnce() -> Option<Bytes> + Send>;

/// A frame that waits.
pub enum Waiting {
    /// Ready to be written.
    Ready(Bytes),
    /// To be made when its turn has come, off the tasks that must not be held up.
    Deferred { bytes: usize, build: Build },
}

impl Waiting {
    /// Bytes that it is counted with: of a deferred frame, those that it will have.
    pub fn bytes(&self) -> usize {
        match self {
            Waiting::Ready(frame) => frame.len(),
            Waiting::Deferred { bytes, .. } => *bytes,
        }
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Waiting::Ready(_) => "Ready",
            Waiting::Deferred { .. } => "Deferred",
        };
        write!(f, "{kind}({} bytes)", self.bytes())
    }
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Waiting>,
    /// Of the frames in the queue and the one that is being written.
    bytes: usize,
}

/// How a session's writing ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a goodbye frame and a close frame.
    Goodbye(Refusal),
    /// The peer has closed: nothing more is sent.
    Silent,
}

/// What the writer does next.
#[derive(Debug)]
pub enum Next {
    /// Write this frame, then call [`Outbox::written`] with its [`Waiting::bytes`].
    Frame(Waiting),
    /// End.
    End(Ending),
}

/// The queue, shared by the driver, the session's reader and its writer.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: Arc<Mutex<Queue>>,
    /// Wakes the writer, the only one that waits for frames.
    changed: Arc<Notify>,
    ending: Arc<watch::Sender<Option<Ending>>>,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox {
            queue: Arc::default(),
            changed: Arc::default(),
            ending: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock; a poisoned queue is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame. Nothing is queued once the session is ending.
    ///
    /// # Errors
    /// [`Overflow`] where the peer does not drain what it was sent.
    pub fn push(&self, frame: Bytes) -> Result<(), Overflow> {
        self.enqueue(Waiting::Ready(frame))
    }

    /// Queues a frame of `bytes` that is made when its turn has come. It keeps
    /// its place among the others.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn defer(&self, bytes: usize, build: Build) -> Result<(), Overflow> {
        self.enqueue(Waiting::Deferred { bytes, build })
    }

    fn enqueue(&self, frame: Waiting) -> Result<(), Overflow> {
        if self.ending().is_some() {
            return Ok(());
        }
        let mut queue = self.lock();
        if queue.frames.len() >= MESSAGES_MAX {
            return Err(Overflow::Messages);
        }
        if queue.bytes > BYTES_MAX {
            return Err(Overflow::Bytes);
        }
        queue.bytes += frame.bytes();
        queue.frames.push_back(frame);
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    /// Ends the session; frames that still wait are dropped. The first ending counts.
    pub fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|current| {
            let is_first = current.is_none();
            if is_first {
                *current = Some(ending);
            }
            is_first
        });
        self.lock().frames.clear();
    }

    /// How the session ends, if it does.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.borrow().clone()
    }

    /// Waits for something to write. Only one task may wait.
    pub async fn next(&self) -> Next {
        loop {
            if let Some(ending) = self.ending() {
                return Next::End(ending);
            }
            let frame = self.lock().frames.pop_front();
            if let Some(frame) = frame {
                return Next::Frame(frame);
            }
            tokio::select! {
                ending = self.ended() => return Next::End(ending),
                () = self.changed.notified() => {}
            }
        }
    }

    /// Waits until the session is to end.
    pub async fn ended(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        let found = ending.wait_for(Option::is_some).await;
        // The sender lives in `self`, so waiting cannot fail.
        found.ok().and_then(|found| found.clone()).unwrap_or(Ending::Silent)
    }

    /// Whether all has left.
    pub fn is_drained(&self) -> bool {
        let queue = self.lock();
        queue.frames.is_empty() && queue.bytes == 0
    }

    /// Notes that a frame of `bytes` has left.
    pub fn written(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_does_not_drain_overflows() {
        let outbox = Outbox::default();
        let large = Bytes::from(vec![0; BYTES_MAX + 1]);
        assert_eq!(outbox.push(large), Ok(()));
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(Overflow::Bytes));
        let outbox = Outbox::default();
        for _ in 0..MESSAGES_MAX {
            assert_eq!(outbox.push(Bytes::from_static(b"x")), Ok(()));
        }
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(Overflow::Messages));
    }

    #[tokio::test]
    async fn a_deferred_frame_keeps_its_place_and_counts_before_it_is_made() {
        let outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"a")).expect("room");
        let build: Build = Box::new(|| Some(Bytes::from_static(b"b")));
        outbox.defer(BYTES_MAX, build).expect("room");
        assert_eq!(outbox.push(Bytes::from_static(b"c")), Err(Overflow::Bytes));
        assert!(matches!(outbox.next().await, Next::Frame(Waiting::Ready(_))));
        assert!(!outbox.is_drained(), "one waits, one is being written");
        outbox.written(1);
        let Next::Frame(Waiting::Deferred { bytes, build }) = outbox.next().await else {
            panic!("not the deferred one");
        };
        assert_eq!((bytes, build()), (BYTES_MAX, Some(Bytes::from_static(b"b"))));
        assert!(!outbox.is_drained(), "one is being written");
        outbox.written(bytes);
        assert!(outbox.is_drained());
        outbox.push(Bytes::from_static(b"c")).expect("room again");
    }

    #[tokio::test]
    async fn frames_leave_in_order_and_an_ending_overtakes_them() {
        let outbox = Outbox::default();
        for text in ["a", "b", "c"] {
            outbox.push(Bytes::from(text)).expect("room");
        }
        let is_a = |next| matches!(next, Next::Frame(Waiting::Ready(frame)) if frame == "a");
        assert!(is_a(outbox.next().await));
        outbox.written(1);
        outbox.end(Ending::Silent);
        outbox.push(Bytes::from_static(b"late")).expect("ignored");
        assert!(matches!(outbox.next().await, Next::End(Ending::Silent)));
    }
}
