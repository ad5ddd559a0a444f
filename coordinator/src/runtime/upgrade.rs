//! The WebSocket below a session: the handshake, and the bound on what a peer
//! may send before it has consented.
//!
//! A WebSocket's message limit is set when it is opened and serves for all of
//! it, so that a stranger could announce a result's 64 MiB. The bytes of a
//! socket therefore pass [`Measured`] first, which reads the lengths of frames
//! until the session is open, and lets none pass that no hello or receipt has.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::io::{Error as IoError, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// A session's socket.
pub type Socket = WebSocketStream<Measured<TokioIo<Upgraded>>>;

/// Payload of the longest WebSocket frame before consent: a hello or a receipt
/// is one frame of this protocol with a short header.
pub const OPENING_FRAME_BYTES_MAX: u64 = 32 + (16 << 10);
/// All that a peer may send before consent: a hello, a receipt, and some pings.
pub const OPENING_BYTES_MAX: usize = 64 << 10;
/// The longest header of a WebSocket frame (RFC 6455 section 5.2).
const HEADER_BYTES_MAX: usize = 14;

/// The answer to a handshake whose headers have been checked.
pub fn switching_protocols(headers: &HeaderMap) -> Response {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&[][..], HeaderValue::as_bytes);
    let accept = derive_accept_key(key);
    let answer = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, answer).into_response()
}

/// Waits until the answer has left; the socket then, and what opens it.
/// `None` where the connection broke meanwhile.
pub async fn socket(on_upgrade: OnUpgrade, config: WebSocketConfig) -> Option<(Socket, Gate)> {
    let upgraded = on_upgrade.await.ok()?;
    let gate = Gate::default();
    let io = Measured { io: TokioIo::new(upgraded), gate: gate.clone(), opening: Opening::new() };
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    Some((socket, gate))
}

/// Says when the visitor has consented.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// From now on frames may be as long as the WebSocket allows.
    pub fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why bytes before consent do not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    #[error("a frame of {found} bytes before consent, the limit is {OPENING_FRAME_BYTES_MAX}")]
    Frame { found: u64 },
    #[error("too much before consent, the limit is {OPENING_BYTES_MAX} bytes")]
    Total,
}

/// The lengths of frames, read from their headers as bytes come by.
#[derive(Debug)]
struct Opening {
    bytes_left: usize,
    header: [u8; HEADER_BYTES_MAX],
    /// Of the header.
    known: usize,
    /// Of the payload.
    skip: u64,
}

impl Opening {
    fn new() -> Self {
        Opening { bytes_left: OPENING_BYTES_MAX, header: [0; HEADER_BYTES_MAX], known: 0, skip: 0 }
    }

    fn check(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        self.bytes_left = self.bytes_left.checked_sub(bytes.len()).ok_or(TooLong::Total)?;
        while let [first, rest @ ..] = bytes {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() as u64);
                self.skip -= skipped;
                bytes = &bytes[skipped as usize..];
                continue;
            }
            self.header[self.known] = *first;
            self.known += 1;
            bytes = rest;
            let Some(payload) = payload_bytes(&self.header[..self.known]) else { continue };
            if payload > OPENING_FRAME_BYTES_MAX {
                return Err(TooLong::Frame { found: payload });
            }
            (self.known, self.skip) = (0, payload);
        }
        Ok(())
    }
}

/// The length of a frame's payload, once all of its header is there.
fn payload_bytes(header: &[u8]) -> Option<u64> {
    let lengths = *header.get(1)?;
    let extended = match lengths & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if lengths & 0x80 != 0 { 4 } else { 0 };
    if header.len() < 2 + extended + mask {
        return None;
    }
    let big_endian = header[2..2 + extended].iter();
    Some(match extended {
        0 => u64::from(lengths & 0x7f),
        _ => big_endian.fold(0, |length, &byte| length << 8 | u64::from(byte)),
    })
}

/// A connection whose peer may send little until its gate is open.
#[derive(Debug)]
pub struct Measured<S> {
    io: S,
    gate: Gate,
    opening: Opening,
}

impl<S> Measured<S> {
    /// From now on bytes are only read to be dropped.
    pub fn skip(&self) {
        self.gate.open();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Measured<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), IoError>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        if !this.gate.is_open()
            && let Err(error) = this.opening.check(&buffer.filled()[before..])
        {
            buffer.set_filled(before);
            return Poll::Ready(Err(IoError::new(ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Measured<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, IoError>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: usize) -> Vec<u8> {
        let mut frame = vec![0x82];
        match payload {
            0..126 => frame.push(0x80 | payload as u8),
            126..65536 => {
                frame.push(0x80 | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame
    }

    #[test]
    fn lengths_are_read_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        for payload in [0, 1, 125, 126, 300, OPENING_FRAME_BYTES_MAX as usize] {
            bytes.extend(frame(payload));
            bytes.resize(bytes.len() + payload, 0xff);
        }
        let good = bytes.len();
        bytes.extend(frame(OPENING_FRAME_BYTES_MAX as usize + 1));
        for piece in [1, 2, 7, 1000, bytes.len()] {
            let mut opening = Opening::new();
            let verdicts = bytes.chunks(piece).map(|piece| opening.check(piece));
            let passed = verdicts.take_while(Result::is_ok).count() * piece;
            assert!(passed <= bytes.len() && passed + piece >= good, "{passed} by {piece}");
            assert!(passed < bytes.len(), "the last frame does not pass, by {piece}");
        }
        let found = 1 << 40;
        assert_eq!(Opening::new().check(&frame(found)), Err(TooLong::Frame { found: 1 << 40 }));
    }

    #[test]
    fn short_frames_without_end_do_not_pass_either() {
        let mut opening = Opening::new();
        let ping = frame(0);
        let passed = (0..).take_while(|_| opening.check(&ping).is_ok()).count();
        assert_eq!(passed, OPENING_BYTES_MAX / ping.len());
        assert_eq!(opening.check(&ping), Err(TooLong::Total));
    }
}
