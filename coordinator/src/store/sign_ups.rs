//! Links that were sent to people who want an account.

use super::gone::revoke_all;
use super::keys::insert;
use super::owners::begin;
use super::{
    Book, KeyId, KeyNumber, NewAccount, NewKey, Store, StoreError, column, failed, mode_of,
    read_book, u64_column,
};
use crate::keys::ApiKey;
use crate::mail::EmailAddress;
use crate::secret::Secret;
use crate::time::UnixMs;
use sqlx::Transaction;
use sqlx::sqlite::Sqlite;

/// How long a link is good.
pub const LINK_MS: i64 = 15 * 60 * 1000;
/// Links of one address that are good at a time: mail that was not asked for ends there.
const LINKS_OF_ADDRESS_MAX: u64 = 3;
/// Links that are good at a time.
const LINKS_MAX: u64 = 10_000;

/// What is to be sent to whoever asks for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignUp {
    /// The link.
    Link,
    /// Word that the address has an account.
    Known,
    /// Nothing: it has been sent enough.
    Enough,
    /// Nothing: too many ask.
    Crowded,
}

impl Store {
    /// Notes a link for an address, and says what to send there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_sign_up(
        &self,
        email: &EmailAddress,
        book: Book,
        token: &Secret,
        now: UnixMs,
    ) -> Result<SignUp, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM sign_ups WHERE expires_ms <= ?1")
            .bind(now.0)
            .execute(&mut *transaction)
            .await
            .map_err(failed("forget old links"))?;
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM sign_ups) AS links,
                 (SELECT COUNT(*) FROM sign_ups WHERE email = ?1) AS own,
                 EXISTS (SELECT 1 FROM owners WHERE email = ?1) AS known",
        )
        .bind(email.as_str())
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed("count links"))?;
        if u64_column(&row, "sign_ups", "own")? >= LINKS_OF_ADDRESS_MAX {
            return Ok(SignUp::Enough);
        }
        if u64_column(&row, "sign_ups", "links")? >= LINKS_MAX {
            return Ok(SignUp::Crowded);
        }
        sqlx::query(
            "INSERT INTO sign_ups (token_hash, email, book, expires_ms) VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(&token.hash()[..])
        .bind(email.as_str())
        .bind(book.as_str())
        .bind(now.0 + LINK_MS)
        .execute(&mut *transaction)
        .await
        .map_err(failed("note a link"))?;
        let known: bool = column(&row, "sign_ups", "known")?;
        transaction.commit().await.map_err(failed("commit a link"))?;
        Ok(if known { SignUp::Known } else { SignUp::Link })
    }

    /// Makes the account that a link was sent for. Followed again within [`LINK_MS`], and
    /// before the key that it gave was used, the link gives another key and code in
    /// place of those: whoever lost the answer still has the account. `None` where the
    /// link is over, or its address has an account of another link.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish_sign_up(
        &self,
        token: &Secret,
        recovery: &Secret,
        now: UnixMs,
    ) -> Result<Option<(KeyId, ApiKey)>, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "SELECT s.email AS email, s.book AS book, g.account AS account
             FROM sign_ups s LEFT JOIN api_keys g ON g.id = s.gave
             WHERE s.token_hash = ?1 AND s.expires_ms > ?2
             AND iif(s.gave IS NULL, NOT EXISTS (SELECT 1 FROM owners o WHERE o.email = s.email),
                 g.revoked_ms IS NULL AND g.used_day IS NULL)",
        )
        .bind(&token.hash()[..])
        .bind(now.0)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed("look for a link"))?;
        let Some(row) = row else { return Ok(None) };
        let email: &str = column(&row, "sign_ups", "email")?;
        let account: Option<i64> = column(&row, "api_keys", "account")?;
        let key = ApiKey::generate(mode_of(read_book(&row, "sign_ups")?));
        let (owner, gave) = match account.map(KeyId) {
            None => {
                let (recovery, email) = (Some(recovery), Some(email));
                let new = NewAccount { recovery, email, ..NewAccount::default() };
                let owner = begin(&mut transaction, &NewKey::whole(&key), &new, now).await?;
                (owner, KeyNumber(owner.0))
            }
            Some(owner) => (owner, give_again(&mut transaction, owner, &key, recovery, now).await?),
        };
        sqlx::query("DELETE FROM sign_ups WHERE email = ?1 AND token_hash <> ?2")
            .bind(email)
            .bind(&token.hash()[..])
            .execute(&mut *transaction)
            .await
            .map_err(failed("forget other links"))?;
        sqlx::query(
            "UPDATE sign_ups SET gave = ?2, expires_ms = iif(gave IS NULL, ?3, expires_ms)
             WHERE token_hash = ?1",
        )
        .bind(&token.hash()[..])
        .bind(gave.0)
        .bind(now.0 + LINK_MS)
        .execute(&mut *transaction)
        .await
        .map_err(failed("use a link"))?;
        transaction.commit().await.map_err(failed("commit a sign-up"))?;
        Ok(Some((owner, key)))
    }
}

/// Puts another key and code in the place of those that nobody got.
async fn give_again(
    transaction: &mut Transaction<'_, Sqlite>,
    owner: KeyId,
    key: &ApiKey,
    recovery: &Secret,
    now: UnixMs,
) -> Result<KeyNumber, StoreError> {
    revoke_all(transaction, owner, now).await?;
    let gave = insert(transaction, Some(owner), &NewKey::whole(key), now).await?;
    sqlx::query("UPDATE owners SET recovery_hash = ?2, recovery_set_ms = ?3 WHERE id = ?1")
        .bind(owner.0)
        .bind(&recovery.hash()[..])
        .bind(now.0)
        .execute(&mut **transaction)
        .await
        .map_err(failed("replace a code of recovery"))?;
    Ok(gave)
}
