//! TLS before a coordinator, as a proxy would speak it: a certificate for localhost by
//! an authority of the tests' own.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use std::io::{BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/tls").join(name)
}

/// The authority that vouches for the proxy.
pub fn authority() -> PathBuf {
    fixture("authority.pem")
}

fn config() -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(fixture("server.pem")).expect("a certificate");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(fixture("server.key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a good pair");
    Arc::new(config)
}

/// Starts a proxy at a loopback address that decrypts for `coordinator`; answers its port.
/// It runs until the process ends.
pub fn proxy(host: &str, coordinator: SocketAddr) -> u16 {
    serve(host, coordinator, |_, _| true)
}

/// The same before a relay of mail, where TLS begins when it is asked for.
pub fn starttls(host: &str, relay: SocketAddr) -> u16 {
    serve(host, relay, |near, far| {
        let mut say = near.try_clone().expect("a socket");
        let mut lines = BufReader::new(near).lines().map_while(Result::ok);
        let mut answer: &[u8] = b"220 front.test ESMTP\r\n";
        let mut is_asked = false;
        while say.write_all(answer).is_ok() && !is_asked {
            let Some(line) = lines.next() else { return false };
            is_asked = line == "STARTTLS";
            answer = match line.split(' ').next() {
                Some("EHLO") => b"250-front.test\r\n250 STARTTLS\r\n",
                Some("STARTTLS") => b"220 go on\r\n",
                _ => b"530 5.7.0 STARTTLS first\r\n",
            };
        }
        // Whoever asked has been greeted already.
        let mut byte = [0];
        while byte != *b"\n" && far.read(&mut byte).is_ok_and(|read| read == 1) {}
        true
    })
}

/// Decrypts for `behind` whatever `opening` lets through.
fn serve(host: &str, behind: SocketAddr, opening: fn(&TcpStream, &mut TcpStream) -> bool) -> u16 {
    let config = config();
    let listener = TcpListener::bind((host, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let tls = ServerConnection::new(config.clone()).expect("a connection");
            let mut far = TcpStream::connect(behind).expect("whoever is behind");
            std::thread::spawn(move || {
                if opening(&near, &mut far) {
                    relay(tls, near, far);
                }
            });
        }
    });
    port
}

/// Whether a socket is at its end; what would block is none.
fn is_over(result: std::io::Result<usize>) -> bool {
    match result {
        Ok(moved) => moved == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Moves bytes both ways until either side closes.
fn relay(mut tls: ServerConnection, mut near: TcpStream, mut far: TcpStream) {
    near.set_nonblocking(true).expect("set");
    far.set_nonblocking(true).expect("set");
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 64 << 10];
    loop {
        if tls.wants_read() && is_over(tls.read_tls(&mut near)) {
            return;
        }
        if tls.process_new_packets().is_err() {
            let _ = tls.write_tls(&mut near);
            return;
        }
        if let Ok(read) = tls.reader().read(&mut buffer) {
            up.extend_from_slice(&buffer[..read]);
        }
        if !up.is_empty() {
            match far.write(&up) {
                Ok(written) => drop(up.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        if down.is_empty() {
            match far.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => down.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        if !tls.is_handshaking() && !down.is_empty() {
            let written = tls.writer().write(&down).expect("taken");
            down.drain(..written);
        }
        while tls.wants_write() {
            match tls.write_tls(&mut near) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
