//! From a page's view to verified work, by site and day.
//!
//! Views come with every page load: they are counted in memory and stored now and
//! then, so that no visitor waits for a disk. A crash loses the last minute of them.

use super::partners::day_of;
use super::{Book, Store, StoreError, column, count_to_sql, failed, to_sql, u64_column};
use crate::ticket::ShownTicket;
use crate::time::{DAY_MS, UnixMs};
use raven_engine::ledger::Account;
use raven_engine::{ContributorId, SiteId};
use raven_protocol::SessionId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tickets that are remembered as shown, and as many that were before them: a few megabytes.
const TICKETS_MAX: usize = 65_536;

/// What is not stored yet.
pub(super) type Views = Mutex<Counting>;

/// What is counted in memory.
#[derive(Debug, Default)]
pub(super) struct Counting {
    /// By site and day.
    days: HashMap<(SiteId, i64), Counts>,
    /// Tickets whose card was counted, so that each is counted once.
    shown: HashSet<u64>,
    shown_before: HashSet<u64>,
}

/// Frames that were served, pages that were told that theirs stays dark, and cards that
/// came into view.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    views: u64,
    blocked: u64,
    shown: u64,
}

impl Counting {
    fn at(&mut self, site: SiteId, now: UnixMs) -> &mut Counts {
        self.days.entry((site, day_of(now))).or_default()
    }

    /// Whether a ticket comes for the first time, as far as is remembered.
    fn is_first(&mut self, ticket: u64) -> bool {
        if self.shown_before.contains(&ticket) || !self.shown.insert(ticket) {
            return false;
        }
        if self.shown.len() >= TICKETS_MAX {
            self.shown_before = std::mem::take(&mut self.shown);
        }
        true
    }
}

/// Work of one outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub tasks: u64,
    pub flops: u64,
}

/// One day of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteDay {
    /// Frames that were served to pages of the site.
    pub views: u64,
    /// Pages of other origins that asked why their frame stays dark, or had it refused.
    pub blocked: u64,
    /// Cards that were on a visitor's screen, each of a frame that was served to a page of the site.
    pub shown: u64,
    /// Visitors, by their keys, who said yes.
    pub yes: u64,
    /// Of those, visitors of whom a result was credited.
    pub worked: u64,
    /// Credited work, by whether and why not it earned the site its share.
    pub work: BTreeMap<String, Work>,
}

/// One side of an account by day, by the index of that side, and of that the entries of
/// the days alone: numbers grow with time, but for clocks that are put back, which a day's
/// margin allows for.
macro_rules! earnings {
    ($side:literal) => {
        concat!(
            "SELECT e.at_ms / ?5 AS day,
                 COALESCE(SUM(e.amount) FILTER
                     (WHERE e.action = 'post' OR h.state = 'posted'), 0) AS done,
                 COALESCE(SUM(e.amount) FILTER (WHERE h.state = 'open'), 0) AS open
             FROM accounts me CROSS JOIN entries e INDEXED BY entries_by_",
            $side,
            " ON e.",
            $side,
            " = me.id AND e.book = me.book
                 AND e.number >= (SELECT f.number FROM entries f
                     WHERE f.book = me.book AND f.at_ms >= (?3 - 1) * ?5
                     ORDER BY f.at_ms LIMIT 1)
                 AND e.number <= (SELECT f.number FROM entries f
                     WHERE f.book = me.book AND f.at_ms < (?4 + 2) * ?5
                     ORDER BY f.at_ms DESC LIMIT 1)
             LEFT JOIN holds h ON h.book = e.book AND h.id = e.id
             WHERE me.book = ?1 AND me.name = ?2
                 AND e.at_ms >= ?3 * ?5 AND e.at_ms < (?4 + 1) * ?5 GROUP BY day"
        )
    };
}

/// What came in and what went out.
pub(super) const EARNINGS: [&str; 2] = [earnings!("credit"), earnings!("debit")];

/// Who said yes through a site, by day.
pub(super) const VISITORS: &str = "SELECT opened_ms / ?4 AS day,
         COUNT(DISTINCT contributor) AS yes,
         COUNT(DISTINCT contributor) FILTER (WHERE worked_ms IS NOT NULL) AS worked
     FROM sessions WHERE site = ?1 AND opened_ms >= ?2 * ?4 AND opened_ms < (?3 + 1) * ?4
     GROUP BY day";

/// What a visitor did on one site: of its sessions there what was counted, less what is
/// open. Of the few jobs that it works for the few rounds that are.
pub(super) const WORK_OF_SESSION: &str = "WITH open AS (
         SELECT c.session AS session, SUM(c.flops) AS flops
         FROM sessions me CROSS JOIN job_contributors p ON p.contributor = me.contributor
         CROSS JOIN pay_rounds r ON r.job = p.job
         CROSS JOIN credits c ON c.job = r.job AND c.round = r.round AND c.attempt = r.attempt
         WHERE me.id = ?1 AND c.contributor = me.contributor AND c.void = 0
             AND c.proof = 'single' AND c.outcome IS NOT NULL
         GROUP BY c.session
     ), done AS (
         SELECT me.id AS id, me.site AS site, me.contributor AS contributor,
             MAX(s.flops - COALESCE(o.flops, 0), 0) AS flops, s.closed_ms AS closed_ms
         FROM sessions me CROSS JOIN sessions s
             ON s.contributor = me.contributor AND s.site = me.site
         LEFT JOIN open o ON o.session = s.id
         WHERE me.id = ?1 AND me.site IS NOT NULL
     )
     SELECT site, contributor, SUM(flops) AS total,
         COALESCE(SUM(flops) FILTER (WHERE closed_ms IS NULL), 0) AS visit
     FROM done GROUP BY id";

impl Store {
    fn views(&self) -> MutexGuard<'_, Counting> {
        self.inner.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a frame that was served.
    pub fn count_view(&self, site: SiteId, now: UnixMs) {
        self.views().at(site, now).views += 1;
    }

    /// Counts a page that may not show the frame.
    pub fn count_blocked(&self, site: SiteId, now: UnixMs) {
        self.views().at(site, now).blocked += 1;
    }

    /// Counts a card that came into view, once for each ticket.
    pub fn count_shown(&self, ticket: ShownTicket, now: UnixMs) {
        let mut views = self.views();
        if views.is_first(ticket.number) {
            views.at(ticket.site, now).shown += 1;
        }
    }

    /// Stores what was counted since the last time.
    ///
    /// # Errors
    /// [`StoreError::Database`]; it is counted with the next time then.
    pub async fn store_views(&self) -> Result<(), StoreError> {
        let counted = std::mem::take(&mut self.views().days);
        if counted.is_empty() {
            return Ok(());
        }
        let stored = self.add_views(&counted).await;
        if stored.is_err() {
            let mut views = self.views();
            for (key, counts) in counted {
                let day = views.days.entry(key).or_default();
                day.views += counts.views;
                day.blocked += counts.blocked;
                day.shown += counts.shown;
            }
        }
        stored
    }

    async fn add_views(&self, counted: &HashMap<(SiteId, i64), Counts>) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for ((site, day), counts) in counted {
            sqlx::query(
                "INSERT INTO site_days (site, day, views, blocked, shown)
                 SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM sites WHERE id = ?1)
                 ON CONFLICT DO UPDATE SET views = views + excluded.views,
                     blocked = blocked + excluded.blocked, shown = shown + excluded.shown",
            )
            .bind(to_sql(site.0))
            .bind(day)
            .bind(count_to_sql(counts.views))
            .bind(count_to_sql(counts.blocked))
            .bind(count_to_sql(counts.shown))
            .execute(&mut *transaction)
            .await
            .map_err(failed("count views"))?;
        }
        transaction.commit().await.map_err(failed("commit views"))
    }

    /// The days of a site from `from` to `to`, both included; days without anything are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn site_days(
        &self,
        site: SiteId,
        from: i64,
        to: i64,
    ) -> Result<BTreeMap<i64, SiteDay>, StoreError> {
        self.store_views().await?;
        let mut days = BTreeMap::<i64, SiteDay>::new();
        let rows = sqlx::query(
            "SELECT day, views, blocked, shown FROM site_days
             WHERE site = ?1 AND day BETWEEN ?2 AND ?3",
        )
        .bind(to_sql(site.0))
        .bind(from)
        .bind(to)
        .fetch_all(self.readers())
        .await
        .map_err(failed("read views"))?;
        for row in &rows {
            let day = days.entry(column(row, "site_days", "day")?).or_default();
            day.views = u64_column(row, "site_days", "views")?;
            day.blocked = u64_column(row, "site_days", "blocked")?;
            // A card may come into view on the day after its frame was served.
            day.shown = u64_column(row, "site_days", "shown")?;
        }
        let rows = sqlx::query(VISITORS)
            .bind(to_sql(site.0))
            .bind(from)
            .bind(to)
            .bind(DAY_MS)
            .fetch_all(self.readers())
            .await
            .map_err(failed("count a site's visitors"))?;
        for row in &rows {
            let day = days.entry(column(row, "sessions", "day")?).or_default();
            day.yes = u64_column(row, "sessions", "yes")?;
            day.worked = u64_column(row, "sessions", "worked")?;
        }
        let rows = sqlx::query(
            "SELECT day, outcome, tasks, flops FROM site_work
             WHERE site = ?1 AND day BETWEEN ?2 AND ?3",
        )
        .bind(to_sql(site.0))
        .bind(from)
        .bind(to)
        .fetch_all(self.readers())
        .await
        .map_err(failed("read a site's work"))?;
        for row in &rows {
            let day = days.entry(column(row, "site_work", "day")?).or_default();
            let (tasks, flops) =
                (u64_column(row, "site_work", "tasks")?, u64_column(row, "site_work", "flops")?);
            day.work.insert(column(row, "site_work", "outcome")?, Work { tasks, flops });
        }
        Ok(days)
    }

    /// Contributors and sessions that are there through a site now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn site_online(&self, site: SiteId) -> Result<(u64, u64), StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(DISTINCT contributor) AS contributors, COUNT(*) AS sessions
             FROM sessions WHERE site = ?1 AND closed_ms IS NULL",
        )
        .bind(to_sql(site.0))
        .fetch_one(self.readers())
        .await
        .map_err(failed("count who is there"))?;
        Ok((
            u64_column(&row, "sessions", "contributors")?,
            u64_column(&row, "sessions", "sessions")?,
        ))
    }

    /// What the visitor behind a session did for its site, as far as it is verified: what
    /// rests on one contributor's word counts once its round is settled. `None` where it came
    /// through no site.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn work_of_session(
        &self,
        session: SessionId,
    ) -> Result<Option<VisitorWork>, StoreError> {
        let row = sqlx::query(WORK_OF_SESSION)
            .bind(to_sql(session.0))
            .fetch_optional(self.readers())
            .await
            .map_err(failed("sum up a visitor's work"))?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(VisitorWork {
            site: SiteId(super::from_sql(column(&row, "sessions", "site")?)),
            contributor: ContributorId(super::hash_column(&row, "sessions", "contributor")?),
            visit_flops: u64_column(&row, "sessions", "visit")?,
            total_flops: u64_column(&row, "sessions", "total")?,
        }))
    }

    /// What an account took and gave by day, from `from` to `to`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn earnings(
        &self,
        book: Book,
        account: Account,
        from: i64,
        to: i64,
    ) -> Result<BTreeMap<i64, EarningsDay>, StoreError> {
        let mut days = BTreeMap::<i64, EarningsDay>::new();
        for (side, sql) in EARNINGS.into_iter().enumerate() {
            let rows = sqlx::query(sql)
                .bind(book.as_str())
                .bind(account.to_string())
                .bind(from)
                .bind(to)
                .bind(DAY_MS)
                .fetch_all(self.readers())
                .await
                .map_err(failed("sum up earnings"))?;
            for row in &rows {
                let day = days.entry(column(row, "entries", "day")?).or_default();
                let done: i64 = column(row, "entries", "done")?;
                match side {
                    0 => {
                        day.available = done;
                        day.pending = column(row, "entries", "open")?;
                    }
                    _ => day.paid_out = done,
                }
            }
        }
        Ok(days)
    }
}

/// What a visitor did for a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisitorWork {
    pub site: SiteId,
    pub contributor: ContributorId,
    /// In sessions that are open now.
    pub visit_flops: u64,
    pub total_flops: u64,
}

/// Nano-USD of one day of an account, by the day on which the work was verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EarningsDay {
    /// The account's own.
    pub available: i64,
    /// Held until it matures.
    pub pending: i64,
    /// What went out.
    pub paid_out: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_counted_once_and_few_are_remembered() {
        let mut counting = Counting::default();
        assert!(counting.is_first(1) && !counting.is_first(1));
        for ticket in 2..=TICKETS_MAX as u64 {
            assert!(counting.is_first(ticket));
        }
        assert!(!counting.is_first(1), "those before are remembered too");
        for ticket in 0..3 * TICKETS_MAX as u64 {
            counting.is_first(TICKETS_MAX as u64 + ticket);
            assert!(counting.shown.len() + counting.shown_before.len() <= 2 * TICKETS_MAX);
        }
    }
}
