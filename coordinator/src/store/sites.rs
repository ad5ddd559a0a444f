//! Partner sites and their origins.

use super::children::{check_open, family};
use super::idempotency::{Remembered, remember};
use super::keys::{KnownKey, check_holds};
use super::{
    KeyId, Store, StoreError, column, count_to_sql, failed, from_sql, to_sql, u32_column,
    u64_column, unreadable,
};
use crate::time::UnixMs;
use raven_engine::{CategorySet, SiteId};
use sqlx::sqlite::{Sqlite, SqliteRow};

/// A registered site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRow {
    pub id: SiteId,
    pub name: String,
    /// Publishable key in the script tag.
    pub site_key: String,
    /// Origins that may show the frame, each `scheme://host[:port]`.
    pub origins: Vec<String>,
    pub revoked: bool,
    /// Whether its owner has it stand still: its frame shows nothing, and nobody works for it.
    pub paused: bool,
    /// Kinds of jobs that its owner refuses.
    pub refuses: CategorySet,
    /// The only ones that its owner takes; all where there is nothing.
    pub allows: Option<CategorySet>,
}

impl SiteRow {
    /// Whether its frame may be shown at all.
    pub fn is_open(&self) -> bool {
        !self.revoked && !self.paused
    }

    /// Kinds of jobs that its visitors get no task of: what is refused, and what is not
    /// among those that alone are taken.
    pub fn refused(&self) -> CategorySet {
        match self.allows {
            Some(allows) => self.refuses.union(allows.complement()),
            None => self.refuses,
        }
    }
}

/// A site with what its owner alone may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedSite {
    pub site: SiteRow,
    pub created: UnixMs,
}

/// What becomes of a site; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteChange {
    pub paused: Option<bool>,
    pub refuses: Option<CategorySet>,
    /// `Some(None)` takes the list away.
    pub allows: Option<Option<CategorySet>>,
    pub origins: Option<Vec<String>>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteChanged {
    Done,
    /// Nothing: there is no such site of that owner, or it is revoked.
    Unknown,
    /// Nothing: the site would refuse every kind of jobs.
    NothingLeft,
}

/// `site_` and 16 hex digits.
pub fn site_text(id: SiteId) -> String {
    format!("site_{:016x}", id.0)
}

/// Reads what [`site_text`] writes.
pub fn parse_site(text: &str) -> Option<SiteId> {
    let id = SiteId(u64::from_str_radix(text.strip_prefix("site_")?, 16).ok()?);
    // One id has one spelling.
    (site_text(id) == text).then_some(id)
}

/// Sites of one list: far more than an account has, but revoked ones are not counted.
const LISTED_MAX: i64 = 1_000;

const COLUMNS: &str =
    "id, name, site_key, origins, revoked_ms, paused_ms, refused_categories, allowed_categories,
     created_ms";

fn read(row: &SqliteRow) -> Result<SiteRow, StoreError> {
    let origins: &str = column(row, "sites", "origins")?;
    let revoked: Option<i64> = column(row, "sites", "revoked_ms")?;
    Ok(SiteRow {
        id: SiteId(from_sql(column(row, "sites", "id")?)),
        name: column(row, "sites", "name")?,
        site_key: column(row, "sites", "site_key")?,
        origins: serde_json::from_str(origins)
            .map_err(|error| unreadable("sites", "origins", error))?,
        revoked: revoked.is_some(),
        paused: column::<Option<i64>>(row, "sites", "paused_ms")?.is_some(),
        refuses: categories(u32_column(row, "sites", "refused_categories")?),
        allows: column::<Option<u32>>(row, "sites", "allowed_categories")?.map(categories),
    })
}

fn categories(bits: u32) -> CategorySet {
    CategorySet::from_bits(u8::try_from(bits).unwrap_or(u8::MAX))
}

impl Store {
    /// Stores a new site, where its owner has registered fewer than `sites_max`,
    /// and the answer to its request.
    ///
    /// # Errors
    /// [`StoreError::Quota`], [`StoreError::Answered`], [`StoreError::Database`].
    pub async fn add_site(
        &self,
        owner: KeyId,
        site: &SiteRow,
        sites_max: u64,
        answer: Option<&Remembered>,
    ) -> Result<(), StoreError> {
        let origins = serde_json::Value::from(site.origins.clone()).to_string();
        let mut transaction = self.begin().await?;
        check_open(&mut transaction, owner).await?;
        let query = format!(
            "INSERT INTO sites (id, owner, name, site_key, origins, created_ms)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6
             WHERE (SELECT COUNT(*) FROM sites WHERE owner IN {}) < ?7",
            family(2)
        );
        let added = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(to_sql(site.id.0))
            .bind(owner.0)
            .bind(&site.name)
            .bind(&site.site_key)
            .bind(origins)
            .bind(UnixMs::now().0)
            .bind(count_to_sql(sites_max))
            .execute(&mut *transaction)
            .await
            .map_err(failed("add a site"))?;
        if added.rows_affected() == 0 {
            drop(transaction);
            let (what, limit, found) = ("sites", sites_max, self.site_count(owner).await?);
            return Err(StoreError::Quota { what, limit, found });
        }
        if let Some(answer) = answer {
            remember(&mut transaction, answer).await?;
        }
        transaction.commit().await.map_err(failed("commit a site"))
    }

    /// How many sites an account and its family have registered.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn site_count(&self, owner: KeyId) -> Result<u64, StoreError> {
        count(self.readers(), owner).await
    }

    /// The site with that publishable key, revoked or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn site_by_key(&self, site_key: &str) -> Result<Option<SiteRow>, StoreError> {
        let sql = select_by(COLUMNS, "site_key");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(site_key)
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a site"))?;
        row.as_ref().map(read).transpose()
    }

    /// The site with that id, revoked or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn site(&self, id: SiteId) -> Result<Option<SiteRow>, StoreError> {
        let sql = select_by(COLUMNS, "id");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(to_sql(id.0))
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a site"))?;
        row.as_ref().map(read).transpose()
    }

    /// The site with that id where it belongs to that key, revoked or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn owned_site(
        &self,
        owner: KeyId,
        id: SiteId,
    ) -> Result<Option<SiteRow>, StoreError> {
        let sql = format!("{} AND owner = ?2", select_by(COLUMNS, "id"));
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(to_sql(id.0))
            .bind(owner.0)
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a site"))?;
        row.as_ref().map(read).transpose()
    }

    /// The sites of a key that are revoked, or those that are not, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sites_of(
        &self,
        owner: KeyId,
        revoked: bool,
    ) -> Result<Vec<OwnedSite>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM sites WHERE owner = ?1 AND (revoked_ms IS NOT NULL) = ?2
             ORDER BY created_ms DESC, id LIMIT ?3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(owner.0)
            .bind(revoked)
            .bind(LISTED_MAX)
            .fetch_all(self.readers())
            .await
            .map_err(failed("list sites"))?;
        rows.iter()
            .map(|row| {
                let created = UnixMs(column(row, "sites", "created_ms")?);
                Ok(OwnedSite { site: read(row)?, created })
            })
            .collect()
    }

    /// Changes a site of a key, unless it would refuse every kind of jobs by that.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub async fn change_site(
        &self,
        owner: KeyId,
        id: SiteId,
        change: &SiteChange,
    ) -> Result<SiteChanged, StoreError> {
        let origins =
            change.origins.as_ref().map(|list| serde_json::Value::from(list.clone()).to_string());
        let sql = format!(
            "UPDATE sites SET origins = COALESCE(?3, origins),
                 refused_categories = COALESCE(?4, refused_categories),
                 allowed_categories = CASE WHEN ?7 THEN ?8 ELSE allowed_categories END,
                 paused_ms = CASE WHEN ?5 IS NULL THEN paused_ms WHEN ?5 = 0 THEN NULL
                             ELSE COALESCE(paused_ms, ?6) END
             WHERE id = ?1 AND owner = ?2 AND revoked_ms IS NULL RETURNING {COLUMNS}"
        );
        let mut transaction = self.begin().await?;
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(to_sql(id.0))
            .bind(owner.0)
            .bind(origins)
            .bind(change.refuses.map(|refuses| i64::from(refuses.bits())))
            .bind(change.paused)
            .bind(UnixMs::now().0)
            .bind(change.allows.is_some())
            .bind(change.allows.flatten().map(|allows| i64::from(allows.bits())))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed("change a site"))?;
        let Some(row) = row else { return Ok(SiteChanged::Unknown) };
        let is_of_kinds = change.refuses.is_some() || change.allows.is_some();
        // Sites from before this was refused can still be paused, or change their origins.
        if is_of_kinds && read(&row)?.refused().complement().is_empty() {
            return Ok(SiteChanged::NothingLeft);
        }
        transaction.commit().await.map_err(failed("commit a site's change"))?;
        Ok(SiteChanged::Done)
    }

    /// Makes a site of an account with test keys one of an account with live keys, with
    /// what it has earned in both books; whether it was that account's.
    ///
    /// # Errors
    /// [`StoreError::KeyOver`] where one of the keys that agreed holds no longer;
    /// [`StoreError::Quota`]; [`StoreError`].
    pub async fn hand_over_site(
        &self,
        id: SiteId,
        from: &KnownKey,
        to: &KnownKey,
        sites_max: u64,
    ) -> Result<bool, StoreError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        check_holds(&mut transaction, from.number, now).await?;
        check_holds(&mut transaction, to.number, now).await?;
        let found = count(&mut *transaction, to.account).await?;
        if found >= sites_max {
            return Err(StoreError::Quota { what: "sites", limit: sites_max, found });
        }
        let done = sqlx::query("UPDATE sites SET owner = ?3 WHERE id = ?1 AND owner = ?2")
            .bind(to_sql(id.0))
            .bind(from.account.0)
            .bind(to.account.0)
            .execute(&mut *transaction)
            .await
            .map_err(failed("hand over a site"))?;
        transaction.commit().await.map_err(failed("commit a site's new owner"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Takes a site's right to show the frame; whether there was one to take.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_site(&self, id: SiteId) -> Result<bool, StoreError> {
        let done =
            sqlx::query("UPDATE sites SET revoked_ms = ?2 WHERE id = ?1 AND revoked_ms IS NULL")
                .bind(to_sql(id.0))
                .bind(UnixMs::now().0)
                .execute(self.writer())
                .await
                .map_err(failed("revoke a site"))?;
        Ok(done.rows_affected() > 0)
    }
}

async fn count<'c>(
    connection: impl sqlx::Executor<'c, Database = Sqlite>,
    owner: KeyId,
) -> Result<u64, StoreError> {
    let query = format!("SELECT COUNT(*) AS sites FROM sites WHERE owner IN {}", family(1));
    let row = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(owner.0)
        .fetch_one(connection)
        .await
        .map_err(failed("count sites"))?;
    u64_column(&row, "sites", "sites")
}

fn select_by(columns: &str, by: &str) -> String {
    format!("SELECT {columns} FROM sites WHERE {by} = ?1")
}
