//! What a visitor wishes at present: share, workers, kinds of jobs, paused or not. Each change
//! makes the engine plan anew, so that it is told of a few a second; of more
//! than that, the last. A change of what the session has of the machine takes effect with its
//! line in the chain of allocations, and never without one. Lines are written to the disk at
//! once and kept for good, so that there are fewer of them than a slider that never rests
//! makes wishes: a higher pace waits for its line, and until that of a lower one is durable the
//! session gets nothing at all, whatever it waits for.

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
/// come at once: more than a visitor makes who looks for the pace that suits. Wishes that
/// follow each other faster become one change: the line that comes has the last of them.
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

    /// Whether anything of it is less than `other` is.
    fn is_below(self, other: Wish) -> bool {
        self.share < other.share
            || self.workers < other.workers
            || !self.refuses.is_within(other.refuses)
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
    /// While a line for less is written the session rests.
    pub rest: Option<Event>,
    pub line: Option<Line>,
    pub events: Vec<Event>,
}

/// The wishes of one session.
#[derive(Debug)]
pub struct Wishes {
    /// What the engine knows: what the newest line says, or nothing while it is paused.
    told: Wish,
    wanted: Wish,
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

    /// Whether what is wanted is another allocation than the one that holds.
    fn lacks_line(&self) -> bool {
        self.wanted.given() != self.told.given()
    }

    /// What the engine may know now. It is told of another allocation with its line; less
    /// that has to wait for one rests the session, so that nothing is used beyond it.
    fn next(&mut self) -> Wish {
        if !self.lacks_line() || self.lines.has_token() {
            return self.wanted;
        }
        let is_held = self.wanted.is_below(self.told);
        Wish { is_paused: self.wanted.is_paused || is_held, ..self.told }
    }

    /// What is to be done now; nothing where nothing has changed or its time has not come.
    pub fn take(&mut self, session: SessionId) -> Step {
        let next = self.next();
        if next == self.told || !self.changes.try_take() {
            return Step::default();
        }
        let mut step = Step::default();
        let mut is_paused = self.told.is_paused;
        if next.given() != self.told.given() && self.lines.try_take() {
            // Others may be writing: it takes as long as they do until it is durable.
            if next.is_below(self.told) && !is_paused {
                step.rest = Some(Event::Paused { session });
                is_paused = true;
            }
            let (share, workers, refuses) = next.given();
            step.line = Some(Line { share, workers, refuses, raise: self.raise.take() });
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
        if next.is_paused != is_paused {
            let event = match next.is_paused {
                true => Event::Paused { session },
                false => Event::Resumed { session },
            };
            step.events.push(event);
        }
        self.told = next;
        step
    }

    /// Waits until something that is held back may be done; for ever where there is nothing.
    pub async fn due(&mut self) {
        let wait = if self.next() != self.told {
            Some(Duration::ZERO)
        } else {
            self.lacks_line().then(|| self.lines.until_next())
        };
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
            view: None,
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
    async fn less_takes_effect_with_its_line_and_the_session_rests_until_then() {
        let (mut wishes, _) = opened(&SigningKey::from_bytes(&[1; 32]));
        wishes.set_pace(0.4, 2, NONE, None).await.expect("less needs no receipt");
        assert_eq!(wishes.take(SESSION).events, [Event::Paused { session: SESSION }]);
        // Less of one and more of the other, and a pause of the visitor's own beside it.
        for (share, workers, is_paused) in [(0.3, 2, false), (0.2, 1, true), (0.1, 3, false)] {
            wishes.set_pace(share, workers, NONE, None).await.expect("less needs no receipt");
            wishes.set_paused(is_paused);
            let step = wishes.take(SESSION);
            assert!(step.line.is_none() && step.events.is_empty(), "{step:?}");
        }
        wishes.due().await;
        let step = wishes.take(SESSION);
        let line = step.line.as_ref().expect("a line");
        assert_eq!((line.share, line.workers, told(&step)), (0.1, 3, Some((0.1, 3))));
        assert_eq!(step.events.last(), Some(&Event::Resumed { session: SESSION }));
        assert!(wishes.take(SESSION).events.is_empty(), "all is told");
    }

    #[tokio::test]
    async fn less_that_is_taken_back_before_its_line_was_no_change() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let (mut wishes, receipt) = opened(&key);
        wishes.set_pace(0.4, 2, NONE, None).await.expect("less needs no receipt");
        assert_eq!(wishes.take(SESSION).events, [Event::Paused { session: SESSION }]);
        let again = signed(&Receipt { share: SHARE, counter: 1, ..receipt }, &key);
        wishes.set_pace(SHARE, 2, NONE, Some(again)).await.expect("consented");
        let step = wishes.take(SESSION);
        assert_eq!((step.line.is_none(), told(&step)), (true, None));
        assert_eq!(step.events, [Event::Resumed { session: SESSION }]);
    }

    #[tokio::test]
    async fn more_waits_for_its_line_and_its_receipt() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let (mut wishes, receipt) = opened(&key);
        let raise =
            |share: f64, counter| signed(&Receipt { share, counter, ..receipt.clone() }, &key);
        assert!(wishes.set_pace(0.6, 2, NONE, None).await.is_err(), "a receipt is needed");
        wishes.set_pace(0.7, 2, NONE, Some(raise(0.7, 1))).await.expect("consented");
        assert!(wishes.take(SESSION).events.is_empty(), "what there is goes on");
        wishes.set_pace(0.8, 2, NONE, Some(raise(0.8, 2))).await.expect("consented");
        assert!(wishes.take(SESSION).events.is_empty());
        wishes.due().await;
        let step = wishes.take(SESSION);
        let line = step.line.as_ref().expect("a line");
        let stored = line.raise.as_ref().map(|raise| (raise.share, raise.counter));
        assert_eq!((stored, told(&step)), (Some((0.8, 2)), Some((0.8, 2))));
        assert!(wishes.take(SESSION).line.is_none());
    }

    fn refused(step: &Step) -> Option<CategorySet> {
        step.events.iter().find_map(|event| match event {
            Event::VisitorRefuses { categories, .. } => Some(*categories),
            _ => None,
        })
    }

    #[tokio::test]
    async fn what_is_refused_rests_the_session_and_what_is_allowed_again_needs_a_receipt() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let (mut wishes, receipt) = opened(&key);
        let finance = NONE.with(Category::Finance);
        wishes.set_pace(SHARE, 2, finance, None).await.expect("less needs no receipt");
        assert_eq!(wishes.take(SESSION).events, [Event::Paused { session: SESSION }]);
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
        assert!(wishes.take(SESSION).events.is_empty(), "it rests already");
        wishes.due().await;
        let step = wishes.take(SESSION);
        let line = step.line.as_ref().expect("a line");
        assert_eq!((line.refuses, line.raise.is_some()), (vision, true));
        assert_eq!((told(&step), refused(&step)), (Some((0.1, 2)), Some(vision)));
    }

    #[tokio::test]
    async fn whatever_is_wished_the_engine_has_what_the_newest_line_says() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let (mut wishes, receipt) = opened(&key);
        // A few at once, then one in two milliseconds.
        (wishes.lines, wishes.changes) = (Bucket::new(500.0, 5.0), Bucket::new(1e4, 100.0));
        let (mut has, mut chained) = ((SHARE, 2), (SHARE, 2));
        let (mut lines, mut seed) = (0, 7_u64);
        for counter in 1..400 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (share, workers) =
                (((seed >> 33) % 10 + 1) as f64 / 10.0, (seed >> 50) as u32 % 4 + 1);
            let signed = signed(&Receipt { share, counter, ..receipt.clone() }, &key);
            // Only where it is more one is needed; more of them do no harm.
            wishes.raises = Bucket::new(RAISES_PER_S, RAISES_BURST);
            wishes.set_pace(share, workers, NONE, Some(signed)).await.expect("consented");
            let step = wishes.take(SESSION);
            if let Some(line) = &step.line {
                (chained, lines) = ((line.share, line.workers), lines + 1);
            }
            has = told(&step).unwrap_or(has);
            assert_eq!(has, chained, "seed 7, step {counter}");
        }
        assert!(lines > 5 && lines < 399, "{lines} lines: some wishes were held back");
        while wishes.lacks_line() {
            wishes.due().await;
            let step = wishes.take(SESSION);
            has = told(&step).unwrap_or(has);
        }
        assert_eq!(has, wishes.wanted.pace(), "the last wish holds in the end");
        assert!(!wishes.told.is_paused);
    }

    #[tokio::test]
    async fn a_kind_that_is_refused_with_a_new_pace_is_refused_before_that_gets_work() {
        let (mut wishes, _) = opened(&SigningKey::from_bytes(&[1; 32]));
        wishes.lines = Bucket::new(LINES_PER_S, LINES_BURST);
        let finance = NONE.with(Category::Finance);
        wishes.set_pace(0.1, 1, finance, None).await.expect("less needs no receipt");
        let expected = [
            Event::VisitorRefuses { session: SESSION, categories: finance },
            Event::PaceChanged { session: SESSION, share: 0.1, workers: 1 },
            Event::Resumed { session: SESSION },
        ];
        let step = wishes.take(SESSION);
        assert_eq!(step.rest, Some(Event::Paused { session: SESSION }), "until its line is there");
        assert_eq!((step.line.is_some(), step.events), (true, expected.to_vec()));
    }

    #[tokio::test]
    async fn a_session_rests_while_a_line_for_less_is_written_and_for_no_other() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let (mut wishes, receipt) = opened(&key);
        wishes.lines = Bucket::new(LINES_PER_S, LINES_BURST);
        let rest = Some(Event::Paused { session: SESSION });
        // Less with a pause that lasts.
        wishes.set_pace(0.4, 2, NONE, None).await.expect("less needs no receipt");
        wishes.set_paused(true);
        let step = wishes.take(SESSION);
        assert_eq!((step.rest, step.events.len()), (rest.clone(), 1), "{:?}", step.events);
        // Who rests already does so, until it wishes to go on.
        wishes.set_pace(0.3, 2, NONE, None).await.expect("less needs no receipt");
        wishes.set_paused(false);
        let step = wishes.take(SESSION);
        assert_eq!(
            (step.rest, step.events.last()),
            (None, Some(&Event::Resumed { session: SESSION }))
        );
        // Less of one thing and more of another.
        let more = signed(&Receipt { share: 0.6, counter: 1, ..receipt.clone() }, &key);
        wishes.set_pace(0.6, 1, NONE, Some(more)).await.expect("consented");
        assert_eq!(wishes.take(SESSION).rest, rest);
        let more = signed(&Receipt { share: 0.7, counter: 2, ..receipt }, &key);
        wishes.set_pace(0.7, 2, NONE, Some(more)).await.expect("consented");
        let step = wishes.take(SESSION);
        assert_eq!((step.line.is_some(), step.rest, step.events.len()), (true, None, 1));
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
