//! What a token was worth, and is.

use super::{Store, StoreError, column, failed};
use crate::time::UnixMs;
use crate::token::{TokenRate, TokenRates};
use sqlx::sqlite::SqliteRow;

/// Rates that are kept; one a day lasts for decades.
const RATES_MAX: i64 = 10_000;

pub(super) fn read(row: &SqliteRow) -> Result<TokenRate, StoreError> {
    Ok(TokenRate {
        from: UnixMs(column(row, "token_rates", "from_ms")?),
        nano_usd: column(row, "token_rates", "nano_usd")?,
    })
}

impl Store {
    /// Sets what a token is worth from now on. What it was stays as it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_token_rate(
        &self,
        nano_usd: i64,
        now: UnixMs,
    ) -> Result<TokenRate, StoreError> {
        // A clock that was set back changes nothing of the past.
        let row = sqlx::query(
            "INSERT INTO token_rates (from_ms, nano_usd)
             SELECT max(?1, COALESCE((SELECT max(from_ms) + 1 FROM token_rates), ?1)), ?2
             RETURNING from_ms, nano_usd",
        )
        .bind(now.0)
        .bind(nano_usd)
        .fetch_one(self.writer())
        .await
        .map_err(failed("set a token's rate"))?;
        read(&row)
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
