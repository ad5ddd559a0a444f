//! Tickets: what binds a contributor's session to the site whose page showed
//! the frame, to the network that asked for it, and to one contributor's key. A
//! ticket is text, `key.site.issued.number.network.origin.mac`, with `.renewed` and the time
//! of the first one before the last where it followed another one, made with the newest of
//! this coordinator's signing keys; it is handed out with the frame and comes
//! back in the hello. The first key that comes with it has it to itself.
//!
//! A renewed ticket keeps number, network and origin of the first one, so that one frame that
//! was served is good for a few keys in a day at most, however often it is renewed: a visitor
//! who stops and says yes again on the same page has a new key. Later it is renewed for those keys alone.

use crate::random;
use crate::signing::{SigningError, SigningKeys};
use crate::store::{SiteRow, Store, StoreError};
use crate::time::UnixMs;
use raven_engine::{CategorySet, ContributorId, NetworkPrefix, SiteId};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long nobody may have come with a ticket. A visitor may read a page for longer
/// before saying yes; the frame fetches a new one where its own has expired.
pub const FIRST_USE_MS: i64 = 15 * 60_000;
/// How long its holder may come back with it: other tabs, a broken connection.
pub const TICKET_MS: i64 = 2 * 3_600_000;

/// How long after the first one tickets are renewed for whoever asks: a page may be open for
/// hours before its visitor says yes.
pub const RENEWED_MS: i64 = 24 * 3_600_000;
/// How long after it has last come a ticket is renewed for a key that had it: a page may be
/// open for days.
pub const HELD_MS: i64 = 7 * 24 * 3_600_000;
/// Keys of one ticket and those that followed it.
pub const KEYS_MAX: u32 = 8;

/// A key that was made beside the running process signs after this at the latest.
const REREAD: Duration = Duration::from_secs(60);
/// Tickets of unknown keys make the folder be read again, this often at most.
const REREAD_UNKNOWN: Duration = Duration::from_secs(1);
/// Far more than any ticket has.
const TEXT_BYTES_MAX: usize = 256;

/// Why a ticket is not honoured.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    #[error("ticket: not a ticket of this coordinator")]
    Forged,
    #[error("ticket: expired; load the page again")]
    Expired,
    #[error("ticket: its site is revoked, paused or unknown")]
    Revoked,
    #[error("ticket: it was used with another session key")]
    Taken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The site that a ticket stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketSite {
    pub site: SiteId,
    /// Its publishable key, which the receipt repeats.
    pub site_key: String,
    /// What becomes its contributor's with the session.
    pub ticket: UsedTicket,
    /// The origin of the page that showed the frame, where the browser told it.
    pub origin: Option<String>,
    /// Kinds of jobs that the site refuses.
    pub refuses: CategorySet,
}

/// A ticket that somebody has come with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedTicket {
    /// Of it and all that it was renewed to.
    pub number: u64,
    /// How many contributors may have it: one, or a few where it was renewed.
    pub keys_max: u32,
    /// Its first use is from another network than asked for the frame. A visitor may
    /// leave by two of them; a ticket that is passed on does too, so that its site does
    /// not earn by it.
    pub is_elsewhere: bool,
}

/// The ticket of a frame whose card came into view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownTicket {
    pub site: SiteId,
    pub number: u64,
}

/// Where a frame was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat<'a> {
    pub prefix: NetworkPrefix,
    /// The page's origin, one of the site's.
    pub origin: Option<&'a str>,
}

/// What a ticket says, once it is known to be ours.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    site: SiteId,
    issued: i64,
    number: u64,
    network: String,
    origin: String,
    /// When the first one was issued, where it followed an earlier one: no page was viewed for it.
    renewed: Option<i64>,
}

impl Said {
    /// How many keys may have it that have not come with it before.
    fn keys_max(&self) -> u32 {
        match self.renewed {
            None => 1,
            Some(first) if self.issued < first + RENEWED_MS => KEYS_MAX,
            // It was renewed for those who had it.
            Some(_) => 0,
        }
    }

    /// The page's origin as the site has it listed; `None` where it was never told.
    fn origin_of<'a>(&self, site: &'a SiteRow) -> Result<Option<&'a str>, TicketError> {
        if self.origin == NO_ORIGIN {
            return Ok(None);
        }
        let listed = site.origins.iter().find(|origin| origin_mark(origin) == self.origin);
        // It may have been taken out of the list since.
        listed.map(|origin| Some(origin.as_str())).ok_or(TicketError::Revoked)
    }
}

/// A few digits that stand for something in a ticket: it is shown to the page's
/// visitor, and short. This machine's own addresses are one network.
fn mark(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}

fn network_mark(prefix: &NetworkPrefix) -> String {
    if prefix.is_loopback() { mark(b"loopback") } else { mark(&prefix.0) }
}

/// Ends what a ticket says that followed an earlier one.
const RENEWED: &str = "renewed";
/// Of a page whose origin is not known.
const NO_ORIGIN: &str = "-";

fn origin_mark(origin: &str) -> String {
    mark(origin.as_bytes())
}

/// Issues and verifies tickets. Clones share the keys and the store.
#[derive(Clone)]
pub struct Tickets {
    folder: PathBuf,
    keys: Arc<Mutex<(SigningKeys, Instant)>>,
    store: Store,
}

/// Where a data folder's signing keys are.
pub fn signing_folder(data: &Path) -> PathBuf {
    data.join("signing")
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// Uses the keys beside the store, so that tickets outlive a restart.
    ///
    /// # Errors
    /// [`SigningError`].
    pub async fn new(store: Store) -> Result<Self, SigningError> {
        let folder = signing_folder(store.folder());
        let keys = Arc::new(Mutex::new((SigningKeys::open(&folder)?, Instant::now())));
        Ok(Tickets { folder, keys, store })
    }

    /// The keys as they were read no longer than `age_max` ago.
    fn keys(&self, age_max: Duration) -> SigningKeys {
        let mut held = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if held.1.elapsed() >= age_max {
            held.1 = Instant::now();
            match SigningKeys::open(&self.folder) {
                Ok(keys) => held.0 = keys,
                Err(error) => tracing::error!(%error, "signing keys are used as they were"),
            }
        }
        held.0.clone()
    }

    /// A ticket for a site's frame, good for [`FIRST_USE_MS`], and for [`TICKET_MS`] to
    /// whoever has used it by then.
    pub fn issue(&self, site: SiteId, seat: &Seat<'_>, now: UnixMs) -> String {
        self.sign(&Said {
            site,
            issued: now.0,
            number: random::nonzero_u64(),
            network: network_mark(&seat.prefix),
            origin: seat.origin.map_or(NO_ORIGIN.to_owned(), origin_mark),
            renewed: None,
        })
    }

    fn sign(&self, said: &Said) -> String {
        let keys = self.keys(REREAD);
        let key = keys.newest();
        let Said { site, issued, number, network, origin, renewed } = said;
        let mut body =
            format!("{}.{:016x}.{issued}.{number:016x}.{network}.{origin}", key.id, site.0);
        if let Some(first) = renewed {
            body = format!("{body}.{RENEWED}{first}");
        }
        let mac = key.mac(&body);
        format!("{body}.{mac}")
    }

    /// The site, if the ticket was issued here, has not expired, its site shows its
    /// frame, and it is this contributor's: who has used it already, or who comes
    /// with it first and soon. It becomes the contributor's when its session is stored.
    ///
    /// # Errors
    /// [`TicketError`].
    pub async fn verify(
        &self,
        token: &str,
        contributor: &ContributorId,
        prefix: &NetworkPrefix,
    ) -> Result<TicketSite, TicketError> {
        let now = UnixMs::now();
        let said = self.check(token)?;
        if now.0 >= said.issued + TICKET_MS {
            return Err(TicketError::Expired);
        }
        let (holders, keys_max) = (self.store.ticket_holders(said.number).await?, said.keys_max());
        if !holders.contains(contributor) {
            if holders.len() >= keys_max as usize {
                return Err(TicketError::Taken);
            }
            if now.0 >= said.issued + FIRST_USE_MS {
                return Err(TicketError::Expired);
            }
        }
        let is_elsewhere = said.network != network_mark(prefix);
        let ticket = UsedTicket { number: said.number, keys_max, is_elsewhere };
        let row = self.store.site(said.site).await?.filter(SiteRow::is_open);
        let row = row.ok_or(TicketError::Revoked)?;
        let origin = said.origin_of(&row)?.map(str::to_owned);
        let refuses = row.refused();
        let (site, site_key) = (said.site, row.site_key);
        Ok(TicketSite { site, site_key, ticket, origin, refuses })
    }

    /// A ticket after an earlier one, which may have expired: for the same page, as long as
    /// that is one of the site's. Whoever asks for it is not the page and could not tell. A day
    /// after the first one only those get another who had one, for [`HELD_MS`] after they came.
    ///
    /// # Errors
    /// [`TicketError`].
    pub async fn renew(
        &self,
        token: &str,
        site: &SiteRow,
        now: UnixMs,
    ) -> Result<String, TicketError> {
        let said = self.check(token)?;
        if said.site != site.id {
            return Err(TicketError::Forged);
        }
        said.origin_of(site)?;
        let first = said.renewed.unwrap_or(said.issued);
        if now.0 >= first + RENEWED_MS && self.store.ticket_holders(said.number).await?.is_empty() {
            return Err(TicketError::Expired);
        }
        Ok(self.sign(&Said { issued: now.0, renewed: Some(first), ..said }))
    }

    /// What a frame may say that it was shown: its ticket, while that may still be used.
    /// `None` where there is no view behind it: the page's origin was never told, or the
    /// ticket followed an earlier one, of which there may be any number.
    ///
    /// # Errors
    /// [`TicketError`].
    pub async fn shown(
        &self,
        token: &str,
        now: UnixMs,
    ) -> Result<Option<ShownTicket>, TicketError> {
        let said = self.check(token)?;
        if now.0 >= said.issued + TICKET_MS {
            return Err(TicketError::Expired);
        }
        let row = self.store.site(said.site).await?.filter(SiteRow::is_open);
        let row = row.ok_or(TicketError::Revoked)?;
        let (site, number) = (said.site, said.number);
        let is_view = said.origin_of(&row)?.is_some() && said.renewed.is_none();
        Ok(is_view.then_some(ShownTicket { site, number }))
    }

    /// What a ticket says, if it was issued here, however long ago.
    fn check(&self, token: &str) -> Result<Said, TicketError> {
        if token.len() > TEXT_BYTES_MAX {
            return Err(TicketError::Forged);
        }
        let (body, mac) = token.rsplit_once('.').ok_or(TicketError::Forged)?;
        let (id, rest) = body.split_once('.').ok_or(TicketError::Forged)?;
        let mut keys = self.keys(REREAD);
        if keys.find(id).is_none() {
            keys = self.keys(REREAD_UNKNOWN);
        }
        let key = keys.find(id).ok_or(TicketError::Forged)?;
        if !random::same_bytes(key.mac(body).as_bytes(), mac.as_bytes()) {
            return Err(TicketError::Forged);
        }
        // The body is ours from here on.
        // An earlier version's ticket has other parts: its frame fetches a new one.
        read(rest).ok_or(TicketError::Expired)
    }
}

fn read(body: &str) -> Option<Said> {
    let mut parts = body.split('.');
    let mut next = || parts.next();
    let said = Said {
        site: SiteId(u64::from_str_radix(next()?, 16).ok()?),
        issued: next()?.parse().ok()?,
        number: u64::from_str_radix(next()?, 16).ok()?,
        network: next()?.to_owned(),
        origin: next()?.to_owned(),
        renewed: None,
    };
    let (mark, end) = (next(), next());
    let renewed = match mark.map(|mark| mark.strip_prefix(RENEWED)) {
        None => None,
        // An earlier version did not say when the first one was issued.
        Some(Some("")) => Some(said.issued),
        Some(Some(first)) => Some(first.parse().ok()?),
        Some(None) => return None,
    };
    end.is_none().then_some(Said { renewed, ..said })
}
