//! Whether a partner's page has the tag: the page is fetched as anybody on the
//! internet would get it, within narrow bounds, and its script elements are read.

mod address;
mod dns;
mod fetch;
mod markup;
mod proof;

pub use address::is_local_origin;
pub use fetch::{PAGE_MS_MAX, PageError, origin_of};
pub use proof::{Found, OriginReport, PROOF_PATH, Resolvers, prove};

use crate::store::SiteRow;
use fetch::{Fetcher, Page};
use markup::script_sources;
use raven_engine::SiteId;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Sites that are looked at at a time: each look may take some threads for some seconds.
const SITES_AT_A_TIME: usize = 4;
/// How long a site is left alone after a look: nobody changes a page faster,
/// and a coordinator must not be made to flood one.
const REST: Duration = Duration::from_secs(5);

/// Why a site is not looked at now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    #[error("this site was looked at less than {} s ago", REST.as_secs())]
    Lately,
    #[error("{SITES_AT_A_TIME} other sites are being looked at")]
    Full,
}

/// Spaces out the looks at partner pages.
#[derive(Debug)]
pub struct Verifier {
    permits: Arc<Semaphore>,
    /// When the sites of the last [`REST`] were looked at.
    lately: Mutex<HashMap<SiteId, Instant>>,
    resolvers: Resolvers,
}

impl Default for Verifier {
    fn default() -> Self {
        let permits = Arc::new(Semaphore::new(SITES_AT_A_TIME));
        Verifier { permits, lately: Mutex::default(), resolvers: Resolvers::of_system() }
    }
}

impl Verifier {
    /// One that asks other name servers than the system's.
    pub fn with_resolvers(resolvers: Resolvers) -> Self {
        Verifier { resolvers, ..Verifier::default() }
    }

    /// The name servers that are asked for proofs.
    pub fn resolvers(&self) -> Resolvers {
        self.resolvers.clone()
    }

    /// Takes the site's turn, which lasts until the answer is dropped.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn begin(&self, site: SiteId) -> Result<OwnedSemaphorePermit, Busy> {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.retain(|_, at| at.elapsed() < REST);
        if lately.contains_key(&site) {
            return Err(Busy::Lately);
        }
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Busy::Full)?;
        lately.insert(site, Instant::now());
        Ok(permit)
    }
}

/// What was found on one page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Finding {
    /// The tag with this site's key is there.
    Live {
        /// Whether it names the loader's bytes: those of a pinned tag never change.
        pinned: bool,
    },
    /// A tag of this coordinator is there, with the key of another site.
    OtherKey { found: String },
    /// A tag with this site's key is there that leads to another coordinator.
    OtherCoordinator { found: String },
    /// The page was read, and no tag is in it.
    NoTag {
        /// Whether only the first part of a long page was read.
        cut_off: bool,
    },
    /// The page could not be read.
    Unread { reason: &'static str, detail: String },
}

/// One page and what was found on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PageReport {
    /// The page that was asked for.
    pub url: String,
    /// Where its redirects led.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landed: Option<String>,
    #[serde(flatten)]
    pub finding: Finding,
}

/// Whether that page may be looked at for that site.
///
/// # Errors
/// [`PageError`].
pub fn check_url(coordinator: &str, site: &SiteRow, url: &str) -> Result<(), PageError> {
    Fetcher::new(address::is_local_origin(coordinator), &site.origins).check(url)
}

/// Fetches `url`, which must be of one of the site's origins, and looks for the
/// site's tag. Takes up to [`PAGE_MS_MAX`] and blocks for it.
///
/// `coordinator` is the origin under which browsers reach this coordinator;
/// where that is on this machine, partner pages on this machine are read too.
pub fn check_page(coordinator: &str, site: &SiteRow, url: &str) -> PageReport {
    let fetcher = Fetcher::new(address::is_local_origin(coordinator), &site.origins);
    match fetcher.get(url) {
        Ok(page) => PageReport {
            url: url.to_owned(),
            landed: (page.url != url).then(|| page.url.clone()),
            finding: look(coordinator, &site.site_key, &page),
        },
        Err(error) => PageReport {
            url: url.to_owned(),
            landed: None,
            finding: Finding::Unread { reason: error.name(), detail: error.to_string() },
        },
    }
}

/// A script element that could be a tag.
struct Tag {
    origin: String,
    key: String,
    pinned: bool,
}

/// Longest part of a stranger's markup that is repeated in an answer.
const SHOWN_CHARS_MAX: usize = 160;

fn look(coordinator: &str, site_key: &str, page: &Page) -> Finding {
    let tags: Vec<Tag> = script_sources(&page.text)
        .iter()
        .filter_map(|source| read_tag(&page.url, source))
        .collect();
    let of_us = |tag: &&Tag| tag.origin == coordinator;
    if let Some(tag) = tags.iter().find(|tag| of_us(tag) && tag.key == site_key) {
        return Finding::Live { pinned: tag.pinned };
    }
    let shown = |text: &str| text.chars().take(SHOWN_CHARS_MAX).collect();
    if let Some(tag) = tags.iter().find(|tag| tag.key == site_key) {
        return Finding::OtherCoordinator { found: shown(&tag.origin) };
    }
    match tags.iter().find(of_us) {
        Some(tag) => Finding::OtherKey { found: shown(&tag.key) },
        None => Finding::NoTag { cut_off: page.cut_off },
    }
}

/// Reads a script's address as a tag's; none where it is another script.
fn read_tag(page: &str, source: &str) -> Option<Tag> {
    let url = fetch::join(page, source)?;
    let origin = fetch::origin_of(&url)?;
    let (path, query) = url.split_once('?')?;
    let file = path.rsplit_once("/embed/")?.1;
    let is_loader = file == "raven.js" || (file.starts_with("raven-") && file.ends_with(".js"));
    let query = query.split('#').next()?;
    let key = query.split('&').find_map(|pair| pair.strip_prefix("site="))?;
    is_loader.then(|| Tag { origin, key: key.to_owned(), pinned: file != "raven.js" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: &str = "https://raven.example";

    fn finding(text: &str) -> Finding {
        let url = "https://news.example/a/b".to_owned();
        look(US, "pk_test_a", &Page { url, text: text.to_owned(), cut_off: false })
    }

    #[test]
    fn a_tag_is_known_by_its_origin_and_key() {
        let tag =
            |source: &str| finding(&format!("<p>x</p><script async src=\"{source}\"></script>"));
        let live = |pinned| Finding::Live { pinned };
        assert_eq!(tag("https://raven.example/embed/raven.js?site=pk_test_a"), live(false));
        assert_eq!(tag("//raven.example/embed/raven.js?x=1&amp;site=pk_test_a#y"), live(false));
        assert_eq!(tag("HTTPS://RAVEN.example:443/embed/raven-00ff.js?site=pk_test_a"), live(true));
        let other = Finding::OtherKey { found: "pk_test_b".into() };
        assert_eq!(tag("https://raven.example/embed/raven.js?site=pk_test_b"), other);
        let other = Finding::OtherCoordinator { found: "https://else.example".into() };
        assert_eq!(tag("https://else.example/embed/raven.js?site=pk_test_a"), other);
        // A consent manager blocks it so until the visitor has agreed to it.
        let blocked =
            format!("<script type=text/plain src={US}/embed/raven.js?site=pk_test_a></script>");
        assert_eq!(finding(&blocked), Finding::NoTag { cut_off: false });
        let typed = blocked.replace("text/plain", "'Text/JavaScript'");
        assert_eq!(finding(&typed), live(false));
        for none in [
            "https://raven.example/embed/raven.js",
            "https://raven.example/embed/frame.js?site=pk_test_a",
            "/script.js?site=pk_test_a",
            "",
        ] {
            assert_eq!(tag(none), Finding::NoTag { cut_off: false }, "{none}");
        }
    }

    #[test]
    fn a_site_rests_and_few_are_looked_at_at_a_time() {
        let verifier = Verifier::default();
        let turns: Vec<_> = (0..SITES_AT_A_TIME as u64)
            .map(|n| verifier.begin(SiteId(n)).expect("a turn"))
            .collect();
        assert_eq!(verifier.begin(SiteId(0)).err(), Some(Busy::Lately));
        assert_eq!(verifier.begin(SiteId(99)).err(), Some(Busy::Full));
        drop(turns);
        assert_eq!(verifier.begin(SiteId(0)).err(), Some(Busy::Lately));
        assert!(verifier.begin(SiteId(99)).is_ok());
    }

    #[test]
    fn the_right_tag_counts_beside_a_wrong_one() {
        let tags = ["pk_test_b", "pk_test_a"]
            .map(|key| format!("<script src={US}/embed/raven.js?site={key}></script>"));
        assert_eq!(finding(&tags.concat()), Finding::Live { pinned: false });
    }
}
