//! Several jobs' records made durable by one commit: what the disk takes to sync is paid
//! once for all of them.

use super::records::Books;
use super::{Clock, Snapshot, Store, StoreError, failed};
use raven_engine::Record;
use sqlx::Acquire as _;

/// A record on its way to the file, and what comes with it.
#[derive(Clone, Copy, Debug)]
pub struct Persisting<'r> {
    pub record: &'r Record,
    pub clock: Clock,
    pub snapshot: Option<Snapshot>,
}

impl Store {
    /// [`Store::persist_published`] for records of different jobs, in one transaction. One
    /// that is refused changes nothing, and the others are stored nevertheless: it is to be
    /// tried again by itself, since an end is stored even where its books are wrong. What is
    /// answered as stored is durable.
    ///
    /// # Errors
    /// [`StoreError::Database`]; then none of them is stored.
    pub async fn persist_group(
        &self,
        records: &[Persisting<'_>],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut results = Vec::with_capacity(records.len());
        for one in records {
            results.push(self.mature_ahead(one.record).await);
        }
        let mut transaction = self.begin().await?;
        for (one, result) in records.iter().zip(&mut results).filter(|(_, result)| result.is_ok()) {
            let mut part = transaction.begin().await.map_err(failed("begin a record"))?;
            let Persisting { record, clock, snapshot } = *one;
            let stored = self.persist_in(&mut part, record, clock, snapshot, Books::Entered).await;
            let ended = match stored {
                Ok(()) => part.commit().await,
                // SQLite may have ended the whole transaction by itself.
                Err(error) if error.trouble().is_some() => return Err(error),
                Err(error) => {
                    *result = Err(error);
                    part.rollback().await
                }
            };
            ended.map_err(failed("end a record"))?;
        }
        transaction.commit().await.map_err(failed("commit records"))?;
        Ok(results)
    }
}
