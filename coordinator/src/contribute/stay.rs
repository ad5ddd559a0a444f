//! From the yes to the end: sessions follow each other, with waits in between.

use super::backoff::Backoff;
use super::consent;
use super::frames::Frames;
use super::identity::KeyPair;
use super::memory::Memory;
use super::pace::Pace;
use super::pool::Pool;
use super::session::{End, Sessions, Tally, stopped};
use super::speed::measure;
use super::trust::Trust;
use super::{Contribute, ContributeError};
use crate::random;
use crate::runtime::executor::KernelModule;
use raven_protocol::{
    Device, DeviceClass, Earnings, GoodbyeReason, Hello, Keeps, NumericClass, PROTOCOL_VERSION,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A session that lasted this long shows that all is well again.
const STABLE: Duration = Duration::from_secs(30);
/// Of what a peer says, so much is printed.
const PRINTED_CHARS_MAX: usize = 300;
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
    let pace = Pace::of(asked.share, cores, asked.workers)?;
    let memory = Memory::of(pace);
    let frames = Arc::new(Frames::new(asked.to.clone(), trust.as_ref(), memory.kept_bytes));
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        numeric: NumericClass::Cpu { kernel: module.id() },
        device: Device {
            class: DeviceClass::Server,
            cores,
            memory_bytes: memory.instance_bytes,
            flops_per_s,
        },
        share: pace.share,
        workers: pace.workers,
        session_key: key.public(),
        keeps: Keeps::Key,
        earnings: Earnings::Mine,
        ticket: None,
        traffic_bytes_left: None,
    };
    let pool = Pool::start(&module, &frames, pace, memory, flops_per_s)?;
    println!("{:.2} Gflop/s with one worker", flops_per_s as f64 / 1e9);
    let to = asked.to.clone();
    let tally = Tally::default();
    let sessions = Sessions { to, trust, key, hello, frames, pool, tally, ready: None };
    let backoff = Backoff::default();
    let mut stay = Stay { asked, pace, memory, sessions, backoff, rejections: 0, agreed: false };
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
    memory: Memory,
    sessions: Sessions,
    backoff: Backoff,
    rejections: u32,
    /// Whether what was shown was agreed to. It holds for the whole run.
    agreed: bool,
}

impl Stay {
    async fn run(&mut self, wish: &mut watch::Receiver<Wish>) -> Result<(), ContributeError> {
        loop {
            let end = match self.agreed {
                true => self.sessions.run(wish).await,
                false => match self.ask(wish).await? {
                    Some(end) => end,
                    None => continue,
                },
            };
            // However long a handshake took, it shows nothing.
            if self.sessions.ready.is_some_and(|since| since.elapsed() >= STABLE) {
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
        let there = tokio::select! {
            there = self.sessions.knock() => there,
            () = stopped(wish) => return Ok(Some(End::Stopped)),
        };
        if let Err(end) = there {
            return Ok(Some(end));
        }
        let key = &self.sessions.hello.session_key;
        print!("{}", consent::words(&self.asked, self.pace, self.memory, key));
        let yes = self.asked.yes;
        let answer = tokio::task::spawn_blocking(move || consent::ask(yes));
        tokio::select! {
            answer = answer => answer.unwrap_or(Err(ContributeError::NoConsent))?,
            () = stopped(wish) => return Ok(Some(End::Stopped)),
        }
        self.agreed = true;
        Ok(None)
    }

    /// How long to wait before the next session; nothing where there is none.
    fn after(&mut self, end: End) -> Result<Option<Duration>, ContributeError> {
        let (is_crowded, asked, why) = match end {
            End::Stopped => return Ok(None),
            End::Failed(error) => return Err(error),
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
                | GoodbyeReason::Excluded
                | GoodbyeReason::StaleView => {
                    let (to, detail) = (self.asked.to.clone(), printable(&detail));
                    return Err(ContributeError::Refused { to, reason, detail });
                }
            },
        };
        let random = f64::from(u32::from_le_bytes(random::bytes())) / f64::from(u32::MAX);
        let wait = self.backoff.next(is_crowded, asked, random);
        let why = printable(&why);
        println!("not connected ({why}); next try in {:.1} s", wait.as_secs_f64());
        Ok(Some(wait))
    }
}

/// Words of a peer as a terminal may show them: on one line, without orders to it, and
/// not too many.
pub(super) fn printable(words: &str) -> String {
    words.chars().take(PRINTED_CHARS_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_gives_a_terminal_no_orders() {
        assert_eq!(printable("\x1b]0;owned\x07\n\u{202e}"), "\\u{1b}]0;owned\\u{7}\\n\\u{202e}");
        assert_eq!(printable("a blob's été"), "a blob\\'s été");
        assert_eq!(printable(&"x".repeat(10_000)).len(), PRINTED_CHARS_MAX);
    }
}
