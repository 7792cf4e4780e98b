//! The whole plugin with its log on a pipe that nobody reads, or on a disk that is full.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use claviger::client::{Client, Endpoint, TIMEOUT};
use claviger_proto::v2::{DecryptRequest, EncryptRequest};
use rustix::process::{Pid, Signal, kill_process};

/// More lines of a log than the pipe (64 KiB) and the queue (2,048 lines) take.
const CALLS: usize = 3_500;

/// A plugin whose log goes nowhere; killed by its id when this ends.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Serving {
    /// Starts a try-out and waits until it says that it serves.
    fn start(dir: &Path, log: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_claviger"))
            .args(["serve", "--dev", "--dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let serving = Self(child);
        let mut lines = stdout.lines().map(Result::unwrap);
        assert!(
            lines.any(|line| line.contains("Ctrl-C")),
            "the plugin ended"
        );
        serving
    }

    /// Asks it to stop, and says whether it did so in time and well.
    fn stops_within(mut self, limit: Duration) -> bool {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).unwrap();
        let deadline = std::time::Instant::now() + limit;
        while std::time::Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        false
    }
}

fn dropped_lines(dir: &Path) -> f64 {
    let address = fs::read_to_string(dir.join("metrics.addr")).unwrap();
    let mut stream = TcpStream::connect(address.trim_end()).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let mut lines = text.lines();
    let dropped = lines.find_map(|line| line.strip_prefix("claviger_log_lines_dropped_total "));
    dropped.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn row_115_requests_are_served_while_nobody_reads_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), Stdio::piped());
    assert_eq!(dropped_lines(dir.path()), 0.0);
    serves_and_counts_what_it_drops(dir.path(), serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_115_requests_are_served_while_the_disk_under_the_log_is_full() {
    let dir = tempfile::tempdir().unwrap();
    // Every write to it fails with ENOSPC.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let serving = Serving::start(dir.path(), full.into());
    serves_and_counts_what_it_drops(dir.path(), serving).await;
}

async fn serves_and_counts_what_it_drops(dir: &Path, serving: Serving) {
    let client = Client::new(Endpoint::Path(dir.join("kms.sock")), TIMEOUT);
    let refused = DecryptRequest {
        key_id: "nonsense".to_owned(),
        ..Default::default()
    };
    for _ in 0..CALLS {
        let refusal = client.decrypt(refused.clone()).await.unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::InvalidArgument, "{refusal}");
    }
    let dropped = dropped_lines(dir);
    assert!(
        dropped > 0.0,
        "{CALLS} refused calls, and no line of the log was lost"
    );

    // Nor is anything else held up.
    let key_id = client.status().await.unwrap().key_id;
    let sealed = EncryptRequest {
        plaintext: vec![7; 32],
        uid: "test".to_owned(),
    };
    let ciphertext = client.encrypt(sealed).await.unwrap().ciphertext;
    let opened = DecryptRequest {
        key_id,
        ciphertext,
        ..Default::default()
    };
    assert_eq!(client.decrypt(opened).await.unwrap().plaintext, [7; 32]);
    assert!(
        serving.stops_within(Duration::from_secs(5)),
        "SIGTERM waits for the log"
    );
}
