//! `/v1/jobs`: posting, watching and ending jobs.

use super::auth::Owner;
use super::body::{JSON_BYTES_MAX, JsonBody};
use super::{App, Problem, datasets, model};
use crate::job::{JobError, JobSpec, Lowering, SeedNumber, lower_job};
use crate::random;
use crate::store::{JobRow, JobSummary, MeanMetrics, NewJob};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use raven_engine::JobPhase;
use raven_protocol::{JobId, Seed};
use serde_json::{Value, json};
use std::sync::Arc;

/// Entries of one answer.
const LIST_MAX: u32 = 50;
/// Flops of one calculation, the unit of price.
const CALCULATION_FLOPS: f64 = 50e6;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/jobs", post(create).get(list).layer(DefaultBodyLimit::max(JSON_BYTES_MAX)))
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

async fn create(
    State(app): State<App>,
    owner: Owner,
    JsonBody(mut spec): JsonBody<JobSpec>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    if *app.stopping.borrow() {
        return Err(Problem::unavailable("the coordinator is going down; post again later"));
    }
    let (open, limit) = (app.store.open_job_count(owner.0).await?, app.settings.open_jobs_max);
    if open >= limit {
        let detail = format!("{open} jobs of this key have not ended");
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Err(Problem::new(status, "too-many-jobs", "Too many open jobs", detail)
            .with_limit(limit, Some(open)));
    }
    let dataset = datasets::find(&app, owner, &spec.dataset).await?.ok_or_else(|| {
        Problem::invalid("dataset: no data set of this key has that id").with_field("dataset")
    })?;
    let seed = Seed(spec.seed.map_or_else(random::nonzero_u64, |seed| seed.0));
    spec.seed = Some(SeedNumber(seed.0));
    let id = JobId(random::nonzero_u64());
    let kernel = app.network.kernel();
    let train_shards = app.store.shards(dataset.id, false).await?;
    let test_shards = app.store.shards(dataset.id, true).await?;
    let dataset_id = dataset.id;
    let (spec, lowered) = tokio::task::spawn_blocking(move || {
        let dataset = &dataset.facts;
        let lowering = Lowering { job: id, seed, kernel, dataset, train_shards, test_shards };
        let lowered = lower_job(&spec, lowering);
        (spec, lowered)
    })
    .await?;
    let (context, facts) = lowered.map_err(|error| refusal(&error))?;
    let job = NewJob { id, owner: owner.0, dataset: dataset_id, spec, facts, kernel };
    app.store.add_job(&job).await?;
    if let Err(error) = app.network.add_job(Arc::new(context), None).await {
        app.store.end_job(id, JobPhase::Failed, Some(&error.to_string())).await?;
        return Err(Problem::unavailable(error.to_string()));
    }
    let row = app.store.job(owner.0, id).await?;
    let row = row.ok_or_else(|| Problem::internal(&"a stored job is gone"))?;
    Ok((StatusCode::ACCEPTED, Json(answer(&app, &row).await?)))
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
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let row = find(&app, owner, &id).await?;
    if row.phase.is_end() {
        let detail = format!("the job has ended already: {}", row.phase);
        return Err(Problem::conflict(detail).with_field("state"));
    }
    if let Err(error) = app.network.cancel_job(row.id).await {
        return Err(Problem::unavailable(error.to_string()));
    }
    let row = find(&app, owner, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(answer(&app, &row).await?)))
}

fn metrics(metrics: MeanMetrics) -> Value {
    json!({ "loss": metrics.loss, "accuracy": metrics.accuracy })
}

fn evaluation(entry: Option<(u32, MeanMetrics)>) -> Value {
    entry.map_or(Value::Null, |(epoch, metrics)| {
        json!({ "epoch": epoch, "loss": metrics.loss, "accuracy": metrics.accuracy })
    })
}

/// The name of a job's state: that of the running network where it has ended
/// nothing yet, since not every change of it is made durable.
pub fn state(app: &App, row: &JobRow) -> &'static str {
    let snapshot = app.network.snapshot();
    match snapshot.jobs.get(&row.id) {
        Some(live) if !row.phase.is_end() => live.state,
        _ => row.phase.as_str(),
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
    let JobSummary { train, evaluation: last, best, contributors } =
        app.store.job_summary(row.id).await?;
    Ok(json!({
        "id": row.id,
        "name": row.spec.name,
        "state": state(app, row),
        "reason": row.reason,
        "created_at": row.created.rfc3339(),
        "dataset": row.dataset.to_string(),
        "listed": row.spec.listed,
        "placement": row.spec.placement.name(),
        "numerics": row.spec.numerics,
        "seed": row.spec.seed,
        "kernel": row.kernel,
        "parameters": row.facts.parameters,
        "epochs": row.spec.training.epochs,
        "epoch": row.epochs_done,
        "rounds": row.facts.steps,
        "round": row.step,
        "tasks": row.tasks,
        "contributors": contributors,
        "images_per_s": images_per_s(app, row),
        "train": train.map_or(Value::Null, metrics),
        "evaluation": evaluation(last),
        "best": evaluation(best),
        "train_ms": row.train_ms,
        "cost": {
            "flops": row.flops,
            "calculations": row.flops as f64 / CALCULATION_FLOPS,
            "flops_planned": row.facts.flops_planned,
        },
        "model_sha256": row.model_sha256,
    }))
}
