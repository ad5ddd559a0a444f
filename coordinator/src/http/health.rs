//! `/healthz`, `/readyz` and `/metrics`, for operators.

use super::{App, Problem};
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Ready while the store answers, the runtime moves and the process is not ending.
async fn ready(State(app): State<App>) -> Result<&'static str, Problem> {
    if *app.stopping.borrow() {
        return Err(Problem::unavailable("the coordinator is going down"));
    }
    if let Some(failure) = app.network.failure() {
        tracing::error!(%failure, "not ready");
        return Err(Problem::unavailable("the runtime has failed"));
    }
    app.store.ping().await.map_err(|error| {
        tracing::error!(%error, "not ready");
        Problem::unavailable("the store does not answer")
    })?;
    Ok("ready\n")
}

async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let totals = app.store.totals().await?;
    let phases = app.store.job_phases().await?;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, lines: &[(String, u128)]| {
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in lines {
            text += &format!("{name}{labels} {value}\n");
        }
    };
    let one = |value| [(String::new(), value)];
    family("raven_credited_tasks_total", "counter", "Credited tasks.", &one(totals.tasks.into()));
    family(
        "raven_credited_flops_total",
        "counter",
        "Floating-point operations of credited tasks.",
        &one(totals.flops),
    );
    let jobs: Vec<(String, u128)> = phases
        .iter()
        .map(|(phase, count)| (format!("{{phase=\"{phase}\"}}"), (*count).into()))
        .collect();
    family("raven_jobs", "gauge", "Stored jobs by phase.", &jobs);
    text += &app.network.metrics();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
