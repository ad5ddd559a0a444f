//! What one contributor, or the wallet that collects for several, may see of its own.

use super::partners::DAY_MS;
use super::{
    Book, Store, StoreError, column, failed, from_sql, hash_column, u64_column, unreadable,
};
use crate::time::UnixMs;
use raven_engine::ContributorId;
use raven_engine::ledger::{Account, Balance};
use raven_protocol::{ResultOutcome, SessionId};
use serde_json::Value;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{QueryBuilder, Row as _};
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
     FROM json_each(?1) wanted
     CROSS JOIN accounts a ON a.book IN ('test', 'live') AND a.name = wanted.value
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

/// `?, ?, …` for keys.
fn push_keys(query: &mut QueryBuilder<Sqlite>, keys: &[ContributorId]) {
    query.push("(");
    let mut list = query.separated(", ");
    for key in keys {
        list.push_bind(key.0.to_vec());
    }
    query.push(")");
}

impl Store {
    /// Notes that a key has proven itself now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn contributor_seen(
        &self,
        key: ContributorId,
        now: UnixMs,
    ) -> Result<(), StoreError> {
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

    /// Stores how somebody wants to be paid.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_payout(
        &self,
        key: ContributorId,
        payout: &Payout,
        now: UnixMs,
    ) -> Result<(), StoreError> {
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
        .map(drop)
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

    /// The newest sessions of some keys, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_sessions(
        &self,
        keys: &[ContributorId],
        limit: u32,
    ) -> Result<Vec<OwnSession>, StoreError> {
        let mut query = QueryBuilder::new(
            "SELECT id, contributor, device_class, numeric_class, share, workers, opened_ms,
                 closed_ms, closed_reason FROM sessions WHERE contributor IN ",
        );
        push_keys(&mut query, keys);
        query.push(" ORDER BY opened_ms DESC LIMIT ").push_bind(i64::from(limit));
        let rows = query
            .build()
            .fetch_all(self.readers())
            .await
            .map_err(failed("list a contributor's sessions"))?;
        rows.iter().map(session).collect()
    }

    /// Tasks and flops that some keys were credited for, over all jobs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_work(&self, keys: &[ContributorId]) -> Result<(u64, f64), StoreError> {
        // A sum over jobs may pass 63 bits, and this one is for people.
        let mut query = QueryBuilder::new(
            "SELECT COALESCE(SUM(tasks), 0) AS tasks, TOTAL(flops) AS flops
             FROM job_contributors WHERE contributor IN ",
        );
        push_keys(&mut query, keys);
        let row = query
            .build()
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

    /// What became of the results of some keys; outcomes without any are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_outcomes(
        &self,
        keys: &[ContributorId],
    ) -> Result<BTreeMap<ResultOutcome, u64>, StoreError> {
        let table = "contributor_outcomes";
        let mut query = QueryBuilder::new(
            "SELECT outcome, SUM(results) AS results FROM contributor_outcomes
             WHERE contributor IN ",
        );
        push_keys(&mut query, keys);
        query.push(" GROUP BY outcome");
        let rows = query
            .build()
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

    /// What some keys have together.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_balance(
        &self,
        book: Book,
        keys: &[ContributorId],
    ) -> Result<Balance, StoreError> {
        let mut sum = Balance::default();
        for key in keys {
            let one = self.balance(book, Account::Contributor(*key)).await?;
            sum.posted = sum.posted.saturating_add(one.posted);
            sum.held_out = sum.held_out.saturating_add(one.held_out);
            sum.held_in = sum.held_in.saturating_add(one.held_in);
        }
        Ok(sum)
    }

    /// What some keys have earned on each of the last days, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_days(
        &self,
        keys: &[ContributorId],
        now: UnixMs,
    ) -> Result<Vec<EarnedDay>, StoreError> {
        let names: Vec<String> =
            keys.iter().map(|key| Account::Contributor(*key).to_string()).collect();
        let rows = sqlx::query(OWN_DAYS)
            .bind(Value::from(names).to_string())
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
