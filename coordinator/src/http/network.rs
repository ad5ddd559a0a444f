//! `/v1/nodes` and `/v1/stats`: what anyone may know of the network.

use super::{App, Problem, jobs};
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;
use axum::{Json, Router};
use raven_protocol::ResultOutcome;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tower_http::cors::{Any, CorsLayer};

/// Public jobs that are shown.
const JOBS_MAX: u32 = 20;
/// Points of a curve.
const POINTS_MAX: u32 = 500;
/// Contributors that are shown.
const NODES_MAX: usize = 500;

pub fn routes() -> Router<App> {
    // Anyone's page may read these two: they tell every reader the same.
    let open = CorsLayer::new().allow_origin(Any).allow_methods([Method::GET]);
    Router::new().route("/v1/nodes", get(nodes)).route("/v1/stats", get(stats)).layer(open)
}

async fn nodes(State(app): State<App>) -> Json<Value> {
    let snapshot = app.network.snapshot();
    let nodes: Vec<Value> = snapshot
        .nodes
        .iter()
        .take(NODES_MAX)
        .map(|node| {
            json!({
                "session": node.session,
                "device": node.device,
                "numeric": node.numeric.backend(),
                "share": node.share,
                "workers": node.workers,
                "flops_per_s": node.flops_per_s,
                "tasks_accepted": node.tasks_accepted,
                "state": node.state,
                "joined_s_ago": node.joined_s_ago,
            })
        })
        .collect();
    Json(json!({ "nodes": nodes, "total": snapshot.nodes.len() }))
}

/// An answer that is read again after this long: however many pages ask, the
/// store is read as if one did.
const STATS_AGE_MAX: Duration = Duration::from_millis(900);

/// The last answer and when it was made.
pub type StatsCache = Arc<Mutex<Option<(Instant, Value)>>>;

async fn stats(State(app): State<App>) -> Result<Json<Value>, Problem> {
    // Those who ask meanwhile wait for the one who reads.
    let mut last = app.stats.lock().await;
    if let Some((made, answer)) = last.as_ref()
        && made.elapsed() < STATS_AGE_MAX
    {
        return Ok(Json(answer.clone()));
    }
    let answer = read_stats(&app).await?;
    *last = Some((Instant::now(), answer.clone()));
    Ok(Json(answer))
}

/// Part of the honest work, as far as is known, that earned nothing.
fn unpaid_share(outcomes: &BTreeMap<ResultOutcome, u64>) -> f64 {
    let (unpaid, others): (Vec<_>, Vec<_>) =
        outcomes.iter().partition(|(outcome, _)| outcome.is_unpaid());
    let unpaid: u64 = unpaid.into_iter().map(|(_, count)| count).sum();
    let paid = others.into_iter().find(|(outcome, _)| **outcome == ResultOutcome::Accepted);
    let all = unpaid + paid.map_or(0, |(_, count)| *count);
    if all == 0 { 0.0 } else { unpaid as f64 / all as f64 }
}

async fn read_stats(app: &App) -> Result<Value, Problem> {
    let snapshot = app.network.snapshot();
    let totals = app.store.totals().await?;
    let outcomes = app.store.outcomes().await?;
    let mut listed = Vec::new();
    for row in app.store.listed_jobs(JOBS_MAX).await? {
        let curve = app.store.curve(row.id, POINTS_MAX).await?;
        let live = snapshot.jobs.get(&row.id);
        listed.push(json!({
            "id": row.id,
            "name": row.spec.name,
            "state": jobs::state(app, &row).0,
            "epoch": row.epochs_done,
            "epochs": row.spec.training.epochs,
            "round": row.step,
            "rounds": row.facts.steps,
            "images_per_s": jobs::images_per_s(app, &row),
            "contributors": live.map_or(0, |live| live.contributors),
            "work": app.store.job_work(row.id).await?,
            "loss": curve.loss,
            "evaluation": curve.evaluation,
        }));
    }
    Ok(json!({
        "contributors": snapshot.contributors,
        "workers": snapshot.workers,
        "tasks_accepted": totals.tasks,
        "tasks_per_s": snapshot.tasks_per_s,
        "outcomes": outcomes,
        "unpaid_share": unpaid_share(&outcomes),
        // A double: the sum passes what a JSON number holds exactly.
        "flops_done": totals.flops as f64,
        "jobs": listed,
    }))
}
