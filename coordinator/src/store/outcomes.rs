//! How many results came to what, since this store was made.

use super::{Store, StoreError, column, failed, u64_column, unreadable};
use raven_protocol::ResultOutcome;
use std::collections::BTreeMap;

impl Store {
    /// Adds to the counts, all or none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_outcomes(
        &self,
        counts: &BTreeMap<ResultOutcome, u64>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for (outcome, &results) in counts {
            let results =
                i64::try_from(results).map_err(|error| unreadable("outcomes", "results", error))?;
            sqlx::query(
                "INSERT INTO outcomes (outcome, results) VALUES (?1, ?2)
                 ON CONFLICT (outcome) DO UPDATE SET results = results + excluded.results",
            )
            .bind(outcome.as_str())
            .bind(results)
            .execute(&mut *transaction)
            .await
            .map_err(failed("add outcomes"))?;
        }
        transaction.commit().await.map_err(failed("add outcomes"))
    }

    /// The counts; zeros where there is nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outcomes(&self) -> Result<BTreeMap<ResultOutcome, u64>, StoreError> {
        let rows = sqlx::query("SELECT outcome, results FROM outcomes")
            .fetch_all(self.readers())
            .await
            .map_err(failed("read outcomes"))?;
        let mut counts: BTreeMap<ResultOutcome, u64> =
            ResultOutcome::ALL.into_iter().map(|outcome| (outcome, 0)).collect();
        for row in &rows {
            let name: &str = column(row, "outcomes", "outcome")?;
            let known = ResultOutcome::ALL.into_iter().find(|outcome| outcome.as_str() == name);
            let known = known.ok_or_else(|| unreadable("outcomes", "outcome", name))?;
            counts.insert(known, u64_column(row, "outcomes", "results")?);
        }
        Ok(counts)
    }
}
