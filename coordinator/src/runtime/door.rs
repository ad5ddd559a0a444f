//! Who may come in: sockets per network, and sockets that have not consented.

use super::RuntimeConfig;
use super::session::Refusal;
use raven_engine::NetworkPrefix;
use raven_protocol::GoodbyeReason;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Counts sockets by network, and bounds those that have not consented.
#[derive(Debug)]
pub struct Door {
    per_network_max: usize,
    opening_per_network_max: usize,
    opening: Arc<Semaphore>,
    networks: Arc<Mutex<HashMap<NetworkPrefix, Network>>>,
}

#[derive(Debug)]
struct Network {
    open: usize,
    opening: Arc<Semaphore>,
}

/// One socket's place in its network's count; given back when dropped.
#[derive(Debug)]
pub struct Place {
    prefix: NetworkPrefix,
    opening: Arc<Semaphore>,
    networks: Arc<Mutex<HashMap<NetworkPrefix, Network>>>,
}

/// Leave to be read before consent; given back when dropped.
#[derive(Debug)]
pub struct Opening {
    _of_network: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

fn lock(
    networks: &Mutex<HashMap<NetworkPrefix, Network>>,
) -> MutexGuard<'_, HashMap<NetworkPrefix, Network>> {
    // Counts are changed in one step, so a poisoned map is still true.
    networks.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    /// A door with the configured limits.
    pub fn new(config: &RuntimeConfig) -> Self {
        Door {
            per_network_max: config.sessions_per_network_max,
            opening_per_network_max: config.opening_per_network_max,
            opening: Arc::new(Semaphore::new(config.opening_max)),
            networks: Arc::default(),
        }
    }

    /// A place for one more socket of a network.
    ///
    /// # Errors
    /// [`GoodbyeReason::Full`] naming the limit.
    pub fn enter(&self, prefix: NetworkPrefix) -> Result<Place, Refusal> {
        let mut networks = lock(&self.networks);
        let network = networks.entry(prefix).or_insert_with(|| Network {
            open: 0,
            opening: Arc::new(Semaphore::new(self.opening_per_network_max)),
        });
        if network.open >= self.per_network_max {
            let detail = format!("sessions of one network: the limit is {}", self.per_network_max);
            return Err(Refusal::new(GoodbyeReason::Full, detail));
        }
        network.open += 1;
        let opening = network.opening.clone();
        Ok(Place { prefix, opening, networks: self.networks.clone() })
    }

    /// Waits until the socket may be read before its consent. First the
    /// network's own share, so that one network never holds what others wait for.
    ///
    /// # Errors
    /// [`GoodbyeReason::Full`] where no turn came within `patience`.
    pub async fn opening(&self, place: &Place, patience: Duration) -> Result<Opening, Refusal> {
        let turn = async {
            let _of_network = place.opening.clone().acquire_owned().await.ok()?;
            let _of_all = self.opening.clone().acquire_owned().await.ok()?;
            Some(Opening { _of_network, _of_all })
        };
        let opening = timeout(patience, turn).await.ok().flatten();
        opening.ok_or_else(|| {
            let detail = "sessions without consent: too many are being opened; come back later";
            Refusal::new(GoodbyeReason::Full, detail)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut networks = lock(&self.networks);
        if let Some(network) = networks.get_mut(&self.prefix) {
            network.open -= 1;
            if network.open == 0 {
                networks.remove(&self.prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Door {
        let mut config = RuntimeConfig::new("kernel".into(), Vec::new(), "1".into());
        config.sessions_per_network_max = 2;
        config.opening_max = 2;
        config.opening_per_network_max = 1;
        Door::new(&config)
    }

    #[test]
    fn a_network_has_so_many_places_and_is_forgotten_with_the_last() {
        let door = door();
        let (here, there) = (NetworkPrefix([1; 16]), NetworkPrefix([2; 16]));
        let first = door.enter(here).expect("a place");
        let second = door.enter(here).expect("a place");
        let refusal = door.enter(here).expect_err("full");
        assert_eq!(refusal.reason, GoodbyeReason::Full);
        assert!(refusal.detail.contains("limit is 2"), "{refusal}");
        drop(door.enter(there).expect("another network's"));
        drop(first);
        let third = door.enter(here).expect("a place again");
        drop((second, third));
        assert!(lock(&door.networks).is_empty());
    }

    #[tokio::test]
    async fn strangers_of_one_network_leave_room_for_another() {
        let door = door();
        let here = door.enter(NetworkPrefix([1; 16])).expect("a place");
        let there = door.enter(NetworkPrefix([2; 16])).expect("a place");
        let patience = Duration::from_millis(50);
        let first = door.opening(&here, patience).await.expect("a turn");
        let refusal = door.opening(&here, patience).await.expect_err("its share is used up");
        assert_eq!(refusal.reason, GoodbyeReason::Full);
        door.opening(&there, patience).await.expect("another network's turn");
        drop(first);
        door.opening(&here, patience).await.expect("a turn again");
    }
}
