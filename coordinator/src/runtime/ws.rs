//! `GET /v1/contribute`: the upgrade, and the reading side of one session.

use super::Shared;
use super::door::Place;
use super::driver::{Input, Opened, Projected, Revealed};
use super::executor::{Tensor, tensors_of};
use super::leases::{Answer, Held, LeaseTable};
use super::open_session::OpenSession;
use super::outbox::{Ending, Outbox};
use super::partners::Visitor;
use super::product::look;
use super::relaxed::Sketch;
use super::session::{AwaitConsent, Refusal, check_hello, network_prefix, parse_hex};
use super::shown;
use super::traffic::Traffic;
use super::upgrade::{self, Gate, Socket, TooLong};
use super::wishes::{Bucket, Line, Wishes};
use super::writer;
use crate::allocation::{Allocation, receipt_hash};
use crate::store::StoreError;
use crate::ticket::TicketError;
use crate::time::UnixMs;
use axum::body::Bytes;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{SplitSink, SplitStream};
use hyper::upgrade::OnUpgrade;
use raven_engine::{Check, ContributorId, Event, Identity, SessionProfile, SiteId, Trust};
use raven_protocol::frame::encode;
use raven_protocol::{
    Backend, Frame, FrameLimits, FromContributor, GoodbyeReason, Hello, LeaseId, MessageError,
    ResultDigest, SessionId, TaskId, ToContributor, result_digest,
};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::Instrument as _;

/// Before consent a peer has nothing to say but two short headers.
const OPENING: FrameLimits =
    FrameLimits { header_bytes_max: 16 << 10, body_bytes_max: 0, tensors_max: 0 };
const ACTIVE: FrameLimits = FrameLimits::TO_COORDINATOR;
/// Buffers of one connection; axum's defaults cost 128 KiB for each.
const READ_BUFFER_BYTES: usize = 16 << 10;
const WRITE_BUFFER_BYTES: usize = 16 << 10;
/// Payloads above this, and products, are checked on a thread that may block.
const HASH_INLINE_BYTES: usize = 1 << 20;
/// Messages a second that a session is read at, and how many may come at once.
/// A fleet of 256 workers with ten tasks a second each is below it; beyond it
/// the socket is left unread for a while.
const MESSAGES_PER_S: f64 = 6_000.0;
const MESSAGES_BURST: f64 = 6_000.0;

/// Answers the upgrade. A browser sends its `Origin`; the only page that
/// connects is the coordinator's own frame.
pub async fn contribute(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    connection: Option<Extension<OnUpgrade>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let origin = headers.get(header::ORIGIN);
    let is_ours = |origin: &header::HeaderValue| {
        shared.config.own_origins.iter().any(|own| own.as_bytes() == origin.as_bytes())
    };
    let from_browser = origin.is_some();
    if !origin.is_none_or(is_ours) {
        let detail = "only the coordinator's own frame may contribute from a browser";
        return problem(StatusCode::FORBIDDEN, "origin", detail);
    }
    // axum's part of the upgrade is the check of its headers.
    if let Err(error) = upgrade {
        return problem(error.status(), "upgrade", &error.body_text());
    }
    let Some(Extension(connection)) = connection else {
        let detail = "this connection cannot become a WebSocket";
        return problem(StatusCode::UPGRADE_REQUIRED, "upgrade", detail);
    };
    tokio::spawn(async move {
        if let Some((socket, gate)) = upgrade::socket(connection, config()).await {
            serve(socket, gate, shared, peer.ip(), from_browser).await;
        }
    });
    upgrade::switching_protocols(&headers)
}

fn config() -> WebSocketConfig {
    let message_bytes_max = ACTIVE.frame_bytes_max() as usize;
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
}

fn problem(status: StatusCode, field: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("refused");
    let body = serde_json::json!({
        "type": "about:blank", "title": title, "status": status.as_u16(),
        "detail": detail, "field": field,
    });
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, kind, body.to_string()).into_response()
}

/// One session from upgrade to close.
async fn serve(socket: Socket, gate: Gate, shared: Arc<Shared>, peer: IpAddr, from_browser: bool) {
    let outbox = Outbox::default();
    let (sink, stream) = socket.split();
    let timeouts = shared.config.timeouts;
    let writing =
        tokio::spawn(writer::write(sink, outbox.clone(), timeouts, shared.metrics.clone()));
    let slot = shared.slots.clone().try_acquire_owned();
    let mut reader = Reader {
        stream,
        gate,
        outbox: outbox.clone(),
        shared: shared.clone(),
        idle: timeouts.idle,
        traffic: Arc::default(),
    };
    let ending = match &slot {
        Ok(_) => match shared.door.enter(network_prefix(peer)) {
            Ok(place) => {
                let span = tracing::info_span!("session", session = tracing::field::Empty);
                reader.run(peer, from_browser, &place).instrument(span).await
            }
            Err(refusal) => Ending::Goodbye(refusal),
        },
        Err(_) => {
            let detail = format!("sessions: the limit is {}", shared.config.sessions_max);
            Ending::Goodbye(Refusal::new(GoodbyeReason::Full, detail))
        }
    };
    if let Ending::Goodbye(refusal) = &ending {
        shared.metrics.goodbye(refusal.reason);
        tracing::debug!(reason = ?refusal.reason, detail = refusal.detail, "goodbye");
    }
    outbox.end(ending);
    match writing.await {
        // Closing a socket with unread bytes resets it, and the goodbye with it.
        Ok(sink) => {
            let _ = tokio::time::timeout(timeouts.close, reader.drain(sink)).await;
        }
        Err(error) => tracing::error!(%error, "a session's writer failed"),
    }
    // Who waits for all slots waits for every goodbye to be read.
    drop(slot);
}

/// Why reading ended: nothing more is to be said, or this.
type Read<T> = Result<T, Ending>;

impl<E: Into<Refusal>> From<E> for Ending {
    fn from(error: E) -> Self {
        Ending::Goodbye(error.into())
    }
}

struct Reader {
    stream: SplitStream<Socket>,
    gate: Gate,
    outbox: Outbox,
    shared: Arc<Shared>,
    idle: Duration,
    /// What this session may still move.
    traffic: Arc<Traffic>,
}

/// A payload that came in turn.
struct Shown {
    lease: LeaseId,
    held: Held,
    bytes: Bytes,
    /// The projections that were answered before.
    promised: Option<Arc<Sketch>>,
}

/// What an open session reads against.
struct Active {
    session: SessionId,
    /// What its tasks must be executed on.
    backend: Backend,
    leases: Arc<Mutex<LeaseTable>>,
    wishes: Wishes,
    /// The newest line of what the session has of the machine.
    allocation: Allocation,
    /// Of the last receipt for a higher share.
    raised: Option<[u8; 32]>,
    /// How its site sees it, until the engine knows the session.
    visitor: Option<(SiteId, Visitor)>,
    /// The visitor has said goodbye.
    is_revoked: bool,
}

impl Reader {
    async fn run(&mut self, peer: IpAddr, from_browser: bool, place: &Place) -> Ending {
        let shared = self.shared.clone();
        let opening = match shared.door.opening(place, self.shared.config.timeouts.hello).await {
            Ok(opening) => opening,
            Err(refusal) => return Ending::Goodbye(refusal),
        };
        let (mut open, mut active, opened) = match self.open(peer, from_browser).await {
            Ok(opening) => opening,
            Err(ending) => return ending,
        };
        drop(opening);
        let ending = match self.tell(Input::Opened(Box::new(opened))).await {
            Ok(()) => {
                // The engine takes no notice of what it is told of a session that it does
                // not know: what the site changes is looked for from here on.
                if let Some((site, visitor)) = active.visitor.take() {
                    open.visit(site, visitor);
                }
                self.work(&mut active).await
            }
            Err(ending) => ending,
        };
        let reason = match &ending {
            Ending::Goodbye(refusal) => Some(refusal.reason),
            Ending::Silent if active.is_revoked => Some(GoodbyeReason::Stopped),
            Ending::Silent => None,
        };
        open.close(reason).await;
        ending
    }

    /// Hello, welcome, consent, ready.
    async fn open(
        &mut self,
        peer: IpAddr,
        from_browser: bool,
    ) -> Read<(OpenSession, Active, Opened)> {
        let timeouts = self.shared.config.timeouts;
        let hello = self.hello(Instant::now() + timeouts.hello).await?;
        check_hello(&hello, self.shared.modules())?;
        self.traffic = Arc::new(Traffic::of(hello.traffic_bytes_left));
        let site = match &hello.ticket {
            Some(ticket) => {
                // A key that is none is refused with the hello itself.
                let key = ContributorId(parse_hex(&hello.session_key).unwrap_or_default());
                let prefix = network_prefix(peer);
                let site = self.shared.tickets.verify(ticket, &key, &prefix).await;
                Some(site.map_err(|error| {
                    Refusal::new(GoodbyeReason::BadTicket, format!("hello.ticket: {error}"))
                })?)
            }
            None if from_browser => {
                let detail = "hello.ticket: a frame's session needs its ticket";
                return Err(Refusal::new(GoodbyeReason::BadTicket, detail).into());
            }
            None => None,
        };
        let text_version = self.shared.config.consent_text_version.clone();
        let waiting = AwaitConsent::new(hello, site, text_version.clone())?;
        let session = waiting.session();
        tracing::Span::current().record("session", tracing::field::display(session));
        self.send(&ToContributor::Welcome {
            session,
            nonce: waiting.nonce().to_owned(),
            consent_text_version: text_version,
            consent_ms_max: timeouts.consent.as_millis() as u64,
            now_ms: UnixMs::now().0.unsigned_abs(),
        })?;
        let (receipt, signature) = self.receipt(Instant::now() + timeouts.consent).await?;
        let mut consented =
            waiting.consent(receipt, signature, network_prefix(peer), UnixMs::now())?;
        self.recall(&mut consented.profile).await?;
        let hidden = shown::hidden(&self.shared, consented.record.view).await?;
        let refuses = consented.profile.refused.by_site.union(hidden);
        consented.profile.refused.by_site = refuses;
        let stored = self.shared.store.session_opened(&consented.record).await;
        if let Err(StoreError::TicketTaken) = stored {
            let detail = format!("hello.ticket: {}", TicketError::Taken);
            return Err(Refusal::new(GoodbyeReason::BadTicket, detail).into());
        }
        if let Err(StoreError::StaleView) = stored {
            return Err(shown::unknown().into());
        }
        if let Err(error) = stored {
            tracing::error!(%session, %error, "a session was not stored");
            let detail = "the session could not be recorded; come back later";
            return Err(Refusal::new(GoodbyeReason::Draining, detail).into());
        }
        self.gate.open();
        let open = OpenSession::new(self.shared.clone(), session);
        self.send(&ToContributor::Ready { grant: open.grant().to_owned() })?;
        self.shared.metrics.sessions_opened.add(1);
        let allocation = consented.record.allocation();
        let contributor = consented.profile.contributor;
        self.traffic = self.shared.visits.join(contributor, self.traffic.clone());
        let (outbox, origin) = (self.outbox.clone(), consented.record.origin);
        let visitor = Visitor { outbox, origin, hidden, refuses };
        let visitor = consented.profile.site.map(|site| (site, visitor));
        let leases = Arc::<Mutex<LeaseTable>>::default();
        let wishes = Wishes::of(&consented.profile, consented.terms);
        let backend = consented.profile.numeric.backend();
        let opened = Opened {
            session,
            profile: consented.profile,
            outbox: self.outbox.clone(),
            leases: leases.clone(),
            grant: open.grant().to_owned(),
            traffic: self.traffic.clone(),
        };
        let (raised, is_revoked) = (None, false);
        let active =
            Active { session, backend, leases, wishes, allocation, raised, visitor, is_revoked };
        Ok((open, active, opened))
    }

    /// Looks up what is known of a contributor; who was excluded goes at once.
    async fn recall(&self, profile: &mut SessionProfile) -> Result<(), Ending> {
        let identity = Identity::of(profile);
        let known = self.shared.store.trust_of(&identity).await;
        profile.trust = known.map_err(|error| {
            tracing::error!(%error, "what is known of a contributor was not read");
            let detail = "the session could not be recorded; come back later";
            Ending::from(Refusal::new(GoodbyeReason::Draining, detail))
        })?;
        if profile.trust == Trust::Excluded {
            let detail = "a result of this contributor was proven false";
            return Err(Refusal::new(GoodbyeReason::Excluded, detail).into());
        }
        Ok(())
    }

    async fn hello(&mut self, deadline: Instant) -> Read<Hello> {
        let late = Refusal::new(GoodbyeReason::TooSlow, "hello: none came in time");
        match self.opening_message(deadline, late).await? {
            FromContributor::Hello(hello) => Ok(hello),
            FromContributor::Goodbye { .. } => Err(Ending::Silent),
            _ => {
                let detail = "message: the first one must be a hello";
                Err(Refusal::new(GoodbyeReason::OutOfTurn, detail).into())
            }
        }
    }

    async fn receipt(&mut self, deadline: Instant) -> Read<(String, String)> {
        let late = Refusal::new(GoodbyeReason::NoConsent, "consent: no receipt came in time");
        match self.opening_message(deadline, late).await? {
            FromContributor::Consent { receipt, signature } => Ok((receipt, signature)),
            FromContributor::Goodbye { .. } => Err(Ending::Silent),
            _ => {
                let detail = "message: after the welcome comes the consent";
                Err(Refusal::new(GoodbyeReason::OutOfTurn, detail).into())
            }
        }
    }

    async fn opening_message(&mut self, deadline: Instant, late: Refusal) -> Read<FromContributor> {
        let bytes = loop {
            if let Some(bytes) = self.receive(deadline, &late).await? {
                break bytes;
            }
        };
        let frame = Frame::decode(&bytes, &OPENING)?;
        Ok(FromContributor::from_header(frame.header())?)
    }

    /// Answers until the session ends.
    async fn work(&mut self, active: &mut Active) -> Ending {
        let mut pace = Bucket::new(MESSAGES_PER_S, MESSAGES_BURST);
        let late =
            Refusal::new(GoodbyeReason::TooSlow, "nothing came, not even an answer to a ping");
        loop {
            let received = tokio::select! {
                // Any message, a pong too, shows that the peer is there.
                received = self.receive(Instant::now() + self.idle, &late) => Some(received),
                () = active.wishes.due() => None,
            };
            let handled = match received {
                None => self.tell_wishes(active).await,
                Some(Ok(None)) => {
                    pace.wait().await;
                    Ok(())
                }
                Some(Ok(Some(bytes))) => {
                    pace.wait().await;
                    self.handle(active, bytes).await
                }
                Some(Err(ending)) => Err(ending),
            };
            if let Err(ending) = handled {
                return ending;
            }
        }
    }

    /// The next binary message, or `None` for a ping or pong.
    async fn receive(&mut self, deadline: Instant, late: &Refusal) -> Read<Option<Bytes>> {
        let next = tokio::select! {
            next = timeout_at(deadline, self.stream.next()) => next,
            ending = self.outbox.ended() => return Err(ending),
        };
        let message = match next {
            Err(_) => return Err(late.clone().into()),
            Ok(None) => return Err(Ending::Silent),
            Ok(Some(Err(error))) => return Err(unreadable(error)),
            Ok(Some(Ok(message))) => message,
        };
        match message {
            Message::Binary(bytes) => {
                self.shared.metrics.frames_in.add(1);
                self.shared.metrics.bytes_in.add(bytes.len() as u64);
                self.traffic.message(bytes.len());
                Ok(Some(bytes))
            }
            Message::Text(_) => {
                let detail = "message: frames are binary, a text came";
                Err(Refusal::new(GoodbyeReason::BadFrame, detail).into())
            }
            Message::Ping(_) | Message::Pong(_) => Ok(None),
            Message::Close(_) | Message::Frame(_) => Err(Ending::Silent),
        }
    }

    async fn handle(&self, active: &mut Active, bytes: Bytes) -> Read<()> {
        let message = {
            let frame = Frame::decode(&bytes, &ACTIVE)?;
            let message = FromContributor::from_header(frame.header())?;
            let is_result = matches!(
                message,
                FromContributor::Projected { .. } | FromContributor::Result { .. }
            );
            if !is_result && frame.tensors().next().is_some() {
                return Err(MessageError::UnexpectedTensors { kind: kind_of(&message) }.into());
            }
            message
        };
        let session = active.session;
        let event = match message {
            FromContributor::Commit { lease, digest, elapsed_ms: _, backend } => {
                if backend != active.backend {
                    let (theirs, ours) = (backend.name(), active.backend.name());
                    let detail = format!("commit.backend: {theirs}, the lease is for a {ours}");
                    return Err(Refusal::new(GoodbyeReason::BadFrame, detail).into());
                }
                // One that comes late is told so: the engine knows why.
                if let Answer::Taken(held) = active.leases().commit(lease)? {
                    let TaskId { job, round, .. } = held.task;
                    tracing::debug!(%job, round, task = %held.task, %lease, "committed");
                    self.shared.metrics.commits.add(1);
                }
                Event::Committed { session, lease, digest }
            }
            FromContributor::Projected { lease } => {
                let asked = active.leases().projected(lease)?;
                let Some((held, key, probes)) = asked else { return Ok(()) };
                let frame = Frame::decode(&bytes, &ACTIVE)?;
                let sketch = Arc::new(Sketch::read(&held.expected, key, probes, &frame)?);
                active.leases().note_sketch(lease, sketch.clone());
                let Held { task, expected, .. } = held;
                let projected = Projected { session, lease, task, expected, sketch };
                return self.tell(Input::Projected(projected)).await;
            }
            FromContributor::Result { lease } => {
                let promised = active.leases().sketch(lease);
                let Answer::Taken(held) = active.leases().result(lease)? else { return Ok(()) };
                let TaskId { job, round, .. } = held.task;
                tracing::debug!(%job, round, task = %held.task, %lease, bytes = bytes.len(), "revealed");
                let shown = Shown { lease, held, bytes, promised };
                return self.result(active, shown).await;
            }
            FromContributor::Refuse { lease, reason, detail } => {
                let Answer::Taken(held) = active.leases().refuse(lease)? else { return Ok(()) };
                self.shared.metrics.refusals.add(1);
                tracing::info!(%session, %lease, task = %held.task, ?reason, detail, "lease refused");
                Event::Refused { session, lease, reason }
            }
            FromContributor::Pace { share, workers, refuses, receipt, signature } => {
                let (refuses, signed) = (refuses.into_iter().collect(), receipt.zip(signature));
                active.wishes.set_pace(share, workers, refuses, signed).await?;
                return self.tell_wishes(active).await;
            }
            FromContributor::Pause { .. } => {
                active.wishes.set_paused(true);
                return self.tell_wishes(active).await;
            }
            FromContributor::Resume => {
                active.wishes.set_paused(false);
                return self.tell_wishes(active).await;
            }
            FromContributor::Goodbye { reason } => {
                active.is_revoked = reason == GoodbyeReason::Stopped;
                return Err(Ending::Silent);
            }
            FromContributor::Hello(_) | FromContributor::Consent { .. } => {
                let detail = format!("message: no {} in an open session", kind_of(&message));
                return Err(Refusal::new(GoodbyeReason::OutOfTurn, detail).into());
            }
        };
        self.tell(Input::Event(event)).await
    }

    /// Records what the session has from now on, before it has more than it had.
    async fn allocate(&self, active: &mut Active, line: Line) -> Read<()> {
        let Line { share, workers, refuses, raise } = line;
        if let Some(raise) = &raise {
            active.raised = Some(receipt_hash(&raise.receipt));
        }
        let line = active.allocation.paced(share, workers, refuses, active.raised);
        active.allocation = line;
        self.shared.store.add_allocation(&line, raise.as_ref()).await.map_err(|error| {
            tracing::error!(session = %active.session, %error, "an allocation was not stored");
            let detail = "the change could not be recorded; come back later";
            Refusal::new(GoodbyeReason::Draining, detail).into()
        })
    }

    /// Tells the engine what the visitor wishes now, if that may be told yet.
    async fn tell_wishes(&self, active: &mut Active) -> Read<()> {
        let step = active.wishes.take(active.session);
        if let Some(rest) = step.rest {
            self.tell(Input::Event(rest)).await?;
        }
        if let Some(line) = step.line {
            self.allocate(active, line).await?;
        }
        for event in step.events {
            self.tell(Input::Event(event)).await?;
        }
        Ok(())
    }

    /// Checks and hashes a payload; the engine compares it with its commitment.
    async fn result(&self, active: &Active, shown: Shown) -> Read<()> {
        let Shown { lease, held, bytes, promised } = shown;
        let session = active.session;
        let (length, task) = (bytes.len(), held.task);
        let expected = held.expected.clone();
        let takes_long = length > HASH_INLINE_BYTES || held.product.is_some() || promised.is_some();
        let metrics = self.shared.metrics.clone();
        let verify = move || -> Result<_, Refusal> {
            let (digest, values) = verify(&held, &bytes)?;
            let is_as_promised = promised.is_none_or(|it| it.is_of(&held.expected, &values));
            let odd = look(&held, &values, &metrics);
            Ok((digest, values, odd, is_as_promised))
        };
        let (digest, values, odd, is_as_promised) = if takes_long {
            // Checks queue for cores: its contributor is not to lose time by it.
            let check = Check::Form;
            self.tell(Input::Event(Event::Arrived { session, lease, check })).await?;
            self.shared.checks.run(verify).await.map_err(|error| {
                tracing::error!(%session, %lease, %error, "a payload could not be hashed");
                Refusal::new(GoodbyeReason::Draining, "the payload could not be checked")
            })??
        } else {
            verify()?
        };
        if !is_as_promised {
            return self.tell(Input::Event(Event::Misprojected { session, lease })).await;
        }
        let bytes = length as u64;
        let revealed = Revealed { session, lease, task, expected, digest, bytes, values, odd };
        self.tell(Input::Revealed(Box::new(revealed))).await
    }

    fn send(&self, message: &ToContributor) -> Read<()> {
        let frame = encode(message, &[]);
        self.traffic.message(frame.len());
        let pushed = self.outbox.push(frame.into());
        pushed.map_err(|overflow| Refusal::new(GoodbyeReason::TooSlow, overflow.detail()).into())
    }

    async fn tell(&self, input: Input) -> Read<()> {
        self.shared.inputs.send(input).await.map_err(|_| {
            Refusal::new(GoodbyeReason::Draining, "the coordinator is going down").into()
        })
    }

    /// Reads and drops what the peer still sends, until it closes.
    async fn drain(mut self, sink: SplitSink<Socket, Message>) {
        let mut is_closed = false;
        while let Some(Ok(message)) = self.stream.next().await {
            is_closed |= message.is_close();
        }
        if is_closed {
            return;
        }
        // Its frames cannot be read any more, but it may still have to read its goodbye.
        let Ok(mut socket) = self.stream.reunite(sink) else { return };
        let connection = socket.get_mut();
        connection.skip();
        let _ = connection.shutdown().await;
        let mut scratch = [0; 4096];
        while matches!(connection.read(&mut scratch).await, Ok(1..)) {}
    }
}

impl Active {
    fn leases(&self) -> std::sync::MutexGuard<'_, LeaseTable> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A result's tensors, checked against the task, and their digest.
pub(super) fn verify(
    held: &Held,
    bytes: &Bytes,
) -> Result<(ResultDigest, HashMap<String, Tensor>), Refusal> {
    let frame = Frame::decode(bytes, &ACTIVE)?;
    held.expected.check(&frame)?;
    let encodings = held.expected.outputs.iter().map(|output| output.encoding);
    let digest = result_digest(held.task, encodings.zip(frame.tensors()));
    let values = tensors_of(bytes)
        .map_err(|error| Refusal::new(GoodbyeReason::BadFrame, error.to_string()))?;
    Ok((digest, values.into_iter().collect()))
}

/// Whether something in a result is no finite number.
pub(super) fn is_odd(values: &HashMap<String, Tensor>) -> bool {
    let is_odd = |tensor: &Tensor| {
        tensor.as_f32s().is_some_and(|mut numbers| numbers.any(|number| !number.is_finite()))
    };
    values.values().any(is_odd)
}

/// A message that the WebSocket layer could not read.
fn unreadable(error: Error) -> Ending {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match error {
        Error::Capacity(_) | Error::Utf8(_) => {
            Refusal::new(GoodbyeReason::BadFrame, format!("message: {error}")).into()
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ending::Silent,
        Error::Protocol(error) => {
            Refusal::new(GoodbyeReason::BadFrame, format!("message: {error}")).into()
        }
        Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<TooLong>())
        {
            Some(too_long) => {
                Refusal::new(GoodbyeReason::BadFrame, format!("message: {too_long}")).into()
            }
            None => Ending::Silent,
        },
        _ => Ending::Silent,
    }
}

fn kind_of(message: &FromContributor) -> &'static str {
    match message {
        FromContributor::Hello(_) => "hello",
        FromContributor::Consent { .. } => "consent",
        FromContributor::Commit { .. } => "commit",
        FromContributor::Projected { .. } => "projected",
        FromContributor::Result { .. } => "result",
        FromContributor::Refuse { .. } => "refuse",
        FromContributor::Pace { .. } => "pace",
        FromContributor::Pause { .. } => "pause",
        FromContributor::Resume => "resume",
        FromContributor::Goodbye { .. } => "goodbye",
    }
}
