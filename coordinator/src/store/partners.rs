//! What a site's visitors earn it: only what came through an origin that is proven,
//! and not beyond what one network may plausibly do. The rest goes to the reserve.

use super::{Book, Store, StoreError, column, count_to_sql, failed, from_sql, to_sql, u64_column};
use crate::runtime::SessionRecord;
use crate::runtime::session::hex;
use crate::ticket::UsedTicket;
use crate::time::{DAY_MS, UnixMs};
use crate::verify::is_local_origin;
use raven_engine::money::{Charge, FLOPS_PER_CALCULATION, Flops, PicoUsd};
use raven_engine::{Beneficiary, ContributorId, Credit, NetworkPrefix, Payer, Proof, SiteId};
use raven_protocol::{JobId, SessionId};
use serde_json::json;
use sqlx::sqlite::Sqlite;
use sqlx::{QueryBuilder, Transaction};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

type Tx<'a> = Transaction<'a, Sqlite>;

const HOUR_MS: i64 = 3_600_000;
/// What one network's work may cost a day before its part of a site's work counts:
/// a site with few visitors has all of them in few networks. 0.01 USD, of which
/// the site's share is 3 %.
const FREE_PICO_USD: i64 = 10_000_000_000;

/// How much of one site's work may come from one network (/24 of IPv4, /48 of IPv6).
/// Beyond it the work counts and is paid, and the site's share goes to the reserve.
/// This machine's own network has no bounds: behind a proxy everybody has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteCaps {
    /// Sessions that are open at the same time.
    pub sessions_per_network_max: u32,
    /// Keys that were never seen before, within an hour.
    pub new_keys_per_network_max: u32,
    /// Percent of a day's work.
    pub network_share_percent: u32,
}

impl Default for SiteCaps {
    fn default() -> Self {
        // An office or a school may be behind one address; a farm of keys is larger.
        SiteCaps {
            sessions_per_network_max: 64,
            new_keys_per_network_max: 120,
            network_share_percent: 50,
        }
    }
}

/// Why a site gets no partner's share of a piece of work. What its visitors leave to it is
/// its own where the operator pays, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Withheld {
    /// The site was paused or revoked by the time the work was credited.
    SiteClosed,
    /// The page's origin was not shown to be the site's own.
    Unproven,
    /// The job is paid with play money and the site's owner has real money, or the
    /// other way round: the two never meet.
    OtherMoney,
    /// The ticket was first used in another network than asked for the frame.
    Network,
    /// Too many sessions of one network were open.
    NetworkSessions,
    /// Too many new keys came from one network.
    NetworkKeys,
    /// Too much of the day's work came from one network.
    NetworkShare,
    /// The operator pays for the work, because its job has paid for it once or is not to
    /// pay that much: there is no margin of which the site could have a part.
    OperatorPays,
}

impl Withheld {
    /// Every reason.
    pub const ALL: [Withheld; 8] = [
        Withheld::SiteClosed,
        Withheld::Unproven,
        Withheld::OtherMoney,
        Withheld::Network,
        Withheld::NetworkSessions,
        Withheld::NetworkKeys,
        Withheld::NetworkShare,
        Withheld::OperatorPays,
    ];

    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Withheld::SiteClosed => "site_closed",
            Withheld::Unproven => "unproven",
            Withheld::OtherMoney => "other_money",
            Withheld::Network => "network",
            Withheld::NetworkSessions => "network_sessions",
            Withheld::NetworkKeys => "network_keys",
            Withheld::NetworkShare => "network_share",
            Withheld::OperatorPays => "operator_pays",
        }
    }
}

/// The name of work that did earn.
pub const EARNED: &str = "earned";

/// Rows of one statement: a row has four values.
const ROWS_AT_ONCE: usize = 1_000;

pub(super) const WAYS: &str = "SELECT s.id AS id, s.site AS site,
         s.network_prefix AS network_prefix, s.origin AS origin, s.withheld AS withheld
     FROM json_each(?1) wanted CROSS JOIN sessions s ON s.id = wanted.value
     CROSS JOIN sites i ON i.id = s.site";
pub(super) const NETWORKS_OF_DAY: &str = "SELECT n.site AS site,
         n.network_prefix AS network_prefix, n.pico_usd AS pico_usd
     FROM json_each(?1) wanted CROSS JOIN site_networks n
         ON n.site = json_extract(wanted.value, '$[0]') AND n.day = ?2
         AND n.network_prefix = unhex(json_extract(wanted.value, '$[1]'))";
pub(super) const TOTALS_OF_DAY: &str = "SELECT d.site AS site, d.pico_usd AS pico_usd
     FROM json_each(?1) wanted CROSS JOIN site_days d ON d.site = wanted.value AND d.day = ?2";
/// Sessions by their ids, each once.
pub(super) const ADD_WORKED: &str = "UPDATE sessions SET worked_ms = COALESCE(worked_ms, ?2),
         flops = MIN(flops, 9223372036854775807 - added.by) + added.by
     FROM (SELECT json_extract(value, '$[0]') AS session, json_extract(value, '$[1]') AS by
         FROM json_each(?1)) added
     WHERE sessions.id = added.session";

/// The day of a time, from 1970 in UTC.
pub fn day_of(now: UnixMs) -> i64 {
    now.0.div_euclid(DAY_MS)
}

/// Whether a new session earns its site nothing from its start on, by who else
/// comes from its network.
pub(super) async fn withheld_at_start(
    transaction: &mut Tx<'_>,
    caps: SiteCaps,
    session: &SessionRecord,
    now: UnixMs,
) -> Result<Option<Withheld>, StoreError> {
    let Some(site) = session.site.filter(|_| !session.prefix.is_loopback()) else {
        return Ok(None);
    };
    let row = sqlx::query(
        "SELECT COUNT(*) FILTER (WHERE closed_ms IS NULL) AS open,
             COUNT(DISTINCT contributor) FILTER (WHERE opened_ms > ?3 AND contributor <> ?4
                 AND NOT EXISTS (SELECT 1 FROM sessions o WHERE o.contributor = s.contributor
                                 AND o.opened_ms <= ?3)) AS fresh,
             EXISTS (SELECT 1 FROM sessions o WHERE o.contributor = ?4 AND o.opened_ms <= ?3)
                 AS is_known
         FROM sessions s WHERE site = ?1 AND network_prefix = ?2 AND opened_ms > ?5",
    )
    .bind(to_sql(site.0))
    .bind(&session.prefix.0[..])
    .bind(now.0 - HOUR_MS)
    .bind(&session.contributor.0[..])
    .bind(now.0 - 2 * DAY_MS)
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed("count a network's sessions"))?;
    let (open, fresh) =
        (u64_column(&row, "sessions", "open")?, u64_column(&row, "sessions", "fresh")?);
    let is_known: bool = column(&row, "sessions", "is_known")?;
    Ok(if open >= caps.sessions_per_network_max.into() {
        Some(Withheld::NetworkSessions)
    } else if !is_known && fresh >= caps.new_keys_per_network_max.into() {
        Some(Withheld::NetworkKeys)
    } else {
        None
    })
}

/// Through what a credit came.
#[derive(Clone, Debug)]
struct Way {
    site: SiteId,
    prefix: NetworkPrefix,
    withheld: Option<Withheld>,
}

/// Decides, credit by credit, whether its site earns the partner's share of it.
pub(super) struct Attribution {
    caps: SiteCaps,
    now: UnixMs,
    ways: HashMap<SessionId, Way>,
    /// The day's work by site and network, in pico-USD: stored before, and with this record's.
    networks: BTreeMap<(SiteId, NetworkPrefix), i64>,
    totals: BTreeMap<SiteId, i64>,
    /// The networks to which this record adds.
    changed: BTreeSet<(SiteId, NetworkPrefix)>,
    work: BTreeMap<(SiteId, &'static str), (u64, u64)>,
    worked: BTreeMap<SessionId, u64>,
}

impl Attribution {
    /// Looks up the ways of a record's credits.
    pub(super) async fn open(
        transaction: &mut Tx<'_>,
        caps: SiteCaps,
        job: JobId,
        credits: &[&Credit],
        now: UnixMs,
    ) -> Result<Self, StoreError> {
        let mut this = Attribution {
            caps,
            now,
            ways: HashMap::new(),
            networks: BTreeMap::new(),
            totals: BTreeMap::new(),
            changed: BTreeSet::new(),
            work: BTreeMap::new(),
            worked: BTreeMap::new(),
        };
        let sessions = credits.iter().filter(|credit| credit.site.is_some());
        let sessions: BTreeSet<SessionId> = sessions.map(|credit| credit.session).collect();
        if sessions.is_empty() {
            return Ok(this);
        }
        let book = book_of_job(transaction, job).await?;
        this.ways = ways(transaction, &sessions, book).await?;
        this.load_day(transaction).await?;
        Ok(this)
    }

    /// What the networks of these ways, and all of their sites, have done today.
    async fn load_day(&mut self, transaction: &mut Tx<'_>) -> Result<(), StoreError> {
        let networks: BTreeSet<(SiteId, NetworkPrefix)> =
            self.ways.values().map(|way| (way.site, way.prefix)).collect();
        let sites: BTreeSet<i64> = networks.iter().map(|(site, _)| to_sql(site.0)).collect();
        let wanted: Vec<(i64, String)> =
            networks.iter().map(|(site, prefix)| (to_sql(site.0), hex(&prefix.0))).collect();
        let rows = sqlx::query(NETWORKS_OF_DAY)
            .bind(json!(wanted).to_string())
            .bind(day_of(self.now))
            .fetch_all(&mut **transaction)
            .await
            .map_err(failed("read networks' work"))?;
        for row in &rows {
            let site = SiteId(from_sql(column(row, "site_networks", "site")?));
            let prefix: &[u8] = column(row, "site_networks", "network_prefix")?;
            let prefix = NetworkPrefix(prefix.try_into().unwrap_or_default());
            self.networks.insert((site, prefix), column(row, "site_networks", "pico_usd")?);
        }
        let rows = sqlx::query(TOTALS_OF_DAY)
            .bind(json!(sites).to_string())
            .bind(day_of(self.now))
            .fetch_all(&mut **transaction)
            .await
            .map_err(failed("read sites' work"))?;
        for row in &rows {
            let site = SiteId(from_sql(column(row, "site_days", "site")?));
            self.totals.insert(site, column(row, "site_days", "pico_usd")?);
        }
        Ok(())
    }

    /// The credit as it is stored and paid: with its site where that earns by it. What was
    /// left to a site that does not is the reserve's.
    pub(super) fn of(&self, credit: &Credit) -> Credit {
        if self.reason(credit).is_none() {
            return *credit;
        }
        let beneficiary = match credit.beneficiary {
            Beneficiary::Site => Beneficiary::Reserve,
            other => other,
        };
        Credit { site: None, beneficiary, ..*credit }
    }

    fn reason(&self, credit: &Credit) -> Option<Withheld> {
        credit.site?;
        // A session that nobody stored came through nothing that is known.
        let Some(way) = self.ways.get(&credit.session) else {
            return Some(Withheld::Unproven);
        };
        way.withheld.or_else(|| self.beyond_share(way, credit))
    }

    /// Whether the network of `way` would have done too much of the day's work by `credit`.
    fn beyond_share(&self, way: &Way, credit: &Credit) -> Option<Withheld> {
        if way.prefix.is_loopback() {
            return None;
        }
        let cost = pico_usd(credit);
        let own = self.networks.get(&(way.site, way.prefix)).copied().unwrap_or(0);
        let total = self.totals.get(&way.site).copied().unwrap_or(0);
        let (own, total) = (own.saturating_add(cost), total.saturating_add(cost));
        let most = i128::from(total) * i128::from(self.caps.network_share_percent) / 100;
        let is_beyond = own > FREE_PICO_USD && i128::from(own) > most;
        is_beyond.then_some(Withheld::NetworkShare)
    }

    /// Counts a credit that is stored, and answers as what; `None` where it came through
    /// no site that is stored.
    pub(super) fn count(&mut self, credit: &Credit) -> Option<&'static str> {
        credit.site?;
        let without_margin = (credit.payer == Payer::Operator).then_some(Withheld::OperatorPays);
        let reason = self.reason(credit).or(without_margin);
        let outcome = reason.map_or(EARNED, Withheld::as_str);
        let way = self.ways.get(&credit.session)?;
        let done = self.worked.entry(credit.session).or_default();
        // What nobody checks is work, and no verified work.
        if credit.proof != Proof::Unchecked {
            *done = done.saturating_add(credit.flops);
        }
        let work = self.work.entry((way.site, outcome)).or_default();
        work.0 += 1;
        work.1 = work.1.saturating_add(credit.flops);
        // What was withheld makes no room for more of the same network.
        if reason.is_none() {
            let cost = pico_usd(credit);
            let own = self.networks.entry((way.site, way.prefix)).or_default();
            *own = own.saturating_add(cost);
            let total = self.totals.entry(way.site).or_default();
            *total = total.saturating_add(cost);
            self.changed.insert((way.site, way.prefix));
        }
        Some(outcome)
    }

    /// Stores what was counted.
    pub(super) async fn store(self, transaction: &mut Tx<'_>) -> Result<(), StoreError> {
        let day = day_of(self.now);
        for ((site, outcome), (tasks, flops)) in &self.work {
            sqlx::query(
                "INSERT INTO site_work (site, day, outcome, tasks, flops) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks,
                     flops = MIN(flops, 9223372036854775807 - excluded.flops) + excluded.flops",
            )
            .bind(to_sql(site.0))
            .bind(day)
            .bind(*outcome)
            .bind(count_to_sql(*tasks))
            .bind(count_to_sql(*flops))
            .execute(&mut **transaction)
            .await
            .map_err(failed("count a site's work"))?;
        }
        let changed: Vec<_> = self.changed.iter().collect();
        for some in changed.chunks(ROWS_AT_ONCE) {
            let mut query = QueryBuilder::new(
                "INSERT INTO site_networks (site, day, network_prefix, pico_usd) ",
            );
            query.push_values(some, |mut row, key| {
                row.push_bind(to_sql(key.0.0))
                    .push_bind(day)
                    .push_bind(key.1.0.to_vec())
                    .push_bind(self.networks.get(key).copied().unwrap_or(0));
            });
            query.push(" ON CONFLICT DO UPDATE SET pico_usd = excluded.pico_usd");
            let stored = query.build().execute(&mut **transaction).await;
            stored.map_err(failed("count networks' work"))?;
        }
        let sites: BTreeSet<SiteId> = self.changed.iter().map(|(site, _)| *site).collect();
        for site in sites {
            sqlx::query(
                "INSERT INTO site_days (site, day, pico_usd) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET pico_usd = excluded.pico_usd",
            )
            .bind(to_sql(site.0))
            .bind(day)
            .bind(self.totals.get(&site).copied().unwrap_or(0))
            .execute(&mut **transaction)
            .await
            .map_err(failed("count what a site's work costs"))?;
        }
        if self.worked.is_empty() {
            return Ok(());
        }
        let worked: Vec<(i64, i64)> = self
            .worked
            .iter()
            .map(|(session, flops)| (to_sql(session.0), count_to_sql(*flops)))
            .collect();
        sqlx::query(ADD_WORKED)
            .bind(json!(worked).to_string())
            .bind(self.now.0)
            .execute(&mut **transaction)
            .await
            .map(drop)
            .map_err(failed("note what sessions did"))
    }
}

/// What a credit costs, rounded down: only networks are compared by it.
fn pico_usd(credit: &Credit) -> i64 {
    cost(credit.flops, credit.rate)
}

pub(super) fn cost(flops: u64, rate: PicoUsd) -> i64 {
    let charge = Charge::of(Flops(flops), rate).units();
    i64::try_from(charge / i128::from(FLOPS_PER_CALCULATION)).unwrap_or(i64::MAX)
}

async fn book_of_job(transaction: &mut Tx<'_>, job: JobId) -> Result<Option<Book>, StoreError> {
    let row = sqlx::query("SELECT book FROM jobs WHERE id = ?1")
        .bind(to_sql(job.0))
        .fetch_one(&mut **transaction)
        .await
        .map_err(failed("read a job's book"))?;
    let text: Option<&str> = column(&row, "jobs", "book")?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// What is known of a site, for all of its sessions.
#[derive(Debug)]
struct Standing {
    registered: Vec<String>,
    proven: Vec<String>,
    /// Its owner's money.
    book: Option<Book>,
    /// Whether the job is paid with the same.
    is_same_money: bool,
    /// Whether its frame is shown to anybody.
    is_open: bool,
}

impl Standing {
    /// Play money needs no proof of pages on this machine, so that trials run.
    fn counts(&self, origin: &String) -> bool {
        // An origin that was taken out of the list proves nothing any more.
        self.registered.contains(origin)
            && (self.proven.contains(origin)
                || (self.book == Some(Book::Test) && is_local_origin(origin)))
    }

    fn withheld(&self, origin: Option<&String>) -> Option<Withheld> {
        if !self.is_open {
            return Some(Withheld::SiteClosed);
        }
        if !self.is_same_money {
            return Some(Withheld::OtherMoney);
        }
        (!self.is_own(origin)).then_some(Withheld::Unproven)
    }

    /// Whether a session's page was the site's own. Where the page's origin is not
    /// known, every origin of the site must be.
    fn is_own(&self, origin: Option<&String>) -> bool {
        match origin {
            Some(origin) => self.counts(origin),
            None => !self.registered.is_empty() && self.registered.iter().all(|it| self.counts(it)),
        }
    }
}

/// Whether a site has what is left to it by a visitor of the page `origin`, in that money.
pub(super) async fn earns(
    transaction: &mut Tx<'_>,
    site: SiteId,
    origin: Option<&String>,
    book: Book,
) -> Result<bool, StoreError> {
    Ok(standing(transaction, site, Some(book)).await?.withheld(origin).is_none())
}

async fn standing(
    transaction: &mut Tx<'_>,
    site: SiteId,
    job_book: Option<Book>,
) -> Result<Standing, StoreError> {
    let row = sqlx::query(
        "SELECT i.origins AS origins, k.book AS book,
             i.revoked_ms IS NULL AND i.paused_ms IS NULL AS is_open
         FROM sites i JOIN api_keys k ON k.id = i.owner WHERE i.id = ?1",
    )
    .bind(to_sql(site.0))
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed("read a site's owner"))?;
    let proven: Vec<String> =
        sqlx::query_scalar("SELECT origin FROM site_origins WHERE site = ?1 AND lapsed_ms IS NULL")
            .bind(to_sql(site.0))
            .fetch_all(&mut **transaction)
            .await
            .map_err(failed("read proofs"))?;
    let registered: &str = column(&row, "sites", "origins")?;
    let registered = serde_json::from_str(registered)
        .map_err(|error| super::unreadable("sites", "origins", error))?;
    let book: &str = column(&row, "api_keys", "book")?;
    let book = book.parse().ok();
    let is_same_money = book.is_some() && book == job_book;
    let is_open = column(&row, "sites", "is_open")?;
    Ok(Standing { registered, proven, book, is_same_money, is_open })
}

/// The ways of some sessions' work; none where it came through no site that is stored.
async fn ways(
    transaction: &mut Tx<'_>,
    sessions: &BTreeSet<SessionId>,
    book: Option<Book>,
) -> Result<HashMap<SessionId, Way>, StoreError> {
    let wanted: Vec<i64> = sessions.iter().map(|session| to_sql(session.0)).collect();
    let rows = sqlx::query(WAYS)
        .bind(json!(wanted).to_string())
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed("read sessions' sites"))?;
    let (mut ways, mut standings) = (HashMap::new(), BTreeMap::new());
    for row in &rows {
        let site = SiteId(from_sql(column(row, "sessions", "site")?));
        let prefix: &[u8] = column(row, "sessions", "network_prefix")?;
        let prefix = NetworkPrefix(prefix.try_into().unwrap_or_default());
        let noted: Option<&str> = column(row, "sessions", "withheld")?;
        let noted = Withheld::ALL.into_iter().find(|reason| Some(reason.as_str()) == noted);
        let origin: Option<String> = column(row, "sessions", "origin")?;
        if let Entry::Vacant(entry) = standings.entry(site) {
            entry.insert(standing(transaction, site, book).await?);
        }
        let found = standings.get(&site).and_then(|it: &Standing| it.withheld(origin.as_ref()));
        let session = SessionId(from_sql(column(row, "sessions", "id")?));
        ways.insert(session, Way { site, prefix, withheld: noted.or(found) });
    }
    Ok(ways)
}

impl Store {
    /// Bounds for what one network may earn a site.
    pub fn set_site_caps(&self, caps: SiteCaps) {
        *self.inner.site_caps.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = caps;
    }

    /// The bounds that are in force.
    pub fn site_caps(&self) -> SiteCaps {
        *self.inner.site_caps.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The keys that have come with a ticket, or with one that it was renewed to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ticket_holders(&self, ticket: u64) -> Result<Vec<ContributorId>, StoreError> {
        let rows = sqlx::query("SELECT contributor FROM ticket_keys WHERE ticket = ?1")
            .bind(to_sql(ticket))
            .fetch_all(self.readers())
            .await
            .map_err(failed("look up a ticket"))?;
        let read = |row| super::hash_column(row, "ticket_keys", "contributor").map(ContributorId);
        rows.iter().map(read).collect()
    }

    /// Forgets holders of tickets who have not come since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_tickets(&self, before: UnixMs) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM ticket_keys WHERE used_ms < ?1")
            .bind(before.0)
            .execute(self.writer())
            .await
            .map(drop)
            .map_err(failed("forget tickets"))
    }
}

/// Gives a ticket to a key that comes with it, where it is that key's already or may be;
/// answers it as that key first used it.
pub(super) async fn take_ticket(
    transaction: &mut Tx<'_>,
    ticket: UsedTicket,
    contributor: ContributorId,
    now: UnixMs,
) -> Result<UsedTicket, StoreError> {
    let row = sqlx::query(
        "INSERT INTO ticket_keys (ticket, contributor, used_ms, elsewhere)
         SELECT ?1, ?2, ?3, ?4 WHERE
             EXISTS (SELECT 1 FROM ticket_keys WHERE ticket = ?1 AND contributor = ?2)
             OR (SELECT COUNT(*) FROM ticket_keys WHERE ticket = ?1) < ?5
         ON CONFLICT DO UPDATE SET used_ms = MAX(used_ms, excluded.used_ms)
         RETURNING elsewhere",
    )
    .bind(to_sql(ticket.number))
    .bind(&contributor.0[..])
    .bind(now.0)
    .bind(ticket.is_elsewhere)
    .bind(i64::from(ticket.keys_max))
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("take a ticket"))?;
    let row = row.ok_or(StoreError::TicketTaken)?;
    Ok(UsedTicket { is_elsewhere: column(&row, "ticket_keys", "elsewhere")?, ..ticket })
}
