//! `/healthz`, `/readyz` and `/metrics`, for operators.

use super::auth::bearer;
use super::{App, Problem};
use crate::front::{Front, RETURN_S};
use crate::health::Trouble;
use crate::process;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use std::sync::Arc;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Ready while the store answers, records can be stored, the runtime moves and
/// the process is not ending. Damaged blobs harm single jobs only: they are told beside it.
async fn ready(State(app): State<App>) -> Result<String, Problem> {
    if *app.stopping.borrow() {
        let problem = Problem::unavailable("the coordinator is going down");
        return Err(problem.with_retry_after(RETURN_S));
    }
    if let Some(trouble) = app.store.health().trouble() {
        return Err(Problem::storage(trouble));
    }
    if let Some(failure) = app.network.failure() {
        tracing::error!(%failure, "not ready");
        return Err(Problem::unavailable("the runtime has failed"));
    }
    app.store.ping().await.map_err(|error| {
        tracing::error!(%error, "not ready");
        Problem::unavailable("the store does not answer")
    })?;
    let damaged = app.blobs.damaged();
    Ok(match damaged.first() {
        None => "ready\n".to_owned(),
        Some(first) => {
            let count = damaged.len();
            format!("ready\ndegraded: {count} damaged or missing blobs, {first} among them\n")
        }
    })
}

async fn metrics(
    State(app): State<App>,
    front: Option<Extension<Arc<Front>>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(token) = &app.settings.admin_token
        && !bearer(&headers).is_some_and(|sent| token.is(sent))
    {
        return Err(Problem::unauthorized("send the admin token as a bearer token"));
    }
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
    let trouble = app.store.health().trouble();
    let kinds = [Trouble::StorageFull, Trouble::StoreBusy, Trouble::StorageFails];
    let troubles = kinds
        .map(|kind| (format!("{{kind=\"{}\"}}", kind.name()), u128::from(trouble == Some(kind))));
    family("raven_storage_trouble", "gauge", "Why nothing can be stored now.", &troubles);
    let mailer = app.settings.accounts.mailer.as_ref();
    let letters = mailer.map(|mailer| mailer.counts()).unwrap_or_default();
    let outcomes =
        [("sent", letters.sent), ("refused", letters.refused), ("given_up", letters.given_up)]
            .map(|(outcome, count)| (format!("{{outcome=\"{outcome}\"}}"), count.into()));
    family(
        "raven_letters_total",
        "counter",
        "Letters to people that a relay was to take.",
        &outcomes,
    );
    let put_off = one(letters.put_off.into());
    family("raven_letters_put_off_total", "counter", "Offers that a relay put off.", &put_off);
    let mut gauge = |name: &str, help: &str, value: u64| {
        family(name, "gauge", help, &one(value.into()));
    };
    gauge("raven_blob_bytes", "Bytes of all blobs.", app.blobs.used());
    gauge("raven_blobs_damaged", "Damaged or missing blobs.", app.blobs.damaged().len() as u64);
    if let Ok(free) = app.blobs.disk_free() {
        gauge("raven_disk_free_bytes", "Bytes left on the disk.", free);
    }
    if let Some(usage) = process::usage() {
        gauge("process_resident_memory_bytes", "Memory of this process.", usage.resident_bytes);
        gauge("process_open_fds", "Open files and sockets.", usage.open_files);
    }
    if let Some(Extension(front)) = &front {
        let open = front.connections().open() as u64;
        gauge("raven_connections_open", "Open connections.", open);
        text += &front.counters();
    }
    text += &app.network.metrics();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
