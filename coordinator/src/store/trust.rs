//! What is known of those who compute, and the evidence against those who lied.

use super::{Store, StoreError, column, failed, to_sql, u32_column, u64_column, unreadable};
use crate::time::UnixMs;
use raven_engine::{ContributorId, Identity, Trust};
use raven_protocol::{JobId, TaskId};
use serde::Serialize;

/// A proven lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRecord {
    /// Name of its file in the folder of evidence.
    pub id: String,
    pub task: TaskId,
    pub contributor: ContributorId,
    /// What was found, for people.
    pub finding: String,
}

/// A proven lie as a job's owner sees it. The contributor is not named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EvidenceView {
    pub id: String,
    pub task: String,
    pub finding: String,
    pub at: String,
}

/// Qualifying executions of a job that were believed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Executions {
    /// `unchecked`, `single`, `agreed` or `refereed`.
    pub proof: String,
    pub count: u64,
    /// Of those, the ones that earn nothing after all.
    pub void: u64,
    /// Of those, the ones that the operator pays for.
    pub by_operator: u64,
}

/// The word of a device class in tables.
fn device_name(identity: &Identity) -> Result<String, StoreError> {
    match serde_json::to_value(identity.device) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        Ok(other) => Err(unreadable("trust", "device", format!("{other}"))),
        Err(error) => Err(unreadable("trust", "device", error)),
    }
}

impl Store {
    /// What is known of an identity; nothing of one that never came before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn trust_of(&self, identity: &Identity) -> Result<Trust, StoreError> {
        let row = sqlx::query(
            // Bits prove a lie whatever device they claim to come from; a GPU's
            // values speak of that GPU only.
            "SELECT COALESCE(MAX(CASE WHEN device = ?2 AND backend = ?3 THEN agreed END), 0)
                     AS agreed,
                 COALESCE(MAX(CASE WHEN device = ?2 AND backend = ?3 THEN refereed END), 0)
                     AS refereed,
                 COALESCE(MAX(CASE WHEN backend = 'cpu' OR (device = ?2 AND backend = ?3)
                     THEN excluded END), 0) AS excluded
             FROM trust WHERE contributor = ?1",
        )
        .bind(&identity.contributor.0[..])
        .bind(device_name(identity)?)
        .bind(identity.backend.name())
        .fetch_one(self.readers())
        .await
        .map_err(failed("read what is known of an identity"))?;
        let excluded: bool = column(&row, "trust", "excluded")?;
        let results = u32_column(&row, "trust", "agreed")?;
        let refereed = u32_column(&row, "trust", "refereed")?;
        Ok(if excluded { Trust::Excluded } else { Trust::Agreed { results, refereed } })
    }

    /// Stores what is known of identities, in one transaction. An exclusion is final.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then.
    pub async fn set_trust(&self, known: &[(Identity, Trust)]) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for (identity, trust) in known {
            let (agreed, refereed, excluded) = match *trust {
                Trust::Agreed { results, refereed } => (results, refereed, false),
                Trust::Excluded => (0, 0, true),
            };
            sqlx::query(
                "INSERT INTO trust
                     (contributor, device, backend, agreed, excluded, updated_ms, refereed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT DO UPDATE SET agreed = excluded.agreed,
                     refereed = excluded.refereed,
                     excluded = MAX(trust.excluded, excluded.excluded),
                     updated_ms = excluded.updated_ms",
            )
            .bind(&identity.contributor.0[..])
            .bind(device_name(identity)?)
            .bind(identity.backend.name())
            .bind(i64::from(agreed))
            .bind(excluded)
            .bind(UnixMs::now().0)
            .bind(i64::from(refereed))
            .execute(&mut *transaction)
            .await
            .map_err(failed("store what is known of an identity"))?;
        }
        transaction.commit().await.map_err(failed("store what is known of identities"))
    }

    /// Stores a proven lie whose file is durable.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_evidence(&self, evidence: &EvidenceRecord) -> Result<(), StoreError> {
        let TaskId { job, round, stage, part } = evidence.task;
        sqlx::query(
            "INSERT INTO evidence (id, job, round, stage, part, contributor, finding, at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        )
        .bind(&evidence.id)
        .bind(to_sql(job.0))
        .bind(i64::from(round))
        .bind(i64::from(stage))
        .bind(i64::from(part))
        .bind(&evidence.contributor.0[..])
        .bind(&evidence.finding)
        .bind(UnixMs::now().0)
        .execute(self.writer())
        .await
        .map(drop)
        .map_err(failed("store a proven lie"))
    }

    /// A job's qualifying executions by why they were believed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn executions(&self, job: JobId) -> Result<Vec<Executions>, StoreError> {
        let table = "credits";
        let rows = sqlx::query(
            "SELECT proof, COUNT(*) AS count, SUM(void) AS void,
                 SUM(payer = 'operator') AS by_operator
             FROM credits WHERE job = ?1 GROUP BY proof ORDER BY proof",
        )
        .bind(to_sql(job.0))
        .fetch_all(self.readers())
        .await
        .map_err(failed("count a job's executions"))?;
        rows.iter()
            .map(|row| {
                Ok(Executions {
                    proof: column(row, table, "proof")?,
                    count: u64_column(row, table, "count")?,
                    void: u64_column(row, table, "void")?,
                    by_operator: u64_column(row, table, "by_operator")?,
                })
            })
            .collect()
    }

    /// Evidence of jobs whose data set was deleted: its files hold rows of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn evidence_of_deleted(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(
            "SELECT e.id FROM evidence e JOIN jobs j ON j.id = e.job
             JOIN datasets d ON d.id = j.dataset WHERE d.deleted_ms IS NOT NULL",
        )
        .fetch_all(self.readers())
        .await
        .map_err(failed("look for evidence that is to go"))
    }

    /// Whether a job has evidence of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_evidence(&self, job: JobId, id: &str) -> Result<bool, StoreError> {
        let found = sqlx::query("SELECT 1 FROM evidence WHERE job = ?1 AND id = ?2")
            .bind(to_sql(job.0))
            .bind(id)
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look for evidence"))?;
        Ok(found.is_some())
    }

    /// Proven lies of a job, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn evidence_of(
        &self,
        job: JobId,
        limit: u32,
    ) -> Result<Vec<EvidenceView>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, round, stage, part, finding, at_ms FROM evidence
             WHERE job = ?1 ORDER BY at_ms, id LIMIT ?2",
        )
        .bind(to_sql(job.0))
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("read the proven lies of a job"))?;
        rows.iter()
            .map(|row| {
                let table = "evidence";
                let task = TaskId {
                    job,
                    round: u32_column(row, table, "round")?,
                    stage: u32_column(row, table, "stage")?,
                    part: u32_column(row, table, "part")?,
                };
                Ok(EvidenceView {
                    id: column(row, table, "id")?,
                    task: task.to_string(),
                    finding: column(row, table, "finding")?,
                    at: UnixMs(column(row, table, "at_ms")?).rfc3339(),
                })
            })
            .collect()
    }
}
