//! Passkeys: how people get an account without mail, into it without a key, and back to it
//! without either.

use super::children::check_open;
use super::gone::end_sign_ins;
use super::keys::{check_holds, count_lasting, insert};
use super::owners::begin;
use super::{
    Book, KEYS_MAX, KeyId, KeyNumber, KnownKey, NewAccount, NewKey, Store, StoreError, column,
    count_to_sql, failed, mode_of, read_book, u32_column, u64_column,
};
use crate::keys::ApiKey;
use crate::passkey::NewPasskey;
use crate::scopes::Scopes;
use crate::secret::Secret;
use crate::time::{DAY_MS, UnixMs};
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};
use std::fmt;
use std::str::FromStr;

/// Passkeys of one account: one for each of its people's devices.
pub const PASSKEYS_MAX: u64 = 20;
/// How long whoever signs in by a passkey stays so: a day's work.
pub const SESSION_MS: i64 = 12 * 60 * 60 * 1000;
/// Keys of one account that end by themselves and that passkeys gave; beyond it the oldest
/// one is over. They are beside [`KEYS_MAX`], so that nobody is locked out by either.
pub const SESSIONS_MAX: u64 = 20;

/// One passkey's own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PasskeyNumber(pub i64);

impl fmt::Display for PasskeyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "passkey_{:016x}", self.0)
    }
}

impl FromStr for PasskeyNumber {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let rule = "must be passkey_ and 16 hex digits";
        let digits = text.strip_prefix("passkey_").ok_or(rule)?;
        let number = PasskeyNumber(i64::from_str_radix(digits, 16).map_err(|_| rule)?);
        // One passkey has one spelling.
        if number.to_string() == text { Ok(number) } else { Err(rule) }
    }
}

/// A passkey that is there: whose it is, and how its answers are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPasskey {
    pub number: PasskeyNumber,
    pub public_key: Vec<u8>,
    pub user: Vec<u8>,
    pub is_synced: bool,
}

/// What is shown of a passkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasskeyRow {
    pub number: PasskeyNumber,
    pub credential: Vec<u8>,
    pub name: String,
    pub is_synced: bool,
    pub created: UnixMs,
    /// The beginning of the day.
    pub used: Option<UnixMs>,
    pub added_by: Option<KeyNumber>,
    /// The passkey that agreed to it.
    pub confirmed_by: Option<PasskeyNumber>,
}

/// A passkey's answer to a challenge, which was the passkey's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    pub passkey: PasskeyNumber,
    /// How often the passkey says that it has signed.
    pub count: u32,
}

/// What signing in by a passkey gives.
#[derive(Clone, Copy, Debug)]
pub struct SignIn<'a> {
    pub signed: Signature,
    /// The name of the key.
    pub name: &'a str,
    /// Whether the key is for programs, and has no end.
    pub lasts: bool,
}

/// The key that signing in has given.
#[derive(Debug)]
pub struct Entered {
    pub account: KeyId,
    pub number: KeyNumber,
    pub key: ApiKey,
    pub expires: Option<UnixMs>,
}

/// Why a passkey is not taken, or stays.
#[derive(Debug, thiserror::Error)]
pub enum PasskeyError {
    #[error("the passkey was removed, or its account is closed")]
    Unknown,
    #[error("the passkey is an account's already")]
    Taken,
    #[error("the passkey has counted {found} signatures, after {known}: somebody has copied it")]
    Copied { known: u32, found: u32 },
    #[error("the key that asks has an end: what it adds would outlast it")]
    Ends,
    #[error("the key that asks has an end: a passkey of the account must confirm another one")]
    Unconfirmed,
    #[error("it is the account's last passkey, and the key that asks ends by itself")]
    LastWayIn,
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Tx<'c> = Transaction<'c, Sqlite>;

/// Whose word a passkey is added on; nobody's where an account begins with it.
#[derive(Clone, Copy, Debug, Default)]
struct Vouchers {
    key: Option<KeyNumber>,
    passkey: Option<PasskeyNumber>,
}

async fn insert_passkey(
    transaction: &mut Tx<'_>,
    account: KeyId,
    new: &NewPasskey,
    name: &str,
    by: Vouchers,
    now: UnixMs,
) -> Result<PasskeyNumber, PasskeyError> {
    let done = sqlx::query(
        "INSERT INTO passkeys (account, credential, public_key, count, synced, name,
             created_ms, added_by, confirmed_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (credential) DO NOTHING",
    )
    .bind(account.0)
    .bind(&new.id)
    .bind(&new.public_key)
    .bind(i64::from(new.count))
    .bind(new.is_synced)
    .bind(name)
    .bind(now.0)
    .bind(by.key.map(|key| key.0))
    .bind(by.passkey.map(|passkey| passkey.0))
    .execute(&mut **transaction)
    .await
    .map_err(failed("add a passkey"))?;
    match done.rows_affected() {
        0 => Err(PasskeyError::Taken),
        _ => Ok(PasskeyNumber(done.last_insert_rowid())),
    }
}

/// Passkeys of an account that are there.
async fn count_of(transaction: &mut Tx<'_>, account: KeyId) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS found FROM passkeys WHERE account = ?1 AND removed_ms IS NULL",
    )
    .bind(account.0)
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed("count passkeys"))?;
    u64_column(&row, "passkeys", "found")
}

/// Notes a passkey's signature, and finds whose it is.
async fn note_use(
    transaction: &mut Tx<'_>,
    Signature { passkey: number, count: found }: Signature,
    now: UnixMs,
) -> Result<(KeyId, Book), PasskeyError> {
    let row = sqlx::query(
        "SELECT p.account AS account, p.count AS count, k.book AS book
         FROM passkeys p JOIN owners o ON o.id = p.account JOIN api_keys k ON k.id = o.id
         WHERE p.id = ?1 AND p.removed_ms IS NULL AND o.closed_ms IS NULL",
    )
    .bind(number.0)
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("look for a passkey's account"))?
    .ok_or(PasskeyError::Unknown)?;
    let known = u32_column(&row, "passkeys", "count")?;
    // Those that do not count say 0 each time.
    if (known, found) != (0, 0) && found <= known {
        return Err(PasskeyError::Copied { known, found });
    }
    sqlx::query("UPDATE passkeys SET count = ?2, used_day = ?3 WHERE id = ?1")
        .bind(number.0)
        .bind(i64::from(found))
        .bind(now.0.div_euclid(DAY_MS))
        .execute(&mut **transaction)
        .await
        .map_err(failed("note a passkey's use"))?;
    Ok((KeyId(column(&row, "passkeys", "account")?), read_book(&row, "api_keys")?))
}

/// Makes room for a key that a passkey gives.
async fn make_room(
    transaction: &mut Tx<'_>,
    account: KeyId,
    lasts: bool,
    now: UnixMs,
) -> Result<(), StoreError> {
    if !lasts {
        sqlx::query(
            "UPDATE api_keys SET revoked_ms = ?2 WHERE id IN
                 (SELECT id FROM api_keys WHERE account = ?1 AND passkey IS NOT NULL
                      AND revoked_ms IS NULL AND expires_ms > ?2
                  ORDER BY id DESC LIMIT -1 OFFSET ?3)",
        )
        .bind(account.0)
        .bind(now.0)
        .bind(count_to_sql(SESSIONS_MAX - 1))
        .execute(&mut **transaction)
        .await
        .map_err(failed("end old sign-ins"))?;
        return Ok(());
    }
    let found = count_lasting(transaction, account, now).await?;
    if found >= KEYS_MAX {
        return Err(StoreError::Quota { what: "API keys", limit: KEYS_MAX, found });
    }
    Ok(())
}

fn read(row: &SqliteRow) -> Result<PasskeyRow, StoreError> {
    let table = "passkeys";
    let day: Option<i64> = column(row, table, "used_day")?;
    Ok(PasskeyRow {
        number: PasskeyNumber(column(row, table, "id")?),
        credential: column(row, table, "credential")?,
        name: column(row, table, "name")?,
        is_synced: column(row, table, "synced")?,
        created: UnixMs(column(row, table, "created_ms")?),
        used: day.map(|day| UnixMs(day.saturating_mul(DAY_MS))),
        added_by: column::<Option<i64>>(row, table, "added_by")?.map(KeyNumber),
        confirmed_by: column::<Option<i64>>(row, table, "confirmed_by")?.map(PasskeyNumber),
    })
}

impl Store {
    /// Stores a new account that begins with a passkey, and its first key. It has what an
    /// account of a link has.
    ///
    /// # Errors
    /// [`PasskeyError::Taken`]; [`PasskeyError::Store`].
    pub async fn sign_up_with_passkey(
        &self,
        key: &ApiKey,
        recovery: &Secret,
        new: &NewPasskey,
        user: &[u8],
        name: &str,
    ) -> Result<(KeyId, PasskeyNumber), PasskeyError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        let account = NewAccount { recovery: Some(recovery), ..NewAccount::default() };
        let owner = begin(&mut transaction, &NewKey::whole(key), &account, now).await?;
        set_user(&mut transaction, owner, user).await?;
        let by = Vouchers::default();
        let number = insert_passkey(&mut transaction, owner, new, name, by, now).await?;
        transaction.commit().await.map_err(failed("commit a sign-up"))?;
        Ok((owner, number))
    }

    /// By what an account's passkeys say whose they are, for a key that may add one, alone or
    /// with a passkey that confirms it; `fresh` where it has had none yet.
    ///
    /// # Errors
    /// [`PasskeyError::Ends`]; [`PasskeyError::Store`]: with [`StoreError::KeyOver`],
    /// [`StoreError::Closed`], [`StoreError::Quota`].
    pub async fn passkey_user(&self, by: &KnownKey, fresh: &[u8]) -> Result<Vec<u8>, PasskeyError> {
        let mut transaction = self.begin().await?;
        let found = check_may_add(&mut transaction, by, UnixMs::now()).await?;
        if by.expires.is_some() && found == 0 {
            return Err(PasskeyError::Ends);
        }
        set_user(&mut transaction, by.account, fresh).await?;
        let row = sqlx::query("SELECT passkey_user FROM owners WHERE id = ?1")
            .bind(by.account.0)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed("look whose passkeys are"))?;
        let user = column(&row, "owners", "passkey_user")?;
        transaction.commit().await.map_err(failed("commit whose passkeys are"))?;
        Ok(user)
    }

    /// Stores another passkey of an account, for a key of it that holds and has no end, or
    /// where a passkey of it has just agreed: whoever has a key that ends must not stay.
    ///
    /// # Errors
    /// [`PasskeyError::Unconfirmed`]; [`PasskeyError::Taken`]; [`PasskeyError::Unknown`] and
    /// [`PasskeyError::Copied`] of the one that agreed; [`PasskeyError::Store`]: with
    /// [`StoreError::KeyOver`], [`StoreError::Closed`], [`StoreError::Quota`].
    pub async fn add_passkey(
        &self,
        by: &KnownKey,
        new: &NewPasskey,
        name: &str,
        confirmed: Option<Signature>,
    ) -> Result<PasskeyRow, PasskeyError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        check_may_add(&mut transaction, by, now).await?;
        match confirmed {
            None if by.expires.is_some() => return Err(PasskeyError::Unconfirmed),
            None => {}
            Some(signed) => {
                let (account, _) = note_use(&mut transaction, signed, now).await?;
                if account != by.account {
                    return Err(PasskeyError::Unknown);
                }
            }
        }
        let confirmed_by = confirmed.map(|signed| signed.passkey);
        let vouchers = Vouchers { key: Some(by.number), passkey: confirmed_by };
        let number = insert_passkey(&mut transaction, by.account, new, name, vouchers, now).await?;
        transaction.commit().await.map_err(failed("commit a passkey"))?;
        Ok(PasskeyRow {
            number,
            credential: new.id.clone(),
            name: name.to_owned(),
            is_synced: new.is_synced,
            created: now,
            used: None,
            added_by: vouchers.key,
            confirmed_by,
        })
    }

    /// The passkey of that credential, if it is there and its account is open.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known_passkey(
        &self,
        credential: &[u8],
    ) -> Result<Option<KnownPasskey>, StoreError> {
        let row = sqlx::query(
            "SELECT p.id AS id, p.public_key AS public_key, p.synced AS synced,
                 o.passkey_user AS passkey_user
             FROM passkeys p JOIN owners o ON o.id = p.account
             WHERE p.credential = ?1 AND p.removed_ms IS NULL AND o.closed_ms IS NULL",
        )
        .bind(credential)
        .fetch_optional(self.readers())
        .await
        .map_err(failed("look up a passkey"))?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(KnownPasskey {
            number: PasskeyNumber(column(&row, "passkeys", "id")?),
            public_key: column(&row, "passkeys", "public_key")?,
            user: column(&row, "owners", "passkey_user")?,
            is_synced: column(&row, "passkeys", "synced")?,
        }))
    }

    /// Makes a key, which may do everything, for whoever has signed with a passkey: one
    /// that ends after [`SESSION_MS`], or one for programs.
    ///
    /// # Errors
    /// [`PasskeyError::Unknown`]; [`PasskeyError::Copied`]; [`PasskeyError::Store`], with
    /// [`StoreError::Quota`] where the account has [`KEYS_MAX`] keys that last.
    pub async fn sign_in(&self, wish: &SignIn<'_>, now: UnixMs) -> Result<Entered, PasskeyError> {
        let mut transaction = self.begin().await?;
        let (account, book) = note_use(&mut transaction, wish.signed, now).await?;
        let key = ApiKey::generate(mode_of(book));
        make_room(&mut transaction, account, wish.lasts, now).await?;
        let expires = (!wish.lasts).then_some(UnixMs(now.0 + SESSION_MS));
        let (name, scopes) = (wish.name, Scopes::ALL);
        let new = NewKey { key: &key, name, scopes, expires, made_by: None };
        let number = insert(&mut transaction, Some(account), &new, now).await?;
        sqlx::query("UPDATE api_keys SET passkey = ?2 WHERE id = ?1")
            .bind(number.0)
            .bind(wish.signed.passkey.0)
            .execute(&mut *transaction)
            .await
            .map_err(failed("note which passkey gave a key"))?;
        transaction.commit().await.map_err(failed("commit a sign-in"))?;
        Ok(Entered { account, number, key, expires })
    }

    /// The passkeys of an account that are there, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn passkeys_of(&self, account: KeyId) -> Result<Vec<PasskeyRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM passkeys WHERE account = ?1 AND removed_ms IS NULL
             ORDER BY id DESC LIMIT ?2",
        )
        .bind(account.0)
        .bind(count_to_sql(PASSKEYS_MAX))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list passkeys"))?;
        rows.iter().map(read).collect()
    }

    /// Removes a passkey for good, for a key of its account that holds, and ends the
    /// sign-ins that it gave, with what they made; passkeys that it confirmed stay, as keys
    /// do that it gave to last: whoever has lost a device goes on with the next. The last one goes only where a key asks
    /// that has no end: whoever has that has a way in. Whether there was one to remove.
    ///
    /// # Errors
    /// [`PasskeyError::LastWayIn`]; [`PasskeyError::Store`].
    pub async fn remove_passkey(
        &self,
        number: PasskeyNumber,
        by: &KnownKey,
    ) -> Result<bool, PasskeyError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        check_holds(&mut transaction, by.number, now).await?;
        let done = sqlx::query(
            "UPDATE passkeys SET removed_ms = ?3
             WHERE id = ?1 AND account = ?2 AND removed_ms IS NULL",
        )
        .bind(number.0)
        .bind(by.account.0)
        .bind(now.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("remove a passkey"))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        if by.expires.is_some() && count_of(&mut transaction, by.account).await? == 0 {
            return Err(PasskeyError::LastWayIn);
        }
        end_sign_ins(&mut transaction, number, now).await?;
        transaction.commit().await.map_err(failed("commit a removal"))?;
        Ok(true)
    }
}

async fn set_user(transaction: &mut Tx<'_>, owner: KeyId, user: &[u8]) -> Result<(), StoreError> {
    sqlx::query("UPDATE owners SET passkey_user = ?2 WHERE id = ?1 AND passkey_user IS NULL")
        .bind(owner.0)
        .bind(user)
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("note whose passkeys are"))
}

/// Refuses a key that holds no longer, and an account that has enough; how many it has.
async fn check_may_add(
    transaction: &mut Tx<'_>,
    by: &KnownKey,
    now: UnixMs,
) -> Result<u64, PasskeyError> {
    check_holds(transaction, by.number, now).await?;
    check_open(transaction, by.account).await?;
    let (limit, found) = (PASSKEYS_MAX, count_of(transaction, by.account).await?);
    if found >= limit {
        return Err(StoreError::Quota { what: "passkeys", limit, found }.into());
    }
    Ok(found)
}
