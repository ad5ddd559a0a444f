//! What a visitor wishes at present: share, workers, paused or not. Each change
//! makes the engine plan anew, so that it is told of a few a second; of more
//! than that, the last.

use super::session::{Raise, Refusal, Terms};
use raven_engine::{Event, SessionProfile};
use raven_protocol::{GoodbyeReason, SessionId};
use std::time::Duration;
use tokio::time::Instant;

/// Changes a second that the engine is told of, and how many may come at once.
/// Nobody moves a slider or hides a page faster on purpose; a key that is held
/// down does.
const CHANGES_PER_S: f64 = 5.0;
const CHANGES_BURST: f64 = 20.0;
/// Receipts a second for higher shares: each is verified and stored. Beyond it
/// the socket is left unread for a while.
const RAISES_PER_S: f64 = 5.0;
const RAISES_BURST: f64 = 20.0;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Wish {
    share: f64,
    workers: u32,
    is_paused: bool,
}

/// The wishes of one session.
#[derive(Debug)]
pub struct Wishes {
    /// What the engine knows.
    told: Wish,
    wanted: Wish,
    changes: Bucket,
    terms: Terms,
    raises: Bucket,
}

impl Wishes {
    /// Those of a session that has just opened.
    pub fn of(profile: &SessionProfile, terms: Terms) -> Self {
        let told = Wish { share: profile.share, workers: profile.workers, is_paused: false };
        Wishes {
            told,
            wanted: told,
            changes: Bucket::new(CHANGES_PER_S, CHANGES_BURST),
            terms,
            raises: Bucket::new(RAISES_PER_S, RAISES_BURST),
        }
    }

    /// Whether a pace may be: a share above the present one needs a receipt,
    /// which is to be stored before [`Wishes::set_pace`].
    ///
    /// # Errors
    /// [`GoodbyeReason::NoConsent`] where the receipt is missing or wrong.
    pub async fn consented(
        &mut self,
        share: f64,
        signed: Option<(String, String)>,
    ) -> Result<Option<Raise>, Refusal> {
        if share <= self.wanted.share {
            return Ok(None);
        }
        let Some((receipt, signature)) = signed else {
            let detail = format!(
                "pace.receipt: missing, a share of {share} is above the present {}",
                self.wanted.share
            );
            return Err(Refusal::new(GoodbyeReason::NoConsent, detail));
        };
        self.raises.wait().await;
        self.terms.raise(receipt, signature, share).map(Some)
    }

    /// A pace that was consented to.
    pub fn set_pace(&mut self, share: f64, workers: u32) {
        (self.wanted.share, self.wanted.workers) = (share, workers);
    }

    /// A pause, or a resume.
    pub fn set_paused(&mut self, is_paused: bool) {
        self.wanted.is_paused = is_paused;
    }

    /// What the engine is to be told now; nothing where nothing has changed or
    /// its time has not come.
    pub fn take(&mut self, session: SessionId) -> Vec<Event> {
        let mut events = Vec::new();
        if self.told == self.wanted || !self.changes.try_take() {
            return events;
        }
        let Wish { share, workers, is_paused } = self.wanted;
        if (share, workers) != (self.told.share, self.told.workers) {
            events.push(Event::PaceChanged { session, share, workers });
        }
        if is_paused != self.told.is_paused {
            let event =
                if is_paused { Event::Paused { session } } else { Event::Resumed { session } };
            events.push(event);
        }
        self.told = self.wanted;
        events
    }

    /// Waits until a change that is held back may be told; for ever where there is none.
    pub async fn due(&mut self) {
        if self.told == self.wanted {
            return std::future::pending().await;
        }
        tokio::time::sleep(self.changes.until_next()).await;
    }
}

/// A token bucket.
#[derive(Debug)]
pub struct Bucket {
    per_s: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(per_s: f64, burst: f64) -> Self {
        Bucket { per_s, burst, tokens: burst, at: Instant::now() }
    }

    fn refill(&mut self) {
        let now = Instant::now();
        let refill = now.duration_since(self.at).as_secs_f64() * self.per_s;
        self.tokens = (self.tokens + refill).min(self.burst);
        self.at = now;
    }

    fn try_take(&mut self) -> bool {
        self.refill();
        let is_there = self.tokens >= 1.0;
        if is_there {
            self.tokens -= 1.0;
        }
        is_there
    }

    fn until_next(&mut self) -> Duration {
        self.refill();
        // Rounded up, or the token would be missing by a hair.
        Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / self.per_s)
            + Duration::from_millis(1)
    }

    /// Takes a token, after a wait where there is none: beyond its rate a
    /// session is not read for a while, so that TCP slows the peer down and
    /// nothing piles up here.
    pub async fn wait(&mut self) {
        self.refill();
        self.tokens -= 1.0;
        if self.tokens < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.tokens / self.per_s)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(50.0, 3.0);
        for _ in 0..3 {
            assert!(bucket.try_take());
        }
        assert!(!bucket.try_take());
        tokio::time::sleep(bucket.until_next()).await;
        assert!(bucket.try_take());
        let before = Instant::now();
        for _ in 0..10 {
            bucket.wait().await;
        }
        let waited = before.elapsed().as_secs_f64();
        assert!(waited >= 0.15, "{waited} s for ten tokens at fifty a second");
    }
}
