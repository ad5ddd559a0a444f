//! The writing side of one session: drains its outbox, pings, says goodbye.

use super::config::Timeouts;
use super::metrics::Metrics;
use super::outbox::{Ending, Next, Outbox, Waiting};
use super::session::Refusal;
use super::upgrade::Socket;
use axum::body::Bytes;
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use raven_protocol::frame::encode;
use raven_protocol::{GoodbyeReason, ToContributor};
use std::sync::Arc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// A close frame holds 125 bytes, two of them the code (RFC 6455 section 5.5).
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Writes until the session ends; gives the sink back.
pub async fn write(
    mut sink: SplitSink<Socket, Message>,
    outbox: Outbox,
    timeouts: Timeouts,
    metrics: Arc<Metrics>,
) -> SplitSink<Socket, Message> {
    let mut ping = interval(timeouts.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    let ending = loop {
        let (message, counted) = tokio::select! {
            next = outbox.next() => match next {
                Next::Frame(waiting) => {
                    let counted = waiting.bytes();
                    let Some(frame) = made(waiting).await else {
                        outbox.written(counted);
                        continue;
                    };
                    (Message::Binary(frame), counted)
                }
                Next::End(ending) => break ending,
            },
            _ = ping.tick() => (Message::Ping(Bytes::new()), 0),
        };
        let bytes = match &message {
            Message::Binary(frame) => frame.len(),
            _ => 0,
        };
        let sent = tokio::select! {
            sent = timeout(timeouts.drain_of(bytes), sink.send(message)) => sent,
            ending = outbox.ended() => break ending,
        };
        match sent {
            Ok(Ok(())) if bytes > 0 => {
                outbox.written(counted);
                metrics.frames_out.add(1);
                metrics.bytes_out.add(bytes as u64);
            }
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                outbox.end(Ending::Silent);
                break Ending::Silent;
            }
            Err(_) => {
                let detail = format!("unread: a frame of {bytes} bytes did not leave in time");
                let ending = Ending::Goodbye(Refusal::new(GoodbyeReason::TooSlow, detail));
                outbox.end(ending.clone());
                break ending;
            }
        }
    };
    // A peer that does not read even this is cut off.
    let _ = timeout(timeouts.close, farewell(&mut sink, ending)).await;
    sink
}

/// The frame itself; a deferred one is made on a thread that may block.
async fn made(waiting: Waiting) -> Option<Bytes> {
    match waiting {
        Waiting::Ready(frame) => Some(frame),
        Waiting::Deferred { build, .. } => {
            let built = tokio::task::spawn_blocking(build).await;
            built.unwrap_or_else(|error| {
                tracing::error!(%error, "a frame was not made");
                None
            })
        }
    }
}

async fn farewell(sink: &mut SplitSink<Socket, Message>, ending: Ending) -> Result<(), Error> {
    let Ending::Goodbye(Refusal { reason, detail }) = ending else {
        return sink.close().await;
    };
    let code = reason.close_code().into();
    let close = CloseFrame { code, reason: Utf8Bytes::from(shortened(&detail)) };
    let retry_after_ms = retry_after_ms(reason);
    let goodbye = ToContributor::Goodbye { reason, detail, retry_after_ms };
    sink.send(Message::Binary(encode(&goodbye, &[]).into())).await?;
    sink.send(Message::Close(Some(close))).await
}

/// When coming back may help. A coordinator that goes down is mostly started
/// again at once; one that is full stays so for as long as its visitors read.
fn retry_after_ms(reason: GoodbyeReason) -> Option<u64> {
    match reason {
        GoodbyeReason::Draining => Some(crate::front::RETURN_S * 1000),
        GoodbyeReason::Full => Some(30_000),
        _ => None,
    }
}

/// As much of a text as a close frame holds.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(CLOSE_REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let long = "é".repeat(100);
        assert_eq!(shortened(&long).len(), 122);
    }
}
