//! What one transaction makes durable: [`Store::persist`].

use super::credits::Outcomes;
use super::jobs::MeanMetrics;
use super::partners::{Attribution, day_of};
use super::{
    Snapshot, Store, StoreError, abandon, chain, column, count_to_sql, credits, earlier, events,
    executions, failed, pay, repeated, setbacks, to_sql, voided,
};
use crate::time::UnixMs;
use raven_engine::money::{Charge, Flops};
use raven_engine::{
    Cause, CompletedReason, Credit, JobPhase, JobState, Metrics, Payer, Record, Void,
};
use raven_protocol::JobId;
use serde_json::{Value, json};
use sqlx::Transaction;
use sqlx::sqlite::Sqlite;

/// Checkpoints kept beside the best.
const LAST_KEPT: i64 = 2;

/// The sentence that goes with a state.
pub(crate) fn state_reason(state: &JobState) -> Option<String> {
    match state {
        JobState::WaitingForContributors { reason } | JobState::Failed { reason, .. } => {
            Some(reason.clone())
        }
        JobState::Paused { missing } => Some(format!(
            "the next round could cost more than is left of what the job holds: top it up with \
             {} nano-USD or more",
            missing.0
        )),
        JobState::Completed { reason: CompletedReason::EarlyStopped } => {
            Some("the evaluation loss no longer fell".into())
        }
        JobState::Cancelled { cause: Cause::NoContributors } => {
            Some("nobody was there for as long as the job waits".into())
        }
        JobState::Completed { reason: CompletedReason::EpochsDone }
        | JobState::Queued
        | JobState::Initializing
        | JobState::Running { .. }
        | JobState::Evaluating { .. }
        | JobState::Cancelled { .. } => None,
    }
}

pub(super) fn state_event(
    at: UnixMs,
    phase: JobPhase,
    cause: Option<Cause>,
    reason: Option<&str>,
) -> Value {
    let cause = cause.map(Cause::as_str);
    json!({ "at": at.rfc3339(), "state": phase.as_str(), "cause": cause, "reason": reason })
}

/// The one place where a stored job's phase is judged.
pub(super) fn check_transition(job: JobId, from: JobPhase, to: JobPhase) -> Result<(), StoreError> {
    if from.may_become(to) { Ok(()) } else { Err(StoreError::Transition { job, from, to }) }
}

/// What becomes of a record's pay.
#[derive(Clone, Copy, Debug)]
pub(super) enum Books {
    Entered,
    /// It cannot be entered, and its job ends.
    Abandoned,
}

/// A record's sums as they are stored.
pub(super) struct Sums {
    pub(super) loss_sum: f64,
    /// `None` where the loss has no classes: nothing is right or wrong.
    pub(super) correct: Option<f64>,
    pub(super) count: f64,
}

impl Sums {
    fn of(metrics: &Metrics, has_classes: bool) -> Self {
        Sums {
            loss_sum: metrics.loss_sum.into(),
            correct: has_classes.then_some(metrics.correct.into()),
            count: metrics.count.into(),
        }
    }

    fn means(&self) -> MeanMetrics {
        MeanMetrics::of(Some(self.loss_sum), self.correct, Some(self.count))
    }
}

/// What a process knows of the time that a job has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clock {
    /// Milliseconds that this process has spent on the job's rounds so far.
    /// Without them, the time between a round and the record before it is
    /// taken, so the first round of a process has none.
    pub process_train_ms: Option<u64>,
    /// When work on the first round of this process began.
    pub started: Option<UnixMs>,
}

/// Readers count epochs from 1, the engine from 0.
fn epoch(record: &Record) -> u32 {
    record.epoch.saturating_add(1)
}

/// What the job's row says before a record.
pub(super) struct Before {
    phase: JobPhase,
    reason: Option<String>,
    last_record_ms: Option<i64>,
    /// Whether its loss is over classes.
    has_classes: bool,
    /// Whether its rounds always come to the same bits.
    pub(super) is_strict: bool,
    /// What its credited work has cost.
    charge: Charge,
    /// Rounds that are stored: those below this number, counted from 0.
    rounds: i64,
}

impl Store {
    /// Makes a record durable in one transaction: the round or evaluation, the
    /// credits, the checkpoint, the job's row and its events. Blobs that it
    /// names must be durable already. A record that is stored already changes
    /// nothing, and a task is credited once, to whom it was credited first.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`], [`StoreError::Database`]; nothing is stored then.
    pub async fn persist(&self, record: &Record) -> Result<(), StoreError> {
        self.persist_timed(record, Clock::default()).await
    }

    /// [`Store::persist`] with what this process knows of the time.
    ///
    /// # Errors
    /// Those of [`Store::persist`].
    pub async fn persist_timed(&self, record: &Record, clock: Clock) -> Result<(), StoreError> {
        self.persist_published(record, clock, None).await
    }

    /// [`Store::persist_timed`] with the record's state, where that may be published.
    ///
    /// # Errors
    /// Those of [`Store::persist`].
    pub async fn persist_published(
        &self,
        record: &Record,
        clock: Clock,
        snapshot: Option<Snapshot>,
    ) -> Result<(), StoreError> {
        let entered = match self.mature_ahead(record).await {
            Ok(()) => self.persist_with(record, clock, snapshot, Books::Entered).await,
            Err(error) => Err(error),
        };
        match entered {
            // Whatever is wrong with its books, a job comes to its end.
            Err(error) if record.phase.is_end() && error.trouble().is_none() => {
                tracing::error!(job = %record.job, %error, "a job ends without its last pay");
                self.persist_with(record, clock, snapshot, Books::Abandoned).await
            }
            other => other,
        }
    }

    async fn persist_with(
        &self,
        record: &Record,
        clock: Clock,
        snapshot: Option<Snapshot>,
        books: Books,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        self.persist_in(&mut transaction, record, clock, snapshot, books).await?;
        transaction.commit().await.map_err(failed("commit a record"))
    }

    /// Stores a record within the caller's transaction; where that fails, part of it may be
    /// there, and the transaction must be given up.
    pub(super) async fn persist_in(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        record: &Record,
        clock: Clock,
        snapshot: Option<Snapshot>,
        books: Books,
    ) -> Result<(), StoreError> {
        let now = UnixMs::now();
        let before = read_before(transaction, record.job).await?;
        if before.phase.is_end() {
            // An end is final. What the record adds was refused or is there already.
            return Ok(());
        }
        check_transition(record.job, before.phase, record.phase)?;
        let mut voids = record.voids.clone();
        voids.extend(earlier::void(transaction, record).await?);
        if let Some(metrics) = &record.train {
            let sums = Sums::of(metrics, before.has_classes);
            let is_new = add_round(transaction, record, &sums, now).await?;
            if !is_new && before.is_strict {
                voids.extend(repeated::check(transaction, record, &sums).await?);
            }
        }
        if let Some(metrics) = &record.evaluation {
            let sums = Sums::of(metrics, before.has_classes);
            add_evaluation(transaction, record, &sums, now).await?;
        }
        if record.rolled_back {
            roll_back(transaction, record, &before, now).await?;
        }
        if let Some(set_back) = record.set_back {
            setbacks::set_back(transaction, record, set_back, before.rounds, now).await?;
        }
        let mut charge = before.charge;
        let credited = match books {
            Books::Entered => self.credit(transaction, record, &voids, before.rounds, now).await?,
            Books::Abandoned => {
                abandon::close(transaction, record.job, now).await?;
                Vec::new()
            }
        };
        for credit in &credited {
            let cost = Charge::of(Flops(credit.flops), credit.rate);
            charge = charge.plus(cost).unwrap_or(Charge::MAX);
        }
        credits::count_own(transaction, record.job, &credited).await?;
        voided::void_credits(transaction, record.job, &voids).await?;
        keep_checkpoint(transaction, record).await?;
        if before.is_strict {
            chain::extend(transaction, record, snapshot).await?;
        }
        update_job(transaction, record, &before, clock, charge, now).await?;
        if record.phase.is_end() {
            executions::count(transaction, record.job).await?;
        }
        Ok(())
    }

    /// Enters what a record credits, voids and lets mature into the books, and stores the
    /// credits, each with who pays it and the site that earns by it. Answers those that were
    /// not there yet and that the job pays. `rounds` were stored before.
    async fn credit(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        record: &Record,
        voids: &[Void],
        rounds: i64,
        now: UnixMs,
    ) -> Result<Vec<Credit>, StoreError> {
        let mut known = credits::known(transaction, record.job, &record.credits).await?;
        // Where one stands there twice, it is the first.
        let is_new = |credit: &&Credit| known.insert(credits::key(credit));
        let new: Vec<&Credit> = record.credits.iter().filter(is_new).collect();
        // A round that runs again after a restart was charged as a whole with its record:
        // whoever does it again is the operator's to pay.
        let is_again = |credit: &Credit| i64::from(credit.task.round) < rounds;
        let executions = new.iter().map(|credit| {
            let payer = if is_again(credit) { Payer::Operator } else { credit.payer };
            (payer, Charge::of(Flops(credit.flops), credit.rate))
        });
        let payers = pay::payers(transaction, record.job, executions.collect()).await?;
        let mut ways =
            Attribution::open(transaction, self.site_caps(), record.job, &new, now).await?;
        let mut paid = Vec::with_capacity(new.len());
        let mut outcomes = Outcomes { day: day_of(now), ..Outcomes::default() };
        for (credit, payer) in new.into_iter().zip(payers) {
            let credit = Credit { payer, ..*credit };
            paid.push(ways.of(&credit));
            if let Some(outcome) = ways.count(&credit) {
                outcomes.of.insert(credits::key(&credit), outcome);
            }
        }
        pay::enter_record(transaction, record, &paid, voids, now).await?;
        credits::add(transaction, record.job, &paid, &outcomes).await?;
        ways.store(transaction).await?;
        paid.retain(|credit| credit.payer == Payer::Job);
        Ok(paid)
    }
}

pub(super) async fn read_before(
    transaction: &mut Transaction<'_, Sqlite>,
    job: JobId,
) -> Result<Before, StoreError> {
    let row = sqlx::query(
        "SELECT phase, reason, last_record_ms, charge, json_extract(spec, '$.model.loss') AS loss,
             json_extract(spec, '$.numerics') AS numerics,
             (SELECT COALESCE(MAX(step), 0) FROM rounds WHERE job = ?1) AS rounds
         FROM jobs WHERE id = ?1",
    )
    .bind(to_sql(job.0))
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("read a job"))?
    .ok_or(StoreError::UnknownJob { job })?;
    let phase: &str = column(&row, "jobs", "phase")?;
    let loss: &str = column(&row, "jobs", "loss")?;
    let numerics: &str = column(&row, "jobs", "numerics")?;
    Ok(Before {
        is_strict: numerics == "strict",
        has_classes: loss == "cross_entropy",
        charge: super::jobs::charge_column(&row)?,
        phase: phase.parse().map_err(|error| super::unreadable("jobs", "phase", error))?,
        reason: column(&row, "jobs", "reason")?,
        last_record_ms: column(&row, "jobs", "last_record_ms")?,
        rounds: column(&row, "jobs", "rounds")?,
    })
}

/// Adds a round and its event; whether it was not there yet.
async fn add_round(
    transaction: &mut Transaction<'_, Sqlite>,
    record: &Record,
    sums: &Sums,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let added = sqlx::query(
        "INSERT INTO rounds (job, step, loss_sum, correct, count, learning_rate, contributors,
             weights, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
    )
    .bind(to_sql(record.job.0))
    .bind(i64::from(record.step))
    .bind(sums.loss_sum)
    .bind(sums.correct)
    .bind(sums.count)
    .bind(record.learning_rate.map(f64::from))
    .bind(i64::from(record.contributors))
    .bind(record.weights.map(|weights| weights.0.to_vec()))
    .bind(now.0)
    .execute(&mut **transaction)
    .await
    .map_err(failed("add a round"))?;
    if added.rows_affected() == 0 {
        return Ok(false);
    }
    let MeanMetrics { loss, accuracy } = sums.means();
    let event = json!({
        "at": now.rfc3339(), "round": record.step, "epoch": epoch(record),
        "train": { "loss": loss, "accuracy": accuracy },
        "learning_rate": record.learning_rate, "contributors": record.contributors,
    });
    events::append(transaction, record.job, "round", &event, now.0).await?;
    Ok(true)
}

async fn add_evaluation(
    transaction: &mut Transaction<'_, Sqlite>,
    record: &Record,
    sums: &Sums,
    now: UnixMs,
) -> Result<(), StoreError> {
    let added = sqlx::query(
        "INSERT INTO evaluations (job, step, epoch, loss_sum, correct, count, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )
    .bind(to_sql(record.job.0))
    .bind(i64::from(record.step))
    .bind(i64::from(epoch(record)))
    .bind(sums.loss_sum)
    .bind(sums.correct)
    .bind(sums.count)
    .bind(now.0)
    .execute(&mut **transaction)
    .await
    .map_err(failed("add an evaluation"))?;
    if added.rows_affected() == 0 {
        return Ok(());
    }
    let MeanMetrics { loss, accuracy } = sums.means();
    let event = json!({
        "at": now.rfc3339(), "round": record.step, "best": record.best,
        "evaluation": { "epoch": epoch(record), "loss": loss, "accuracy": accuracy },
    });
    events::append(transaction, record.job, "evaluation", &event, now.0).await
}

/// Undoes the rounds after the record's step. What was paid for them stays so:
/// doing them again is not charged.
async fn roll_back(
    transaction: &mut Transaction<'_, Sqlite>,
    record: &Record,
    before: &Before,
    now: UnixMs,
) -> Result<(), StoreError> {
    let job = to_sql(record.job.0);
    super::chain::forget_rounds(transaction, record.job, record.step.saturating_add(1)).await?;
    sqlx::query(
        "UPDATE jobs SET rollbacks = rollbacks + 1, rounds_paid = MAX(rounds_paid, ?2)
         WHERE id = ?1",
    )
    .bind(job)
    .bind(before.rounds.max(i64::from(record.rounds_paid)))
    .execute(&mut **transaction)
    .await
    .map_err(failed("count a rollback"))?;
    let event = json!({
        "at": now.rfc3339(), "round": record.step, "undone": before.rounds - i64::from(record.step),
    });
    events::append(transaction, record.job, "rollback", &event, now.0).await
}

/// Adds the record's state where it is to be kept, and lets go of those that are
/// neither the best nor among the last two.
async fn keep_checkpoint(
    transaction: &mut Transaction<'_, Sqlite>,
    record: &Record,
) -> Result<(), StoreError> {
    let Some(weights) = record.weights.filter(|_| record.checkpoint || record.best) else {
        return Ok(());
    };
    let job = to_sql(record.job.0);
    if record.best {
        sqlx::query("UPDATE checkpoints SET best = 0 WHERE job = ?1")
            .bind(job)
            .execute(&mut **transaction)
            .await
            .map_err(failed("move the best mark"))?;
    }
    sqlx::query(
        "INSERT INTO checkpoints (job, step, epoch, weights, best) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET epoch = excluded.epoch, weights = excluded.weights,
             best = MAX(best, excluded.best)",
    )
    .bind(job)
    .bind(i64::from(record.step))
    .bind(i64::from(epoch(record)))
    .bind(&weights.0[..])
    .bind(record.best)
    .execute(&mut **transaction)
    .await
    .map_err(failed("add a checkpoint"))?;
    sqlx::query(
        "DELETE FROM checkpoints WHERE job = ?1 AND best = 0 AND step NOT IN
             (SELECT step FROM checkpoints WHERE job = ?1 ORDER BY step DESC LIMIT ?2)",
    )
    .bind(job)
    .bind(LAST_KEPT)
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("let go of checkpoints"))
}

async fn update_job(
    transaction: &mut Transaction<'_, Sqlite>,
    record: &Record,
    before: &Before,
    clock: Clock,
    charge: Charge,
    now: UnixMs,
) -> Result<(), StoreError> {
    let reason = state_reason(&record.state);
    let is_work = record.train.is_some() || record.evaluation.is_some();
    let gap_ms = match before.last_record_ms {
        Some(last) if record.train.is_some() => (now.0 - last).max(0),
        _ => 0,
    };
    sqlx::query(
        "UPDATE jobs SET phase = ?2, reason = ?3, step = ?4,
             train_ms = COALESCE(train_before_ms + ?5, train_ms + ?6),
             last_record_ms = ?7, ended_ms = ?8, started_ms = COALESCE(started_ms, ?9),
             cause = ?10, charge = ?11,
             epochs_done = (SELECT COUNT(*) FROM evaluations WHERE job = ?1 AND step <= ?4)
         WHERE id = ?1",
    )
    .bind(to_sql(record.job.0))
    .bind(record.phase.as_str())
    .bind(&reason)
    .bind(i64::from(record.step))
    .bind(clock.process_train_ms.map(count_to_sql))
    .bind(gap_ms)
    .bind(is_work.then_some(now.0))
    .bind(record.phase.is_end().then_some(now.0))
    .bind(clock.started.map(|started| started.0))
    .bind(record.state.cause().map(Cause::as_str))
    .bind(charge.units().to_string())
    .execute(&mut **transaction)
    .await
    .map_err(failed("update a job"))?;
    if record.phase != before.phase || reason != before.reason {
        let event = state_event(now, record.phase, record.state.cause(), reason.as_deref());
        events::append(transaction, record.job, "state", &event, now.0).await?;
    }
    Ok(())
}
