//! Checks of results that take a core each: probes of products, digests of large
//! payloads, and comparisons of what GPUs project.

use std::sync::Arc;
use std::thread::available_parallelism;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// As many at once as there are cores, less one for the driver and the sockets: a
/// burst of results must not keep everybody else waiting.
#[derive(Clone, Debug)]
pub struct Checks(Arc<Semaphore>);

impl Default for Checks {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Checks::of(cores.saturating_sub(1).max(1))
    }
}

impl Checks {
    fn of(at_once: usize) -> Self {
        Checks(Arc::new(Semaphore::new(at_once)))
    }

    /// Runs a check on a thread that may block, once its turn has come.
    ///
    /// # Errors
    /// Where the check panicked, or the process goes down.
    pub async fn run<T: Send + 'static>(
        &self,
        check: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        // The semaphore is never closed.
        let turn = self.0.clone().acquire_owned().await.ok();
        let checked = move || {
            let _turn = turn;
            check()
        };
        spawn_blocking(checked).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_checks_run_at_once_than_may_whoever_stops_waiting() {
        let (checks, running) = (Checks::of(2), Arc::new(AtomicUsize::new(0)));
        let most = Arc::new(AtomicUsize::new(0));
        let check = || {
            let (running, most) = (running.clone(), most.clone());
            move || {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                running.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let started: Vec<_> = (0..12)
            .map(|_| {
                let (checks, check) = (checks.clone(), check());
                tokio::spawn(async move { checks.run(check).await })
            })
            .collect();
        // A session that is closed takes its check's turn with it only when that is over.
        started[1].abort();
        for one in started {
            assert!(one.await.is_err() || most.load(Ordering::SeqCst) > 0);
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert_eq!(checks.0.available_permits(), 2);
    }
}
