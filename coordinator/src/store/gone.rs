//! What goes with a key that is revoked, a passkey that is removed, or an account that is taken
//! back: whatever rests on its word alone.

use super::{KeyId, KeyNumber, PasskeyNumber, StoreError, failed};
use crate::time::UnixMs;
use sqlx::Transaction;
use sqlx::sqlite::Sqlite;

type Tx<'c> = Transaction<'c, Sqlite>;

/// Of a key that is gone, the keys that it made.
const MADE: &str = "SELECT 'key', k.id FROM gone g JOIN api_keys k ON k.made_by = g.id
    WHERE g.kind = 'key'";
/// The passkeys that it added.
const ADDED: &str = "SELECT 'passkey', p.id FROM gone g JOIN passkeys p ON p.added_by = g.id
    WHERE g.kind = 'key'";
/// Of a passkey that is gone, the keys that end and that it gave.
const SIGN_INS: &str = "SELECT 'key', k.id FROM gone g JOIN api_keys k ON k.passkey = g.id
    WHERE g.kind = 'passkey' AND k.expires_ms IS NOT NULL";
/// All keys that it gave.
const GIVEN: &str = "SELECT 'key', k.id FROM gone g JOIN api_keys k ON k.passkey = g.id
    WHERE g.kind = 'passkey'";
/// The passkeys that it confirmed.
const CONFIRMED: &str = "SELECT 'passkey', p.id FROM gone g JOIN passkeys p
    ON p.confirmed_by = g.id WHERE g.kind = 'passkey'";

/// Revokes the keys and removes the passkeys that come of `first` by `rules`. `?1` of it is `id`.
async fn take_along(
    transaction: &mut Tx<'_>,
    first: &str,
    rules: &[&str],
    id: i64,
    now: UnixMs,
) -> Result<(), StoreError> {
    let rules = rules.join(" UNION ");
    let gone = format!("WITH RECURSIVE gone (kind, id) AS ({first} UNION {rules})");
    for (table, end, kind) in
        [("api_keys", "revoked_ms", "key"), ("passkeys", "removed_ms", "passkey")]
    {
        let query = format!(
            "{gone} UPDATE {table} SET {end} = ?2
             WHERE {end} IS NULL AND id IN (SELECT id FROM gone WHERE kind = '{kind}')"
        );
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(id)
            .bind(now.0)
            .execute(&mut **transaction)
            .await
            .map_err(failed("take along what rests on a key or a passkey"))?;
    }
    Ok(())
}

/// Ends the sign-ins that a passkey gave, with the keys that those made.
pub(super) async fn end_sign_ins(
    transaction: &mut Tx<'_>,
    passkey: PasskeyNumber,
    now: UnixMs,
) -> Result<(), StoreError> {
    let first = "SELECT 'passkey', id FROM passkeys WHERE id = ?1";
    take_along(transaction, first, &[SIGN_INS, MADE], passkey.0, now).await
}

/// Removes the passkeys that a key added on its own word, which is revoked, those that these
/// have confirmed since, and their sign-ins. As with a code of recovery, whoever had the key
/// could have kept the account by them.
pub(super) async fn remove_added(
    transaction: &mut Tx<'_>,
    key: KeyNumber,
    now: UnixMs,
) -> Result<(), StoreError> {
    let first = "SELECT 'passkey', id FROM passkeys WHERE added_by = ?1 AND confirmed_by IS NULL";
    take_along(transaction, first, &[SIGN_INS, MADE, CONFIRMED], key.0, now).await
}

/// Revokes every key of an account and removes its passkeys, with all that came of them in its
/// sub-accounts: whoever had the account may have them.
pub(super) async fn revoke_all(
    transaction: &mut Tx<'_>,
    owner: KeyId,
    now: UnixMs,
) -> Result<(), StoreError> {
    let first = "SELECT 'key', id FROM api_keys WHERE account = ?1
        UNION SELECT 'passkey', id FROM passkeys WHERE account = ?1";
    take_along(transaction, first, &[MADE, ADDED, GIVEN, CONFIRMED], owner.0, now).await
}
