//! Sub-accounts: accounts that a platform makes for users of its own.

use super::gone::revoke_all;
use super::jobs::count_open;
use super::owners::begin;
use super::withdrawals::cancel_waiting;
use super::{KeyId, NewAccount, NewKey, Store, StoreError, column, failed, u64_column};
use crate::time::UnixMs;
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};

/// The accounts whose quotas count together with those of account `?N`: itself, its
/// parent, and the parent's other sub-accounts. A platform has no more for having many.
pub(super) fn family(parameter: u8) -> String {
    format!(
        "(WITH root (id) AS (SELECT COALESCE(parent, id) FROM owners WHERE id = ?{parameter})
          SELECT id FROM root UNION ALL
          SELECT o.id FROM owners o JOIN root r ON o.parent = r.id)"
    )
}

/// A sub-account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildRow {
    pub id: KeyId,
    pub name: String,
    /// What its parent knows it by.
    pub external_id: Option<String>,
    pub created: UnixMs,
    /// When it was closed: no key of it holds.
    pub closed: Option<UnixMs>,
}

/// Why there is no new sub-account.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("a sub-account has no sub-accounts of its own")]
    Nested,
    #[error("another sub-account has that external_id: {0:?}")]
    Known(KeyId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn read(row: &SqliteRow) -> Result<ChildRow, StoreError> {
    let closed: Option<i64> = column(row, "owners", "closed_ms")?;
    Ok(ChildRow {
        id: KeyId(column(row, "owners", "id")?),
        name: column(row, "owners", "name")?,
        external_id: column(row, "owners", "external_id")?,
        created: UnixMs(column(row, "owners", "created_ms")?),
        closed: closed.map(UnixMs),
    })
}

impl Store {
    /// Stores a sub-account and its first key, where the parent has fewer than
    /// `children_max`. It begins with nothing.
    ///
    /// # Errors
    /// [`ChildError`].
    pub async fn add_child(
        &self,
        parent: KeyId,
        key: &NewKey<'_>,
        name: &str,
        external_id: Option<&str>,
        children_max: u64,
    ) -> Result<KeyId, ChildError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "SELECT parent IS NOT NULL AS nested,
                 (SELECT COUNT(*) FROM owners WHERE parent = ?1 AND closed_ms IS NULL) AS children,
                 (SELECT id FROM owners WHERE parent = ?1 AND external_id = ?2) AS known
             FROM owners WHERE id = ?1",
        )
        .bind(parent.0)
        .bind(external_id)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed("look at an account"))?;
        if column(&row, "owners", "nested")? {
            return Err(ChildError::Nested);
        }
        if let Some(known) = column(&row, "owners", "known")? {
            return Err(ChildError::Known(KeyId(known)));
        }
        let found = u64_column(&row, "owners", "children")?;
        if found >= children_max {
            let (what, limit) = ("sub-accounts", children_max);
            return Err(StoreError::Quota { what, limit, found }.into());
        }
        let new = NewAccount { parent: Some(parent), name, external_id, ..NewAccount::default() };
        let child = begin(&mut transaction, key, &new, UnixMs::now()).await?;
        transaction.commit().await.map_err(failed("commit a sub-account"))?;
        Ok(child)
    }

    /// Sub-accounts of an account with numbers above `after`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn children(
        &self,
        parent: KeyId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<ChildRow>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM owners WHERE parent = ?1 AND id > ?2 ORDER BY id LIMIT ?3")
                .bind(parent.0)
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(self.readers())
                .await
                .map_err(failed("list sub-accounts"))?;
        rows.iter().map(read).collect()
    }

    /// The sub-account of that number where it is one of `parent`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn child(&self, parent: KeyId, id: KeyId) -> Result<Option<ChildRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM owners WHERE parent = ?1 AND id = ?2")
            .bind(parent.0)
            .bind(id.0)
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a sub-account"))?;
        row.as_ref().map(read).transpose()
    }

    /// Whether an account is a sub-account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_child(&self, id: KeyId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT parent IS NOT NULL AS child FROM owners WHERE id = ?1")
            .bind(id.0)
            .fetch_one(self.readers())
            .await
            .map_err(failed("look up an account"))?;
        column(&row, "owners", "child")
    }

    /// Revokes every key of a sub-account, for good; whether it was open. What it and its sites
    /// wait to be paid goes back, since whoever asked for it is nobody any more. Its money stays where its parent can take it back; its sites, with what they earn, its contributors,
    /// its data sets and the jobs that have ended become the parent's.
    ///
    /// # Errors
    /// [`StoreError::OpenJobs`]; [`StoreError`].
    pub async fn close_child(&self, parent: KeyId, id: KeyId) -> Result<bool, StoreError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "UPDATE owners SET closed_ms = ?3, recovery_hash = NULL, recovery_set_ms = NULL,
                 recovery_by = NULL, used_hash = NULL
             WHERE parent = ?1 AND id = ?2 AND closed_ms IS NULL",
        )
        .bind(parent.0)
        .bind(id.0)
        .bind(now.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("close a sub-account"))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        // What they leave of their escrow would come back to nobody.
        let jobs = count_open(&mut *transaction, id).await?;
        if jobs > 0 {
            return Err(StoreError::OpenJobs { jobs });
        }
        revoke_all(&mut transaction, id, now).await?;
        cancel_waiting(&mut transaction, id, now).await?;
        for sql in [
            "UPDATE sites SET owner = ?1 WHERE owner = ?2",
            "UPDATE datasets SET owner = ?1 WHERE owner = ?2",
            "UPDATE jobs SET owner = ?1 WHERE owner = ?2",
            "UPDATE account_links SET account = ?1 WHERE account = ?2 AND unlinked_ms IS NULL",
        ] {
            sqlx::query(sql)
                .bind(parent.0)
                .bind(id.0)
                .execute(&mut *transaction)
                .await
                .map_err(failed("hand over what a sub-account owns"))?;
        }
        transaction.commit().await.map_err(failed("commit a closed sub-account"))?;
        Ok(true)
    }
}

/// Refuses what a sub-account asks for that was closed while its request waited.
pub(super) async fn check_open(
    transaction: &mut Transaction<'_, Sqlite>,
    id: KeyId,
) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT 1 FROM owners WHERE id = ?1 AND closed_ms IS NOT NULL")
        .bind(id.0)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("look whether an account is open"))?;
    if row.is_some() { Err(StoreError::Closed) } else { Ok(()) }
}
