//! Credits that are void: they earn nothing, and count nowhere as verified work.

use super::partners::EARNED;
use super::pay::Tx;
use super::{StoreError, column, count_to_sql, failed, to_sql, u64_column};
use raven_engine::Void;
use raven_engine::money::{FLOPS_PER_CALCULATION, PicoUsd};
use raven_protocol::JobId;
use sqlx::sqlite::SqliteRow;

/// Takes back what proven lies would have earned. What is void already is so once.
pub(super) async fn void_credits(
    transaction: &mut Tx<'_>,
    job: JobId,
    voids: &[Void],
) -> Result<(), StoreError> {
    for void in voids {
        let row = sqlx::query(
            "UPDATE credits SET void = 1 WHERE job = ?1 AND round = ?2 AND stage = ?3
                 AND part = ?4 AND attempt = ?5 AND contributor = ?6 AND void = 0
             RETURNING session, flops, rate, backend, proof, payer, day, outcome",
        )
        .bind(to_sql(job.0))
        .bind(i64::from(void.task.round))
        .bind(i64::from(void.task.stage))
        .bind(i64::from(void.task.part))
        .bind(i64::from(void.attempt))
        .bind(&void.contributor.0[..])
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("void a credit"))?;
        let Some(row) = row else { continue };
        take_from_contributor(transaction, job, void, &row).await?;
        take_from_job(transaction, job, &row).await?;
        take_from_sums(transaction, job, &row).await?;
        take_from_site(transaction, &row).await?;
    }
    Ok(())
}

async fn take_from_contributor(
    transaction: &mut Tx<'_>,
    job: JobId,
    void: &Void,
    row: &SqliteRow,
) -> Result<(), StoreError> {
    let flops: i64 = column(row, "credits", "flops")?;
    sqlx::query(
        "UPDATE job_contributors SET tasks = MAX(tasks - 1, 0), flops = MAX(flops - ?3, 0)
         WHERE job = ?1 AND contributor = ?2",
    )
    .bind(to_sql(job.0))
    .bind(&void.contributor.0[..])
    .bind(flops)
    .execute(&mut **transaction)
    .await
    .map_err(failed("take void work from its contributor"))?;
    // Whoever has done nothing for a job is none of its contributors.
    sqlx::query("DELETE FROM job_contributors WHERE job = ?1 AND contributor = ?2 AND tasks = 0")
        .bind(to_sql(job.0))
        .bind(&void.contributor.0[..])
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("take a contributor from its job"))
}

/// Notes at the job what of the tasks that it pays for is void. Its sums say what was ever
/// credited, and go on doing so.
async fn take_from_job(
    transaction: &mut Tx<'_>,
    job: JobId,
    row: &SqliteRow,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE jobs SET void_tasks = void_tasks + 1,
             void_flops = MIN(void_flops, 9223372036854775807 - ?2) + ?2
         WHERE id = ?1 AND ?3 = 'job'",
    )
    .bind(to_sql(job.0))
    .bind(column::<i64>(row, "credits", "flops")?)
    .bind(column::<&str>(row, "credits", "payer")?)
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("take void work from its job"))
}

/// Takes it from what the job's work and all work are shown to come to.
async fn take_from_sums(
    transaction: &mut Tx<'_>,
    job: JobId,
    row: &SqliteRow,
) -> Result<(), StoreError> {
    let flops: i64 = column(row, "credits", "flops")?;
    let backend: &str = column(row, "credits", "backend")?;
    sqlx::query(
        "UPDATE job_work SET tasks = MAX(tasks - 1, 0), flops = MAX(flops - ?3, 0)
         WHERE job = ?1 AND backend = ?2",
    )
    .bind(to_sql(job.0))
    .bind(backend)
    .bind(flops)
    .execute(&mut **transaction)
    .await
    .map_err(failed("take void work from its job"))?;
    // Whole calculations and the rest are kept apart.
    let unit = count_to_sql(FLOPS_PER_CALCULATION);
    sqlx::query(
        "UPDATE totals SET tasks = MAX(tasks - 1, 0),
             calculations = MAX(calculations - ?1 - (flops_rest < ?2), 0),
             flops_rest = (flops_rest - ?2 + ?3) % ?3",
    )
    .bind(flops / unit)
    .bind(flops % unit)
    .bind(unit)
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("take void work from the totals"))
}

/// Nothing where the execution came through no site.
async fn take_from_site(transaction: &mut Tx<'_>, row: &SqliteRow) -> Result<(), StoreError> {
    let Some(day) = column::<Option<i64>>(row, "credits", "day")? else { return Ok(()) };
    let outcome: &str = column(row, "credits", "outcome")?;
    let proof: &str = column(row, "credits", "proof")?;
    let (session, flops): (i64, i64) =
        (column(row, "credits", "session")?, column(row, "credits", "flops")?);
    let pico_usd = match outcome == EARNED {
        true => super::partners::cost(
            u64_column(row, "credits", "flops")?,
            PicoUsd(u64_column(row, "credits", "rate")?),
        ),
        false => 0,
    };
    for sql in [
        "UPDATE site_work SET tasks = MAX(tasks - 1, 0), flops = MAX(flops - ?3, 0)
         WHERE site = (SELECT site FROM sessions WHERE id = ?1) AND day = ?2 AND outcome = ?5",
        "UPDATE site_networks SET pico_usd = MAX(pico_usd - ?4, 0)
         WHERE (site, network_prefix) = (SELECT site, network_prefix FROM sessions WHERE id = ?1)
             AND day = ?2",
        "UPDATE site_days SET pico_usd = MAX(pico_usd - ?4, 0)
         WHERE site = (SELECT site FROM sessions WHERE id = ?1) AND day = ?2",
        // Of what was not checked nothing was counted there.
        "UPDATE sessions SET flops = MAX(flops - ?3, 0)
         WHERE id = ?1 AND ?6 <> 'unchecked'",
    ] {
        sqlx::query(sql)
            .bind(session)
            .bind(day)
            .bind(flops)
            .bind(pico_usd)
            .bind(outcome)
            .bind(proof)
            .execute(&mut **transaction)
            .await
            .map_err(failed("take void work from its site"))?;
    }
    Ok(())
}
