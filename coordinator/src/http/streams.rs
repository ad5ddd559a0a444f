//! How many event streams are open: in all, and of one key.

use super::Problem;
use crate::store::KeyId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts open streams. Clones share it.
#[derive(Clone, Debug)]
pub struct Streams {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    max: usize,
    of_key_max: usize,
    open: Mutex<HashMap<KeyId, usize>>,
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, HashMap<KeyId, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open stream; its place is free again when it is dropped.
#[derive(Debug)]
pub struct Stream {
    streams: Streams,
    owner: KeyId,
}

impl Streams {
    /// At most `max` streams, of which `of_key_max` belong to one key.
    pub fn new(max: usize, of_key_max: usize) -> Self {
        Streams { inner: Arc::new(Inner { max, of_key_max, open: Mutex::default() }) }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`Problem`]: 429 where the key has as many as it may, 503 where all are taken.
    pub fn enter(&self, owner: KeyId) -> Result<Stream, Problem> {
        let mut open = self.inner.open();
        let own = open.get(&owner).copied().unwrap_or(0);
        if own >= self.inner.of_key_max {
            let (limit, found) = (self.inner.of_key_max as u64, own as u64);
            return Err(Problem::quota("open event streams", limit, found));
        }
        if open.values().sum::<usize>() >= self.inner.max {
            let detail = "as many event streams as this coordinator takes are open";
            return Err(Problem::unavailable(detail));
        }
        open.insert(owner, own + 1);
        Ok(Stream { streams: self.clone(), owner })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut open = self.streams.inner.open();
        if let Some(own) = open.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_cannot_take_all_places_and_places_are_given_back() {
        let streams = Streams::new(3, 2);
        let (one, other) = (KeyId(1), KeyId(2));
        let held = [streams.enter(one).expect("a place"), streams.enter(one).expect("a place")];
        assert!(streams.enter(one).is_err(), "two of one key");
        let last = streams.enter(other).expect("a place");
        assert!(streams.enter(other).is_err(), "three in all");
        drop(held);
        drop(last);
        assert!(streams.inner.open().is_empty());
        assert!(streams.enter(one).is_ok());
    }
}
