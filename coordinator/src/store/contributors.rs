//! What one contributor, or the wallet that collects for several, may see of its own.

use super::{
    Book, Store, StoreError, column, failed, from_sql, hash_column, u64_column, unreadable,
};
use crate::time::{DAY_MS, UnixMs};
use raven_engine::ContributorId;
use raven_engine::ledger::{Account, Balance};
use raven_protocol::{ResultOutcome, SessionId};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};
use std::collections::BTreeMap;

/// Days of earnings that are told.
const DAYS: i64 = 60;

/// A session, as its contributor sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnSession {
    pub session: SessionId,
    pub contributor: ContributorId,
    /// `phone`, `desktop` or `server`.
    pub device: String,
    /// What it computed on, as JSON.
    pub numeric: String,
    /// As last allocated; what was, before the end, of one that is over.
    pub share: f64,
    pub workers: u32,
    pub opened: UnixMs,
    pub closed: Option<UnixMs>,
    pub reason: Option<String>,
}

/// Accounts by their names, then each one's newest entries alone: numbers grow with time,
/// but for clocks that are put back, which a day's margin allows for.
pub(super) const OWN_DAYS: &str = "SELECT e.at_ms / ?3 AS day, e.book AS book,
         SUM(e.amount) AS nano_usd
     FROM (SELECT ?1 AS key UNION ALL SELECT contributor FROM wallet_links WHERE wallet = ?1) k
     CROSS JOIN accounts a
         ON a.book IN ('test', 'live') AND a.name = 'contributor:' || lower(hex(k.key))
     CROSS JOIN entries e INDEXED BY entries_by_credit ON e.credit = a.id
         AND e.number >= (SELECT f.number FROM entries f
             WHERE f.book = a.book AND f.at_ms >= ?2 - ?3 ORDER BY f.at_ms LIMIT 1)
     LEFT JOIN holds h ON h.book = e.book AND h.id = e.id
     WHERE e.reason = 'earning' AND COALESCE(h.state, 'posted') IN ('open', 'posted')
         AND e.at_ms >= ?2
     GROUP BY day, e.book ORDER BY day, e.book";

/// Where and from how much on somebody wants to be paid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payout {
    pub address: Option<String>,
    pub threshold_nano_usd: Option<i64>,
}

/// What was earned on one day, pending or not; what was voided does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarnedDay {
    /// Days since 1970.
    pub day: i64,
    pub book: Book,
    pub nano_usd: i64,
}

/// How exactly it is noted when a key was here: what nobody claims expires after days.
const SEEN_MS: i64 = 60 * 60 * 1000;

/// A key (`?1`) and everybody whom it collects for.
pub(super) const OWN: &str =
    "(SELECT ?1 AS key UNION ALL SELECT contributor FROM wallet_links WHERE wallet = ?1)";

impl Store {
    /// Notes that a key has proven itself now, to the hour: a page that is looked at all day
    /// writes seldom. Keys cost nothing: one that is not known leaves no trace.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn contributor_seen(
        &self,
        key: ContributorId,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        // By a reader, which waits for nobody.
        let is_noted: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM contributors WHERE key = ?1 AND seen_ms > ?2)",
        )
        .bind(&key.0[..])
        .bind(now.0.saturating_sub(SEEN_MS))
        .fetch_one(self.readers())
        .await
        .map_err(failed("look when a contributor was noted"))?;
        if is_noted || !self.is_known(key).await? {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO contributors (key, seen_ms) VALUES (?1, ?2)
             ON CONFLICT (key) DO UPDATE SET seen_ms = MAX(seen_ms, excluded.seen_ms)",
        )
        .bind(&key.0[..])
        .bind(now.0)
        .execute(self.writer())
        .await
        .map(drop)
        .map_err(failed("note a contributor"))
    }

    /// Whether a key has computed, earned or collected.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_known(&self, key: ContributorId) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sessions WHERE contributor = ?1)
                 OR EXISTS (SELECT 1 FROM wallet_links WHERE wallet = ?1)
                 OR EXISTS (SELECT 1 FROM accounts WHERE book = 'live' AND name = ?2)
                 OR EXISTS (SELECT 1 FROM accounts WHERE book = 'test' AND name = ?2)",
        )
        .bind(&key.0[..])
        .bind(Account::Contributor(key).to_string())
        .fetch_one(self.readers())
        .await
        .map_err(failed("look for a contributor"))
    }

    /// Stores how somebody wants to be paid; `false`, and nothing stored, where the key is
    /// not known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_payout(
        &self,
        key: ContributorId,
        payout: &Payout,
        now: UnixMs,
    ) -> Result<bool, StoreError> {
        if !self.is_known(key).await? {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO contributors (key, seen_ms, payout_address, payout_threshold)
             VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key) DO UPDATE SET
                 seen_ms = MAX(seen_ms, excluded.seen_ms),
                 payout_address = excluded.payout_address,
                 payout_threshold = excluded.payout_threshold",
        )
        .bind(&key.0[..])
        .bind(now.0)
        .bind(&payout.address)
        .bind(payout.threshold_nano_usd)
        .execute(self.writer())
        .await
        .map(|_| true)
        .map_err(failed("store payout settings"))
    }

    /// How somebody wants to be paid.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn payout(&self, key: ContributorId) -> Result<Payout, StoreError> {
        let table = "contributors";
        let row =
            sqlx::query("SELECT payout_address, payout_threshold FROM contributors WHERE key = ?1")
                .bind(&key.0[..])
                .fetch_optional(self.readers())
                .await
                .map_err(failed("read payout settings"))?;
        let Some(row) = row else { return Ok(Payout::default()) };
        Ok(Payout {
            address: column(&row, table, "payout_address")?,
            threshold_nano_usd: column(&row, table, "payout_threshold")?,
        })
    }

    /// The newest sessions of a key and whom it collects for, newest first, each with the share
    /// and the workers that were last allocated to it: a slider may have moved since it opened.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_sessions(
        &self,
        key: ContributorId,
        limit: u32,
    ) -> Result<Vec<OwnSession>, StoreError> {
        let rows = sqlx::query(AssertSqlSafe(format!(
            "SELECT s.id, s.contributor, s.device_class, s.numeric_class,
                 COALESCE(a.share_ppm / 1e6, s.share) AS share,
                 COALESCE(a.workers, s.workers) AS workers,
                 s.opened_ms, s.closed_ms, s.closed_reason
             FROM (SELECT o.* FROM {OWN} k JOIN sessions o ON o.contributor = k.key
                 ORDER BY o.opened_ms DESC LIMIT ?2) s
             LEFT JOIN allocations a ON a.number = (SELECT l.number FROM allocations l
                 WHERE l.contributor = s.contributor AND l.session = s.id
                     AND l.number <= s.allocation AND l.kind NOT IN ('revoke', 'end')
                 ORDER BY l.number DESC LIMIT 1)
             ORDER BY s.opened_ms DESC"
        )))
        .bind(&key.0[..])
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list a contributor's sessions"))?;
        rows.iter().map(session).collect()
    }

    /// Tasks and flops that a key and whom it collects for were credited for, over all jobs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_work(&self, key: ContributorId) -> Result<(u64, f64), StoreError> {
        // A sum over jobs may pass 63 bits, and this one is for people.
        let row = sqlx::query(AssertSqlSafe(format!(
            "SELECT COALESCE(SUM(c.tasks), 0) AS tasks, TOTAL(c.flops) AS flops
             FROM {OWN} k JOIN job_contributors c ON c.contributor = k.key"
        )))
        .bind(&key.0[..])
        .fetch_one(self.readers())
        .await
        .map_err(failed("sum up a contributor's work"))?;
        let table = "job_contributors";
        Ok((u64_column(&row, table, "tasks")?, column(&row, table, "flops")?))
    }

    /// Adds to the counts of what became of results, all or none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_contributor_outcomes(
        &self,
        counts: &BTreeMap<(ContributorId, ResultOutcome), u64>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for ((contributor, outcome), &results) in counts {
            sqlx::query(
                "INSERT INTO contributor_outcomes (contributor, outcome, results)
                 VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET results = results + excluded.results",
            )
            .bind(&contributor.0[..])
            .bind(outcome.as_str())
            .bind(super::count_to_sql(results))
            .execute(&mut *transaction)
            .await
            .map_err(failed("add a contributor's outcomes"))?;
        }
        transaction.commit().await.map_err(failed("add contributors' outcomes"))
    }

    /// What became of the results of a key and whom it collects for; outcomes without any are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_outcomes(
        &self,
        key: ContributorId,
    ) -> Result<BTreeMap<ResultOutcome, u64>, StoreError> {
        let table = "contributor_outcomes";
        let rows = sqlx::query(AssertSqlSafe(format!(
            "SELECT c.outcome AS outcome, SUM(c.results) AS results
             FROM {OWN} k JOIN contributor_outcomes c ON c.contributor = k.key
             GROUP BY c.outcome"
        )))
        .bind(&key.0[..])
        .fetch_all(self.readers())
        .await
        .map_err(failed("read a contributor's outcomes"))?;
        rows.iter()
            .map(|row| {
                let name: &str = column(row, table, "outcome")?;
                let known = ResultOutcome::ALL.into_iter().find(|one| one.as_str() == name);
                let known = known.ok_or_else(|| unreadable(table, "outcome", name))?;
                Ok((known, u64_column(row, table, "results")?))
            })
            .collect()
    }

    /// What a key and whom it collects for have together.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_balance(&self, book: Book, key: ContributorId) -> Result<Balance, StoreError> {
        let rows = sqlx::query(AssertSqlSafe(format!(
            "SELECT a.posted AS posted, a.held_out AS held_out, a.held_in AS held_in
             FROM {OWN} k JOIN accounts a
                 ON a.book = ?2 AND a.name = 'contributor:' || lower(hex(k.key))"
        )))
        .bind(&key.0[..])
        .bind(book.as_str())
        .fetch_all(self.readers())
        .await
        .map_err(failed("read what a contributor has"))?;
        let (mut sum, table) = (Balance::default(), "accounts");
        for row in &rows {
            sum.posted = sum.posted.saturating_add(column(row, table, "posted")?);
            sum.held_out = sum.held_out.saturating_add(column(row, table, "held_out")?);
            sum.held_in = sum.held_in.saturating_add(column(row, table, "held_in")?);
        }
        Ok(sum)
    }

    /// What a key and whom it collects for have earned on each of the last days, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_days(
        &self,
        key: ContributorId,
        now: UnixMs,
    ) -> Result<Vec<EarnedDay>, StoreError> {
        let rows = sqlx::query(OWN_DAYS)
            .bind(&key.0[..])
            .bind(now.0.saturating_sub(DAYS * DAY_MS))
            .bind(DAY_MS)
            .fetch_all(self.readers())
            .await
            .map_err(failed("sum up earnings"))?;
        let table = "entries";
        rows.iter()
            .map(|row| {
                let book: &str = column(row, table, "book")?;
                Ok(EarnedDay {
                    day: column(row, table, "day")?,
                    book: book.parse().map_err(|error| unreadable(table, "book", error))?,
                    nano_usd: column(row, table, "nano_usd")?,
                })
            })
            .collect()
    }
}

fn session(row: &SqliteRow) -> Result<OwnSession, StoreError> {
    let table = "sessions";
    let closed: Option<i64> = column(row, table, "closed_ms")?;
    Ok(OwnSession {
        session: SessionId(from_sql(column(row, table, "id")?)),
        contributor: ContributorId(hash_column(row, table, "contributor")?),
        device: column(row, table, "device_class")?,
        numeric: column(row, table, "numeric_class")?,
        share: row.try_get("share").map_err(failed("read a share"))?,
        workers: super::u32_column(row, table, "workers")?,
        opened: UnixMs(column(row, table, "opened_ms")?),
        closed: closed.map(UnixMs),
        reason: column(row, table, "closed_reason")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn whoever_was_noted_within_the_hour_waits_for_no_writer() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("raven.sqlite")).await.expect("opened");
        let (key, first) = (ContributorId([1; 32]), UnixMs(1_000_000_000));
        let sql = "INSERT INTO accounts (book, name, posted, held_out, held_in)
                   VALUES ('live', ?1, 0, 0, 0)";
        let name = Account::Contributor(key).to_string();
        sqlx::query(sql).bind(name).execute(store.writer()).await.expect("known");
        store.contributor_seen(key, first).await.expect("noted");
        let soon = UnixMs(first.0 + SEEN_MS - 1);
        let writing = store.begin().await.expect("the one writer");
        let noted = tokio::time::timeout(Duration::from_secs(5), store.contributor_seen(key, soon));
        noted.await.expect("nobody waits").expect("looked");
        drop(writing);
        assert_eq!(store.last_seen(key, soon).await.expect("read"), Some(first));
        let later = UnixMs(first.0 + SEEN_MS);
        store.contributor_seen(key, later).await.expect("noted");
        assert_eq!(store.last_seen(key, later).await.expect("read"), Some(later));
    }
}
