//! `/v1/jobs/{id}/proof`: why a job's results are believed, and what was found out.

use super::auth::Owner;
use super::extract::Path;
use super::{App, Problem, jobs};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Proven lies in one answer.
const EVIDENCE_MAX: u32 = 1_000;

pub fn routes() -> Router<App> {
    Router::new().route("/v1/jobs/{id}/proof", get(proof))
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
