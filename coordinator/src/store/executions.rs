//! How much of the tasks of jobs that have ended was executed how often: what later
//! jobs of the same book are quoted with. One owner's jobs do not decide it: whoever
//! could would pay little for many small jobs, and raise what everybody else must hold.

use super::pay::Tx;
use super::{Book, Store, StoreError, column, count_to_sql, failed, to_sql, u64_column};
use raven_engine::allowance::MFLOP_ENOUGH;
use raven_engine::{Allowance, Verification};
use raven_protocol::JobId;

/// Executions of one job that are counted: as many say it, and an end takes no longer for more.
const COUNTED_MAX: i64 = 200_000;
/// Mflop of tasks that one job counts for at most: others of its owner say as much.
const JOB_MFLOP_MAX: u64 = MFLOP_ENOUGH / 10;
/// What all jobs of one owner, its sub-accounts among them, count for at most: what is
/// quoted is what four of them came to, or more.
const OWNER_MFLOP_MAX: u64 = MFLOP_ENOUGH / 4;
/// Mflop of a book and mode beyond which the older ones count half.
const MFLOP_MAX: u64 = 100 * MFLOP_ENOUGH;

/// Mflop of tasks, and of their executions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    tasks: u64,
    executions: u64,
}

impl Sums {
    /// As much of them as tasks of `mflop_max` say, in the same proportion.
    fn within(self, mflop_max: u64) -> Self {
        if self.tasks <= mflop_max {
            return self;
        }
        let part = u128::from(self.executions) * u128::from(mflop_max) / u128::from(self.tasks);
        Sums { tasks: mflop_max, executions: u64::try_from(part).unwrap_or(u64::MAX) }
    }

    const fn plus(self, other: Self) -> Self {
        Sums {
            tasks: self.tasks.saturating_add(other.tasks),
            executions: self.executions.saturating_add(other.executions),
        }
    }
}

/// Whose sums a job's are.
#[derive(Debug)]
struct Place {
    book: String,
    mode: String,
    owner: i64,
}

/// Adds a job that ends to the sums of its book, mode and owner. Void executions are none; a
/// round that was done again has tasks of its own. What cannot be read is not counted: that
/// is no reason for a job not to end.
pub(super) async fn count(transaction: &mut Tx<'_>, job: JobId) -> Result<(), StoreError> {
    match add(transaction, job).await {
        Err(error @ StoreError::Unreadable { .. }) => {
            tracing::error!(%job, %error, "a job's executions are not counted");
            Ok(())
        }
        done => done,
    }
}

async fn add(transaction: &mut Tx<'_>, job: JobId) -> Result<(), StoreError> {
    let Some((place, own)) = of_job(transaction, job).await? else { return Ok(()) };
    let before = of_owner(transaction, &place).await?;
    let sums = before.plus(own.within(JOB_MFLOP_MAX)).within(OWNER_MFLOP_MAX);
    sqlx::query(
        "INSERT INTO executions (book, mode, owner, tasks, executions)
             VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET tasks = excluded.tasks, executions = excluded.executions",
    )
    .bind(&place.book)
    .bind(&place.mode)
    .bind(place.owner)
    .bind(count_to_sql(sums.tasks))
    .bind(count_to_sql(sums.executions))
    .execute(&mut **transaction)
    .await
    .map_err(failed("count a job's executions"))?;
    fade(transaction, &place).await
}

/// What a job did; `None` where that is less than a Mflop. A document of before modes were
/// written into it has the one that it is read with.
async fn of_job(transaction: &mut Tx<'_>, job: JobId) -> Result<Option<(Place, Sums)>, StoreError> {
    // Each is below 2^44 and there are fewer than 2^18, so that no sum leaves an i64.
    let row = sqlx::query(
        "SELECT COALESCE(j.book, ?3) AS book, COALESCE(o.parent, j.owner) AS owner,
             COALESCE(CASE WHEN json_valid(j.spec) THEN json_extract(j.spec, '$.verification') END,
                 ?4) AS mode,
             c.tasks AS tasks, c.executions AS executions
         FROM jobs j LEFT JOIN owners o ON o.id = j.owner
         CROSS JOIN (SELECT COALESCE(SUM(mflop), 0) AS tasks,
                 COALESCE(SUM(mflops), 0) AS executions
             FROM (SELECT MAX(mflop) AS mflop, SUM(mflop) AS mflops
                 FROM (SELECT attempt, round, stage, part, flops / 1000000 AS mflop
                       FROM credits WHERE job = ?1 AND void = 0 LIMIT ?2)
                 GROUP BY attempt, round, stage, part)) c
         WHERE j.id = ?1",
    )
    .bind(to_sql(job.0))
    .bind(COUNTED_MAX)
    .bind(Book::Test.as_str())
    .bind(Verification::default().as_str())
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed("sum up a job's executions"))?;
    let sums = read(&row)?;
    let place = Place {
        book: column(&row, "jobs", "book")?,
        mode: column(&row, "jobs", "mode")?,
        owner: column(&row, "jobs", "owner")?,
    };
    Ok((sums.tasks > 0).then_some((place, sums)))
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Sums, StoreError> {
    let tasks = u64_column(row, "executions", "tasks")?;
    Ok(Sums { tasks, executions: u64_column(row, "executions", "executions")? })
}

async fn of_owner(transaction: &mut Tx<'_>, place: &Place) -> Result<Sums, StoreError> {
    let row = sqlx::query(
        "SELECT tasks, executions FROM executions WHERE book = ?1 AND mode = ?2 AND owner = ?3",
    )
    .bind(&place.book)
    .bind(&place.mode)
    .bind(place.owner)
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("read what tasks took"))?;
    row.as_ref().map_or(Ok(Sums::default()), read)
}

/// Lets the older ones count half where there are enough; an owner of whom nothing is left goes.
async fn fade(transaction: &mut Tx<'_>, place: &Place) -> Result<(), StoreError> {
    let faded = sqlx::query(
        "UPDATE executions SET tasks = tasks / 2, executions = executions / 2
         WHERE book = ?1 AND mode = ?2 AND ?3 < (SELECT SUM(tasks) FROM executions
             WHERE book = ?1 AND mode = ?2)",
    )
    .bind(&place.book)
    .bind(&place.mode)
    .bind(count_to_sql(MFLOP_MAX))
    .execute(&mut **transaction)
    .await
    .map_err(failed("let old executions fade"))?;
    if faded.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query("DELETE FROM executions WHERE tasks = 0")
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("forget old executions"))
}

impl Store {
    /// Executions per task that a job in mode `adaptive` is quoted with now, in that book.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn adaptive_allowance(&self, book: Book) -> Result<Allowance, StoreError> {
        let row = sqlx::query(
            "SELECT COALESCE(SUM(tasks), 0) AS tasks, COALESCE(SUM(executions), 0) AS executions
             FROM executions WHERE book = ?1 AND mode = ?2",
        )
        .bind(book.as_str())
        .bind(Verification::Adaptive.as_str())
        .fetch_one(self.readers())
        .await
        .map_err(failed("read what tasks took"))?;
        let Sums { tasks, executions } = read(&row)?;
        let measured = Allowance::measured(tasks, executions);
        Ok(measured.unwrap_or(Allowance::usual(Verification::Adaptive)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_keeps_its_proportion() {
        let sums = Sums { tasks: 10, executions: 15 };
        assert_eq!(sums.within(10), sums);
        assert_eq!(sums.within(4), Sums { tasks: 4, executions: 6 });
        let most = Sums { tasks: u64::MAX, executions: u64::MAX };
        assert_eq!(most.plus(most).within(7), Sums { tasks: 7, executions: 7 });
        // Of all owners together there is no sum that SQLite could not hold.
        let rows_max = i64::MAX as u64 / (3 * OWNER_MFLOP_MAX);
        assert!(rows_max > 100_000_000, "{rows_max}");
    }
}
