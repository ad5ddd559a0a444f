//! Peers that misbehave below or beside the API: heads that never come, and
//! uploads that break off.

mod support;

use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use support::process::{Installation, Process};

/// Longer than a head may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

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
    assert!(support::process::blob_files(&data).is_empty());
    process.upload_digits(key);
    process.terminate();
}
