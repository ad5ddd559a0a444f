//! Peers that misbehave below or beside the API: heads that never come, more
//! connections than anyone needs, and uploads that break off.

use crate::support::process::{Installation, Process};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// For an answer. A handshake that found the queue of connections full is
/// repeated by the system after seconds.
const ANSWER: Duration = Duration::from_secs(30);
/// Longer than a head may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// A connection from another network than that of `127.0.0.1`.
async fn connect_from(source: &str, address: SocketAddr) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{source}:0").parse().expect("an address")).expect("bound");
    socket.connect(address).await.expect("connects")
}

async fn healthz(mut stream: tokio::net::TcpStream) -> String {
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[test]
fn handshakes_that_drip_are_given_up_and_disturb_nobody() {
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    let address = process.address();
    let head = b"GET /v1/contribute HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nx-slow: ";
    let mut dripping: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream.write_all(head).expect("sent");
            stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
            stream
        })
        .collect();
    let mut silent = TcpStream::connect(address).expect("connects");
    silent.set_read_timeout(Some(HEAD_PATIENCE)).expect("a timeout");
    let began = Instant::now();
    let mut slowest_ms = 0;
    while !dripping.is_empty() {
        assert!(began.elapsed() < HEAD_PATIENCE, "{} are still open", dripping.len());
        let asked = Instant::now();
        assert_eq!(process.try_call("", "/healthz", None).expect("answers").status, 200);
        slowest_ms = slowest_ms.max(asked.elapsed().as_millis());
        std::thread::sleep(Duration::from_millis(250));
        // Each byte is in time for itself; the head as a whole is not.
        dripping.retain_mut(|stream| {
            let closed = matches!(stream.read(&mut [0; 512]), Ok(0));
            !closed && stream.write_all(b"a").is_ok()
        });
    }
    println!(
        "given up after {} ms; others waited {slowest_ms} ms at most",
        began.elapsed().as_millis()
    );
    assert!(began.elapsed() > Duration::from_secs(10), "nobody honest is that slow");
    assert_eq!(silent.read(&mut [0; 16]).expect("closed, not timed out"), 0);
    process.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_of_one_network_are_bounded() {
    let installation = Installation::new();
    let arguments = ["--listen", "127.0.0.1:0", "--connections-per-network-max", "150"];
    let process = Process::start_with(&installation.data(), &arguments);
    let address = process.address();
    let mut held = Vec::new();
    let mut refused = 0;
    let mut answers = Vec::new();
    for number in 0..10_000 {
        let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else {
            refused += 1;
            continue;
        };
        if number < 150 {
            held.push(stream);
            continue;
        }
        refused += 1;
        // A look at every hundredth is enough; all of them are let go of.
        if number % 100 == 0 {
            let mut answer = String::new();
            let read = tokio::time::timeout(ANSWER, stream.read_to_string(&mut answer));
            read.await.expect("closed at once").expect("an answer");
            answers.push(answer);
        }
    }
    println!("{} held, {refused} refused", held.len());
    assert_eq!((held.len(), refused), (150, 9850));
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("retry-after: 5\r\n"), "{answer}");
        assert!(answer.contains("urn:raven:problem:crowded"), "{answer}");
        assert!(answer.contains("one network: the limit is 150"), "{answer}");
    }
    // Those who came first are served, and so is everyone from elsewhere.
    let first = held.remove(0);
    assert!(healthz(first).await.starts_with("HTTP/1.1 200 "));
    let elsewhere = connect_from("127.1.0.1", address).await;
    assert!(healthz(elsewhere).await.starts_with("HTTP/1.1 200 "));
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stream = connect_from("127.1.0.1", address).await;
        assert!(healthz(stream).await.starts_with("HTTP/1.1 200 "));
        let metrics = process.try_call("", "/metrics", None);
        let metrics = metrics.map(|answer| answer.body).unwrap_or_default();
        let open = metrics.lines().find_map(|line| line.strip_prefix("raven_connections_open "));
        if open.and_then(|open| open.parse::<u32>().ok()).is_some_and(|open| open <= 2) {
            assert!(metrics.contains("raven_connections_refused_total 98"), "{metrics}");
            break;
        }
        assert!(Instant::now() < deadline, "places are given back: {open:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    process.terminate();
}

#[test]
fn uploads_that_break_off_leave_nothing_behind() {
    let installation = Installation::new();
    let (key, data) = (installation.key.as_str(), installation.data());
    let process = Process::start(&data);
    let spec = json!({"name": "d", "format": "csv", "target": "classes", "classes": 2});
    let body = format!(
        "--b\r\ncontent-disposition: form-data; name=\"spec\"\r\n\r\n{spec}\r\n\
         --b\r\ncontent-disposition: form-data; name=\"table\"; filename=\"t\"\r\n\r\n"
    );
    // More than the four that are received at a time.
    for number in 0..9 {
        let mut stream = TcpStream::connect(process.address()).expect("connects");
        let head = format!(
            "POST /v1/datasets HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
             content-type: multipart/form-data; boundary=b\r\ncontent-length: 5000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body.as_bytes()).expect("sent");
        stream.write_all(&b"1,0\n".repeat(50_000)).expect("sent");
        let how = if number % 2 == 0 { Shutdown::Write } else { Shutdown::Both };
        stream.shutdown(how).expect("broken off");
        let mut answer = String::new();
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let _ = stream.read_to_string(&mut answer);
        if number % 2 == 0 && !answer.is_empty() {
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            assert!(answer.contains("urn:raven:problem:malformed"), "{answer}");
        }
    }
    let uploads = || std::fs::read_dir(data.join("uploads")).expect("the folder").count();
    let deadline = Instant::now() + Duration::from_secs(10);
    while uploads() > 0 {
        assert!(Instant::now() < deadline, "{} uploads are still there", uploads());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(process.call(key, "/v1/datasets", None).1["datasets"], json!([]));
    assert!(crate::support::process::blob_files(&data).is_empty());
    process.upload_digits(key);
    process.terminate();
}
