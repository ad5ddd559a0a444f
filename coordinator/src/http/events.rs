//! `/v1/jobs/{id}/events`: Server-Sent Events whose ids are those of the store,
//! so that `Last-Event-ID` resumes without a gap, also over a restart.

use super::auth::{Caller, Owner};
use super::extract::Path;
use super::{App, Problem, jobs};
use crate::store::{KeyNumber, StoredEvent};
use crate::time::UnixMs;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{Stream, unfold};
use raven_protocol::JobId;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// Between two comments on a quiet stream, so that proxies keep it open.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// When a client of a coordinator that goes down is to connect again.
const RETURN: Duration = Duration::from_secs(crate::front::RETURN_S);
/// Events read at once.
const PAGE: u32 = 256;
/// The store is asked again after this long without a notice, should one be missed.
const RECHECK: Duration = Duration::from_secs(5);

pub fn routes() -> Router<App> {
    Router::new().route("/v1/jobs/{id}/events", get(events))
}

async fn events(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let owner = Owner(caller.account);
    let row = jobs::find(&app, owner, &id).await?;
    let after = match headers.get("last-event-id") {
        None => 0,
        Some(value) => {
            let id = value.to_str().ok().and_then(|text| text.parse::<i64>().ok());
            id.ok_or_else(|| {
                Problem::invalid("Last-Event-ID: not an id of this stream")
                    .with_field("Last-Event-ID")
            })?
        }
    };
    let stream_open = app.streams.enter(owner.0)?;
    // Subscribed before the first look, so that nothing falls in between.
    let notices = app.network.notices();
    let stopping = app.stopping.clone();
    let mut reader = Reader {
        app,
        key: caller.number,
        job: row.id,
        after,
        ready: VecDeque::new(),
        ended: false,
        notices,
        stopping,
        _open: stream_open,
    };
    reader.fill().await?;
    if reader.ready.is_empty() && row.phase.is_end() {
        // To an EventSource that connects again, this says: there is no more.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let keep_alive = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    Ok(Sse::new(stream(reader)).keep_alive(keep_alive).into_response())
}

/// One client's place in a job's events.
struct Reader {
    app: App,
    /// The stream ends with it.
    key: KeyNumber,
    job: JobId,
    after: i64,
    ready: VecDeque<StoredEvent>,
    ended: bool,
    notices: broadcast::Receiver<JobId>,
    stopping: watch::Receiver<bool>,
    /// Given back with the stream.
    _open: super::streams::Stream,
}

impl Reader {
    async fn fill(&mut self) -> Result<(), Problem> {
        let events = self.app.store.events_after(self.job, self.after, PAGE).await?;
        if let Some(last) = events.last() {
            self.after = last.id;
        }
        self.ready.extend(events);
        Ok(())
    }

    /// Waits for a notice of this job, or for long enough. False where the process ends.
    async fn wait(&mut self) -> bool {
        let recheck = tokio::time::sleep(RECHECK);
        tokio::pin!(recheck);
        loop {
            tokio::select! {
                notice = self.notices.recv() => match notice {
                    Ok(job) if job != self.job => {}
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return true,
                    // The network is gone; the store still answers.
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                () = &mut recheck => return true,
                _ = self.stopping.changed() => return false,
            }
        }
        recheck.await;
        !*self.stopping.borrow()
    }

    async fn next(&mut self) -> Option<Next> {
        if self.ended {
            return None;
        }
        while self.ready.is_empty() {
            if !self.wait().await {
                self.ended = true;
                return Some(Next::ComeBack);
            }
            match self.app.store.key_holds(self.key, UnixMs::now()).await {
                Ok(true) => {}
                // Whoever connects again with it is told why.
                Ok(false) => return None,
                Err(error) => {
                    tracing::warn!(%error, "an event stream ends");
                    return None;
                }
            }
            if let Err(problem) = self.fill().await {
                // The client connects again and goes on where it was.
                tracing::warn!(?problem, "an event stream ends");
                return None;
            }
        }
        let event = self.ready.pop_front()?;
        self.ended = is_end(&event);
        Some(Next::Event(event))
    }
}

/// What a stream says next.
enum Next {
    Event(StoredEvent),
    /// The process ends: nothing more from this one.
    ComeBack,
}

/// Whether nothing follows an event.
fn is_end(event: &StoredEvent) -> bool {
    #[derive(serde::Deserialize)]
    struct StateData {
        state: raven_engine::JobPhase,
    }
    event.kind == "state"
        && serde_json::from_str::<StateData>(&event.data).is_ok_and(|data| data.state.is_end())
}

fn stream(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(reader, |mut reader| async {
        let sent = match reader.next().await? {
            Next::Event(event) => {
                Event::default().id(event.id.to_string()).event(event.kind).data(event.data)
            }
            Next::ComeBack => Event::default().retry(RETURN),
        };
        Some((Ok(sent), reader))
    })
}
