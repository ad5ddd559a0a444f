//! Work of earlier processes whose pay has not matured: the engine of this one has not
//! accepted it and knows nothing of it but what is said here.

use super::jobs::{CheckpointRow, JobRow};
use super::pay::Tx;
use super::{Store, StoreError, column, failed, from_sql, hash_column, to_sql, u32_column};
use super::{u64_column, unreadable};
use raven_engine::money::PicoUsd;
use raven_engine::{ContributorId, Earlier, OpenWord, Payer, Record, Void};
use raven_protocol::{BlobId, DeviceClass, JobId, ResultDigest, SessionId, TaskId};
use sqlx::sqlite::SqliteRow;

/// Words that a job takes up after a restart, those of the first rounds. They are looked at
/// where the job ends there: of most rounds behind, nobody has the weights any more.
const WORDS_MAX: i64 = 10_000;

/// Of each open round the last time that it was done, as far as the weights that it began
/// from are known: those of the checkpoint, or of a stored round that nothing has replaced.
pub(super) const OPEN_STRICT_WORDS: &str = "SELECT c.*, s.device_class, began.weights AS state
     FROM pay_rounds open CROSS JOIN credits c
         ON c.job = open.job AND c.round = open.round AND c.attempt = open.attempt
     JOIN sessions s ON s.id = c.session
     JOIN rounds done ON done.job = c.job AND done.step = c.round + 1
     LEFT JOIN rounds began ON began.job = c.job AND began.step = c.round AND began.replaced = 0
     WHERE open.job = ?1 AND open.round >= ?2 AND c.proof = 'single' AND c.backend = 'cpu'
         AND c.stage = 0 AND c.void = 0
         AND open.attempt = (SELECT MAX(last.attempt) FROM pay_rounds last
             WHERE last.job = open.job AND last.round = open.round)
     ORDER BY open.round LIMIT ?3";

impl Store {
    /// What of the rounds behind `last` was taken on one word and has not matured; nothing of
    /// a job whose results need not come to the same bits.
    pub(super) async fn open_words(
        &self,
        job: &JobRow,
        last: &CheckpointRow,
    ) -> Result<Vec<OpenWord>, StoreError> {
        if job.spec.numerics != raven_protocol::Numerics::Strict {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(OPEN_STRICT_WORDS)
            .bind(to_sql(job.id.0))
            .bind(i64::from(last.step))
            .bind(WORDS_MAX)
            .fetch_all(self.readers())
            .await
            .map_err(failed("list what nobody has looked at"))?;
        let mut words = Vec::with_capacity(rows.len());
        for row in &rows {
            let round = u32_column(row, "credits", "round")?;
            let state = match round == last.step {
                true => Some(last.weights),
                false => state_of(row)?,
            };
            if let Some(state) = state {
                words.push(word(row, job.id, state)?);
            }
        }
        Ok(words)
    }
}

fn state_of(row: &SqliteRow) -> Result<Option<BlobId>, StoreError> {
    let is_known = column::<Option<&[u8]>>(row, "rounds", "state")?.is_some();
    Ok(if is_known { Some(BlobId(hash_column(row, "rounds", "state")?)) } else { None })
}

fn task(row: &SqliteRow, job: JobId) -> Result<TaskId, StoreError> {
    let number = |name| u32_column(row, "credits", name);
    let (round, stage, part) = (number("round")?, number("stage")?, number("part")?);
    Ok(TaskId { job, round, stage, part })
}

fn device(row: &SqliteRow) -> Result<Option<DeviceClass>, StoreError> {
    let Some(name) = column::<Option<String>>(row, "sessions", "device_class")? else {
        return Ok(None);
    };
    let read = serde_json::from_value(serde_json::Value::String(name));
    read.map(Some).map_err(|error| unreadable("sessions", "device_class", error))
}

fn word(row: &SqliteRow, job: JobId, state: BlobId) -> Result<OpenWord, StoreError> {
    let device = device(row)?;
    let payer: &str = column(row, "credits", "payer")?;
    Ok(OpenWord {
        task: task(row, job)?,
        attempt: u32_column(row, "credits", "attempt")?,
        contributor: ContributorId(hash_column(row, "credits", "contributor")?),
        device: device.ok_or_else(|| unreadable("sessions", "device_class", "nothing"))?,
        session: SessionId(from_sql(column(row, "credits", "session")?)),
        state,
        flops: u64_column(row, "credits", "flops")?,
        rate: PicoUsd(u64_column(row, "credits", "rate")?),
        digest: ResultDigest(hash_column(row, "credits", "digest")?),
        payer: if payer == "job" { Payer::Job } else { Payer::Operator },
    })
}

/// Open work of earlier attempts, with whether its identity is known to be excluded: bits
/// prove it whatever device they claim to come from, a GPU's values speak of that GPU only.
/// What the referee computed stands whoever came to it.
const OPEN_EARLIER: &str = "SELECT c.round, c.stage, c.part, c.attempt, c.contributor, c.backend,
         s.device_class, EXISTS (SELECT 1 FROM trust t
             WHERE t.contributor = c.contributor AND t.excluded = 1
                 AND (t.backend = 'cpu' OR (t.backend = c.backend AND t.device = s.device_class))
         ) AS is_excluded
     FROM pay_rounds open CROSS JOIN credits c
         ON c.job = open.job AND c.round = open.round AND c.attempt = open.attempt
     LEFT JOIN sessions s ON s.id = c.session
     WHERE open.job = ?1 AND open.attempt < ?2 AND c.proof IN ('single', 'agreed')
         AND c.void = 0";

/// What of earlier processes does not mature with `record`, since whoever did it is excluded.
pub(super) async fn void(
    transaction: &mut Tx<'_>,
    record: &Record,
) -> Result<Vec<Void>, StoreError> {
    let Some(earlier) = record.earlier.as_ref().filter(|_| record.matures()) else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query(OPEN_EARLIER)
        .bind(to_sql(record.job.0))
        .bind(i64::from(earlier.below))
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed("list open work of earlier processes"))?;
    let mut voids = Vec::new();
    for row in &rows {
        let contributor = ContributorId(hash_column(row, "credits", "contributor")?);
        if column(row, "trust", "is_excluded")? || is_excluded(row, contributor, earlier)? {
            let attempt = u32_column(row, "credits", "attempt")?;
            voids.push(Void { task: task(row, record.job)?, attempt, contributor });
        }
    }
    Ok(voids)
}

/// Whether the record says so: the exclusion itself may not be durable yet.
fn is_excluded(
    row: &SqliteRow,
    contributor: ContributorId,
    earlier: &Earlier,
) -> Result<bool, StoreError> {
    let (backend, device): (&str, _) = (column(row, "credits", "backend")?, device(row)?);
    Ok(earlier.excluded.iter().filter(|it| it.contributor == contributor).any(|it| {
        let is_proven = it.backend == raven_protocol::Backend::Cpu;
        is_proven || (it.backend.name() == backend && Some(it.device) == device)
    }))
}
