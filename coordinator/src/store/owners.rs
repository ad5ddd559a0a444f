//! Accounts: how each began, and how it is given back to whoever has lost its keys.

use super::gone::revoke_all;
use super::keys::{book_of_mode, check_holds, insert, mode_of};
use super::withdrawals::cancel_waiting;
use super::{Book, KeyId, KeyNumber, NewKey, Store, StoreError, column, failed, pay, read_book};
use crate::keys::ApiKey;
use crate::secret::Secret;
use crate::time::UnixMs;
use sqlx::Transaction;
use sqlx::sqlite::Sqlite;

/// How long a code that was used is good for whoever did not get the answer.
pub const USED_MS: i64 = 15 * 60 * 1000;

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
        "INSERT INTO owners
             (id, created_ms, recovery_hash, recovery_set_ms, email, parent, name, external_id)
         VALUES (?1, ?2, ?3, iif(?3 IS NULL, NULL, ?2), ?4, ?5, ?6, ?7)",
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

    /// Puts another code of recovery in the place of an account's, for a key of it that
    /// holds. The code goes with that key when it is revoked.
    ///
    /// # Errors
    /// [`StoreError::KeyOver`]; [`StoreError::Closed`]; [`StoreError::Database`].
    pub async fn set_recovery(
        &self,
        owner: KeyId,
        by: KeyNumber,
        code: &Secret,
    ) -> Result<(), StoreError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        check_holds(&mut transaction, by, now).await?;
        let done = sqlx::query(
            "UPDATE owners SET recovery_hash = ?2, recovery_set_ms = ?3, recovery_by = ?4,
                 used_hash = NULL, used_until_ms = NULL, used_gave = NULL
             WHERE id = ?1 AND closed_ms IS NULL",
        )
        .bind(owner.0)
        .bind(&code.hash()[..])
        .bind(now.0)
        .bind(by.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("replace a code of recovery"))?;
        if done.rows_affected() == 0 {
            return Err(StoreError::Closed);
        }
        transaction.commit().await.map_err(failed("commit a code of recovery"))
    }

    /// Since when an account has its code of recovery; `None` where it has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recovery_set(&self, owner: KeyId) -> Result<Option<UnixMs>, StoreError> {
        let row = sqlx::query(
            "SELECT recovery_set_ms FROM owners WHERE id = ?1 AND recovery_hash IS NOT NULL",
        )
        .bind(owner.0)
        .fetch_optional(self.readers())
        .await
        .map_err(failed("look for a code of recovery"))?;
        let Some(row) = row else { return Ok(None) };
        let set: Option<i64> = column(&row, "owners", "recovery_set_ms")?;
        Ok(set.map(UnixMs))
    }

    /// Gives an account to whoever has its code: revokes every key of it, its passkeys, and those
    /// that they made of sub-accounts, gives back what waits to be paid out, makes a
    /// key that may do everything, and puts `next` in the code's place. The same code
    /// does so again for [`USED_MS`], until the key that it gave is used: whoever
    /// lost the answer still has the account. `None` where no account has that code.
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
        let Some((owner, book)) = owner_of_code(&mut transaction, code, now).await? else {
            return Ok(None);
        };
        let key = ApiKey::generate(mode_of(book));
        revoke_all(&mut transaction, owner, now).await?;
        cancel_waiting(&mut transaction, owner, now).await?;
        let gave = insert(&mut transaction, Some(owner), &NewKey::whole(&key), now).await?;
        // Used again, a code is good for no longer than it was.
        sqlx::query(
            "UPDATE owners SET recovery_hash = ?3, recovery_set_ms = ?4, recovery_by = NULL,
                 used_until_ms = iif(used_hash IS ?2, used_until_ms, ?4 + ?5),
                 used_hash = ?2, used_gave = ?6
             WHERE id = ?1",
        )
        .bind(owner.0)
        .bind(&code.hash()[..])
        .bind(&next.hash()[..])
        .bind(now.0)
        .bind(USED_MS)
        .bind(gave.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("replace a code of recovery"))?;
        transaction.commit().await.map_err(failed("commit a recovery"))?;
        Ok(Some((owner, key)))
    }
}

/// The open account that has a code, or whose last one it was.
async fn owner_of_code(
    transaction: &mut Transaction<'_, Sqlite>,
    code: &Secret,
    now: UnixMs,
) -> Result<Option<(KeyId, Book)>, StoreError> {
    let row = sqlx::query(
        "SELECT o.id AS id, k.book AS book FROM owners o JOIN api_keys k ON k.id = o.id
         WHERE o.closed_ms IS NULL AND (o.recovery_hash = ?1
             OR (o.used_hash = ?1 AND o.used_until_ms > ?2 AND EXISTS
                 (SELECT 1 FROM api_keys g WHERE g.id = o.used_gave
                     AND g.revoked_ms IS NULL AND g.used_day IS NULL)))",
    )
    .bind(&code.hash()[..])
    .bind(now.0)
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("look for an account to recover"))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((KeyId(column(&row, "owners", "id")?), read_book(&row, "api_keys")?)))
}
