//! Which origins were shown to be their site's own.

use super::{Store, StoreError, column, failed, from_sql, to_sql, u32_column, unreadable};
use crate::time::UnixMs;
use raven_engine::SiteId;
use sqlx::sqlite::SqliteRow;

/// Looks in a row that find nothing before a proof lapses: a server may be down for a day.
const FAILURES_MAX: u32 = 3;

/// Where a proof was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofKind {
    /// A file on the origin itself.
    File,
    /// A TXT record of its host.
    Dns,
}

impl ProofKind {
    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            ProofKind::File => "file",
            ProofKind::Dns => "dns",
        }
    }
}

/// A proof, in force or lapsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginProof {
    pub origin: String,
    pub by: ProofKind,
    pub proven: UnixMs,
    /// When it was looked at last.
    pub checked: UnixMs,
    /// Looks in a row that found nothing.
    pub failures: u32,
    /// Since when it does not count any more.
    pub lapsed: Option<UnixMs>,
}

fn read(row: &SqliteRow) -> Result<OriginProof, StoreError> {
    let table = "site_origins";
    let by: &str = column(row, table, "by")?;
    Ok(OriginProof {
        origin: column(row, table, "origin")?,
        by: match by {
            "file" => ProofKind::File,
            "dns" => ProofKind::Dns,
            _ => return Err(unreadable(table, "by", "neither file nor dns")),
        },
        proven: UnixMs(column(row, table, "proven_ms")?),
        checked: UnixMs(column(row, table, "checked_ms")?),
        failures: u32_column(row, table, "failures")?,
        lapsed: column::<Option<i64>>(row, table, "lapsed_ms")?.map(UnixMs),
    })
}

impl Store {
    /// Every proof that a site has or had, by origin.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn origin_proofs(&self, site: SiteId) -> Result<Vec<OriginProof>, StoreError> {
        let rows = sqlx::query("SELECT * FROM site_origins WHERE site = ?1 ORDER BY origin")
            .bind(to_sql(site.0))
            .fetch_all(self.readers())
            .await
            .map_err(failed("list proofs"))?;
        rows.iter().map(read).collect()
    }

    /// Notes that an origin is the site's own. Whoever had proven it before lapses:
    /// the later look is the one that saw who has the origin now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn origin_proven(
        &self,
        site: SiteId,
        origin: &str,
        by: ProofKind,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "UPDATE site_origins SET lapsed_ms = ?3
             WHERE origin = ?2 AND site <> ?1 AND lapsed_ms IS NULL",
        )
        .bind(to_sql(site.0))
        .bind(origin)
        .bind(now.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("let an earlier proof lapse"))?;
        // It is as old as it is unbroken.
        sqlx::query(
            "INSERT INTO site_origins (site, origin, by, proven_ms, checked_ms)
             VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT DO UPDATE SET by = excluded.by, checked_ms = excluded.checked_ms,
                 failures = 0, lapsed_ms = NULL,
                 proven_ms = CASE WHEN lapsed_ms IS NULL THEN proven_ms ELSE excluded.proven_ms END",
        )
        .bind(to_sql(site.0))
        .bind(origin)
        .bind(by.as_str())
        .bind(now.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("store a proof"))?;
        transaction.commit().await.map_err(failed("commit a proof"))
    }

    /// Notes that the daily look found no proof; the third in a row lets it lapse.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn origin_missed(
        &self,
        site: SiteId,
        origin: &str,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE site_origins SET checked_ms = ?3, failures = failures + 1,
                 lapsed_ms = CASE WHEN failures + 1 >= ?4 THEN ?3 END
             WHERE site = ?1 AND origin = ?2 AND lapsed_ms IS NULL",
        )
        .bind(to_sql(site.0))
        .bind(origin)
        .bind(now.0)
        .bind(i64::from(FAILURES_MAX))
        .execute(self.writer())
        .await
        .map(drop)
        .map_err(failed("note a proof that was not found"))
    }

    /// Proofs in force that were looked at before `before`, the longest ago first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn proofs_due(
        &self,
        before: UnixMs,
        limit: u32,
    ) -> Result<Vec<(SiteId, String)>, StoreError> {
        let rows = sqlx::query(
            "SELECT o.site AS site, o.origin AS origin FROM site_origins o
             JOIN sites s ON s.id = o.site
             WHERE o.lapsed_ms IS NULL AND s.revoked_ms IS NULL AND o.checked_ms < ?1
             ORDER BY o.checked_ms LIMIT ?2",
        )
        .bind(before.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list proofs that are due"))?;
        rows.iter()
            .map(|row| {
                let site = SiteId(from_sql(column(row, "site_origins", "site")?));
                Ok((site, column(row, "site_origins", "origin")?))
            })
            .collect()
    }
}
