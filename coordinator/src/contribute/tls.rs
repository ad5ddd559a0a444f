//! A TLS client's stream over a socket of tokio: rustls does the cryptography, this
//! moves bytes.

use rustls::ClientConnection;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::trust::Trust;

/// A socket, encrypted.
#[derive(Debug)]
pub(super) struct TlsStream {
    tcp: TcpStream,
    tls: ClientConnection,
    is_closing: bool,
}

/// The socket as rustls reads and writes it: what cannot be done at once would block,
/// and the task is woken when it can.
struct Now<'a, 'b> {
    tcp: &'a mut TcpStream,
    context: &'a mut Context<'b>,
}

fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

impl Read for Now<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        now(Pin::new(&mut *self.tcp).poll_read(self.context, &mut buffer))?;
        Ok(buffer.filled().len())
    }
}

impl Write for Now<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.tcp).poll_write(self.context, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut *self.tcp).poll_flush(self.context))
    }
}

impl TlsStream {
    /// Shakes hands.
    ///
    /// # Errors
    /// The socket's, or that the coordinator's certificate is not trusted.
    pub(super) async fn connect(tcp: TcpStream, trust: &Trust) -> io::Result<Self> {
        let tls = ClientConnection::new(trust.config.clone(), trust.name.clone())
            .map_err(io::Error::other)?;
        let mut stream = TlsStream { tcp, tls, is_closing: false };
        std::future::poll_fn(|context| {
            while stream.tls.is_handshaking() {
                ready!(stream.drain(context))?;
                if stream.tls.is_handshaking() && ready!(stream.fill(context))? == 0 {
                    return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
                }
            }
            stream.drain(context)
        })
        .await?;
        Ok(stream)
    }

    /// Sends what is ready to be sent.
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut socket = Now { tcp: &mut self.tcp, context };
            match self.tls.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes in what has come, and how much; 0 at the end of the stream.
    fn fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut socket = Now { tcp: &mut self.tcp, context };
        let read = match self.tls.read_tls(&mut socket) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if let Err(error) = self.tls.process_new_packets() {
            // The peer is told why, where it still listens.
            let _ = self.drain(context);
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.tls.reader().read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.fill(context))?;
            // What came may ask for an answer, e.g. that keys are renewed.
            if let Poll::Ready(Err(error)) = self.drain(context) {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One buffer's worth is under way at most.
        ready!(self.drain(context))?;
        let written = self.tls.writer().write(bytes)?;
        if let Poll::Ready(Err(error)) = self.drain(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closing {
            self.is_closing = true;
            self.tls.send_close_notify();
        }
        ready!(self.drain(context))?;
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
