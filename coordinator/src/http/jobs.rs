//! `/v1/jobs`: posting, watching and ending jobs.

use super::auth::{Caller, Owner};
use super::body::JsonBody;
use super::extract::Path;
use super::idempotency::{Claim, Once, Turn};
use super::{App, Problem, datasets, model, quotes};
use crate::job::{
    BudgetSpec, Deadline, JobContext, JobError, JobFacts, JobSpec, Lowering, SeedNumber, WhenSpent,
    calculations, held, lower_job, terms,
};
use crate::random;
use crate::store::{Asker, DatasetId, JobRow, JobSummary, MeanMetrics, NewJob};
use crate::time::UnixMs;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use raven_engine::money::{FLOPS_PER_CALCULATION, NanoUsd};
use raven_engine::{Allowance, Cause, Fallback, JobPhase, Verification};
use raven_protocol::{JobId, Seed};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Entries of one answer.
const LIST_MAX: u32 = 50;
/// The network's picture is at most half a second old, and a job's end may
/// wait for an evaluation that is running.
const UNKNOWN_AFTER: Duration = Duration::from_secs(5);

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/jobs", post(create).get(list))
        .route("/v1/jobs/{id}", get(show))
        .route("/v1/jobs/{id}/cancel", post(cancel))
}

/// The owner's job of that id's text.
pub async fn find(app: &App, owner: Owner, text: &str) -> Result<JobRow, Problem> {
    let unknown = || Problem::not_found("no job of this key has that id");
    let id: JobId = text.parse().map_err(|_| unknown())?;
    app.store.job(owner.0, id).await?.ok_or_else(unknown)
}

fn refusal(error: &JobError) -> Problem {
    let problem = Problem::invalid(error.to_string())
        .named("job", "The job is refused")
        .with_field(error.field());
    match error.limit() {
        Some((limit, found)) => problem.with_limit(limit, Some(found)),
        None => problem,
    }
}

/// A document that was read, and what it was lowered to.
#[derive(Debug)]
pub struct Prepared {
    /// With its seed, drawn where it was absent.
    pub spec: JobSpec,
    pub context: JobContext,
    pub facts: JobFacts,
    /// What the mode `adaptive` is quoted with now.
    pub adaptive: Allowance,
}

fn dataset_id(spec: &JobSpec) -> Result<DatasetId, Problem> {
    spec.dataset.parse().map_err(|()| Problem::no_dataset())
}

/// Whether jobs of that mode are taken: what nobody checks is for contributors whom the
/// operator knows.
pub(super) fn takes(app: &App, mode: Verification) -> bool {
    mode != Verification::None || app.settings.private_pool
}

/// Refuses a job of a mode that is not taken.
fn admit_mode(app: &App, mode: Verification) -> Result<(), Problem> {
    if takes(app, mode) {
        return Ok(());
    }
    let detail = "verification: none is for private pools, and strangers contribute here";
    Err(Problem::invalid(detail).named("job", "The job is refused").with_field("verification"))
}

/// Refuses a job that its own terms would end for certain.
fn admit(app: &App, prepared: &Prepared, now: UnixMs) -> Result<(), Problem> {
    let (terms, quote) = (prepared.spec.terms(), quotes::of(app, prepared));
    let refused = |field: &str, detail: String| {
        Problem::invalid(detail).named("job", "The job is refused").with_field(field)
    };
    if terms.fallback == Fallback::Operator && !app.settings.operator {
        let detail = "fallback: this coordinator has no node of its own";
        return Err(refused("fallback", detail.into()));
    }
    if let Some(Deadline(at)) = terms.deadline {
        // Whether it can be kept is the quote's affair: others may come online.
        if at <= now {
            return Err(refused("deadline", format!("deadline: {} has passed", at.rfc3339())));
        }
    }
    admit_hold(&prepared.spec, &prepared.facts)?;
    match terms.budget {
        // It pauses where more is needed.
        Some(BudgetSpec::NanoUsd(_)) if terms.when_spent == WhenSpent::Pause => Ok(()),
        Some(BudgetSpec::Calculations(most)) if calculations(quote.budget_flops_least) > most => {
            let least = calculations(quote.budget_flops_least);
            let detail = format!("budget: the job takes {least} calculations at least");
            Err(refused("budget.calculations", detail).with_limit(most, Some(least)))
        }
        Some(BudgetSpec::NanoUsd(most)) => {
            let least = quote.budget_least.map_or(u64::MAX, |price| price.0.unsigned_abs());
            if least <= most {
                return Ok(());
            }
            let detail = format!("budget: the job needs {least} nano-USD at least");
            Err(refused("budget.nano_usd", detail).with_limit(most, Some(least)))
        }
        _ => Ok(()),
    }
}

/// Refuses a job that would hold more than its owner said: rates and what its mode is quoted
/// with may have moved since it was quoted.
fn admit_hold(spec: &JobSpec, facts: &JobFacts) -> Result<(), Problem> {
    let Some(most) = spec.hold_nano_usd_max else { return Ok(()) };
    let held = held(spec, facts).map_or(u64::MAX, |amount| amount.0.unsigned_abs());
    if held <= most {
        return Ok(());
    }
    let detail = format!("hold_nano_usd_max: the job would hold {held} nano-USD now");
    Err(Problem::invalid(detail)
        .named("job", "The job is refused")
        .with_field("hold_nano_usd_max")
        .with_limit(most, Some(held)))
}

/// Validates and lowers a job's document; nothing is stored.
pub async fn prepare(app: &App, owner: Owner, mut spec: JobSpec) -> Result<Prepared, Problem> {
    admit_mode(app, spec.verification)?;
    let dataset =
        datasets::find(app, owner, &spec.dataset).await?.ok_or_else(Problem::no_dataset)?;
    let seed = Seed(spec.seed.map_or_else(random::nonzero_u64, |seed| seed.0));
    spec.seed = Some(SeedNumber(seed.0));
    let (job, kernel) = (JobId(random::nonzero_u64()), app.network.kernel());
    let train_shards = app.store.shards(dataset.id, false).await?;
    let test_shards = app.store.shards(dataset.id, true).await?;
    let (spec, lowered) = tokio::task::spawn_blocking(move || {
        let dataset = &dataset.facts;
        let lowering = Lowering { job, seed, kernel, dataset, train_shards, test_shards };
        let lowered = lower_job(&spec, lowering);
        (spec, lowered)
    })
    .await?;
    let (mut context, mut facts) = lowered.map_err(|error| refusal(&error))?;
    // It keeps them, whatever is set or measured later.
    facts.rates = app.settings.rates;
    let book = app.store.book_of(owner.0).await?;
    let adaptive = app.store.adaptive_allowance(book).await?;
    if spec.verification == Verification::Adaptive {
        facts.allowance = Some(adaptive);
    }
    context.terms = terms(&spec, &facts);
    Ok(Prepared { spec, context, facts, adaptive })
}

async fn create(
    State(app): State<App>,
    Caller(caller): Caller,
    once: Once,
    JsonBody(spec, digest): JsonBody<JobSpec>,
) -> Result<Response, Problem> {
    if *app.stopping.borrow() {
        return Err(Problem::unavailable("the coordinator is going down; post again later"));
    }
    let owner = Owner(caller.account);
    let claim = match once.begin(&app, owner, digest).await? {
        Turn::Answered(answer) => return Ok(answer),
        Turn::Mine(claim) => claim,
    };
    // Counted again where the job is stored; here it saves the lowering.
    let (open, limit) = (app.store.open_job_count(owner.0).await?, app.settings.open_jobs_max);
    if open >= limit {
        return Err(Problem::quota("open jobs", limit, open));
    }
    let prepared = prepare(&app, owner, spec).await?;
    admit(&app, &prepared, UnixMs::now())?;
    let Prepared { spec, context, facts, .. } = prepared;
    let (id, kernel, dataset) = (context.job(), context.plan.kernel, dataset_id(&spec)?);
    let created = UnixMs::now();
    let job = NewJob { id, owner: owner.0, dataset, spec, facts, kernel, created };
    // As it is stored, so that the answer can be kept in the same transaction.
    let answer = answer(&app, &job.row()).await?;
    // A client that hangs up takes its handler with it, but not this: a stored
    // job is handed over or ended.
    tokio::spawn(hand_over(app.clone(), caller.into(), job, context, claim, answer.clone()))
        .await??;
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

async fn hand_over(
    app: App,
    by: Asker,
    job: NewJob,
    context: JobContext,
    claim: Claim,
    answer: Value,
) -> Result<(), Problem> {
    let remembered = claim.remember(StatusCode::ACCEPTED, &answer);
    app.store.add_job_for(by, &job, app.settings.open_jobs_max, remembered.as_ref()).await?;
    drop(claim);
    if let Err(error) = app.network.add_job(Arc::new(context), None).await {
        app.store.end_job(job.id, Cause::Coordinator, Some(&error.to_string())).await?;
        return Err(Problem::unavailable(error.to_string()));
    }
    let Some(row) = app.store.job(job.owner, job.id).await? else { return Ok(()) };
    if row.phase.is_end() {
        // Cancelled while its data was read, before the network knew of it.
        cancel_in_network(&app, job.id).await?;
    } else if row.topped_up.0 > 0 {
        // As early as that, too.
        let told = app.network.top_up(job.id, row.escrow).await;
        told.map_err(|error| Problem::unavailable(error.to_string()))?;
    }
    Ok(())
}

async fn cancel_in_network(app: &App, job: JobId) -> Result<(), Problem> {
    let told = app.network.cancel_job(job).await;
    told.map_err(|error| Problem::unavailable(error.to_string()))
}

async fn list(State(app): State<App>, owner: Owner) -> Result<Json<Value>, Problem> {
    let mut jobs = Vec::new();
    for row in app.store.jobs(owner.0, LIST_MAX).await? {
        jobs.push(answer(&app, &row).await?);
    }
    Ok(Json(json!({ "jobs": jobs })))
}

async fn show(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let mut row = find(&app, owner, &id).await?;
    if row.phase.is_end() && row.model_sha256.is_none() {
        // A checkpoint that cannot be read is in the log; the job itself can still be shown.
        row.model_sha256 = model::digest(&app, &row).await.ok().flatten();
    }
    Ok(Json(answer(&app, &row).await?))
}

async fn cancel(
    State(app): State<App>,
    owner: Owner,
    once: Once,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let row = find(&app, owner, &id).await?;
    // The body says nothing.
    let claim = match once.begin(&app, owner, [0; 32]).await? {
        Turn::Answered(answer) => return Ok(answer),
        Turn::Mine(claim) => claim,
    };
    if row.phase.is_end() {
        let detail = format!("the job has ended already: {}", row.phase);
        return Err(Problem::conflict(detail).with_field("state"));
    }
    cancel_in_network(&app, row.id).await?;
    tokio::spawn(end_unknown(app.clone(), row.id));
    let row = find(&app, owner, &id).await?;
    let answer = answer(&app, &row).await?;
    claim.keep(&app, StatusCode::ACCEPTED, &answer).await?;
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// Ends a job that the network does not hold. One that it holds ends by its own
/// record; it is told again, since it may have come to it after the first time.
/// The end is stored before that, so that [`hand_over`] sees it or is heard of.
async fn end_unknown(app: App, job: JobId) {
    tokio::time::sleep(UNKNOWN_AFTER).await;
    let is_held = app.network.snapshot().jobs.contains_key(&job);
    if !is_held && let Err(error) = app.store.end_job(job, Cause::Owner, None).await {
        tracing::error!(%job, %error, "a cancelled job was not ended");
    }
    // Where the network is gone, so is the job's work.
    let _ = app.network.cancel_job(job).await;
}

fn metrics(metrics: MeanMetrics) -> Value {
    json!({ "loss": metrics.loss, "accuracy": metrics.accuracy })
}

fn evaluation(entry: Option<(u32, MeanMetrics)>) -> Value {
    entry.map_or(Value::Null, |(epoch, metrics)| {
        json!({ "epoch": epoch, "loss": metrics.loss, "accuracy": metrics.accuracy })
    })
}

/// Where a job stands and why: as the running network sees it, since not every
/// change is made durable. An end counts once it is, with all that belongs to it.
pub fn state(app: &App, row: &JobRow) -> (JobPhase, Option<String>) {
    let snapshot = app.network.snapshot();
    match snapshot.jobs.get(&row.id) {
        Some(live) if !row.phase.is_end() && !live.phase.is_end() => {
            (live.phase, live.reason.clone())
        }
        _ => (row.phase, row.reason.clone()),
    }
}

/// Training rows a second: at the moment, or over the whole of an ended job.
pub fn images_per_s(app: &App, row: &JobRow) -> f64 {
    if row.phase.is_end() {
        let rows = f64::from(row.spec.training.batch) * f64::from(row.step);
        return if row.train_ms == 0 { 0.0 } else { rows / (row.train_ms as f64 / 1000.0) };
    }
    app.network.snapshot().jobs.get(&row.id).map_or(0.0, |live| live.images_per_s)
}

/// A job as the API shows it.
async fn answer(app: &App, row: &JobRow) -> Result<Value, Problem> {
    let JobSummary { train, evaluation: last, best, contributors, work, paid } =
        app.store.job_summary(row.id).await?;
    let (phase, reason) = state(app, row);
    // That of a pause goes with it.
    let cause = row.cause.filter(|_| phase.is_end() || phase == JobPhase::Paused);
    let mut shown = json!({
        "id": row.id,
        "name": row.spec.name,
        "state": phase,
        "cause": cause,
        "reason": reason,
        "created_at": row.created.rfc3339(),
        "started_at": row.started.map(UnixMs::rfc3339),
        "ended_at": row.ended.map(UnixMs::rfc3339),
        "dataset": row.dataset.to_string(),
        "listed": row.spec.listed,
        "category": row.spec.category,
        "deadline": row.spec.deadline,
        "budget": row.spec.budget,
        "fallback": row.spec.fallback,
        "fallback_after_s": row.spec.fallback_after_s,
        "placement": row.spec.placement.name(),
        "numerics": row.spec.numerics,
        "verification": row.spec.verification,
        "combine": row.spec.training.combine,
        "on_divergence": row.spec.training.on_divergence,
        "seed": row.spec.seed,
        "kernel": row.kernel,
        "parameters": row.facts.parameters,
        "epochs": row.spec.training.epochs,
        "epoch": row.epochs_done,
        "rounds": row.facts.steps,
        "round": row.step,
        "tasks": row.tasks.saturating_sub(row.void_tasks),
        "contributors": contributors,
        "work": work,
        "images_per_s": images_per_s(app, row),
        "train": train.map_or(Value::Null, metrics),
        "evaluation": evaluation(last),
        "best": evaluation(best),
        "train_ms": row.train_ms,
        "cost": cost(row, paid),
        "rollbacks": row.rollbacks,
        "setbacks": row.setbacks,
        "model_sha256": row.model_sha256,
    });
    // The macro takes no more fields at once.
    shown["when_spent"] = json!(row.spec.when_spent);
    Ok(shown)
}

fn cost(row: &JobRow, paid: Option<NanoUsd>) -> Value {
    let flops = row.flops.saturating_sub(row.void_flops);
    // Parts of a nano-USD that nobody is given go back with the rest, each share's own.
    let charged = match paid {
        Some(paid) if row.phase.is_end() => Some(paid),
        _ => row.charged.rounded_up(),
    };
    json!({
        "flops": flops,
        "calculations": flops as f64 / FLOPS_PER_CALCULATION as f64,
        "flops_planned": row.facts.flops_planned,
        "nano_usd": charged,
        "escrow_nano_usd": row.escrow,
        "topped_up_nano_usd": row.topped_up,
    })
}
