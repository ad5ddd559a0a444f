//! What a token was worth, and is.

use super::{Store, StoreError, column, failed};
use crate::time::UnixMs;
use crate::token::{TokenRate, TokenRates};
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};

/// Rates that are kept; one a day lasts for decades.
const RATES_MAX: i64 = 10_000;
/// How far ahead of the clock the last rate or deposit may be: what comes within one
/// millisecond follows each other, and clocks are set right now and then. Beyond it the clock
/// is wrong, or was.
const AHEAD_MS: i64 = 1_000;

/// The time of what is entered next, which is not before `last`. The clock is read by whoever
/// has the file for writing: a time that was read before might have waited.
pub(super) fn not_before(last: Option<i64>, now: UnixMs) -> Result<UnixMs, StoreError> {
    match last {
        Some(last) if last > now.0 + AHEAD_MS => Err(StoreError::RateToCome { from: UnixMs(last) }),
        last => Ok(UnixMs(last.map_or(now.0, |last| now.0.max(last)))),
    }
}

fn read(row: &SqliteRow) -> Result<TokenRate, StoreError> {
    Ok(TokenRate {
        from: UnixMs(column(row, "token_rates", "from_ms")?),
        nano_usd: column(row, "token_rates", "nano_usd")?,
    })
}

/// The newest rate, within the caller's transaction.
pub(super) async fn newest(
    transaction: &mut Transaction<'_, Sqlite>,
) -> Result<Option<TokenRate>, StoreError> {
    let row =
        sqlx::query("SELECT from_ms, nano_usd FROM token_rates ORDER BY from_ms DESC LIMIT 1")
            .fetch_optional(&mut **transaction)
            .await
            .map_err(failed("read a token's rate"))?;
    row.as_ref().map(read).transpose()
}

/// The rate that is in force, within the caller's transaction.
pub(super) async fn in_force(
    transaction: &mut Transaction<'_, Sqlite>,
    now: UnixMs,
) -> Result<Option<TokenRate>, StoreError> {
    let row = sqlx::query(
        "SELECT from_ms, nano_usd FROM token_rates WHERE from_ms <= ?1
         ORDER BY from_ms DESC LIMIT 1",
    )
    .bind(now.0)
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("read a token's rate"))?;
    row.as_ref().map(read).transpose()
}

impl Store {
    /// Sets what a token is worth from now on, which is after the last rate and the last
    /// deposit in tokens: what was paid in keeps the rate that was in force then.
    ///
    /// # Errors
    /// [`StoreError::RateToCome`] where one of both is from later: the clock is wrong, or
    /// was. [`StoreError`].
    pub async fn set_token_rate(
        &self,
        nano_usd: i64,
        clock: impl FnOnce() -> UnixMs,
    ) -> Result<TokenRate, StoreError> {
        let mut transaction = self.begin().await?;
        let last: Option<i64> = sqlx::query_scalar(
            "SELECT max(at) FROM (SELECT max(from_ms) AS at FROM token_rates UNION ALL
                 SELECT max(e.at_ms) FROM token_deposits t
                 JOIN entries e ON e.book = t.book AND e.id = t.entry)",
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed("read the last rate"))?;
        let now = not_before(last, clock())?;
        let from = UnixMs(last.map_or(now.0, |last| now.0.max(last + 1)));
        sqlx::query("INSERT INTO token_rates (from_ms, nano_usd) VALUES (?1, ?2)")
            .bind(from.0)
            .bind(nano_usd)
            .execute(&mut *transaction)
            .await
            .map_err(failed("set a token's rate"))?;
        transaction.commit().await.map_err(failed("commit a token's rate"))?;
        Ok(TokenRate { from, nano_usd })
    }

    /// The last rates, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_rates(&self) -> Result<TokenRates, StoreError> {
        let rows =
            sqlx::query("SELECT from_ms, nano_usd FROM token_rates ORDER BY from_ms DESC LIMIT ?1")
                .bind(RATES_MAX)
                .fetch_all(self.readers())
                .await
                .map_err(failed("read a token's rates"))?;
        rows.iter().rev().map(read).collect::<Result<_, _>>().map(TokenRates)
    }
}
