//! API keys, by their hash, and the accounts that they belong to.

use super::children::check_open;
use super::gone::{keys_made, remove_added, take_made};
use super::{
    Book, PasskeyNumber, SESSIONS_MAX, Store, StoreError, column, count_to_sql, failed, read_book,
    u64_column, unreadable,
};
use crate::keys::{ApiKey, KeyMode};
use crate::scopes::{Scope, Scopes};
use crate::time::{DAY_MS, UnixMs};
use raven_engine::ledger::Account;
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};
use std::fmt;
use std::str::FromStr;

/// An account's number: who owns data sets, jobs, sites and money. It is that of
/// the account's first key, whether or not that key still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub i64);

/// One key's own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyNumber(pub i64);

impl fmt::Display for KeyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key_{:016x}", self.0)
    }
}

impl FromStr for KeyNumber {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let rule = "must be key_ and 16 hex digits";
        let digits = text.strip_prefix("key_").ok_or(rule)?;
        let number = KeyNumber(i64::from_str_radix(digits, 16).map_err(|_| rule)?);
        // One key has one spelling.
        if number.to_string() == text { Ok(number) } else { Err(rule) }
    }
}

/// A key that holds: whose it is, and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownKey {
    pub account: KeyId,
    pub number: KeyNumber,
    pub scopes: Scopes,
    pub expires: Option<UnixMs>,
}

/// For whom something is stored: an account, and the key that asked for it, which must
/// still hold then. Without one nobody asked but the coordinator itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub account: KeyId,
    pub key: Option<KeyNumber>,
}

impl From<KeyId> for Asker {
    fn from(account: KeyId) -> Self {
        Asker { account, key: None }
    }
}

impl From<KnownKey> for Asker {
    fn from(known: KnownKey) -> Self {
        Asker { account: known.account, key: Some(known.number) }
    }
}

impl Asker {
    /// Refuses what was asked for with a key that was revoked, or whose time was over,
    /// before its request had its turn to write.
    pub(super) async fn check(
        self,
        transaction: &mut Transaction<'_, Sqlite>,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        match self.key {
            Some(key) => check_holds(transaction, key, now).await,
            None => Ok(()),
        }
    }
}

/// What is shown of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    pub number: KeyNumber,
    pub name: String,
    /// Its first characters.
    pub hint: String,
    pub scopes: Scopes,
    pub created: UnixMs,
    pub expires: Option<UnixMs>,
    /// The beginning of the day.
    pub used: Option<UnixMs>,
    pub revoked: Option<UnixMs>,
    /// The key that asked for it.
    pub made_by: Option<KeyNumber>,
    /// The passkey that gave it.
    pub passkey: Option<PasskeyNumber>,
}

/// A key that is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewKey<'a> {
    pub key: &'a ApiKey,
    pub name: &'a str,
    pub scopes: Scopes,
    pub expires: Option<UnixMs>,
    /// The key that asks for it, which must still hold when it is stored.
    pub made_by: Option<KeyNumber>,
}

impl<'a> NewKey<'a> {
    /// One that may do everything, for ever, and that no other key asks for.
    pub fn whole(key: &'a ApiKey) -> Self {
        NewKey { key, name: "", scopes: Scopes::ALL, expires: None, made_by: None }
    }
}

/// What became of a wish to revoke a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    Revoked,
    /// The account has no such key, or it was revoked before.
    Unknown,
    /// Without it nobody could make another one, or none that may do everything.
    Last,
    /// It may do that, and the key that asks may not.
    Stronger(Scope),
}

/// Keys of one account that hold: one for each of many programs. Those that passkeys gave and
/// that end by themselves are beside it.
pub const KEYS_MAX: u64 = 100;
/// Days for which a key that a passkey gave is still listed after its end.
const SIGN_INS_DAYS: i64 = 30;

/// Of a key that holds at `?now`.
const HOLDS: &str = "revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?2)";

/// How many keys of an account hold that count against [`KEYS_MAX`].
pub(super) async fn count_lasting(
    transaction: &mut Transaction<'_, Sqlite>,
    account: KeyId,
    now: UnixMs,
) -> Result<u64, StoreError> {
    let query = format!(
        "SELECT COUNT(*) AS found FROM api_keys
         WHERE account = ?1 AND {HOLDS} AND (passkey IS NULL OR expires_ms IS NULL)"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(account.0)
        .bind(now.0)
        .fetch_one(&mut **transaction)
        .await
        .map_err(failed("count keys"))?;
    u64_column(&row, "api_keys", "found")
}

pub(super) const fn book_of_mode(mode: KeyMode) -> Book {
    match mode {
        KeyMode::Test => Book::Test,
        KeyMode::Live => Book::Live,
    }
}

/// The kind of keys of accounts with that money.
pub const fn mode_of(book: Book) -> KeyMode {
    match book {
        Book::Test => KeyMode::Test,
        Book::Live => KeyMode::Live,
    }
}

fn scopes(row: &SqliteRow) -> Result<Scopes, StoreError> {
    let text: &str = column(row, "api_keys", "scopes")?;
    Scopes::parse(text).map_err(|error| unreadable("api_keys", "scopes", error))
}

fn time(row: &SqliteRow, name: &'static str) -> Result<Option<UnixMs>, StoreError> {
    let ms: Option<i64> = column(row, "api_keys", name)?;
    Ok(ms.map(UnixMs))
}

fn read(row: &SqliteRow) -> Result<KeyRow, StoreError> {
    let day: Option<i64> = column(row, "api_keys", "used_day")?;
    Ok(KeyRow {
        number: KeyNumber(column(row, "api_keys", "id")?),
        name: column(row, "api_keys", "name")?,
        hint: column(row, "api_keys", "hint")?,
        scopes: scopes(row)?,
        created: UnixMs(column(row, "api_keys", "created_ms")?),
        expires: time(row, "expires_ms")?,
        used: day.map(|day| UnixMs(day.saturating_mul(DAY_MS))),
        revoked: time(row, "revoked_ms")?,
        made_by: column::<Option<i64>>(row, "api_keys", "made_by")?.map(KeyNumber),
        passkey: column::<Option<i64>>(row, "api_keys", "passkey")?.map(PasskeyNumber),
    })
}

/// Refuses what a key asks for that was revoked while its request waited for its turn.
pub(super) async fn check_holds(
    transaction: &mut Transaction<'_, Sqlite>,
    number: KeyNumber,
    now: UnixMs,
) -> Result<(), StoreError> {
    let holds = holds(&mut **transaction, number, now).await?;
    if holds { Ok(()) } else { Err(StoreError::KeyOver) }
}

async fn holds<'c>(
    connection: impl sqlx::Executor<'c, Database = Sqlite>,
    number: KeyNumber,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let query = format!("SELECT 1 FROM api_keys WHERE id = ?1 AND {HOLDS}");
    let row = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(number.0)
        .bind(now.0)
        .fetch_optional(connection)
        .await
        .map_err(failed("look whether a key holds"))?;
    Ok(row.is_some())
}

/// Stores a key; of a new account where `account` is `None`.
pub(super) async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    account: Option<KeyId>,
    new: &NewKey<'_>,
    now: UnixMs,
) -> Result<KeyNumber, StoreError> {
    if let Some(maker) = new.made_by {
        check_holds(transaction, maker, now).await?;
    }
    let done = sqlx::query(
        "INSERT INTO api_keys
             (hash, hint, created_ms, book, account, name, scopes, expires_ms, made_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .bind(&new.key.hash()[..])
    .bind(new.key.hint())
    .bind(now.0)
    .bind(book_of_mode(new.key.mode()).as_str())
    .bind(account.map(|account| account.0))
    .bind(new.name)
    .bind(new.scopes.to_string())
    .bind(new.expires.map(|at| at.0))
    .bind(new.made_by.map(|maker| maker.0))
    .execute(&mut **transaction)
    .await
    .map_err(failed("add a key"))?;
    let number = KeyNumber(done.last_insert_rowid());
    if account.is_none() {
        sqlx::query("UPDATE api_keys SET account = id WHERE id = ?1")
            .bind(number.0)
            .execute(&mut **transaction)
            .await
            .map_err(failed("begin an account"))?;
    }
    Ok(number)
}

/// Whether without that one nobody could make keys, or none that may do everything
/// for ever. Others that end before would only put the day off.
fn is_last(own: &KeyRow, keys: &[KeyRow]) -> bool {
    let mut others = keys.iter().filter(|key| key.number != own.number);
    let is_whole = |key: &KeyRow| key.scopes == Scopes::ALL && key.expires.is_none();
    if is_whole(own) {
        return !others.any(is_whole);
    }
    let end = |key: &KeyRow| key.expires.map_or(i64::MAX, |at| at.0);
    let stays = |key: &KeyRow| key.scopes.has(Scope::Keys) && end(key) >= end(own);
    own.scopes.has(Scope::Keys) && !others.any(stays)
}

/// An account's key of that number, whether or not it holds.
async fn key_row(
    transaction: &mut Transaction<'_, Sqlite>,
    account: KeyId,
    number: KeyNumber,
) -> Result<Option<KeyRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM api_keys WHERE account = ?1 AND id = ?2")
        .bind(account.0)
        .bind(number.0)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("look for a key"))?;
    row.as_ref().map(read).transpose()
}

/// What goes with a key that is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// The passkeys that rest on its word.
    Alone,
    /// All that came of it.
    WithMade,
}

/// Revokes `own` for `by`, with what came of it, none of which may do more than it.
async fn revoke(
    mut transaction: Transaction<'_, Sqlite>,
    own: &KeyRow,
    account: KeyId,
    extent: Extent,
    by: &KnownKey,
    now: UnixMs,
) -> Result<Revocation, StoreError> {
    check_holds(&mut transaction, by.number, now).await?;
    if let Some(scope) = by.scopes.lacks(own.scopes) {
        return Ok(Revocation::Stronger(scope));
    }
    let query = format!("SELECT * FROM api_keys WHERE account = ?1 AND {HOLDS} LIMIT ?3");
    let rows = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(account.0)
        .bind(now.0)
        .bind(count_to_sql(KEYS_MAX + SESSIONS_MAX))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed("look at keys"))?;
    let mut keys: Vec<KeyRow> = rows.iter().map(read).collect::<Result<_, _>>()?;
    let gone = match extent {
        Extent::Alone => vec![own.number.0],
        Extent::WithMade => keys_made(&mut transaction, own.number, by.number).await?,
    };
    keys.retain(|key| !gone.contains(&key.number.0));
    if by.account == account && is_last(own, &keys) {
        return Ok(Revocation::Last);
    }
    let revoked = match extent {
        Extent::Alone => {
            let query = format!("UPDATE api_keys SET revoked_ms = ?2 WHERE id = ?1 AND {HOLDS}");
            let done = sqlx::query(sqlx::AssertSqlSafe(query))
                .bind(own.number.0)
                .bind(now.0)
                .execute(&mut *transaction)
                .await
                .map_err(failed("revoke a key"))?;
            remove_added(&mut transaction, own.number, now).await?;
            done.rows_affected()
        }
        Extent::WithMade => take_made(&mut transaction, own.number, by.number, now).await?,
    };
    transaction.commit().await.map_err(failed("commit a revocation"))?;
    Ok(if revoked == 0 { Revocation::Unknown } else { Revocation::Revoked })
}

impl Store {
    /// Stores another key of an account.
    ///
    /// # Errors
    /// [`StoreError::KeyOver`] where the key that asks holds no longer; [`StoreError::Quota`]
    /// where the account has [`KEYS_MAX`] that hold; [`StoreError::Closed`];
    /// [`StoreError::Database`].
    pub async fn add_key_of(
        &self,
        account: KeyId,
        new: &NewKey<'_>,
    ) -> Result<KeyNumber, StoreError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        check_open(&mut transaction, account).await?;
        let found = count_lasting(&mut transaction, account, now).await?;
        if found >= KEYS_MAX {
            return Err(StoreError::Quota { what: "API keys", limit: KEYS_MAX, found });
        }
        let number = insert(&mut transaction, Some(account), new, now).await?;
        transaction.commit().await.map_err(failed("commit a key"))?;
        Ok(number)
    }

    /// The account of a key that holds.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_key(&self, key: &ApiKey) -> Result<Option<KeyId>, StoreError> {
        Ok(self.known_key(key, UnixMs::now()).await?.map(|known| known.account))
    }

    /// What is known of a key that holds, and notes that it was used today.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known_key(
        &self,
        key: &ApiKey,
        now: UnixMs,
    ) -> Result<Option<KnownKey>, StoreError> {
        let query = format!(
            "SELECT id, account, scopes, expires_ms, used_day FROM api_keys
             WHERE hash = ?1 AND {HOLDS}"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(&key.hash()[..])
            .bind(now.0)
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a key"))?;
        let Some(row) = row else { return Ok(None) };
        let known = KnownKey {
            account: KeyId(column(&row, "api_keys", "account")?),
            number: KeyNumber(column(&row, "api_keys", "id")?),
            scopes: scopes(&row)?,
            expires: time(&row, "expires_ms")?,
        };
        let day = now.0.div_euclid(DAY_MS);
        match column::<Option<i64>>(&row, "api_keys", "used_day")? {
            Some(noted) if noted == day => {}
            // No request waits for it.
            Some(_) => {
                let (store, number) = (self.clone(), known.number);
                tokio::spawn(async move { store.note_use(number, day).await });
            }
            // But the first: whoever uses a key has got it, so that what gave it
            // gives no other one in its place.
            None => self.note_use(known.number, day).await,
        }
        Ok(Some(known))
    }

    /// Notes the day; no request fails with it.
    async fn note_use(&self, number: KeyNumber, day: i64) {
        let noted =
            sqlx::query("UPDATE api_keys SET used_day = ?2 WHERE id = ?1 AND used_day IS NOT ?2")
                .bind(number.0)
                .bind(day)
                .execute(self.writer())
                .await;
        if let Err(error) = noted {
            tracing::debug!(%error, "the day of a key's use was not noted");
        }
    }

    /// Whether a key still holds.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn key_holds(&self, number: KeyNumber, now: UnixMs) -> Result<bool, StoreError> {
        holds(self.readers(), number, now).await
    }

    /// All keys of an account, those first that hold, the newest before others.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keys_of(
        &self,
        account: KeyId,
        limit: u32,
        now: UnixMs,
    ) -> Result<Vec<KeyRow>, StoreError> {
        let query = format!(
            "SELECT * FROM api_keys WHERE account = ?1 ORDER BY ({HOLDS}) DESC, id DESC LIMIT ?3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(account.0)
            .bind(now.0)
            .bind(i64::from(limit))
            .fetch_all(self.readers())
            .await
            .map_err(failed("list keys"))?;
        rows.iter().map(read).collect()
    }

    /// Revokes a key of an account, with the passkeys that it added, for another one, `by`,
    /// which may do no less: of the same account, where the last key that may do everything
    /// for ever stays, or of its parent's, which can always make another. Keys that it made
    /// stay.
    ///
    /// # Errors
    /// [`StoreError::KeyOver`] where `by` holds no longer; [`StoreError`].
    pub async fn revoke_key_of(
        &self,
        account: KeyId,
        number: KeyNumber,
        by: &KnownKey,
    ) -> Result<Revocation, StoreError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        let row = key_row(&mut transaction, account, number).await?;
        let Some(own) = row.filter(|own| own.revoked.is_none()) else {
            check_holds(&mut transaction, by.number, now).await?;
            return Ok(Revocation::Unknown);
        };
        revoke(transaction, &own, account, Extent::Alone, by, now).await
    }

    /// The same, and revokes all keys that came of it, those of sub-accounts and of the
    /// passkeys that it added too: whoever stole it may have made them. It may have been
    /// revoked before. `by` stays where it is one of them, with those that came of it.
    ///
    /// # Errors
    /// Those of [`Store::revoke_key_of`].
    pub async fn revoke_key_and_made(
        &self,
        account: KeyId,
        number: KeyNumber,
        by: &KnownKey,
    ) -> Result<Revocation, StoreError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        let Some(own) = key_row(&mut transaction, account, number).await? else {
            check_holds(&mut transaction, by.number, now).await?;
            return Ok(Revocation::Unknown);
        };
        revoke(transaction, &own, account, Extent::WithMade, by, now).await
    }

    /// Revokes a key, also the last one of its account, with a code of recovery that it
    /// has made and the passkeys that it added; whether there was one to revoke.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_key(&self, key: &ApiKey) -> Result<bool, StoreError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        let number: Option<i64> = sqlx::query_scalar(
            "UPDATE api_keys SET revoked_ms = ?2 WHERE hash = ?1 AND revoked_ms IS NULL
             RETURNING id",
        )
        .bind(&key.hash()[..])
        .bind(now.0)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed("revoke a key"))?;
        let Some(number) = number else { return Ok(false) };
        remove_added(&mut transaction, KeyNumber(number), now).await?;
        transaction.commit().await.map_err(failed("commit a revocation"))?;
        Ok(true)
    }

    /// Forgets keys that passkeys gave and that ended a month ago, but for those that
    /// something came of. Answers how many.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn forget_sign_ins(&self, now: UnixMs) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM api_keys WHERE passkey IS NOT NULL AND expires_ms < ?1
                 AND NOT EXISTS (SELECT 1 FROM api_keys k WHERE k.made_by = api_keys.id)
                 AND NOT EXISTS (SELECT 1 FROM passkeys p WHERE p.added_by = api_keys.id)",
        )
        .bind(now.0 - SIGN_INS_DAYS * DAY_MS)
        .execute(self.writer())
        .await
        .map_err(failed("forget sign-ins"))?;
        Ok(done.rows_affected())
    }

    /// The accounts that a text names: one by its name in the books, or those that
    /// have a key with that hint.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accounts_named(&self, text: &str) -> Result<Vec<(KeyId, Book)>, StoreError> {
        let id = match text.parse() {
            Ok(Account::Requester(id)) => super::to_sql(id.0),
            _ => 0,
        };
        let rows = sqlx::query(
            "SELECT DISTINCT account, book FROM api_keys WHERE account = ?1 OR hint = ?2",
        )
        .bind(id)
        .bind(text)
        .fetch_all(self.readers())
        .await
        .map_err(failed("look for an account"))?;
        let read = |row: &SqliteRow| {
            Ok((KeyId(column(row, "api_keys", "account")?), read_book(row, "api_keys")?))
        };
        rows.iter().map(read).collect()
    }
}
