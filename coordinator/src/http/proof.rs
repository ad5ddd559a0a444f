//! `/v1/jobs/{id}/proof`: why a job's results are believed, and what was found out.

use super::auth::Owner;
use super::download::attachment;
use super::extract::Path;
use super::{App, Problem, jobs};
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::io::ErrorKind;

/// Proven lies in one answer.
const EVIDENCE_MAX: u32 = 1_000;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/jobs/{id}/proof", get(proof))
        .route("/v1/jobs/{id}/proof/{evidence}", get(evidence))
}

async fn proof(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let row = jobs::find(&app, owner, &id).await?;
    let executions = app.store.executions(row.id).await?;
    let evidence = app.store.evidence_of(row.id, EVIDENCE_MAX).await?;
    Ok(Json(json!({
        "verification": row.spec.verification,
        "executions": executions,
        "rollbacks": row.rollbacks,
        "evidence": evidence,
    })))
}

/// Removes the files of evidence that hold rows of deleted data sets; what was
/// found stays. Those that are gone already are passed over.
pub async fn remove_evidence(app: &App) -> Result<(), Problem> {
    for id in app.store.evidence_of_deleted().await? {
        let path = app.settings.evidence_folder.join(format!("{id}.evidence"));
        match tokio::fs::remove_file(&path).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Problem::internal(&error)),
        }
    }
    Ok(())
}

/// A file for `coordinator replay`. It holds rows and weights of the job, which
/// are its owner's.
async fn evidence(
    State(app): State<App>,
    owner: Owner,
    Path((id, evidence)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let row = jobs::find(&app, owner, &id).await?;
    let missing = || Problem::not_found("the job has no evidence of that id in a file");
    // Only ids that the store has made are looked for on the disk.
    if !app.store.has_evidence(row.id, &evidence).await? {
        return Err(missing());
    }
    let path = app.settings.evidence_folder.join(format!("{evidence}.evidence"));
    attachment(&path, &format!("{evidence}.evidence")).await?.ok_or_else(missing)
}
