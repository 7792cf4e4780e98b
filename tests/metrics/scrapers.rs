//! Scrapers, good and bad: whatever one does, another is answered.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use claviger::metrics_server::MAX_CONNECTIONS;

use crate::support::{Answer, Served, ask, connect, full_metrics, get, start};

/// A scrape works, and at once: no time limit had to free it a place.
fn assert_undisturbed(address: SocketAddr) {
    let started = Instant::now();
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer.body.contains("\nclaviger_keyring_open 1\n"),
        "{answer:?}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}

/// Sends bytes and reads until the server ends the connection; what it answered, if anything.
fn send(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // The server may hang up before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn each_page_with_its_type() {
    let served = Served::plain();
    let content_type = |answer: &Answer| {
        let mut headers = answer.headers.lines().map(|line| line.trim().to_owned());
        headers
            .find_map(|line| line.strip_prefix("content-type: ").map(str::to_owned))
            .unwrap()
    };
    let metrics = get(served.address, "/metrics");
    assert_eq!(metrics.status, 200);
    assert_eq!(
        content_type(&metrics),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    for path in ["/livez", "/readyz"] {
        let answer = get(served.address, path);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
        assert_eq!(content_type(&answer), "text/plain; charset=utf-8");
    }
    assert_eq!(get(served.address, "/").status, 404);
    assert_eq!(ask(connect(served.address), "POST", "/metrics").status, 405);
}

#[test]
fn head_has_the_header_and_no_body() {
    let served = Served::plain();
    let answer = ask(connect(served.address), "HEAD", "/metrics");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    let length = answer.headers.split("content-length: ").nth(1).unwrap();
    let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
    assert!(length > 1_000, "{length}");
}

#[test]
fn a_hundred_silent_connections() {
    let served = Served::plain();
    let mut silent: Vec<_> = (0..100).map(|_| connect(served.address)).collect();
    assert_undisturbed(served.address);
    // The oldest made room: they are closed by now, not when a time limit comes.
    for stream in &mut silent[..100 - MAX_CONNECTIONS] {
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        match stream.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

#[test]
fn scrapers_that_never_read() {
    let served = Served::plain();
    let ask = |mut stream: TcpStream| {
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        stream
    };
    let deaf: Vec<_> = (0..2 * MAX_CONNECTIONS)
        .map(|_| ask(connect(served.address)))
        .collect();
    assert_undisturbed(served.address);
    drop(deaf);
}

#[test]
fn scrapers_that_say_half_a_request() {
    let served = Served::plain();
    let half = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-";
    let halves: Vec<_> = (0..MAX_CONNECTIONS)
        .map(|_| {
            let mut stream = connect(served.address);
            stream.write_all(half).unwrap();
            stream
        })
        .collect();
    assert_undisturbed(served.address);
    drop(halves);
}

#[test]
fn huge_headers_and_bodies() {
    let served = Served::plain();
    let start = "GET /metrics HTTP/1.1\r\nHost: x\r\n";
    let one = format!("{start}X: {}\r\n\r\n", "y".repeat(1024 * 1024));
    let many = format!("{start}{}\r\n", "X: y\r\n".repeat(10_000));
    let line = format!(
        "GET /{} HTTP/1.1\r\nHost: x\r\n\r\n",
        "y".repeat(1024 * 1024)
    );
    for request in [one, many, line] {
        let answer = send(served.address, request.as_bytes());
        // The answer may be lost where the server hung up on what it did not read.
        let refused = ["HTTP/1.1 431 ", "HTTP/1.1 414 "]
            .iter()
            .any(|s| answer.starts_with(s));
        assert!(answer.is_empty() || refused, "{answer}");
        assert_undisturbed(served.address);
    }
    let body = format!(
        "POST /metrics HTTP/1.1\r\nContent-Length: {}\r\n\r\nx",
        u64::MAX / 2
    );
    assert!(send(served.address, body.as_bytes()).starts_with("HTTP/1.1 405 "));
    assert_undisturbed(served.address);
}

#[test]
fn garbage() {
    let served = Served::plain();
    let noise: Vec<u8> = (0..4096_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let inputs: [&[u8]; 8] = [
        &noise,
        &[0; 4096],
        b"\r\n\r\n\r\n\r\nx",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"GET /metrics HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /metrics\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    ];
    for input in inputs {
        let mut stream = connect(served.address);
        let _ = stream.write_all(input);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{answer}"
        );
    }
    assert_undisturbed(served.address);
}

#[test]
fn many_scrapes_at_once() {
    let served = Served::plain();
    let address = served.address;
    // No more at once than there are places, each many times.
    let scrapers: Vec<_> = (0..MAX_CONNECTIONS / 2)
        .map(|_| thread::spawn(move || (0..50).for_each(|_| assert_undisturbed(address))))
        .collect();
    scrapers
        .into_iter()
        .for_each(|scraper| scraper.join().unwrap());
}

#[test]
fn it_ends_while_it_waits_for_a_port_and_while_a_peer_hangs() {
    let blocker = TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, shutdown) = start(
        blocker.local_addr().unwrap(),
        None,
        Arc::new(full_metrics()),
    );
    shutdown.cancel();
    server.join();

    let mut served = Served::plain();
    let mut hanging = connect(served.address);
    hanging.write_all(b"GET /metr").unwrap();
    served.stop();
    assert!(matches!(hanging.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(
        TcpStream::connect(served.address).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}
