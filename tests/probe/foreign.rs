//! A real plugin that somebody else wrote: Go, the service package of k8s.io/kms, grpc-go.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use super::*;
use crate::components::component;

/// Each fault of the Go plugin with the first line that it spoils.
const FAULTS: [(&str, Check, Verdict); 20] = [
    ("bad-annotation-key", Check::Annotations, Verdict::Refuse),
    ("decrypt-error", Check::RoundTrip, Verdict::NotNotice),
    ("decrypt-forged", Check::FlippedBit, Verdict::NotNotice),
    ("decrypt-short", Check::RoundTrip, Verdict::NotNotice),
    ("decrypt-wrong-bytes", Check::RoundTrip, Verdict::NotNotice),
    ("empty-ciphertext", Check::Ciphertext, Verdict::Refuse),
    ("empty-key-id", Check::StatusKeyId, Verdict::Refuse),
    ("encrypt-empty-key-id", Check::EncryptKeyId, Verdict::Refuse),
    ("encrypt-error", Check::EncryptAnswers, Verdict::Refuse),
    ("encrypt-other-key-id", Check::EncryptKeyId, Verdict::Refuse),
    ("healthz-not-ok", Check::Healthz, Verdict::Refuse),
    (
        "leaky-annotation",
        Check::NothingInClear,
        Verdict::NotNotice,
    ),
    ("long-annotations", Check::Annotations, Verdict::Refuse),
    ("long-ciphertext", Check::Ciphertext, Verdict::Refuse),
    ("long-key-id", Check::StatusKeyId, Verdict::Refuse),
    ("same-ciphertext", Check::TwoSeeds, Verdict::NotNotice),
    ("slow", Check::StatusAnswers, Verdict::Refuse),
    ("status-error", Check::StatusAnswers, Verdict::Refuse),
    ("version-changes", Check::StatusStable, Verdict::Refuse),
    ("wrong-version", Check::Version, Verdict::Refuse),
];

async fn probed_go(program: &Path, flags: &[&str], timeout: Duration) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("go.sock");
    let mut command = Command::new(program);
    command.arg("-listen").arg(&socket).args(flags);
    let _plugin = Process(command.spawn().unwrap());
    // The first call waits until the plugin listens.
    let client = Client::new(Endpoint::Path(socket), timeout);
    let seeds = Seeds::generate().unwrap();
    probe("go.sock".to_owned(), &client, &seeds, None).await
}

#[tokio::test]
async fn a_good_go_plugin_is_all_ok() {
    let Some(program) = component("go-plugin") else {
        return;
    };
    let report = probed_go(&program, &["-key-id", "go-7"], PATIENT).await;
    all_ok(&report);
    assert_eq!(report.key_id, "go-7");
    noted(&report, "ignores annotations");
}

#[tokio::test]
async fn every_fault_of_the_go_plugin_is_found() {
    let Some(program) = component("go-plugin") else {
        return;
    };
    for (fault, check, verdict) in FAULTS {
        // The slow one takes 4 s for each answer.
        let timeout = if fault == "slow" { TIMEOUT } else { PATIENT };
        let report = probed_go(&program, &["-fault", fault], timeout).await;
        let first = report.lines.iter().find(|line| line.verdict != Verdict::Ok);
        let first = first.map(|line| (line.check, line.verdict));
        assert_eq!(first, Some((check, verdict)), "{fault}: {report:#?}");
        assert!(!report.well);
    }
}

#[test]
fn no_fault_of_the_go_plugin_is_left_out() {
    let Some(program) = component("go-plugin") else {
        return;
    };
    let mut command = Command::new(&program);
    command
        .args(["-listen", "unused.sock", "-fault", "none"])
        .stdin(Stdio::null());
    let refused = String::from_utf8(command.output().unwrap().stderr).unwrap();
    let names = refused.trim_end().rsplit(": ").next().unwrap();
    let known: BTreeSet<_> = FAULTS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names.split(", ").collect::<BTreeSet<_>>(), known);
}
