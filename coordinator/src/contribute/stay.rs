//! From the yes to the end: sessions follow each other, with waits in between.

use super::backoff::Backoff;
use super::consent;
use super::frames::Frames;
use super::identity::KeyPair;
use super::pace::Pace;
use super::pool::Pool;
use super::session::{End, Sessions, Tally, stopped};
use super::speed::measure;
use super::trust::Trust;
use super::worker::MEMORY_BYTES;
use super::{Contribute, ContributeError};
use crate::random;
use crate::runtime::executor::KernelModule;
use raven_protocol::{Device, DeviceClass, GoodbyeReason, Hello, NumericClass, PROTOCOL_VERSION};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A session that lasted this long shows that all is well again.
const STABLE: Duration = Duration::from_secs(30);
/// How often in a row our messages may be refused before we give up.
const REJECTIONS_MAX: u32 = 3;

/// What whoever runs this wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Work,
    /// Connected and idle; tasks in hand are given back.
    Pause,
    /// Nothing is finished any more.
    Stop,
}

/// Contributes until it is stopped, sent away for good, or not agreed to.
///
/// # Errors
/// [`ContributeError`].
pub async fn contribute(
    asked: Contribute,
    mut wish: watch::Receiver<Wish>,
) -> Result<(), ContributeError> {
    let trust = Trust::of(&asked.to, asked.authorities.as_deref())?;
    let key = KeyPair::open(&asked.key)?;
    let preparing = asked.clone();
    let prepared = tokio::task::spawn_blocking(move || prepare(&preparing)).await;
    let (module, flops_per_s) = match prepared {
        Ok(prepared) => prepared?,
        Err(error) => return Err(ContributeError::Thread(std::io::Error::other(error))),
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let pace = Pace::of(asked.share, cores, asked.workers);
    let frames = Arc::new(Frames::new(asked.to.clone(), trust.as_ref()));
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        numeric: NumericClass::Cpu { kernel: module.id() },
        device: Device {
            class: DeviceClass::Server,
            cores,
            memory_bytes: MEMORY_BYTES,
            flops_per_s,
        },
        share: pace.share,
        workers: pace.workers,
        session_key: key.public(),
        ticket: None,
        traffic_bytes_left: None,
    };
    let pool = Pool::start(&module, &frames, pace, flops_per_s)?;
    println!("{:.2} Gflop/s with one worker", flops_per_s as f64 / 1e9);
    let to = asked.to.clone();
    let sessions = Sessions { to, trust, key, hello, frames, pool, tally: Tally::default() };
    let mut stay =
        Stay { asked, pace, sessions, backoff: Backoff::default(), rejections: 0, agreed: None };
    let ended = stay.run(&mut wish).await;
    let Tally { paid, unpaid } = stay.sessions.tally;
    let computed = stay.sessions.pool.committed();
    println!("{computed} tasks computed; told of {paid} that are paid and {unpaid} that are not");
    ended
}

fn prepare(asked: &Contribute) -> Result<(KernelModule, u64), ContributeError> {
    let module = KernelModule::load(&asked.kernel, asked.cache.as_deref())?;
    let flops_per_s = measure(&module)?;
    Ok((module, flops_per_s))
}

struct Stay {
    asked: Contribute,
    pace: Pace,
    sessions: Sessions,
    backoff: Backoff,
    rejections: u32,
    /// The consent text that was agreed to.
    agreed: Option<String>,
}

impl Stay {
    async fn run(&mut self, wish: &mut watch::Receiver<Wish>) -> Result<(), ContributeError> {
        loop {
            let began = Instant::now();
            let end = match self.agreed.clone() {
                Some(agreed) => self.sessions.run(&agreed, wish).await,
                None => match self.ask(wish).await? {
                    Some(end) => end,
                    None => continue,
                },
            };
            if began.elapsed() >= STABLE {
                self.backoff.reset();
                self.rejections = 0;
            }
            let Some(wait) = self.after(end)? else { return Ok(()) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopped(wish) => return Ok(()),
            }
        }
    }

    /// Says what will run and waits for a yes; answers why that was not possible.
    async fn ask(
        &mut self,
        wish: &mut watch::Receiver<Wish>,
    ) -> Result<Option<End>, ContributeError> {
        let text = tokio::select! {
            text = self.sessions.consent_text() => text,
            () = stopped(wish) => return Ok(Some(End::Stopped)),
        };
        let text = match text {
            Ok(text) => text,
            Err(end) => return Ok(Some(end)),
        };
        let key = &self.sessions.hello.session_key;
        print!("{}", consent::words(&self.asked, self.pace, key, &text));
        let yes = self.asked.yes;
        let answer = tokio::task::spawn_blocking(move || consent::ask(yes));
        tokio::select! {
            answer = answer => answer.unwrap_or(Err(ContributeError::NoConsent))?,
            () = stopped(wish) => return Ok(Some(End::Stopped)),
        }
        self.agreed = Some(text);
        Ok(None)
    }

    /// How long to wait before the next session; nothing where there is none.
    fn after(&mut self, end: End) -> Result<Option<Duration>, ContributeError> {
        let (is_crowded, asked, why) = match end {
            End::Stopped => return Ok(None),
            End::Failed(error) => return Err(error),
            End::TextChanged(now) => {
                let agreed = self.agreed.clone().unwrap_or_default();
                return Err(ContributeError::TextChanged { agreed, now });
            }
            End::Lost(why) => (false, None, why),
            End::Goodbye { reason, detail, retry_after } => match reason {
                GoodbyeReason::Stopped | GoodbyeReason::TooSlow => (false, None, detail),
                GoodbyeReason::Draining | GoodbyeReason::Full => (true, retry_after, detail),
                GoodbyeReason::BadFrame
                | GoodbyeReason::OutOfTurn
                | GoodbyeReason::BrokenCommitment
                    if self.rejections + 1 < REJECTIONS_MAX =>
                {
                    self.rejections += 1;
                    (false, None, detail)
                }
                GoodbyeReason::BadFrame
                | GoodbyeReason::OutOfTurn
                | GoodbyeReason::BrokenCommitment
                | GoodbyeReason::Incompatible
                | GoodbyeReason::NoConsent
                | GoodbyeReason::BadTicket
                | GoodbyeReason::TrafficCap
                | GoodbyeReason::Excluded => {
                    let to = self.asked.to.clone();
                    return Err(ContributeError::Refused { to, reason, detail });
                }
            },
        };
        let random = f64::from(u32::from_le_bytes(random::bytes())) / f64::from(u32::MAX);
        let wait = self.backoff.next(is_crowded, asked, random);
        println!("not connected ({why}); next try in {:.1} s", wait.as_secs_f64());
        Ok(Some(wait))
    }
}
