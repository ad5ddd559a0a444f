//! How many connections there may be: of all, and of one network.

use raven_engine::NetworkPrefix;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bounds of open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of everyone together: below the number of files that a process may open.
    pub all_max: usize,
    /// Of one network (/24 of IPv4, /48 of IPv6).
    pub per_network_max: usize,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    networks: HashMap<NetworkPrefix, usize>,
}

/// Counts open connections. Clones share the counts.
#[derive(Clone, Debug)]
pub struct Connections {
    limits: ConnectionLimits,
    counts: Arc<Mutex<Counts>>,
}

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Crowded {
    #[error("open connections: the limit is {limit}")]
    All { limit: usize },
    #[error("open connections of one network: the limit is {limit}")]
    Network { limit: usize },
}

/// A place in the counts; given back when dropped.
#[derive(Debug)]
pub struct Place {
    /// `None` for a trusted proxy, which many stand behind.
    network: Option<NetworkPrefix>,
    counts: Arc<Mutex<Counts>>,
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    // Both counts change under one lock, so a poisoned one is still true.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// No connection yet.
    pub fn new(limits: ConnectionLimits) -> Self {
        Connections { limits, counts: Arc::default() }
    }

    /// Open ones.
    pub fn open(&self) -> usize {
        lock(&self.counts).all
    }

    /// A place for one more, counted with its network where there is one.
    ///
    /// # Errors
    /// [`Crowded`].
    pub fn enter(&self, network: Option<NetworkPrefix>) -> Result<Place, Crowded> {
        let mut counts = lock(&self.counts);
        let ConnectionLimits { all_max, per_network_max } = self.limits;
        if let Some(network) = network {
            let open = counts.networks.get(&network).copied().unwrap_or(0);
            if open >= per_network_max {
                return Err(Crowded::Network { limit: per_network_max });
            }
        }
        if counts.all >= all_max {
            return Err(Crowded::All { limit: all_max });
        }
        counts.all += 1;
        if let Some(network) = network {
            *counts.networks.entry(network).or_default() += 1;
        }
        Ok(Place { network, counts: self.counts.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all -= 1;
        let Some(network) = self.network else { return };
        if let Some(open) = counts.networks.get_mut(&network) {
            *open -= 1;
            if *open == 0 {
                counts.networks.remove(&network);
            }
        }
    }
}

/// A connection that keeps its place as long as it is open, also once it has
/// become a WebSocket.
#[derive(Debug)]
pub struct Placed {
    stream: TcpStream,
    _place: Place,
}

impl Placed {
    /// A connection in its place.
    pub fn new(stream: TcpStream, place: Place) -> Self {
        Placed { stream, _place: place }
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_network_and_given_back() {
        let connections = Connections::new(ConnectionLimits { all_max: 3, per_network_max: 2 });
        let (here, there) = (Some(NetworkPrefix([1; 16])), Some(NetworkPrefix([2; 16])));
        let first = connections.enter(here).expect("a place");
        let _second = connections.enter(here).expect("a place");
        assert_eq!(connections.enter(here).expect_err("full"), Crowded::Network { limit: 2 });
        let third = connections.enter(there).expect("another network's");
        assert_eq!(connections.enter(None).expect_err("full"), Crowded::All { limit: 3 });
        drop((first, third));
        assert_eq!(connections.open(), 1);
        let _proxy = connections.enter(None).expect("a proxy's");
        assert_eq!(lock(&connections.counts).networks.len(), 1);
    }
}
