//! One session: the handshake in its order, then messages until it ends.

use super::frames::{Frames, Name};
use super::identity::KeyPair;
use super::pool::Pool;
use super::stay::Wish;
use super::tls::TlsStream;
use super::trust::Trust;
use super::{Address, ContributeError};
use axum::body::Bytes;
use futures_util::{SinkExt, StreamExt};
use raven_protocol::frame::encode;
use raven_protocol::{
    Frame, FrameLimits, FromContributor, GoodbyeReason, Hello, LeaseOutcome, Receipt,
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
    /// Another consent text is in force than the one that was agreed to.
    TextChanged(String),
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
        let sent = self.socket.send(Message::Binary(frame.into())).await;
        sent.map_err(|error| End::Lost(error.to_string()))
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
                Message::Binary(bytes) => return Ok((read(&bytes)?, bytes)),
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
    ToContributor::from_header(frame.header()).map_err(|error| bad_frame(error.to_string()))
}

/// A goodbye of which only the close frame was left.
fn closed(close: Option<CloseFrame>) -> End {
    let code = close.as_ref().map(|close| u16::from(close.code));
    let detail = close.map(|close| close.reason.to_string()).unwrap_or_default();
    let reasons = [
        GoodbyeReason::Stopped,
        GoodbyeReason::Draining,
        GoodbyeReason::Incompatible,
        GoodbyeReason::BadFrame,
        GoodbyeReason::OutOfTurn,
        GoodbyeReason::NoConsent,
        GoodbyeReason::BadTicket,
        GoodbyeReason::TooSlow,
        GoodbyeReason::Full,
        GoodbyeReason::BrokenCommitment,
        GoodbyeReason::TrafficCap,
        GoodbyeReason::Excluded,
    ];
    match reasons.into_iter().find(|reason| Some(reason.close_code()) == code) {
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
}

/// The welcome's nonce and consent text.
struct Welcome {
    nonce: String,
    text_version: String,
}

impl Sessions {
    async fn greet(&self, link: &mut Link) -> Result<Welcome, End> {
        link.send(encode(&FromContributor::Hello(self.hello.clone()), &[])).await?;
        match link.receive().await?.0 {
            ToContributor::Welcome { nonce, consent_text_version, .. } => {
                Ok(Welcome { nonce, text_version: consent_text_version })
            }
            message => Err(unexpected(message)),
        }
    }

    /// Asks which consent text is in force, and goes again: who is asked needs its time.
    ///
    /// # Errors
    /// Why there is no session.
    pub(super) async fn consent_text(&self) -> Result<String, End> {
        let mut link = Link::open(&self.to, self.trust.as_ref()).await?;
        let greeted = timeout(HANDSHAKE_MAX, self.greet(&mut link)).await;
        let greeted = greeted.unwrap_or_else(|_| Err(End::Lost("no welcome came".into())))?;
        link.leave(GoodbyeReason::Stopped).await;
        Ok(greeted.text_version)
    }

    /// Works until the session ends.
    pub(super) async fn run(&mut self, agreed: &str, wish: &mut watch::Receiver<Wish>) -> End {
        let opened = tokio::select! {
            opened = self.open(agreed) => opened,
            () = stopped(wish) => return End::Stopped,
        };
        let mut link = match opened {
            Ok(link) => link,
            Err(end) => return end,
        };
        println!("at work");
        let end = self.work(&mut link, wish).await;
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
    async fn open(&self, agreed: &str) -> Result<Link, End> {
        let mut link = Link::open(&self.to, self.trust.as_ref()).await?;
        let opening = async {
            let welcome = self.greet(&mut link).await?;
            // Other words were agreed to: nothing is signed in anybody's name.
            if welcome.text_version != agreed {
                return Err(End::TextChanged(welcome.text_version));
            }
            link.send(self.receipt(welcome)).await?;
            match link.receive().await?.0 {
                ToContributor::Ready { grant } => Ok(grant),
                message => Err(unexpected(message)),
            }
        };
        let opened = timeout(HANDSHAKE_MAX, opening).await;
        match opened.unwrap_or_else(|_| Err(End::Lost("the handshake took too long".into()))) {
            Ok(grant) => {
                self.frames.begin(grant);
                Ok(link)
            }
            Err(end @ End::TextChanged(_)) => {
                link.leave(GoodbyeReason::Stopped).await;
                Err(end)
            }
            Err(end) => Err(end),
        }
    }

    fn receipt(&self, welcome: Welcome) -> Vec<u8> {
        let receipt = Receipt {
            text_version: welcome.text_version,
            site: None,
            share: self.hello.share,
            gpu: false,
            nonce: welcome.nonce,
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
            ToContributor::Task(task) => return Ok(self.pool.task(task.lease, frame)),
            ToContributor::Project { lease, .. } | ToContributor::Reveal { lease } => {
                return Ok(self.pool.ask(lease, frame));
            }
            ToContributor::Cancel { lease } => self.pool.cancel(lease, frame),
            ToContributor::Drop { blobs, graphs } => self.pool.forget(&frame, &blobs, &graphs),
            ToContributor::Outcomes { results } => self.tally.add(&results),
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
