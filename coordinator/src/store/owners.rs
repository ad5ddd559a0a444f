//! Accounts: how each began, and how it is given back to whoever has lost its keys.

use super::keys::{book_of_mode, insert, mode_of};
use super::{KeyId, NewKey, Store, StoreError, column, failed, pay, read_book};
use crate::keys::ApiKey;
use crate::secret::Secret;
use crate::time::UnixMs;
use sqlx::Transaction;
use sqlx::sqlite::Sqlite;

/// What an account begins with, beside its first key.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewAccount<'a> {
    /// Of the code by which it can be had back.
    pub recovery: Option<&'a Secret>,
    /// That of a person who has followed a link that was sent there.
    pub email: Option<&'a str>,
    /// Whose sub-account it is: it has no trial balance of its own.
    pub parent: Option<KeyId>,
    pub name: &'a str,
    pub external_id: Option<&'a str>,
}

/// Stores a new account and its first key.
pub(super) async fn begin(
    transaction: &mut Transaction<'_, Sqlite>,
    key: &NewKey<'_>,
    new: &NewAccount<'_>,
    now: UnixMs,
) -> Result<KeyId, StoreError> {
    let owner = KeyId(insert(transaction, None, key, now).await?.0);
    sqlx::query(
        "INSERT INTO owners (id, created_ms, recovery_hash, email, parent, name, external_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(owner.0)
    .bind(now.0)
    .bind(new.recovery.map(|code| code.hash().to_vec()))
    .bind(new.email)
    .bind(new.parent.map(|parent| parent.0))
    .bind(new.name)
    .bind(new.external_id)
    .execute(&mut **transaction)
    .await
    .map_err(failed("add an account"))?;
    if new.parent.is_none() {
        pay::begin_requester(transaction, owner, book_of_mode(key.key.mode())).await?;
    }
    Ok(owner)
}

impl Store {
    /// Stores a new account with its first key's hash. Whoever has a test key is
    /// given play money.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn add_account(
        &self,
        key: &NewKey<'_>,
        new: &NewAccount<'_>,
    ) -> Result<KeyId, StoreError> {
        let mut transaction = self.begin().await?;
        let owner = begin(&mut transaction, key, new, UnixMs::now()).await?;
        transaction.commit().await.map_err(failed("commit an account"))?;
        Ok(owner)
    }

    /// The same for a key that may do everything, with no code of recovery.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn add_key(&self, key: &ApiKey) -> Result<KeyId, StoreError> {
        self.add_account(&NewKey::whole(key), &NewAccount::default()).await
    }

    /// Puts another code of recovery in the place of an account's.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn set_recovery(&self, owner: KeyId, code: &Secret) -> Result<(), StoreError> {
        sqlx::query("UPDATE owners SET recovery_hash = ?2 WHERE id = ?1")
            .bind(owner.0)
            .bind(&code.hash()[..])
            .execute(self.writer())
            .await
            .map(drop)
            .map_err(failed("replace a code of recovery"))
    }

    /// Gives an account to whoever has its code: revokes every key of it, makes
    /// one that may do everything, and puts `next` in the code's place. `None`
    /// where no account has that code.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recover(
        &self,
        code: &Secret,
        next: &Secret,
    ) -> Result<Option<(KeyId, ApiKey)>, StoreError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "SELECT o.id AS id, k.book AS book FROM owners o JOIN api_keys k ON k.id = o.id
             WHERE o.recovery_hash = ?1",
        )
        .bind(&code.hash()[..])
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed("look for an account to recover"))?;
        let Some(row) = row else { return Ok(None) };
        let owner = KeyId(column(&row, "owners", "id")?);
        let key = ApiKey::generate(mode_of(read_book(&row, "api_keys")?));
        revoke_all(&mut transaction, owner, now).await?;
        insert(&mut transaction, Some(owner), &NewKey::whole(&key), now).await?;
        sqlx::query("UPDATE owners SET recovery_hash = ?2 WHERE id = ?1")
            .bind(owner.0)
            .bind(&next.hash()[..])
            .execute(&mut *transaction)
            .await
            .map_err(failed("replace a code of recovery"))?;
        transaction.commit().await.map_err(failed("commit a recovery"))?;
        Ok(Some((owner, key)))
    }
}

/// Revokes every key of an account.
pub(super) async fn revoke_all(
    transaction: &mut Transaction<'_, Sqlite>,
    owner: KeyId,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE api_keys SET revoked_ms = ?2 WHERE account = ?1 AND revoked_ms IS NULL")
        .bind(owner.0)
        .bind(now.0)
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("revoke an account's keys"))
}
