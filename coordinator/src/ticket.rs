//! Tickets: what binds a contributor's session to the site whose page showed
//! the frame. A ticket is text, `site.expiry.mac`, keyed with a secret of this
//! store; it is handed out with the frame and comes back in the hello.

use crate::random;
use crate::store::{Store, StoreError};
use crate::time::UnixMs;
use raven_engine::SiteId;

/// A visitor may read a page for some time before saying yes; the frame fetches a
/// new ticket where its own has expired.
pub const TICKET_MS: i64 = 2 * 3_600_000;

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

/// Issues and verifies tickets. Clones share the key and the store.
#[derive(Clone)]
pub struct Tickets {
    key: [u8; 32],
    store: Store,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// Uses the store's secret, so that tickets outlive a restart.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn new(store: Store) -> Result<Self, StoreError> {
        Ok(Tickets { key: store.secret("tickets").await?, store })
    }

    /// A ticket for a site's frame, good for [`TICKET_MS`].
    pub fn issue(&self, site: SiteId, now: UnixMs) -> String {
        let body = format!("{:016x}.{}", site.0, now.0 + TICKET_MS);
        let mac = self.mac(&body);
        format!("{body}.{mac}")
    }

    fn mac(&self, body: &str) -> String {
        blake3::keyed_hash(&self.key, body.as_bytes()).to_hex().to_string()
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
        if !random::same_bytes(self.mac(body).as_bytes(), mac.as_bytes()) {
            return Err(TicketError::Forged);
        }
        // The body is ours from here on.
        let (site, expiry) = body.split_once('.').ok_or(TicketError::Forged)?;
        let site = u64::from_str_radix(site, 16).map_err(|_| TicketError::Forged)?;
        let expiry: i64 = expiry.parse().map_err(|_| TicketError::Forged)?;
        if now.0 >= expiry { Err(TicketError::Expired) } else { Ok(SiteId(site)) }
    }
}
