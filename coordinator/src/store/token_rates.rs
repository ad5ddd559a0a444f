//! What a token was worth, and is.

use super::{Store, StoreError, column, failed};
use crate::time::UnixMs;
use crate::token::{TokenRate, TokenRates};
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};

/// Rates that are kept; one a day lasts for decades.
const RATES_MAX: i64 = 10_000;

fn read(row: &SqliteRow) -> Result<TokenRate, StoreError> {
    Ok(TokenRate {
        from: UnixMs(column(row, "token_rates", "from_ms")?),
        nano_usd: column(row, "token_rates", "nano_usd")?,
    })
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
    /// Sets what a token is worth from now on. What it was stays as it was.
    ///
    /// # Errors
    /// [`StoreError::RateToCome`] where the last one is from later: the clock is wrong, or
    /// was, and the new rate would not be in force now. [`StoreError`].
    pub async fn set_token_rate(
        &self,
        nano_usd: i64,
        now: UnixMs,
    ) -> Result<TokenRate, StoreError> {
        let mut transaction = self.begin().await?;
        let last: Option<i64> = sqlx::query_scalar("SELECT max(from_ms) FROM token_rates")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed("read the last rate"))?;
        if let Some(from) = last.filter(|last| *last > now.0) {
            return Err(StoreError::RateToCome { from: UnixMs(from) });
        }
        // Two of one millisecond follow each other.
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

    /// The last rates.
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
