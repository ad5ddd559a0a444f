//! What goes with a key that is revoked, a passkey that is removed, or an account that is taken
//! back: whatever rests on its word alone.

use super::{KeyId, KeyNumber, PasskeyNumber, StoreError, failed};
use crate::time::UnixMs;
use sqlx::Transaction;
use sqlx::sqlite::Sqlite;

type Tx<'c> = Transaction<'c, Sqlite>;

/// Of a key that is gone, the keys that it made. What stays, `?2`, takes nothing along.
const MADE: &str = "SELECT 'key', k.id FROM gone g JOIN api_keys k ON k.made_by = g.id
    WHERE g.kind = 'key' AND k.id IS NOT ?2";
/// The passkeys that it added.
const ADDED: &str = "SELECT 'passkey', p.id FROM gone g JOIN passkeys p ON p.added_by = g.id
    WHERE g.kind = 'key'";
/// Those of them that no other passkey has confirmed.
const UNCONFIRMED: &str = "SELECT 'passkey', p.id FROM gone g JOIN passkeys p
    ON p.added_by = g.id AND p.confirmed_by IS NULL WHERE g.kind = 'key'";
/// Of a passkey that is gone, the keys that end and that it gave.
const SIGN_INS: &str = "SELECT 'key', k.id FROM gone g JOIN api_keys k ON k.passkey = g.id
    WHERE g.kind = 'passkey' AND k.expires_ms IS NOT NULL AND k.id IS NOT ?2";
/// All keys that it gave.
const GIVEN: &str = "SELECT 'key', k.id FROM gone g JOIN api_keys k ON k.passkey = g.id
    WHERE g.kind = 'passkey' AND k.id IS NOT ?2";
/// The passkeys that it confirmed.
const CONFIRMED: &str = "SELECT 'passkey', p.id FROM gone g JOIN passkeys p
    ON p.confirmed_by = g.id WHERE g.kind = 'passkey'";

/// What of it goes: where it begins, by which rules, and which key stays whatever they say.
struct Reach<'r> {
    /// `?1` of it is an id.
    first: &'r str,
    rules: &'r [&'r str],
    stays: Option<KeyNumber>,
}

impl Reach<'_> {
    fn sql(&self) -> String {
        let rules = self.rules.join(" UNION ");
        format!("WITH RECURSIVE gone (kind, id) AS ({} UNION {rules})", self.first)
    }
}

/// Of a key that was stolen, whatever came of it.
fn made(stays: KeyNumber) -> Reach<'static> {
    let rules = &[MADE, UNCONFIRMED, GIVEN, CONFIRMED];
    Reach { first: "SELECT 'key', ?1", rules, stays: Some(stays) }
}

/// Revokes the keys and removes the passkeys that `reach` names; how many keys.
async fn take_along(
    transaction: &mut Tx<'_>,
    reach: &Reach<'_>,
    id: i64,
    now: UnixMs,
) -> Result<u64, StoreError> {
    let (gone, mut keys) = (reach.sql(), 0);
    for (table, end, kind) in
        [("passkeys", "removed_ms", "passkey"), ("api_keys", "revoked_ms", "key")]
    {
        let query = format!(
            "{gone} UPDATE {table} SET {end} = ?3
             WHERE {end} IS NULL AND id IN (SELECT id FROM gone WHERE kind = '{kind}')"
        );
        let done = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(id)
            .bind(reach.stays.map(|key| key.0))
            .bind(now.0)
            .execute(&mut **transaction)
            .await
            .map_err(failed("take along what rests on a key or a passkey"))?;
        keys = done.rows_affected();
    }
    Ok(keys)
}

/// The keys that [`take_made`] would revoke.
pub(super) async fn keys_made(
    transaction: &mut Tx<'_>,
    key: KeyNumber,
    stays: KeyNumber,
) -> Result<Vec<i64>, StoreError> {
    let query = format!("{} SELECT id FROM gone WHERE kind = 'key'", made(stays).sql());
    sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .bind(key.0)
        .bind(stays.0)
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed("look for what came of a key"))
}

/// Revokes a key and all that came of it, in sub-accounts too, whether by passkeys or not: whoever
/// stole it may have made them. `stays` does, with what came of that. How many keys were revoked.
pub(super) async fn take_made(
    transaction: &mut Tx<'_>,
    key: KeyNumber,
    stays: KeyNumber,
    now: UnixMs,
) -> Result<u64, StoreError> {
    take_along(transaction, &made(stays), key.0, now).await
}

/// Ends the sign-ins that a passkey gave, with the keys that those made.
pub(super) async fn end_sign_ins(
    transaction: &mut Tx<'_>,
    passkey: PasskeyNumber,
    now: UnixMs,
) -> Result<(), StoreError> {
    let first = "SELECT 'passkey', id FROM passkeys WHERE id = ?1";
    let reach = Reach { first, rules: &[SIGN_INS, MADE], stays: None };
    take_along(transaction, &reach, passkey.0, now).await.map(drop)
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
    let reach = Reach { first, rules: &[SIGN_INS, MADE, CONFIRMED], stays: None };
    take_along(transaction, &reach, key.0, now).await.map(drop)
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
    let reach = Reach { first, rules: &[MADE, ADDED, GIVEN, CONFIRMED], stays: None };
    take_along(transaction, &reach, owner.0, now).await.map(drop)
}
