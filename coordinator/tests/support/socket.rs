//! A WebSocket that a test drives by hand, frame by frame.

use super::{CONSENT_TEXT, card_view};
use ed25519_dalek::{Signer, SigningKey};
use futures_util::{SinkExt, StreamExt};
use raven_coordinator::runtime::session::hex;
use raven_coordinator::time::UnixMs;
use raven_protocol::frame::encode;
use raven_protocol::{
    Device, DeviceClass, Earnings, Frame, FrameLimits, FromContributor, GoodbyeReason, Hello,
    Keeps, KernelId, NumericClass, PROTOCOL_VERSION, Receipt, SessionId, ToContributor,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Longer than any of the coordinator's waits in tests.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The consent text that the welcome named.
    text_version: String,
}

/// How a session ended: the goodbye frame, and the WebSocket close code.
#[derive(Debug, PartialEq)]
pub struct Ended {
    pub reason: Option<GoodbyeReason>,
    pub detail: String,
    pub retry_after_ms: Option<u64>,
    pub code: Option<u16>,
}

impl Socket {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_from(address, None).await.expect("connects")
    }

    pub async fn connect_from(address: SocketAddr, origin: Option<&str>) -> Result<Self, Error> {
        let url = format!("ws://{address}/v1/contribute");
        let mut request = url.into_client_request().expect("a request");
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("a header"));
        }
        let (stream, _) = connect_async(request).await?;
        Ok(Socket { stream, text_version: CONSENT_TEXT.into() })
    }

    pub async fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.stream.send(Message::Binary(bytes.into())).await.expect("sends");
    }

    pub async fn send_raw(&mut self, message: Message) {
        self.stream.send(message).await.expect("sends");
    }

    pub async fn send(&mut self, message: &FromContributor) {
        self.send_bytes(encode(message, &[])).await;
    }

    /// The socket below, for bytes that are no WebSocket frames.
    pub fn tcp(&mut self) -> &mut TcpStream {
        match self.stream.get_mut() {
            MaybeTlsStream::Plain(stream) => stream,
            _ => panic!("tests use plain sockets"),
        }
    }

    /// The next message of the coordinator, with its frame's bytes.
    pub async fn receive(&mut self) -> (ToContributor, Bytes) {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            match next.expect("a message comes").expect("the socket is open").expect("readable") {
                Message::Binary(bytes) => {
                    let frame = Frame::decode(&bytes, &FrameLimits::TO_CONTRIBUTOR);
                    let header = frame.expect("a frame").header().to_owned();
                    let message = ToContributor::from_header(&header).expect("a message");
                    return (message, bytes);
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Reads on until the session has ended.
    pub async fn ended(mut self) -> Ended {
        let mut ended =
            Ended { reason: None, detail: String::new(), retry_after_ms: None, code: None };
        let reading = async {
            while let Some(Ok(message)) = self.stream.next().await {
                match message {
                    Message::Binary(bytes) => {
                        let frame = Frame::decode(&bytes, &FrameLimits::TO_CONTRIBUTOR);
                        let header = frame.expect("a frame").header().to_owned();
                        if let Ok(ToContributor::Goodbye { reason, detail, retry_after_ms }) =
                            ToContributor::from_header(&header)
                        {
                            ended.reason = Some(reason);
                            ended.detail = detail;
                            ended.retry_after_ms = retry_after_ms;
                        }
                    }
                    Message::Close(frame) => ended.code = frame.map(|frame| frame.code.into()),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the session ends");
        ended
    }

    /// Reads on until the session has ended, which it must for `reason`, with
    /// the matching close code and a detail that names `field`.
    pub async fn refused(self, reason: GoodbyeReason, field: &str) {
        let ended = self.ended().await;
        assert_eq!(ended.reason, Some(reason), "{ended:?}");
        assert_eq!(ended.code, Some(reason.close_code()), "{ended:?}");
        assert!(ended.detail.contains(field), "{field:?} is not named in {ended:?}");
    }

    pub async fn welcome(&mut self) -> (SessionId, String) {
        match self.receive().await.0 {
            ToContributor::Welcome { session, nonce, consent_text_version, .. } => {
                self.text_version = consent_text_version;
                (session, nonce)
            }
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// Hello, consent, ready; answers the session, its grant and its nonce.
    pub async fn open(
        &mut self,
        key: &SigningKey,
        kernel: KernelId,
    ) -> (SessionId, String, String) {
        let hello = hello(key, kernel);
        self.send(&FromContributor::Hello(hello.clone())).await;
        let (session, nonce) = self.welcome().await;
        let mut receipt = receipt(&hello, &nonce, None);
        receipt.text_version.clone_from(&self.text_version);
        self.send(&consent(&receipt, key)).await;
        match self.receive().await.0 {
            ToContributor::Ready { grant } => (session, grant, nonce),
            other => panic!("not ready but {other:?}"),
        }
    }
}

pub fn hello(key: &SigningKey, kernel: KernelId) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        numeric: NumericClass::Cpu { kernel },
        device: Device {
            class: DeviceClass::Server,
            cores: 2,
            memory_bytes: 512 << 20,
            flops_per_s: 2_000_000_000,
        },
        share: 1.0,
        workers: 1,
        session_key: hex(key.verifying_key().as_bytes()),
        ticket: None,
        traffic_bytes_left: None,
        keeps: Keeps::Key,
        earnings: Earnings::Mine,
    }
}

pub fn receipt(hello: &Hello, nonce: &str, site: Option<&str>) -> Receipt {
    Receipt {
        text_version: CONSENT_TEXT.into(),
        site: site.map(str::to_owned),
        view: site.map(|_| card_view().id),
        share: hello.share,
        nonce: nonce.into(),
        session_key: hello.session_key.clone(),
        cpu: true,
        gpu: false,
        refuses: Vec::new(),
        time_ms: UnixMs::now().0.unsigned_abs(),
        keeps: hello.keeps,
        earnings: hello.earnings,
        counter: 0,
    }
}

/// A change of pace that needs no receipt.
pub fn pace(share: f64, workers: u32) -> FromContributor {
    FromContributor::Pace { share, workers, refuses: Vec::new(), receipt: None, signature: None }
}

/// A change of pace with a receipt for `receipt.share` and what it refuses.
pub fn raise(receipt: &Receipt, key: &SigningKey) -> FromContributor {
    let FromContributor::Consent { receipt: text, signature } = consent(receipt, key) else {
        unreachable!("a consent is made");
    };
    let (share, refuses) = (receipt.share, receipt.refuses.clone());
    let (receipt, signature) = (Some(text), Some(signature));
    FromContributor::Pace { share, workers: 1, refuses, receipt, signature }
}

pub fn consent(receipt: &Receipt, key: &SigningKey) -> FromContributor {
    let receipt = serde_json::to_string(receipt).expect("serializes");
    let signature = hex(&key.sign(receipt.as_bytes()).to_bytes());
    FromContributor::Consent { receipt, signature }
}
