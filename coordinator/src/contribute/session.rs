//! One session: the handshake in its order, then messages until it ends.

use super::consent::words_version;
use super::frames::{Frames, Name};
use super::identity::KeyPair;
use super::pool::Pool;
use super::stay::{Wish, printable};
use super::tls::TlsStream;
use super::trust::Trust;
use super::{Address, ContributeError};
use axum::body::Bytes;
use futures_util::{SinkExt, StreamExt};
use raven_protocol::frame::encode;
use raven_protocol::{
    Frame, FrameLimits, FromContributor, GoodbyeReason, Hello, JobCategory, LeaseOutcome, Receipt,
    ResultOutcome, ToContributor,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// A coordinator that has not got as far as ready by then is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(20);
/// A coordinator from which nothing comes, no ping either, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Frames that are shorter are copied out of what the socket read.
const COPIED_BYTES_MAX: usize = 64 << 10;
/// For a goodbye to leave.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// Why a session is over.
#[derive(Debug)]
pub(super) enum End {
    /// Whoever runs this said so.
    Stopped,
    /// The connection failed, or broke without a word.
    Lost(String),
    Goodbye {
        reason: GoodbyeReason,
        detail: String,
        retry_after: Option<Duration>,
    },
    /// There is no going on.
    Failed(ContributeError),
}

/// What became of results.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) paid: u64,
    pub(super) unpaid: u64,
}

impl Tally {
    fn add(&mut self, results: &[LeaseOutcome]) {
        for result in results {
            match result.outcome {
                ResultOutcome::Accepted => self.paid += 1,
                // It was counted when it was accepted.
                ResultOutcome::Undone => {}
                ResultOutcome::NotNeeded
                | ResultOutcome::Late
                | ResultOutcome::Withdrawn
                | ResultOutcome::Wrong
                | ResultOutcome::BrokenCommitment
                | ResultOutcome::Void => self.unpaid += 1,
            }
        }
    }
}

/// What a session's bytes go over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that frames go over.
struct Link {
    socket: WebSocketStream<Box<dyn Stream>>,
    /// When something last came, be it a ping.
    heard: Instant,
}

impl Link {
    async fn open(to: &Address, trust: Option<&Trust>) -> Result<Self, End> {
        let opening = async {
            let stream =
                TcpStream::connect(to.socket()).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let stream: Box<dyn Stream> = match trust {
                Some(trust) => {
                    let secure = TlsStream::connect(stream, trust).await;
                    Box::new(secure.map_err(|error| error.to_string())?)
                }
                None => Box::new(stream),
            };
            let bytes_max = FrameLimits::TO_CONTRIBUTOR.frame_bytes_max() as usize;
            let config = WebSocketConfig::default()
                .max_message_size(Some(bytes_max))
                .max_frame_size(Some(bytes_max));
            let opened = client_async_with_config(to.session_url(), stream, Some(config)).await;
            opened
                .map(|(socket, _)| Link { socket, heard: Instant::now() })
                .map_err(|error| error.to_string())
        };
        match timeout(HANDSHAKE_MAX, opening).await {
            Ok(opened) => opened.map_err(End::Lost),
            Err(_) => Err(End::Lost("no connection came about in time".into())),
        }
    }

    async fn send(&mut self, frame: Vec<u8>) -> Result<(), End> {
        let sending = self.socket.send(Message::Binary(frame.into()));
        match timeout(SILENCE_MAX, sending).await {
            Ok(sent) => sent.map_err(|error| End::Lost(error.to_string())),
            Err(_) => Err(End::Lost("the coordinator takes nothing".into())),
        }
    }

    /// The next message and its frame. Nothing is lost where it is not awaited to its end.
    async fn receive(&mut self) -> Result<(ToContributor, Bytes), End> {
        loop {
            let next = timeout_at(self.heard + SILENCE_MAX, self.socket.next()).await;
            self.heard = Instant::now();
            let message = match next {
                Err(_) => return Err(End::Lost("the coordinator has fallen silent".into())),
                Ok(None) => return Err(End::Lost("the connection was closed".into())),
                Ok(Some(Err(error))) => return Err(End::Lost(error.to_string())),
                Ok(Some(Ok(message))) => message,
            };
            match message {
                Message::Binary(bytes) => return Ok((read(&bytes)?, owned(bytes))),
                Message::Close(close) => return Err(closed(close)),
                Message::Text(_) => return Err(bad_frame("a text message".into())),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Says goodbye where that is still possible, and closes.
    async fn leave(mut self, reason: GoodbyeReason) {
        let leaving = async {
            let _ = self.send(encode(&FromContributor::Goodbye { reason }, &[])).await;
            let code = reason.close_code().into();
            let _ = self.socket.close(Some(CloseFrame { code, reason: "".into() })).await;
            // A socket that is closed with unread bytes is reset, and the goodbye with it.
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        let _ = timeout(LEAVE_MAX, leaving).await;
    }
}

fn bad_frame(detail: String) -> End {
    End::Goodbye { reason: GoodbyeReason::BadFrame, detail, retry_after: None }
}

fn read(bytes: &[u8]) -> Result<ToContributor, End> {
    let frame = Frame::decode(bytes, &FrameLimits::TO_CONTRIBUTOR)
        .map_err(|error| bad_frame(error.to_string()))?;
    let message =
        ToContributor::from_header(frame.header()).map_err(|error| bad_frame(error.to_string()))?;
    let may_carry = matches!(message, ToContributor::Blob { .. } | ToContributor::Task(_));
    if !may_carry && frame.tensors().next().is_some() {
        return Err(bad_frame("tensors on a message that has none".into()));
    }
    Ok(message)
}

/// A frame to be kept. A small one may be a slice of a long buffer, which would be kept
/// for its sake.
fn owned(frame: Bytes) -> Bytes {
    match frame.len() < COPIED_BYTES_MAX {
        true => Bytes::copy_from_slice(&frame),
        false => frame,
    }
}

/// A goodbye of which only the close frame was left.
fn closed(close: Option<CloseFrame>) -> End {
    let code = close.as_ref().map(|close| u16::from(close.code));
    let detail = close.map(|close| close.reason.to_string()).unwrap_or_default();
    let mut reasons = GoodbyeReason::ALL.into_iter();
    match reasons.find(|reason| Some(reason.close_code()) == code) {
        Some(reason) => End::Goodbye { reason, detail, retry_after: None },
        None => End::Lost("the connection was closed".into()),
    }
}

/// What every session of a run has in common.
pub(super) struct Sessions {
    pub(super) to: Address,
    pub(super) trust: Option<Trust>,
    pub(super) key: KeyPair,
    pub(super) hello: Hello,
    pub(super) frames: Arc<Frames>,
    pub(super) pool: Pool,
    pub(super) tally: Tally,
    /// Since when the present or last session has been at work, where it got so far.
    pub(super) ready: Option<Instant>,
}

/// What a receipt repeats of a welcome.
struct Welcome {
    nonce: String,
    now_ms: u64,
}

impl Sessions {
    /// Says hello; answers the welcome. The text that it names is the one of the
    /// frame's page, which nobody was shown here.
    async fn greet(&self, link: &mut Link) -> Result<Welcome, End> {
        link.send(encode(&FromContributor::Hello(self.hello.clone()), &[])).await?;
        match link.receive().await?.0 {
            ToContributor::Welcome { nonce, now_ms, .. } => Ok(Welcome { nonce, now_ms }),
            message => Err(unexpected(message)),
        }
    }

    /// Sees whether the coordinator is there and takes our hello, and goes again: who is
    /// asked to agree needs its time.
    ///
    /// # Errors
    /// Why there is no session.
    pub(super) async fn knock(&self) -> Result<(), End> {
        let mut link = Link::open(&self.to, self.trust.as_ref()).await?;
        let greeted = timeout(HANDSHAKE_MAX, self.greet(&mut link)).await;
        greeted.unwrap_or_else(|_| Err(End::Lost("no welcome came".into())))?;
        link.leave(GoodbyeReason::Stopped).await;
        Ok(())
    }

    /// Works until the session ends.
    pub(super) async fn run(&mut self, wish: &mut watch::Receiver<Wish>) -> End {
        self.ready = None;
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = stopped(wish) => return End::Stopped,
        };
        let mut link = match opened {
            Ok(link) => link,
            Err(end) => return end,
        };
        self.ready = Some(Instant::now());
        println!("at work");
        // A peer that takes nothing keeps a send waiting, but no wish to end.
        let mut stop = wish.clone();
        let end = tokio::select! {
            end = self.work(&mut link, wish) => end,
            () = stopped(&mut stop) => End::Stopped,
        };
        self.pool.end_session();
        let reason = match &end {
            End::Goodbye { reason: GoodbyeReason::BadFrame, .. } => GoodbyeReason::BadFrame,
            End::Goodbye { reason: GoodbyeReason::OutOfTurn, .. } => GoodbyeReason::OutOfTurn,
            _ => GoodbyeReason::Stopped,
        };
        link.leave(reason).await;
        end
    }

    /// Hello, welcome, consent, ready.
    async fn open(&self) -> Result<Link, End> {
        let mut link = Link::open(&self.to, self.trust.as_ref()).await?;
        let opening = async {
            let welcome = self.greet(&mut link).await?;
            link.send(self.receipt(welcome)).await?;
            match link.receive().await?.0 {
                ToContributor::Ready { grant } => Ok(grant),
                message => Err(unexpected(message)),
            }
        };
        let opened = timeout(HANDSHAKE_MAX, opening).await;
        let grant =
            opened.unwrap_or_else(|_| Err(End::Lost("the handshake took too long".into())))?;
        self.frames.begin(grant);
        Ok(link)
    }

    /// Names the words that were agreed to: those that this program has shown.
    fn receipt(&self, Welcome { nonce, now_ms }: Welcome) -> Vec<u8> {
        let receipt = Receipt {
            text_version: words_version(),
            site: None,
            // There is no card: the words have in them what it would show.
            view: None,
            share: self.hello.share,
            cpu: true,
            gpu: false,
            refuses: Vec::new(),
            // It is signed as soon as it is asked for.
            time_ms: now_ms,
            keeps: self.hello.keeps,
            earnings: self.hello.earnings,
            nonce,
            session_key: self.hello.session_key.clone(),
            counter: 0,
        };
        let receipt = serde_json::to_string(&receipt).unwrap_or_default();
        let signature = self.key.sign(&receipt);
        encode(&FromContributor::Consent { receipt, signature }, &[])
    }

    async fn work(&mut self, link: &mut Link, wish: &mut watch::Receiver<Wish>) -> End {
        // A new session knows nothing of a wish that was there before it.
        wish.mark_changed();
        let mut is_paused = false;
        loop {
            let done = tokio::select! {
                changed = wish.changed() => {
                    let now = if changed.is_ok() { *wish.borrow_and_update() } else { Wish::Stop };
                    let was_paused = std::mem::replace(&mut is_paused, now == Wish::Pause);
                    match (now, was_paused) {
                        (Wish::Stop, _) => Err(End::Stopped),
                        (Wish::Pause, false) => self.pause(link).await,
                        (Wish::Work, true) => self.resume(link).await,
                        (Wish::Pause, true) | (Wish::Work, false) => Ok(()),
                    }
                }
                word = self.pool.word() => match word.map(|word| self.pool.heard(word)) {
                    Some(Ok(Some(frame))) => link.send(frame).await,
                    Some(Ok(None)) | None => Ok(()),
                    Some(Err(error)) => return End::Failed(error),
                },
                received = link.receive() => match received {
                    Ok((message, frame)) => match self.obey(message, frame) {
                        Ok(Some(frame)) => link.send(frame).await,
                        Ok(None) => Ok(()),
                        Err(end) => Err(end),
                    },
                    Err(end) => Err(end),
                },
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Does what a message says; answers what is to be sent at once.
    fn obey(&mut self, message: ToContributor, frame: Bytes) -> Result<Option<Vec<u8>>, End> {
        match message {
            ToContributor::Graph { id, .. } => self.frames.put(Name::Graph(id), frame),
            ToContributor::Blob { id } => self.frames.put(Name::Blob(id), frame),
            ToContributor::Task(task) => {
                return Ok(self.pool.task(task.lease, frame, task.spec.shards));
            }
            ToContributor::Project { lease, .. } | ToContributor::Reveal { lease } => {
                return Ok(self.pool.ask(lease, frame));
            }
            ToContributor::Cancel { lease } => self.pool.cancel(lease, frame),
            ToContributor::Drop { blobs, graphs } => self.pool.forget(&frame, &blobs, &graphs),
            ToContributor::Outcomes { results } => self.tally.add(&results),
            ToContributor::About { requester, category } => {
                println!("for {}: {}", printable(&requester), said(category));
            }
            message @ (ToContributor::Welcome { .. }
            | ToContributor::Ready { .. }
            | ToContributor::Goodbye { .. }) => return Err(unexpected(message)),
        }
        Ok(None)
    }

    /// First the wish for no more tasks, then those in hand.
    async fn pause(&mut self, link: &mut Link) -> Result<(), End> {
        println!("paused");
        link.send(encode(&FromContributor::Pause { detail: "paused".into() }, &[])).await?;
        for refusal in self.pool.pause() {
            link.send(refusal).await?;
        }
        Ok(())
    }

    async fn resume(&mut self, link: &mut Link) -> Result<(), End> {
        println!("at work again");
        self.pool.resume();
        link.send(encode(&FromContributor::Resume, &[])).await
    }
}

/// A goodbye, or what came out of turn.
fn unexpected(message: ToContributor) -> End {
    match message {
        ToContributor::Goodbye { reason, detail, retry_after_ms } => {
            let retry_after = retry_after_ms.map(Duration::from_millis);
            End::Goodbye { reason, detail, retry_after }
        }
        _ => End::Goodbye {
            reason: GoodbyeReason::OutOfTurn,
            detail: "a message came that is not allowed in this state".into(),
            retry_after: None,
        },
    }
}

/// Resolves when whoever runs this wants it to end.
pub(super) async fn stopped(wish: &mut watch::Receiver<Wish>) {
    // Where nobody can wish any more all is over too.
    let _ = wish.wait_for(|wish| *wish == Wish::Stop).await;
}

/// What a kind of job is called.
const fn said(category: JobCategory) -> &'static str {
    match category {
        JobCategory::Vision => "images",
        JobCategory::Language => "language",
        JobCategory::Tabular => "tables",
        JobCategory::Science => "science",
        JobCategory::Finance => "finance",
        JobCategory::Other => "a job of another kind",
    }
}
