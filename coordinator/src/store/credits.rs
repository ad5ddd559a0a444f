//! Accepted work as it is credited: who did what, and the sums over it. A record has
//! as many statements for a thousand tasks as for one.

use super::pay::Tx;
use super::{StoreError, count_to_sql, failed, hash_column, to_sql, u32_column};
use raven_engine::money::FLOPS_PER_CALCULATION;
use raven_engine::{Credit, Payer};
use raven_protocol::{Backend, JobId};
use sqlx::QueryBuilder;
use sqlx::sqlite::SqliteRow;
use std::collections::{BTreeMap, BTreeSet};

/// Rows of one statement: SQLite binds 32,766 values at most, and a row has seventeen.
const ROWS_AT_ONCE: usize = 1_000;

/// Adds credits, none of which is there yet.
pub(super) async fn add(
    transaction: &mut Tx<'_>,
    job: JobId,
    credits: &[Credit],
    outcomes: &Outcomes,
) -> Result<(), StoreError> {
    if credits.is_empty() {
        return Ok(());
    }
    for some in credits.chunks(ROWS_AT_ONCE) {
        insert(transaction, job, some, outcomes).await?;
    }
    count(transaction, job, credits).await
}

/// What an execution is known by within its job.
pub(super) type Key = (u32, u32, u32, u32, [u8; 32]);

/// What executions came to for their sites, and on which day.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcomes {
    pub(super) day: i64,
    pub(super) of: BTreeMap<Key, &'static str>,
}

pub(super) fn key(credit: &Credit) -> Key {
    let task = credit.task;
    (task.round, task.stage, task.part, credit.attempt, credit.contributor.0)
}

/// Which of `credits` are there already: those of a record that is stored a second time.
pub(super) async fn known(
    transaction: &mut Tx<'_>,
    job: JobId,
    credits: &[Credit],
) -> Result<BTreeSet<Key>, StoreError> {
    let rounds = || credits.iter().map(|credit| credit.task.round);
    let (Some(first), Some(last)) = (rounds().min(), rounds().max()) else {
        return Ok(BTreeSet::new());
    };
    let rows = sqlx::query(
        "SELECT round, stage, part, attempt, contributor FROM credits
         WHERE job = ?1 AND round BETWEEN ?2 AND ?3",
    )
    .bind(to_sql(job.0))
    .bind(i64::from(first))
    .bind(i64::from(last))
    .fetch_all(&mut **transaction)
    .await
    .map_err(failed("look for credits"))?;
    rows.iter().map(key_of_row).collect()
}

async fn insert(
    transaction: &mut Tx<'_>,
    job: JobId,
    credits: &[Credit],
    outcomes: &Outcomes,
) -> Result<(), StoreError> {
    let mut query = QueryBuilder::new(
        "INSERT INTO credits (job, round, stage, part, contributor, session, site, flops, digest,
             rate, backend, proof, payer, attempt, beneficiary, day, outcome) ",
    );
    query.push_values(credits, |mut row, credit| {
        let outcome = outcomes.of.get(&key(credit)).copied();
        row.push_bind(to_sql(job.0))
            .push_bind(i64::from(credit.task.round))
            .push_bind(i64::from(credit.task.stage))
            .push_bind(i64::from(credit.task.part))
            .push_bind(credit.contributor.0.to_vec())
            .push_bind(to_sql(credit.session.0))
            .push_bind(credit.site.map(|site| to_sql(site.0)))
            .push_bind(count_to_sql(credit.flops))
            .push_bind(credit.digest.0.to_vec())
            .push_bind(count_to_sql(credit.rate.0))
            .push_bind(credit.backend.name())
            .push_bind(credit.proof.as_str())
            .push_bind(match credit.payer {
                Payer::Job => "job",
                Payer::Operator => "operator",
            })
            .push_bind(i64::from(credit.attempt))
            .push_bind(credit.beneficiary.as_str())
            .push_bind(outcome.map(|_| outcomes.day))
            .push_bind(outcome);
    });
    query.build().execute(&mut **transaction).await.map(drop).map_err(failed("add credits"))
}

fn key_of_row(row: &SqliteRow) -> Result<Key, StoreError> {
    let number = |name| u32_column(row, "credits", name);
    let contributor = hash_column(row, "credits", "contributor")?;
    Ok((number("round")?, number("stage")?, number("part")?, number("attempt")?, contributor))
}

/// Tasks and their flops.
#[derive(Clone, Copy, Default)]
struct Sum {
    tasks: i64,
    flops: i64,
}

impl Sum {
    fn add(&mut self, credit: &Credit) {
        self.tasks += 1;
        self.flops = self.flops.saturating_add(count_to_sql(credit.flops));
    }
}

/// Brings the sums up to date.
async fn count(transaction: &mut Tx<'_>, job: JobId, credits: &[Credit]) -> Result<(), StoreError> {
    let mut people: BTreeMap<[u8; 32], Sum> = BTreeMap::new();
    let mut backends: BTreeMap<&str, Sum> = BTreeMap::new();
    for credit in credits {
        people.entry(credit.contributor.0).or_default().add(credit);
        backends.entry(Backend::name(credit.backend)).or_default().add(credit);
    }
    let people: Vec<_> = people.into_iter().collect();
    for some in people.chunks(ROWS_AT_ONCE) {
        let mut query =
            QueryBuilder::new("INSERT INTO job_contributors (job, contributor, tasks, flops) ");
        query.push_values(some, |mut row, (contributor, sum)| {
            row.push_bind(to_sql(job.0))
                .push_bind(contributor.to_vec())
                .push_bind(sum.tasks)
                .push_bind(sum.flops);
        });
        query.push(ADD_UP);
        query.build().execute(&mut **transaction).await.map_err(failed("count contributors"))?;
    }
    let mut query = QueryBuilder::new("INSERT INTO job_work (job, backend, tasks, flops) ");
    query.push_values(backends, |mut row, (backend, sum)| {
        row.push_bind(to_sql(job.0)).push_bind(backend).push_bind(sum.tasks).push_bind(sum.flops);
    });
    query.push(ADD_UP);
    let counted = query.build().execute(&mut **transaction).await;
    counted.map_err(failed("count work by its backend"))?;
    count_all(transaction, credits).await
}

/// Adds to the job's own account what it pays for, once that is known. What the operator
/// pays for is no part of it.
pub(super) async fn count_own(
    transaction: &mut Tx<'_>,
    job: JobId,
    credits: &[Credit],
) -> Result<(), StoreError> {
    let mut own = Sum::default();
    credits.iter().for_each(|credit| own.add(credit));
    sqlx::query(
        "UPDATE jobs SET tasks = tasks + ?3, flops = MIN(flops, 9223372036854775807 - ?2) + ?2
         WHERE id = ?1",
    )
    .bind(to_sql(job.0))
    .bind(own.flops)
    .bind(own.tasks)
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("count a job's tasks"))
}

/// Adds to a row that is there.
const ADD_UP: &str = " ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks,
     flops = MIN(flops, 9223372036854775807 - excluded.flops) + excluded.flops";

/// All jobs together pass 2^63 flops within days: whole calculations and the rest apart.
async fn count_all(transaction: &mut Tx<'_>, credits: &[Credit]) -> Result<(), StoreError> {
    let unit = count_to_sql(FLOPS_PER_CALCULATION);
    let flops = credits.iter().map(|credit| count_to_sql(credit.flops));
    let (mut whole, mut rest) = (0_i64, 0_i64);
    for flops in flops {
        whole = whole.saturating_add(flops / unit);
        rest += flops % unit;
    }
    sqlx::query(
        "UPDATE totals SET tasks = tasks + ?4,
             calculations = calculations + ?1 + (flops_rest + ?2) / ?3,
             flops_rest = (flops_rest + ?2) % ?3",
    )
    .bind(whole)
    .bind(rest)
    .bind(unit)
    .bind(i64::try_from(credits.len()).unwrap_or(i64::MAX))
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("count tasks"))
}
