//! Row 116: scrapers that are slow or hostile, beside calls.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use crate::plugin::{Calls, PATIENCE, client_of};
use crate::starved::serve;

const REQUEST: &[u8; 37] = b"GET /metrics HTTP/1.1\r\nHost: claviger";
const END: &[u8; 23] = b"\r\nConnection: close\r\n\r\n";

/// Where the metrics are: a plugin serves them before it has written that down.
fn address_in(dir: &Path) -> SocketAddr {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(dir.join("metrics.addr")).unwrap_or_default();
        if let Some(address) = text.strip_suffix('\n') {
            return address.parse().unwrap();
        }
        assert!(Instant::now() < until, "no address: {text}");
        std::thread::yield_now();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A scraper that has asked for everything.
fn asking(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(REQUEST).unwrap();
    stream.write_all(END).unwrap();
    stream
}

/// What a page says of calls, where there were some.
fn served(page: &str) -> Vec<&str> {
    let calls = page
        .lines()
        .filter(|line| line.starts_with("claviger_requests_total{"));
    let mut served: Vec<_> = calls.filter(|line| !line.ends_with(" 0")).collect();
    served.sort_unstable();
    served
}

#[tokio::test]
async fn row_116_calls_are_answered_beside_scrapers_that_hold_what_they_get() {
    const ROUNDS: usize = REQUEST.len();
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let _serving = serve(&dir, "unlimited").unwrap();
    let address = address_in(&dir);
    let mut client = client_of(&dir.join("kms.sock")).await.unwrap();

    // What each of them does, it does before the calls of its round are made.
    let mut held = Vec::new();
    for round in 0..ROUNDS {
        // One more says nothing, and one more the first half and then nothing.
        held.push(connect(address));
        let mut half = connect(address);
        half.write_all(&REQUEST[..=round]).unwrap();
        held.push(half);
        // One has asked, and takes a byte of the answer.
        let mut reader = asking(address);
        reader.read_exact(&mut [0]).unwrap();
        held.push(reader);

        let key_id = client.answer_status().await.key_id;
        let sealed = client.seal(&[7; 32]).await.ciphertext;
        assert_eq!(client.open(&key_id, &sealed).await.unwrap(), [7; 32]);
    }

    // Two do all of it a byte at a time, with calls between the bytes.
    let mut writer = connect(address);
    let mut reader = asking(address);
    let mut answer = Vec::new();
    for byte in REQUEST {
        // On a slow machine the plugin may have lost its patience with the writer.
        let _ = writer.write_all(&[*byte]);
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
        client.answer_status().await;
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{answer:?}");

    // Every call was counted, and none failed. The last is counted when its client knows already.
    let counts = [
        ("Decrypt", ROUNDS),
        ("Encrypt", ROUNDS),
        ("Status", 2 * ROUNDS),
    ];
    let expected = counts.map(|(method, count)| {
        format!("claviger_requests_total{{code=\"OK\",method=\"{method}\"}} {count}")
    });
    let until = Instant::now() + PATIENCE;
    loop {
        let mut page = String::new();
        asking(address).read_to_string(&mut page).unwrap();
        let served = served(&page);
        if served == expected {
            break;
        }
        assert!(Instant::now() < until, "{served:#?}");
    }
    drop((held, writer));
}
