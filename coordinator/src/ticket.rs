//! Tickets: what binds a contributor's session to the site whose page showed
//! the frame. A ticket is text, `key.site.expiry.mac`, made with the newest of
//! this coordinator's signing keys; it is handed out with the frame and comes
//! back in the hello.

use crate::random;
use crate::signing::{SigningError, SigningKeys};
use crate::store::{Store, StoreError};
use crate::time::UnixMs;
use raven_engine::SiteId;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A visitor may read a page for some time before saying yes; the frame fetches a
/// new ticket where its own has expired.
pub const TICKET_MS: i64 = 2 * 3_600_000;

/// A key that was made beside the running process signs after this at the latest.
const REREAD: Duration = Duration::from_secs(60);
/// Tickets of unknown keys make the folder be read again, this often at most.
const REREAD_UNKNOWN: Duration = Duration::from_secs(1);
/// Far more than any ticket has.
const TEXT_BYTES_MAX: usize = 128;

/// Why a ticket is not honoured.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    #[error("ticket: not a ticket of this coordinator")]
    Forged,
    #[error("ticket: expired; load the page again")]
    Expired,
    #[error("ticket: its site is revoked or unknown")]
    Revoked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The site that a ticket stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketSite {
    pub site: SiteId,
    /// Its publishable key, which the receipt repeats.
    pub site_key: String,
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

    /// A ticket for a site's frame, good for [`TICKET_MS`].
    pub fn issue(&self, site: SiteId, now: UnixMs) -> String {
        let keys = self.keys(REREAD);
        let key = keys.newest();
        let body = format!("{}.{:016x}.{}", key.id, site.0, now.0 + TICKET_MS);
        let mac = key.mac(&body);
        format!("{body}.{mac}")
    }

    /// The site, if the ticket was issued here, has not expired, and its site is not revoked.
    ///
    /// # Errors
    /// [`TicketError`].
    pub async fn verify(&self, token: &str) -> Result<TicketSite, TicketError> {
        let site = self.check(token, UnixMs::now())?;
        match self.store.site(site).await? {
            Some(row) if !row.revoked => Ok(TicketSite { site, site_key: row.site_key }),
            _ => Err(TicketError::Revoked),
        }
    }

    fn check(&self, token: &str, now: UnixMs) -> Result<SiteId, TicketError> {
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
        let (site, expiry) = rest.split_once('.').ok_or(TicketError::Forged)?;
        let site = u64::from_str_radix(site, 16).map_err(|_| TicketError::Forged)?;
        let expiry: i64 = expiry.parse().map_err(|_| TicketError::Forged)?;
        if now.0 >= expiry { Err(TicketError::Expired) } else { Ok(SiteId(site)) }
    }
}
