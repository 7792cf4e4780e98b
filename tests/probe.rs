//! `claviger probe` finds every way in which a plugin can be wrong, and says what kube-apiserver
//! would do about it. The peers are a double that misbehaves, and a real plugin in Go.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "probe/command.rs"]
mod command;
#[path = "common/components.rs"]
mod components;
#[path = "probe/decrypt.rs"]
mod decrypt;
#[path = "probe/double.rs"]
mod double;
#[path = "probe/encrypt.rs"]
mod encrypt;
#[path = "probe/foreign.rs"]
mod foreign;
#[path = "probe/status.rs"]
mod status;

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use claviger::client::{Client, Endpoint, TIMEOUT};
use claviger::probe::report::{Check, Report, Verdict};
use claviger::probe::{Seeds, probe};
use tonic::Status;

use double::{Fail, Faults, KEY_ID, Plugin};

/// Longer than any machine is busy, for calls that are answered.
const PATIENT: Duration = Duration::from_secs(60);

async fn probed(faults: Faults) -> Report {
    probed_within(faults, PATIENT, None).await
}

async fn probed_within(faults: Faults, timeout: Duration, version: Option<&str>) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let plugin = Plugin::start(&dir.path().join("kms.sock"), faults);
    probed_at(&plugin.socket, timeout, version).await
}

async fn probed_at(socket: &Path, timeout: Duration, version: Option<&str>) -> Report {
    let endpoint = Endpoint::Path(socket.to_owned());
    let client = Client::connect(endpoint, timeout).await.unwrap();
    probe(
        "kms.sock".to_owned(),
        &client,
        &Seeds::generate().unwrap(),
        version,
    )
    .await
}

/// Exactly one line is not ok: this one.
#[track_caller]
fn only_fault(report: &Report, check: Check, verdict: Verdict, found: &str) {
    let faults: Vec<_> = report
        .lines
        .iter()
        .filter(|line| line.verdict != Verdict::Ok)
        .collect();
    let [fault] = faults[..] else {
        panic!("one fault was wanted: {report:#?}")
    };
    assert_eq!(
        (fault.check, fault.verdict),
        (check, verdict),
        "{report:#?}"
    );
    assert!(
        fault.found.contains(found),
        "{found:?} was wanted: {report:#?}"
    );
    assert!(!fault.means.is_empty());
    assert!(!report.well);
}

#[track_caller]
fn all_ok(report: &Report) {
    assert!(report.well, "{report:#?}");
    assert!(
        report.lines.iter().all(|line| line.verdict == Verdict::Ok),
        "{report:#?}"
    );
    assert_eq!(report.lines.len(), CHECKS, "{report:#?}");
}

/// How many checks there are.
const CHECKS: usize = 21;

/// A process that ends with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn noted(report: &Report, note: &str) {
    assert!(
        report.notes.iter().any(|n| n.contains(note)),
        "{note:?} was wanted: {report:#?}"
    );
}

fn failed() -> Fail {
    Fail::Error(Status::internal("asked for"))
}

#[tokio::test]
async fn a_good_plugin_is_all_ok() {
    let report = probed(Faults::none()).await;
    all_ok(&report);
    assert_eq!(
        (report.version.as_str(), report.key_id.as_str()),
        ("v2", KEY_ID)
    );
    noted(
        &report,
        "32 bytes are copied into every object: ciphertext 24, key id 8, annotations 0",
    );
    noted(&report, "Encrypt takes ");
    noted(&report, "ms (median), ");
    let latency = report.latency_us;
    assert!(latency.status.is_some() && latency.encrypt.is_some() && latency.decrypt.is_some());
}

#[tokio::test]
async fn an_abstract_socket_is_as_good() {
    let name = format!("claviger-probe-{}", std::process::id());
    let plugin = Plugin::start(Path::new(&format!("\0{name}")), Faults::none());
    let endpoint = format!("unix:///@{name}").parse().unwrap();
    let client = Client::connect(endpoint, PATIENT).await.unwrap();
    all_ok(&probe(name, &client, &Seeds::generate().unwrap(), None).await);
    drop(plugin);
}

#[tokio::test]
async fn calls_wait_for_a_plugin_that_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    // Nobody listens yet.
    let client = Client::new(Endpoint::Path(socket.clone()), PATIENT);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.status().await }
    });
    let first = Plugin::start(&socket, Faults::none());
    assert_eq!(waiting.await.unwrap().unwrap().key_id, KEY_ID);

    first.stop().await;
    let second = Plugin::start(
        &socket,
        Faults::none().status(|_, answer| {
            answer.key_id = "double-2".to_owned();
            Ok(())
        }),
    );
    // The first call may meet the end of the old connection; the next has a new one.
    let again = match client.status().await {
        Ok(answer) => answer,
        Err(_) => client.status().await.unwrap(),
    };
    assert_eq!(again.key_id, "double-2");
    drop(second);
}
