//! Letters on their way to a relay. Each is a file before whoever asked for it is answered,
//! and goes when the relay has taken it, has refused it for good, or its time is over: a
//! process that ends in between leaves it to the next one. A relay that took a letter just before
//! the process ended is handed it again, under the same Message-ID.

use super::relay::{Handed, Sender};
use super::{
    Authorities, EmailAddress, FolderMailer, LetterCounts, Login, Mail, MailError, Mailer, Relay,
};
use crate::store::LINK_MS;
use crate::time::UnixMs;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Letters that are handed over at a time: a relay takes a few connections of one client.
const AT_A_TIME: usize = 4;
/// Bytes of a letter: it is a dozen lines of text.
const LETTER_BYTES_MAX: u64 = 16 << 10;
/// A letter is of use as long as the link in it.
const LETTER_MS_MAX: i64 = LINK_MS;

/// How often, and how soon, a letter is offered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Offers of one process; a letter that is too old is not offered by the next one either.
    pub attempts_max: u32,
    /// After the first offer; each further wait is three times as long.
    pub first_wait: Duration,
    /// For one offer.
    pub stall: Duration,
}

/// Six offers within eleven minutes, which greylisting relays ask for, of the fifteen
/// for which a link is good.
impl Default for Pace {
    fn default() -> Self {
        let (first_wait, stall) = (Duration::from_secs(5), Duration::from_secs(30));
        Pace { attempts_max: 6, first_wait, stall }
    }
}

/// Takes letters to hand them over later.
#[derive(Clone, Debug)]
pub struct Outbox {
    folder: FolderMailer,
    written: Arc<Notify>,
    counts: Arc<Mutex<LetterCounts>>,
}

impl Outbox {
    /// Makes the folder where it is missing.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mailer = FolderMailer::open(folder)?;
        // What was being written when an earlier process ended was promised to nobody.
        for file in std::fs::read_dir(folder)? {
            let file = file?;
            if file.file_name().as_encoded_bytes().starts_with(b".") {
                std::fs::remove_file(file.path())?;
            }
        }
        Ok(Outbox { folder: mailer, written: Arc::default(), counts: Arc::default() })
    }

    /// Hands letters over, those of an earlier process first, until the process is asked to end.
    ///
    /// # Errors
    /// A relay that cannot be spoken to under TLS at all, as text.
    pub fn run(
        &self,
        relay: &Relay,
        authorities: &Authorities,
        login: Option<&Login>,
        from: &EmailAddress,
        pace: Pace,
        stopping: watch::Receiver<bool>,
    ) -> Result<impl Future<Output = ()> + Send + use<>, String> {
        let sender = Sender::new(relay, authorities, login, from, pace.stall)?;
        let carrier = Carrier { folder: self.folder.folder.clone(), sender, from: from.clone() };
        let post = Post::new(carrier, pace, self.counts.clone());
        Ok(post.run(self.written.clone(), stopping))
    }
}

impl Mailer for Outbox {
    fn send(&self, mail: Mail) -> BoxFuture<'_, Result<(), MailError>> {
        Box::pin(async move {
            self.folder.send(mail).await?;
            self.written.notify_one();
            Ok(())
        })
    }

    fn counts(&self) -> LetterCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a letter was offered, and when it is offered again.
#[derive(Clone, Copy, Debug)]
struct Offers {
    done: u32,
    next: Instant,
}

#[derive(Debug)]
struct Post {
    carrier: Arc<Carrier>,
    pace: Pace,
    counts: Arc<Mutex<LetterCounts>>,
    /// Of letters that were not taken the first time.
    offers: BTreeMap<String, Offers>,
    /// Letters to be offered as soon as there is room, in this order.
    due: VecDeque<String>,
    under_way: BTreeSet<String>,
    /// When the folder is looked at again, if nobody writes before.
    next: Option<Instant>,
}

impl Post {
    fn new(carrier: Carrier, pace: Pace, counts: Arc<Mutex<LetterCounts>>) -> Self {
        let (offers, due, under_way) = (BTreeMap::new(), VecDeque::new(), BTreeSet::new());
        Post { carrier: Arc::new(carrier), pace, counts, offers, due, under_way, next: None }
    }

    async fn run(mut self, written: Arc<Notify>, mut stopping: watch::Receiver<bool>) {
        let mut offered = FuturesUnordered::new();
        self.look().await;
        loop {
            // Whatever ends makes room: a letter that takes its time delays no other one.
            while offered.len() < AT_A_TIME
                && let Some(name) = self.due.pop_front()
            {
                self.under_way.insert(name.clone());
                let carrier = self.carrier.clone();
                offered.push(async move { (carrier.offer(&name).await, name) });
            }
            let wait = async |next: Option<Instant>| match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            };
            let looks = tokio::select! {
                Some((handed, name)) = offered.next() => {
                    self.note(handed, name);
                    false
                }
                () = wait(self.next) => true,
                () = written.notified() => true,
                // What is under way when the process ends is offered again by the next one.
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            if looks {
                self.look().await;
            }
        }
    }

    /// Looks what is due, and when that is to be done again.
    async fn look(&mut self) {
        let folder = self.carrier.folder.clone();
        // A folder of many letters takes its time.
        let listed = tokio::task::spawn_blocking(move || waiting(&folder)).await;
        let now = Instant::now();
        let names = match listed.map_err(io::Error::other).flatten() {
            Ok(names) => names,
            Err(error) => {
                tracing::error!(%error, "letters cannot be listed");
                self.next = Some(now + self.pace.first_wait);
                return;
            }
        };
        self.due = due(names, &mut self.offers, &self.under_way, now);
        let later = self.offers.values().map(|offers| offers.next).filter(|next| *next > now);
        // Those whose waits end one soon after the other go together.
        self.next = later.min().map(|next| next.max(now + self.pace.first_wait / 4));
    }

    fn note(&mut self, handed: Handed, name: String) {
        self.under_way.remove(&name);
        let reason = match handed {
            Handed::Over => {
                self.count(|counts| counts.sent += 1);
                return self.remove(&name);
            }
            Handed::Refused(reason) => {
                self.count(|counts| counts.refused += 1);
                tracing::warn!(letter = %name, %reason, "a letter is refused");
                return self.remove(&name);
            }
            Handed::TooLate => {
                self.count(|counts| counts.given_up += 1);
                tracing::warn!(letter = %name, "a letter is given up: its time is over");
                return self.remove(&name);
            }
            Handed::NotNow(reason) => reason,
        };
        let done = self.offers.get(&name).map_or(0, |offers| offers.done) + 1;
        if done >= self.pace.attempts_max {
            self.count(|counts| counts.given_up += 1);
            tracing::warn!(letter = %name, %reason, done, "a letter is given up");
            return self.remove(&name);
        }
        self.count(|counts| counts.put_off += 1);
        tracing::info!(letter = %name, %reason, done, "a letter is offered again later");
        let wait = self.pace.first_wait.saturating_mul(3_u32.saturating_pow(done - 1));
        self.offer_again(name, done, wait);
    }

    fn count(&self, change: impl FnOnce(&mut LetterCounts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn offer_again(&mut self, name: String, done: u32, wait: Duration) {
        let next = Instant::now() + wait;
        self.offers.insert(name, Offers { done, next });
        self.next = Some(self.next.map_or(next, |before| before.min(next)));
    }

    /// One that stays where it is would be sent again and again.
    fn remove(&mut self, name: &str) {
        self.offers.remove(name);
        if let Err(error) = std::fs::remove_file(self.carrier.folder.join(name)) {
            tracing::error!(letter = %name, %error, "a letter cannot be removed");
            self.offer_again(name.to_owned(), self.pace.attempts_max, Duration::from_secs(3600));
        }
    }
}

/// Hands one letter over, which takes as long as the relay does.
#[derive(Debug)]
struct Carrier {
    folder: PathBuf,
    sender: Sender,
    from: EmailAddress,
}

impl Carrier {
    async fn offer(&self, name: &str) -> Handed {
        if UnixMs::now().0.saturating_sub(written_ms(name)) >= LETTER_MS_MAX {
            return Handed::TooLate;
        }
        let letter = match read(&self.folder.join(name)) {
            Ok(letter) => letter,
            Err(error) => return Handed::NotNow(error.to_string()),
        };
        match addressee(&letter) {
            Some(to) => {
                let head = self.head(name);
                self.sender.hand_over(&to, [head.as_bytes(), &letter].concat().as_slice()).await
            }
            None => Handed::Refused("it is to nobody".into()),
        }
    }

    /// What a letter needs beside what it was written with. Offered again, it is the same letter.
    fn head(&self, name: &str) -> String {
        let id = name.trim_end_matches(".eml");
        let (from, domain) = (self.from.as_str(), self.from.domain());
        let date = UnixMs(written_ms(name)).rfc2822();
        format!("From: {from}\r\nDate: {date}\r\nMessage-ID: <{id}@{domain}>\r\n")
    }
}

/// What is to be offered of the letters that there are, in the order of `names`: first what
/// never was, then again what has waited. What is known of letters that are gone is forgotten.
fn due(
    names: Vec<String>,
    offers: &mut BTreeMap<String, Offers>,
    under_way: &BTreeSet<String>,
    now: Instant,
) -> VecDeque<String> {
    offers.retain(|name, _| names.binary_search(name).is_ok());
    let (mut new, mut again) = (VecDeque::new(), VecDeque::new());
    for name in names {
        match offers.get(&name) {
            _ if under_way.contains(&name) => {}
            None => new.push_back(name),
            Some(offers) if offers.next <= now => again.push_back(name),
            Some(_) => {}
        }
    }
    new.append(&mut again);
    new
}

/// Letters by name, the oldest first. What is still being written has a name that begins with a dot.
fn waiting(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let name = file?.file_name();
        let name = name.to_str().filter(|name| !name.starts_with('.') && name.ends_with(".eml"));
        names.extend(name.map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut letter = Vec::new();
    std::fs::File::open(path)?.take(LETTER_BYTES_MAX).read_to_end(&mut letter)?;
    Ok(letter)
}

/// When a letter was written: its name begins with it.
fn written_ms(name: &str) -> i64 {
    name.split_once('-').and_then(|(ms, _)| ms.parse().ok()).unwrap_or(0)
}

/// Whom a letter's first line names.
fn addressee(letter: &[u8]) -> Option<EmailAddress> {
    let line = letter.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.strip_prefix("To: ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_to_whom_its_first_line_names_and_to_nobody_else() {
        let to = |letter: &str| addressee(letter.as_bytes()).map(|to| to.as_str().to_owned());
        assert_eq!(to("To: ann@x.org\r\nSubject: y\r\n"), Some("ann@x.org".into()));
        for letter in
            ["", "Subject: y\r\nTo: ann@x.org\r\n", "To: ann\r\n", "To: a@x.org\nBcc: b@x.org\r\n"]
        {
            assert_eq!(to(letter), None, "{letter:?}");
        }
    }

    #[test]
    fn a_name_tells_when_its_letter_was_written() {
        assert_eq!(written_ms("1796000000000-abc.eml"), 1_796_000_000_000);
        assert_eq!(written_ms("something.eml"), 0, "and what was not written by us is too old");
    }

    #[test]
    fn what_was_never_offered_goes_first_and_what_is_under_way_not_again() {
        let now = Instant::now();
        let names: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        let later = now + Duration::from_secs(1);
        let offered = [("a", now), ("b", later), ("c", now), ("gone", now)];
        let mut offers =
            BTreeMap::from(offered.map(|(name, next)| (name.to_owned(), Offers { done: 1, next })));
        let under_way = BTreeSet::from(["c".to_owned(), "d".to_owned()]);
        assert_eq!(due(names, &mut offers, &under_way, now), ["e", "a"]);
        assert!(!offers.contains_key("gone") && offers.len() == 3);
    }

    #[test]
    fn many_letters_that_wait_for_a_relay_are_looked_through_at_once() {
        let now = Instant::now();
        let names: Vec<String> = (0..40_000).map(|it| format!("{it:013}-letter.eml")).collect();
        let next = now + Duration::from_secs(1);
        let of = |name: &String| (name.clone(), Offers { done: 1, next });
        let mut offers: BTreeMap<_, _> = names.iter().map(of).collect();
        let began = std::time::Instant::now();
        assert!(due(names, &mut offers, &BTreeSet::new(), now).is_empty());
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(offers.len(), 40_000);
    }
}
