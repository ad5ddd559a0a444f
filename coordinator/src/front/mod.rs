//! The front of the HTTP side, before any route: how many connections there
//! are, how long they may take to ask, who asks how often, and what is said
//! while the process goes down.

mod connections;
mod limiter;
mod proxies;

pub use connections::{ConnectionLimits, Connections, Crowded};
pub use limiter::{Limiter, Rate};
pub use proxies::{Network, NetworkError, Proxies};

use crate::http::{Problem, bearer};
use crate::runtime::metrics::Counter;
use crate::runtime::session::network_prefix;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use connections::Placed;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use raven_engine::NetworkPrefix;
use std::convert::Infallible;
use std::future::Future;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tower::ServiceExt;
use tower_http::timeout::TimeoutBody;

/// For a request's head to come whole, and between two requests of one connection.
const HEAD: Duration = Duration::from_secs(20);
/// Between two pieces of a request's body.
const BODY_IDLE: Duration = Duration::from_secs(30);
/// Bytes of a request's head: a cookie jar of a busy site fits.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// After an error that is not the connection's own, e.g. no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// When to come back to a coordinator that goes down: most are started again at once.
pub const RETURN_S: u64 = 5;
/// Refused connections that may still read their answer, and how long.
const REFUSED_MAX: usize = 64;
const REFUSED_LINGER: Duration = Duration::from_secs(1);

/// What an operator chooses.
#[derive(Clone, Debug, PartialEq)]
pub struct FrontConfig {
    pub proxies: Proxies,
    pub connections: ConnectionLimits,
    /// Requests of one network.
    pub network_rate: Rate,
    /// Requests with one API key.
    pub key_rate: Rate,
    /// Wishes of one network for an account.
    pub sign_up_rate: Rate,
}

/// Seconds in which a network may ask for so many accounts.
pub const SIGN_UP_S: f64 = 900.0;

/// So many accounts in [`SIGN_UP_S`].
pub fn sign_up_rate(count: u32) -> Rate {
    let burst = f64::from(count);
    Rate { per_s: burst / SIGN_UP_S, burst }
}

impl Default for FrontConfig {
    fn default() -> Self {
        FrontConfig {
            proxies: Proxies::default(),
            // Each connection is a file, and systems allow 1,024 unless told
            // otherwise; the store, blobs and uploads need some too.
            connections: ConnectionLimits { all_max: 4096, per_network_max: 768 },
            // Behind one address may be a school, whose pages make some ten
            // requests each when they are opened.
            network_rate: Rate { per_s: 200.0, burst: 2000.0 },
            key_rate: Rate { per_s: 50.0, burst: 500.0 },
            // Each sends mail to somebody, who may not have asked for it.
            sign_up_rate: sign_up_rate(5),
        }
    }
}

/// The front. One for a process.
#[derive(Debug)]
pub struct Front {
    proxies: Proxies,
    connections: Connections,
    by_network: Limiter<NetworkPrefix>,
    by_key: Limiter<[u8; 32]>,
    sign_ups: Limiter<NetworkPrefix>,
    refused: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
    /// Requests that were answered with 429.
    limited: Counter,
    /// Connections that were not taken.
    crowded: Counter,
}

impl Front {
    /// A front with nobody before it. While `stopping` is set it sends everyone away.
    pub fn new(config: FrontConfig, stopping: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Front {
            proxies: config.proxies,
            connections: Connections::new(config.connections),
            by_network: Limiter::new(config.network_rate),
            by_key: Limiter::new(config.key_rate),
            sign_ups: Limiter::new(config.sign_up_rate),
            refused: Arc::new(Semaphore::new(REFUSED_MAX)),
            stopping,
            limited: Counter::default(),
            crowded: Counter::default(),
        })
    }

    /// Open connections.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// What it has turned away, as Prometheus' text.
    pub fn counters(&self) -> String {
        let rows = [
            ("raven_requests_limited_total", "Requests beyond their rate.", &self.limited),
            ("raven_connections_refused_total", "Connections not taken.", &self.crowded),
        ];
        let lines = rows.map(|(name, help, counter)| {
            let value = counter.get();
            format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n")
        });
        lines.concat()
    }

    /// Puts the front before the routes. Behind it, connection info is that of
    /// the client, also where a trusted proxy stands in between.
    pub fn before(self: &Arc<Self>, routes: Router) -> Router {
        routes.layer(axum::middleware::from_fn_with_state(self.clone(), pass))
    }

    fn admit(&self, client: IpAddr, request: &Request, now: Instant) -> Result<(), Problem> {
        let path = request.uri().path();
        if ["/healthz", "/readyz", "/metrics"].contains(&path) {
            return Ok(());
        }
        if *self.stopping.borrow() {
            let problem = Problem::unavailable("the coordinator is going down; come back later");
            return Err(problem.with_retry_after(RETURN_S));
        }
        // Shards are bounded by the tasks that they were granted for.
        if path.starts_with("/v1/blobs/") {
            return Ok(());
        }
        let limited = |what, rate: Rate, wait| {
            self.limited.add(1);
            Problem::rate(what, rate.per_s, wait)
        };
        let taken = self.by_network.take(network_prefix(client), now);
        let rate = self.by_network.rate();
        taken.map_err(|wait| limited("requests of one network", rate, wait))?;
        if let Some(token) = bearer(request.headers()) {
            let taken = self.by_key.take(*blake3::hash(token.as_bytes()).as_bytes(), now);
            let rate = self.by_key.rate();
            taken.map_err(|wait| limited("requests with one key", rate, wait))?;
        }
        let is_wish = matches!(path, "/v1/sign-up" | "/v1/passkeys/sign-up");
        if is_wish && request.method() == Method::POST {
            let taken = self.sign_ups.take(network_prefix(client), now);
            taken.map_err(|wait| {
                self.limited.add(1);
                Problem::sign_ups(self.sign_ups.rate().burst, wait)
            })?;
        }
        Ok(())
    }

    /// Answers requests until `end` has ended, then those in hand, for no longer than `drain`.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        routes: Router,
        end: impl Future<Output = ()>,
        drain: Duration,
    ) {
        let (closing_out, closing) = watch::channel(false);
        // Nothing is sent: it ends with the last connection.
        let (alive, mut all_gone) = mpsc::channel::<Infallible>(1);
        let mut end = pin!(end);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut end => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.take(stream, peer, &routes, &closing, &alive);
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "no connection was accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        drop(alive);
        closing_out.send_replace(true);
        if tokio::time::timeout(drain, all_gone.recv()).await.is_err() {
            tracing::warn!(open = self.connections.open(), "some requests were not answered");
        }
    }

    fn take(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        routes: &Router,
        closing: &watch::Receiver<bool>,
        alive: &mpsc::Sender<Infallible>,
    ) {
        // Leases, commitments and reveals are small and follow each other: waiting
        // to fill a packet would cost every round an acknowledgement's delay.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a socket keeps its delay");
        }
        let network = (!self.proxies.trust(peer.ip())).then(|| network_prefix(peer.ip()));
        match self.connections.enter(network) {
            Ok(place) => {
                let placed = Placed::new(stream, place);
                let alive = alive.clone();
                tokio::spawn(connection(placed, peer, routes.clone(), closing.clone(), alive));
            }
            Err(crowded) => {
                tracing::debug!(%crowded, "a connection was refused");
                self.crowded.add(1);
                let permit = self.refused.clone().try_acquire_owned();
                refuse(stream, crowded, permit.ok());
            }
        }
    }
}

/// Errors of a connection that was gone before it was taken.
fn is_of_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Answers one connection's requests, one after the other.
async fn connection(
    placed: Placed,
    peer: SocketAddr,
    routes: Router,
    mut closing: watch::Receiver<bool>,
    _alive: mpsc::Sender<Infallible>,
) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(placed), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    // The value that is waited for is a lock; it must not be held while answering.
    let closing = async { drop(closing.wait_for(|closing| *closing).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended badly");
    }
}

/// Says why a connection is not taken. The answer is shorter than any empty
/// socket's buffer, so nobody waits for it to be read; where there is a permit,
/// the socket stays until it has been.
fn refuse(stream: TcpStream, crowded: Crowded, permit: Option<tokio::sync::OwnedSemaphorePermit>) {
    let body = serde_json::json!({
        "type": "urn:raven:problem:crowded", "title": "Too many connections",
        "status": 503, "detail": crowded.to_string(),
    })
    .to_string();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         content-length: {}\r\nretry-after: {RETURN_S}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // Of the standard library, whose sockets are written to without asking
    // first whether they are ready: a fresh one is, and nobody has looked yet.
    let Ok(mut stream) = stream.into_std() else { return };
    let said = stream.write_all(answer.as_bytes());
    if said.and_then(|()| stream.shutdown(std::net::Shutdown::Write)).is_err() {
        return;
    }
    let Some(permit) = permit else { return };
    tokio::spawn(async move {
        let _permit = permit;
        let Ok(mut stream) = TcpStream::from_std(stream) else { return };
        let mut unread = [0; 1024];
        // Closing a socket with unread bytes resets it, and the answer with it.
        let drained = async { while stream.read(&mut unread).await.is_ok_and(|n| n > 0) {} };
        let _ = tokio::time::timeout(REFUSED_LINGER, drained).await;
    });
}

/// What every request passes.
async fn pass(
    State(front): State<Arc<Front>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let client = front.proxies.client(peer.ip(), request.headers());
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(client, peer.port())));
    request.extensions_mut().insert(front.clone());
    if let Err(problem) = front.admit(client, &request, Instant::now()) {
        return problem.into_response();
    }
    let request = request.map(|body| Body::new(TimeoutBody::new(BODY_IDLE, body)));
    next.run(request).await
}
