//! The five oracles, after each group of faults, on a whole plugin in a process of its own that logs
//! all it can: O1 it answers, O2 it opens all that it ever sealed, O3 no seed is in what it says, O4
//! its key id stays, O5 descriptors, threads and memory come back to what they were.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use claviger_proto::v2::StatusRequest;
use data_encoding::{BASE64, HEXLOWER};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::calls::encrypt;
use crate::connections::greet_or_closed;
use crate::floods::{flood, open_streams};
use crate::frames::{
    CONTINUATION, DATA, DECRYPT, ENCRYPT, HEADERS, Listens, PREFACE, RST_STREAM, STATUS,
    begin_call, call, call_headers, connect, field, frame, greet, message, prefixed, setting,
};
use crate::plugin::{Calls, Client, PATIENCE, client_of};

/// What no log may show.
const SEED: &[u8; 32] = b"ORACLE-3 seed ORACLE-3 seed ....";

/// The main one, the log's, the metrics', and those that read files.
const THREADS: usize = 3 + 4;

/// Bytes of memory that may stay with the allocator after a flood.
const SLACK: usize = 16 * 1024 * 1024;

/// `claviger serve --dev` with its log at its longest, killed at the end.
struct Whole {
    dir: TempDir,
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Drop for Whole {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Listens for Whole {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("dev/kms.sock")
    }
}

impl Whole {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let dev = dir.path().join("dev");
        // The first run makes the folder, and the second has its configuration changed.
        drop(Self::serve(TempDir::new().unwrap(), &dev));
        let config = dev.join("config.yaml");
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains("level: info"), "{text}");
        fs::write(&config, text.replace("level: info", "level: trace")).unwrap();
        Self::serve(dir, &dev)
    }

    fn serve(dir: TempDir, dev: &std::path::Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.args(["serve", "--dev", "--dir"]).arg(dev);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let serves = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("serving metrics"));
        assert!(serves.is_some(), "it ended");
        let listener = said.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                listener.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { dir, child, said }
    }

    async fn client(&self) -> Client {
        client_of(&self.socket()).await.unwrap()
    }

    /// Waits until Status is answered. Behind a flood that waits in the socket's backlog, a peer may
    /// be one too many at first.
    async fn answers(&self) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.client().await.status(StatusRequest {}).await {
                Ok(status) => return status.into_inner().key_id,
                Err(error) => assert!(Instant::now() < until, "O1: {error}"),
            }
        }
    }

    fn metrics(&self) -> String {
        let address = fs::read_to_string(self.dir.path().join("dev/metrics.addr")).unwrap();
        let mut stream = TcpStream::connect(address.trim()).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.contains("claviger_requests_total"), "{page}");
        page
    }
}

/// A metric without labels.
fn value(page: &str, name: &str) -> usize {
    let mut values = page.lines().filter_map(|line| line.strip_prefix(name));
    let value: f64 = values.next().unwrap().trim().parse().unwrap();
    value as usize
}

/// What the plugin was like before the faults.
struct Before {
    descriptors: usize,
    resident: usize,
    key_id: String,
    sealed: Vec<Vec<u8>>,
}

impl Before {
    async fn look(plugin: &Whole) -> Self {
        let mut client = plugin.client().await;
        let key_id = client.answer_status().await.key_id;
        let mut sealed = Vec::new();
        for _ in 0..100 {
            sealed.push(client.seal(SEED).await.ciphertext);
            assert_eq!(client.open(&key_id, &sealed[0]).await.unwrap(), SEED);
        }
        let page = plugin.metrics();
        assert_eq!(value(&page, "claviger_connections "), 1);
        Self {
            descriptors: value(&page, "process_open_fds ") - 1,
            resident: value(&page, "process_resident_memory_bytes "),
            key_id,
            sealed,
        }
    }

    /// All five, now.
    async fn holds(&mut self, plugin: &Whole, group: &str) {
        let key_id = plugin.answers().await;
        assert_eq!(key_id, self.key_id, "O4 after {group}");
        let until = Instant::now() + PATIENCE;
        loop {
            let page = plugin.metrics();
            let connections = value(&page, "claviger_connections ");
            let descriptors = value(&page, "process_open_fds ");
            if connections == 0 && descriptors <= self.descriptors {
                break;
            }
            assert!(
                Instant::now() < until,
                "O5 after {group}: {connections} connections, {descriptors} descriptors, not {}",
                self.descriptors
            );
            tokio::task::yield_now().await;
        }
        let page = plugin.metrics();
        let threads = value(&page, "process_threads ");
        assert!(threads <= THREADS, "O5 after {group}: {threads} threads");
        let resident = value(&page, "process_resident_memory_bytes ");
        assert!(
            resident < self.resident + SLACK,
            "O5 after {group}: {resident} bytes, not {}",
            self.resident
        );

        let mut client = plugin.client().await;
        self.sealed.push(client.seal(SEED).await.ciphertext);
        for ciphertext in &self.sealed {
            let opened = client.open(&key_id, ciphertext).await.unwrap();
            assert_eq!(opened, SEED, "O2 after {group}");
        }
        drop(client);
        assert_eq!(
            value(&page, "claviger_panics_total "),
            0,
            "O1 after {group}"
        );
        let said = plugin.said.lock().unwrap().clone();
        assert!(said.contains("request"), "nothing was logged: {said}");
        let seeds = [
            String::from_utf8_lossy(&SEED[..9]).into_owned(),
            HEXLOWER.encode(&SEED[..9]),
            BASE64.encode(&SEED[..9]),
            format!("{:?}", &SEED[..9]).trim_end_matches(']').to_owned(),
        ];
        for seed in &seeds {
            assert!(
                !said.contains(seed) && !page.contains(seed),
                "O3 after {group}: {seed}"
            );
        }
    }
}

/// What is sent instead of a call, or of a message.
async fn wire(plugin: &Whole) {
    let body = message(&field(1, SEED));
    for body in [
        &message(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")[..],
        &message(&SEED[..9]),
        &prefixed(0, 40, &field(1, SEED)),
        &prefixed(1, 34, &field(1, SEED)),
        &prefixed(0, u32::MAX, &[]),
        &message(&SEED.repeat(3_000)),
        &[0, 0, 0],
        &[],
    ] {
        for path in [STATUS, ENCRYPT, DECRYPT, "/v2.KeyManagementService/Destroy"] {
            call(plugin, path, &[], body).await.unwrap();
        }
    }
    let long = String::from_utf8(SEED.repeat(300)).unwrap();
    for (name, value) in [
        ("grpc-timeout", "1n"),
        ("grpc-timeout", "99999999H"),
        ("grpc-encoding", "gzip"),
        ("x-long", &long),
    ] {
        // A server that refuses the headers may close before it answers.
        let _ = call(plugin, ENCRYPT, &[(name, value)], &body).await;
    }
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01",
        SEED,
        &PREFACE[..20],
    ] {
        let mut stream = connect(plugin).await;
        stream.write_all(noise).await.unwrap();
    }
}

/// Calls of the contract that must not succeed, and some that must.
async fn semantics(plugin: &Whole) {
    let mut client = plugin.client().await;
    let key_id = client.answer_status().await.key_id;
    let sealed = client.seal(SEED).await.ciphertext;
    for len in 0..sealed.len() {
        client.open(&key_id, &sealed[..len]).await.unwrap_err();
    }
    for at in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[at] ^= 1;
        client.open(&key_id, &flipped).await.unwrap_err();
    }
    let other = key_id.replace(|c: char| c.is_ascii_digit(), "0");
    for id in [
        "",
        "\0",
        "k\u{456}y",
        &SEED.escape_ascii().to_string(),
        &other,
    ] {
        client.open(id, &sealed).await.unwrap_err();
    }
    for foreign in [&b"vault:v1:"[..], b"2", SEED, &[0x1f; 200]] {
        client.open(&key_id, foreign).await.unwrap_err();
    }
    for len in [0, 513, 4_096] {
        encrypt(&mut client, &SEED.repeat(200)[..len], "uid")
            .await
            .unwrap_err();
    }
    for uid in ["\n\u{1b}[2J".repeat(99), "u".repeat(60_000), String::new()] {
        encrypt(&mut client, SEED, &uid).await.unwrap();
        client.open("x", SEED).await.unwrap_err();
    }
}

/// Connections that are too many, too slow, or cut off.
async fn connections(plugin: &Whole) {
    let mut kept = Vec::new();
    for _ in 0..1_000 {
        kept.push(greet_or_closed(plugin).await);
    }
    drop(kept);
    for _ in 0..100 {
        // Those of before may still be counted.
        let mut stream = greet_or_closed(plugin).await;
        let _ = stream.write_all(&begin_call(1, ENCRYPT)).await;
        let _ = stream
            .write_all(&frame(DATA, 0, 1, &message(SEED)[..20]))
            .await;
    }
}

/// Peers that send more than anybody could want.
async fn floods(plugin: &Whole) {
    let reset = |time: u32| {
        let id = 2 * time + 1;
        [
            begin_call(id, ENCRYPT),
            frame(RST_STREAM, 0, id, &8u32.to_be_bytes()),
        ]
        .concat()
    };
    assert!(flood(&mut greet(plugin).await, reset, 100_000).await < 10_000);
    let mut stream = greet(plugin).await;
    let headers = frame(HEADERS, 0, 1, &call_headers(ENCRYPT));
    stream.write_all(&headers).await.unwrap();
    let block = [&[0, 1, b'x', 100][..], &[b'v'; 100]].concat();
    let more = frame(CONTINUATION, 0, 1, &block.repeat(10));
    assert!(flood(&mut stream, |_| more.clone(), 100_000).await < 1_000);
    let mut stream = greet(plugin).await;
    stream.write_all(&begin_call(1, ENCRYPT)).await.unwrap();
    let empty = frame(DATA, 0, 1, &[]).repeat(100);
    assert!(flood(&mut stream, |_| empty.clone(), 100_000).await < 1_000);
    let mut stream = greet(plugin).await;
    stream.write_all(&setting(4, 0)).await.unwrap();
    open_streams(&mut stream, 10_000, Some(&message(&field(1, SEED)))).await;
}

#[tokio::test]
async fn all_five_hold_after_every_group() {
    let plugin = Whole::start();
    let mut before = Before::look(&plugin).await;
    before.holds(&plugin, "nothing").await;
    wire(&plugin).await;
    before.holds(&plugin, "A, the wire").await;
    semantics(&plugin).await;
    before.holds(&plugin, "B, semantics").await;
    connections(&plugin).await;
    before.holds(&plugin, "C, connections").await;
    floods(&plugin).await;
    before.holds(&plugin, "C, floods").await;
}
