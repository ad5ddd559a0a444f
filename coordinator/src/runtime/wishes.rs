//! What a visitor wishes at present: share, workers, kinds of jobs, paused or not. Each change
//! makes the engine plan anew, so that it is told of a few a second; of more
//! than that, the last. What is recorded of them is written to the disk at once and
//! kept for good, so that there are fewer lines than changes: a lower pace takes
//! effect before its line, a higher one waits for it.

use super::session::{Raise, Refusal, Terms};
use crate::time::UnixMs;
use raven_engine::{CategorySet, Event, SessionProfile};
use raven_protocol::{GoodbyeReason, SessionId};
use std::time::Duration;
use tokio::time::Instant;

/// Changes a second that the engine is told of, and how many may come at once.
/// Nobody moves a slider or hides a page faster on purpose; a key that is held
/// down does.
const CHANGES_PER_S: f64 = 5.0;
const CHANGES_BURST: f64 = 20.0;
/// Lines a second that the changes of one session are recorded in, and how many may
/// come at once: more than a visitor makes who looks for the pace that suits. The line
/// that comes has the last state.
const LINES_PER_S: f64 = 0.1;
const LINES_BURST: f64 = 20.0;
/// Receipts a second for higher shares: each is verified. Beyond it the socket is left
/// unread for a while.
const RAISES_PER_S: f64 = 5.0;
const RAISES_BURST: f64 = 20.0;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Wish {
    share: f64,
    workers: u32,
    refuses: CategorySet,
    is_paused: bool,
}

impl Wish {
    const fn pace(self) -> (f64, u32) {
        (self.share, self.workers)
    }

    /// What a line says of it.
    const fn given(self) -> (f64, u32, CategorySet) {
        (self.share, self.workers, self.refuses)
    }

    /// Whether it is for more than `other` is: then it is signed.
    fn is_above(self, other: Wish) -> bool {
        self.share > other.share || !other.refuses.is_within(self.refuses)
    }

    /// As much of `self` as does not go beyond `other`.
    fn within(self, other: Wish) -> Wish {
        let (share, workers) = (self.share.min(other.share), self.workers.min(other.workers));
        Wish { share, workers, refuses: self.refuses.union(other.refuses), ..self }
    }
}

/// A line that is to be stored before the engine is told of what it says.
#[derive(Debug)]
pub struct Line {
    pub share: f64,
    pub workers: u32,
    pub refuses: CategorySet,
    /// The newest receipt that is not stored yet.
    pub raise: Option<Raise>,
}

/// What is to be done now, in this order.
#[derive(Debug, Default)]
pub struct Step {
    pub line: Option<Line>,
    pub events: Vec<Event>,
}

/// The wishes of one session.
#[derive(Debug)]
pub struct Wishes {
    /// What the engine knows: never more than was recorded.
    told: Wish,
    wanted: Wish,
    /// What the newest line says.
    recorded: (f64, u32, CategorySet),
    /// The newest receipt, while it is not stored.
    raise: Option<Raise>,
    changes: Bucket,
    lines: Bucket,
    terms: Terms,
    raises: Bucket,
}

impl Wishes {
    /// Those of a session that has just opened.
    pub fn of(profile: &SessionProfile, terms: Terms) -> Self {
        let told = Wish {
            share: profile.share,
            workers: profile.workers,
            refuses: profile.refused.by_visitor,
            is_paused: false,
        };
        Wishes {
            told,
            wanted: told,
            recorded: told.given(),
            raise: None,
            changes: Bucket::new(CHANGES_PER_S, CHANGES_BURST),
            lines: Bucket::new(LINES_PER_S, LINES_BURST),
            terms,
            raises: Bucket::new(RAISES_PER_S, RAISES_BURST),
        }
    }

    /// A pace: a share above the present one, or a kind of job that is refused no longer,
    /// needs a receipt, which is stored with the line that gives the session more.
    ///
    /// # Errors
    /// [`GoodbyeReason::NoConsent`] where the receipt is missing or wrong.
    pub async fn set_pace(
        &mut self,
        share: f64,
        workers: u32,
        refuses: CategorySet,
        signed: Option<(String, String)>,
    ) -> Result<(), Refusal> {
        let wanted = Wish { share, workers, refuses, ..self.wanted };
        if wanted.is_above(self.wanted) {
            self.raise = Some(self.raised(wanted, signed).await?);
        }
        self.wanted = wanted;
        Ok(())
    }

    async fn raised(
        &mut self,
        wanted: Wish,
        signed: Option<(String, String)>,
    ) -> Result<Raise, Refusal> {
        let Some((receipt, signature)) = signed else {
            let now = self.wanted;
            let detail = match wanted.share > now.share {
                true => format!(
                    "pace.receipt: missing, a share of {} is above the present {}",
                    wanted.share, now.share
                ),
                false => format!(
                    "pace.receipt: missing, {:?} are not all that is refused at present, {:?}",
                    wanted.refuses, now.refuses
                ),
            };
            return Err(Refusal::new(GoodbyeReason::NoConsent, detail));
        };
        self.raises.wait().await;
        self.terms.raise(receipt, signature, wanted.share, wanted.refuses, UnixMs::now())
    }

    /// A pause, or a resume.
    pub fn set_paused(&mut self, is_paused: bool) {
        self.wanted.is_paused = is_paused;
    }

    /// Whether a line is missing: of what is wanted, or of what the engine may not be told before.
    fn lacks_line(&self) -> bool {
        self.wanted.given() != self.recorded || self.wanted.within(self.told) != self.wanted
    }

    /// What is to be done now; nothing where nothing has changed or its time has not come.
    pub fn take(&mut self, session: SessionId) -> Step {
        let has_line = self.lacks_line() && self.lines.has_token();
        let next = if has_line { self.wanted } else { self.wanted.within(self.told) };
        if !(has_line || next != self.told) || !self.changes.try_take() {
            return Step::default();
        }
        let mut step = Step::default();
        if has_line && self.lines.try_take() {
            let (share, workers, refuses) = self.wanted.given();
            step.line = Some(Line { share, workers, refuses, raise: self.raise.take() });
            self.recorded = self.wanted.given();
        }
        // The engine gives out work after each event: none of a kind that is refused now.
        if next.refuses != self.told.refuses {
            let categories = next.refuses;
            step.events.push(Event::VisitorRefuses { session, categories });
        }
        if next.pace() != self.told.pace() {
            let (share, workers) = next.pace();
            step.events.push(Event::PaceChanged { session, share, workers });
        }
        if next.is_paused != self.told.is_paused {
            let is_paused = next.is_paused;
            let event =
                if is_paused { Event::Paused { session } } else { Event::Resumed { session } };
            step.events.push(event);
        }
        self.told = next;
        step
    }

    /// Waits until something that is held back may be done; for ever where there is nothing.
    pub async fn due(&mut self) {
        let lines = self.lacks_line().then(|| self.lines.until_next());
        let wait =
            if self.wanted.within(self.told) != self.told { Some(Duration::ZERO) } else { lines };
        match wait {
            Some(wait) => tokio::time::sleep(wait.max(self.changes.until_next())).await,
            None => std::future::pending().await,
        }
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

    fn has_token(&mut self) -> bool {
        self.refill();
        self.tokens >= 1.0
    }

    fn try_take(&mut self) -> bool {
        let is_there = self.has_token();
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
    use super::super::session::{AwaitConsent, hex};
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use raven_engine::{Category, NetworkPrefix};
    use raven_protocol::{
        Device, DeviceClass, Earnings, Hello, JobCategory, Keeps, KernelId, NumericClass,
        PROTOCOL_VERSION, Receipt,
    };

    const SESSION: SessionId = SessionId(1);
    const SHARE: f64 = 0.5;
    const NONE: CategorySet = CategorySet::EMPTY;

    fn signed(receipt: &Receipt, key: &SigningKey) -> (String, String) {
        let text = serde_json::to_string(receipt).expect("serializes");
        let signature = hex(&key.sign(text.as_bytes()).to_bytes());
        (text, signature)
    }

    /// Those of a session of two workers at [`SHARE`], whose next line comes in a tenth of a
    /// second, and its receipt.
    fn opened(key: &SigningKey) -> (Wishes, Receipt) {
        let device =
            Device { class: DeviceClass::Desktop, cores: 8, memory_bytes: 1, flops_per_s: 1 };
        let session_key = hex(key.verifying_key().as_bytes());
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            numeric: NumericClass::Cpu { kernel: KernelId([7; 32]) },
            device,
            share: SHARE,
            workers: 2,
            session_key: session_key.clone(),
            ticket: None,
            traffic_bytes_left: None,
            keeps: Keeps::Key,
            earnings: Earnings::Mine,
        };
        let waiting = AwaitConsent::new(hello, None, "1".into()).expect("a good hello");
        let receipt = Receipt {
            text_version: "1".into(),
            site: None,
            share: SHARE,
            nonce: waiting.nonce().into(),
            session_key,
            cpu: true,
            gpu: false,
            refuses: Vec::new(),
            time_ms: UnixMs::now().0.unsigned_abs(),
            keeps: Keeps::Key,
            earnings: Earnings::Mine,
            counter: 0,
        };
        let (text, signature) = signed(&receipt, key);
        let consented = waiting
            .consent(text, signature, NetworkPrefix([0; 16]), UnixMs::now())
            .expect("consents");
        let mut wishes = Wishes::of(&consented.profile, consented.terms);
        wishes.lines = Bucket::new(10.0, 1.0);
        assert!(wishes.lines.try_take());
        (wishes, receipt)
    }

    fn told(step: &Step) -> Option<(f64, u32)> {
        step.events.iter().find_map(|event| match event {
            Event::PaceChanged { share, workers, .. } => Some((*share, *workers)),
            _ => None,
        })
    }

    #[tokio::test]
    async fn less_is_taken_at_once_and_recorded_later_with_what_is_wanted_then() {
        let (mut wishes, _) = opened(&SigningKey::from_bytes(&[1; 32]));
        for share in [0.4, 0.3, 0.2] {
            wishes.set_pace(share, 2, NONE, None).await.expect("less needs no receipt");
            let step = wishes.take(SESSION);
            assert_eq!((told(&step), step.line.is_none()), (Some((share, 2)), true));
        }
        // Less of one and more of the other: only the less.
        wishes.set_pace(0.1, 3, NONE, None).await.expect("less needs no receipt");
        assert_eq!(told(&wishes.take(SESSION)), Some((0.1, 2)));
        wishes.set_paused(true);
        assert_eq!(wishes.take(SESSION).events, [Event::Paused { session: SESSION }]);
        wishes.due().await;
        let step = wishes.take(SESSION);
        let line = step.line.as_ref().expect("a line");
        assert_eq!((line.share, line.workers, told(&step)), (0.1, 3, Some((0.1, 3))));
        assert!(wishes.take(SESSION).events.is_empty(), "all is told");
    }

    #[tokio::test]
    async fn more_waits_for_its_line_and_its_receipt() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let (mut wishes, receipt) = opened(&key);
        let raise =
            |share: f64, counter| signed(&Receipt { share, counter, ..receipt.clone() }, &key);
        wishes.set_pace(0.1, 2, NONE, None).await.expect("less needs no receipt");
        assert_eq!(told(&wishes.take(SESSION)), Some((0.1, 2)));
        assert!(wishes.set_pace(0.2, 2, NONE, None).await.is_err(), "a receipt is needed");
        // Below what is recorded, and more than there is all the same.
        wishes.set_pace(0.3, 2, NONE, Some(raise(0.3, 1))).await.expect("consented");
        assert!(wishes.take(SESSION).events.is_empty());
        wishes.set_pace(SHARE, 2, NONE, Some(raise(SHARE, 2))).await.expect("consented");
        assert!(wishes.take(SESSION).events.is_empty());
        wishes.due().await;
        let step = wishes.take(SESSION);
        let line = step.line.as_ref().expect("a line");
        let stored = line.raise.as_ref().map(|raise| (raise.share, raise.counter));
        assert_eq!((stored, told(&step)), (Some((SHARE, 2)), Some((SHARE, 2))));
        assert!(wishes.take(SESSION).line.is_none());
    }

    fn refused(step: &Step) -> Option<CategorySet> {
        step.events.iter().find_map(|event| match event {
            Event::VisitorRefuses { categories, .. } => Some(*categories),
            _ => None,
        })
    }

    #[tokio::test]
    async fn what_is_refused_counts_at_once_and_what_is_allowed_again_needs_receipt_and_line() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let (mut wishes, receipt) = opened(&key);
        let finance = NONE.with(Category::Finance);
        wishes.set_pace(SHARE, 2, finance, None).await.expect("less needs no receipt");
        let step = wishes.take(SESSION);
        assert_eq!((refused(&step), step.line.is_none()), (Some(finance), true));
        // Less of the one and more of the other is more.
        let vision = NONE.with(Category::Vision);
        let refusal = wishes.set_pace(0.1, 2, vision, None).await.expect_err("a receipt is needed");
        assert!(refusal.detail.contains("pace.receipt: missing"), "{refusal}");
        let other = Receipt { share: 0.1, counter: 1, ..receipt.clone() };
        let refusal = wishes.set_pace(0.1, 2, vision, Some(signed(&other, &key))).await;
        let refusal = refusal.expect_err("it is for all kinds");
        assert!(refusal.detail.contains("receipt.refuses"), "{refusal}");
        let refuses = vec![JobCategory::Vision];
        let mine = Receipt { share: 0.1, counter: 1, refuses, ..receipt };
        wishes.set_pace(0.1, 2, vision, Some(signed(&mine, &key))).await.expect("consented");
        // The lower share and the new refusal count; what was refused still is.
        let step = wishes.take(SESSION);
        assert_eq!((told(&step), refused(&step)), (Some((0.1, 2)), Some(finance.union(vision))));
        wishes.due().await;
        let step = wishes.take(SESSION);
        let line = step.line.as_ref().expect("a line");
        assert_eq!((line.refuses, line.raise.is_some()), (vision, true));
        assert_eq!(refused(&step), Some(vision));
    }

    #[tokio::test]
    async fn a_kind_that_is_refused_with_a_new_pace_is_refused_before_that_gets_work() {
        let (mut wishes, _) = opened(&SigningKey::from_bytes(&[1; 32]));
        let finance = NONE.with(Category::Finance);
        wishes.set_pace(0.1, 1, finance, None).await.expect("less needs no receipt");
        let expected = [
            Event::VisitorRefuses { session: SESSION, categories: finance },
            Event::PaceChanged { session: SESSION, share: 0.1, workers: 1 },
        ];
        assert_eq!(wishes.take(SESSION).events, expected);
    }

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
