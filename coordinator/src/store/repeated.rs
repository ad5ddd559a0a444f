//! Rounds of strict jobs that are done again after a crash.
//!
//! They must come to the same weights. Where one does not, what the first time came
//! to is no part of what the job becomes: whose word alone stood for it, and was not
//! looked at before the crash, earns nothing by it. Rounds behind it read other weights
//! than before, so that nothing is said of who did them.

use super::pay::Tx;
use super::records::Sums;
use super::{StoreError, column, failed, hash_column, to_sql, u32_column, u64_column};
use raven_engine::{ContributorId, Credit, Record, Void};
use raven_protocol::{BlobId, JobId, TaskId};
use std::collections::BTreeSet;

/// Compares a round with what is stored of it, which it replaces where they differ; what
/// is void then.
pub(super) async fn check(
    transaction: &mut Tx<'_>,
    record: &Record,
    sums: &Sums,
) -> Result<Vec<Void>, StoreError> {
    let (Some(voids), Some(again)) = (differs(transaction, record).await?, record.weights) else {
        return Ok(Vec::new());
    };
    // It is the one place where a break of determinism would show as well, so it is told.
    let (job, step) = (record.job, record.step);
    tracing::error!(%job, %step, "a repeated round came to other weights");
    replace(transaction, record, again, sums).await?;
    Ok(voids)
}

/// What is void where a round differs from what is stored of it; `None` where it does not.
pub(super) async fn differs(
    transaction: &mut Tx<'_>,
    record: &Record,
) -> Result<Option<Vec<Void>>, StoreError> {
    let row = sqlx::query(
        "SELECT weights, (SELECT COALESCE(MAX(replaced), 0) FROM rounds
             WHERE job = ?1 AND step = ?2 - 1) AS follows FROM rounds WHERE job = ?1 AND step = ?2",
    )
    .bind(to_sql(record.job.0))
    .bind(i64::from(record.step))
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("read a round"))?;
    let Some(row) = row else { return Ok(None) };
    let has_weights = column::<Option<&[u8]>>(&row, "rounds", "weights")?.is_some();
    let (Some(again), true) = (record.weights, has_weights) else { return Ok(None) };
    if hash_column(&row, "rounds", "weights")? == again.0 {
        return Ok(None);
    }
    let follows = column::<i64>(&row, "rounds", "follows")? != 0;
    // Behind a round that came to something else nobody comes to the same.
    Ok(Some(if follows { Vec::new() } else { unconfirmed(transaction, record).await? }))
}

/// What the round came to now is what the job goes on with.
async fn replace(
    transaction: &mut Tx<'_>,
    record: &Record,
    weights: BlobId,
    sums: &Sums,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE rounds SET weights = ?3, loss_sum = ?4, correct = ?5, count = ?6,
             replaced = 1
         WHERE job = ?1 AND step = ?2",
    )
    .bind(to_sql(record.job.0))
    .bind(i64::from(record.step))
    .bind(&weights.0[..])
    .bind(sums.loss_sum)
    .bind(sums.correct)
    .bind(sums.count)
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("replace a round"))
}

/// Results of the round's earlier times that have not matured, that one contributor's
/// word stood for, and that nobody came to again. Of whom somebody came to something
/// else the same holds for the rounds behind it.
async fn unconfirmed(transaction: &mut Tx<'_>, record: &Record) -> Result<Vec<Void>, StoreError> {
    let Some(attempt) = record.credits.iter().map(|credit| credit.attempt).max() else {
        return Ok(Vec::new());
    };
    let round = record.step.saturating_sub(1);
    let open = words(transaction, record.job, round, attempt).await?;
    let again = |word: &Word| record.credits.iter().find(|credit| credit.task == word.void.task);
    let is_same = |word: &Word, credit: &Credit| credit.digest.0 == word.digest;
    let contradicted: BTreeSet<ContributorId> = open
        .iter()
        .filter(|word| again(word).is_some_and(|it| it.flops == word.flops && !is_same(word, it)))
        .map(|word| word.void.contributor)
        .collect();
    let is_void = |word: &Word| match word.void.task.round == round {
        true => !again(word).is_some_and(|it| is_same(word, it)),
        false => contradicted.contains(&word.void.contributor),
    };
    Ok(open.into_iter().filter(is_void).map(|word| word.void).collect())
}

/// A result that one contributor's word stands for.
struct Word {
    void: Void,
    flops: u64,
    digest: [u8; 32],
}

/// By the few rounds that are open, not by all credits.
pub(super) const OPEN_WORDS: &str = "SELECT c.* FROM pay_rounds open CROSS JOIN credits c
         ON c.job = open.job AND c.round = open.round AND c.attempt = open.attempt
     WHERE open.job = ?1 AND open.round >= ?2 AND open.attempt < ?3 AND c.proof = 'single'
         AND c.void = 0";

/// Those from a round on of earlier attempts that have not matured.
async fn words(
    transaction: &mut Tx<'_>,
    job: JobId,
    from: u32,
    attempt: u32,
) -> Result<Vec<Word>, StoreError> {
    let rows = sqlx::query(OPEN_WORDS)
        .bind(to_sql(job.0))
        .bind(i64::from(from))
        .bind(i64::from(attempt))
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed("look for what nobody confirmed"))?;
    rows.iter()
        .map(|row| {
            let number = |name| u32_column(row, "credits", name);
            let (round, stage, part) = (number("round")?, number("stage")?, number("part")?);
            let contributor = ContributorId(hash_column(row, "credits", "contributor")?);
            let task = TaskId { job, round, stage, part };
            Ok(Word {
                void: Void { task, attempt: number("attempt")?, contributor },
                flops: u64_column(row, "credits", "flops")?,
                digest: hash_column(row, "credits", "digest")?,
            })
        })
        .collect()
}
