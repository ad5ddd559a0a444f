//! How slow a body may be: a client that trickles must not hold a place for ever.

use super::Problem;
use crate::dataset::UploadLimits;
use axum::http::StatusCode;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// What is left of a client's time. Waiting for it uses it up, every byte that
/// comes earns its share of a second, and no more than the longest silence is kept.
#[derive(Debug)]
pub struct Pace {
    left: Duration,
    silence_max: Duration,
    bytes_per_s_min: u64,
}

impl Pace {
    /// A client that has sent nothing yet.
    pub fn new(limits: &UploadLimits) -> Self {
        let UploadLimits { silence_max, bytes_per_s_min, .. } = *limits;
        Pace { left: silence_max, silence_max, bytes_per_s_min }
    }

    /// Waits for the next bytes.
    ///
    /// # Errors
    /// `408` once its time is used up.
    pub async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Problem> {
        let began = Instant::now();
        let outcome = timeout(self.left, next).await;
        self.left = self.left.saturating_sub(began.elapsed());
        outcome.map_err(|_| {
            let rate = self.bytes_per_s_min;
            let detail = format!("the body comes with less than {rate} bytes per second");
            let status = StatusCode::REQUEST_TIMEOUT;
            Problem::new(status, "timeout", "The request is too slow", detail)
        })
    }

    /// Bytes came.
    pub fn received(&mut self, bytes: usize) {
        let earned = Duration::from_micros(bytes as u64 * 1_000_000 / self.bytes_per_s_min.max(1));
        self.left = (self.left + earned).min(self.silence_max);
    }
}
