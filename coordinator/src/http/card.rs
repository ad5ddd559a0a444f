//! `/embed/now` and `/embed/shown`: what the frame's card asks before it is shown, and
//! what it tells once it was.

use super::body::RawBody;
use super::extract::Query;
use super::{App, Problem};
use crate::runtime::NetworkSnapshot;
use crate::store::SiteRow;
use crate::ticket::TicketError;
use crate::time::UnixMs;
use crate::view::{Queue, WORK_MAX, Work};
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use raven_engine::{CategorySet, JobPhase};
use raven_protocol::ViewId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Cards that are opened within these seconds may share an answer.
const FRESH: &str = "public, max-age=5";

pub fn routes() -> Router<App> {
    Router::new().route("/embed/now", get(now)).route("/embed/shown", post(shown))
}

#[derive(Debug, Deserialize)]
struct SiteQuery {
    #[serde(default)]
    site: String,
}

/// What a card is told, and the name of what it shows with that.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    queue: Queue,
    view: ViewId,
}

/// What waits for contributors, or is computed by them, and is not refused.
fn waiting(snapshot: &NetworkSnapshot, refused: CategorySet) -> BTreeSet<Work> {
    let waits = |phase: JobPhase| !phase.is_end() && phase != JobPhase::Paused;
    let jobs = snapshot.jobs.values();
    jobs.filter(|job| waits(job.phase) && !refused.contains(job.category))
        .map(|job| Work { category: job.category, requester: job.requester.clone() })
        .collect()
}

async fn now(
    State(app): State<App>,
    Query(query): Query<SiteQuery>,
) -> Result<([(HeaderName, &'static str); 1], Json<Told>), Problem> {
    let site = app.store.site_by_key(&query.site).await?.filter(SiteRow::is_open);
    let site = site.ok_or_else(|| Problem::not_found("no such site shows its frame"))?;
    let refused = site.refused();
    let work = waiting(&app.network.snapshot(), refused);
    let more = work.len().saturating_sub(WORK_MAX);
    let work: Vec<Work> = work.into_iter().take(WORK_MAX).collect();
    let queue = Queue { categories: refused.complement(), work, more };
    let view = app.embed.card_view().with_queue(queue.clone()).named();
    // The card may be agreed to as soon as it shows this.
    app.store.give_view(&view, Some(site.id), UnixMs::now()).await?;
    Ok(([(header::CACHE_CONTROL, FRESH)], Json(Told { queue, view: view.id })))
}

/// Counts a card that came into view. The frame's ticket is the body: whoever asked for no
/// frame has none to count with.
async fn shown(State(app): State<App>, RawBody(body): RawBody) -> Result<StatusCode, Problem> {
    let now = UnixMs::now();
    let ticket = std::str::from_utf8(&body).unwrap_or_default();
    match app.tickets.shown(ticket, now).await {
        Ok(ticket) => {
            if let Some(ticket) = ticket {
                app.store.count_shown(ticket, now);
            }
            Ok(StatusCode::NO_CONTENT)
        }
        Err(TicketError::Store(error)) => Err(error.into()),
        Err(error) => Err(Problem::forbidden(error.to_string()).with_field("ticket")),
    }
}
