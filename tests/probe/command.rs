//! The command itself: exit codes, what is on stdout, and `--repeat`.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.arg("probe").args(args).stdin(Stdio::null());
    command
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn started(faults: Faults) -> (tempfile::TempDir, Plugin) {
    let dir = tempfile::tempdir().unwrap();
    let plugin = Plugin::start(&dir.path().join("kms.sock"), faults);
    (dir, plugin)
}

#[tokio::test]
async fn all_ok_is_exit_0_and_a_table() {
    let (_dir, plugin) = started(Faults::none());
    let output = output(command([&plugin.socket])).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let table = text(&output.stdout);
    assert!(table.ends_with("21 checks, all ok\n"), "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
    let socket = plugin.socket.to_str().unwrap();
    let long = table
        .lines()
        .find(|line| line.chars().count() > 80 && !line.contains(socket));
    assert_eq!(long, None);
    assert_eq!(text(&output.stderr), "");
}

#[tokio::test]
async fn a_fault_is_exit_3_in_json_too() {
    let (_dir, plugin) = started(Faults::none().decrypt(|_, _| Ok(vec![0; 32])));
    let url = format!("unix://{}", plugin.socket.display());
    let output = output(command([url.as_str(), "-o", "json"])).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["kind"], "Probe");
    assert_eq!(json["well"], false);
    let lines = json["lines"].as_array().unwrap();
    let line = lines
        .iter()
        .find(|line| line["check"] == "round-trip")
        .unwrap();
    assert_eq!(line["verdict"], "not-notice");
    assert_eq!(line["found"], "32 other bytes");
}

#[tokio::test]
async fn nobody_is_exit_5_and_nothing_on_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let output = output(command([&socket])).await;
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    let error = text(&output.stderr);
    assert!(error.contains("connecting to the plugin at"), "{error}");
    assert!(error.contains("No such file"), "{error}");
    assert!(error.contains("start the plugin"), "{error}");
}

#[tokio::test]
async fn what_kube_apiserver_would_not_parse_is_exit_2() {
    for args in [
        &["http://localhost/kms"][..],
        &["unix://kms.sock"],
        &["@kms", "--timeout", "0s"],
        &["@kms", "--status-version", "v1"],
        &[],
    ] {
        let output = output(command(args)).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[tokio::test]
async fn flags_reach_the_probe() {
    let (_dir, plugin) = started(Faults::none().decrypt(|_, _| Err(Fail::Hang)));
    let socket = plugin.socket.to_str().unwrap();
    let args = [socket, "--timeout", "1s", "--status-version", "v2beta1"];
    let output = output(command(args)).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let table = text(&output.stdout);
    assert!(table.contains("no answer within 1s"), "{table}");
    assert!(table.contains("got v2, wanted v2beta1"), "{table}");
}

#[tokio::test]
async fn repeat_tells_what_changes_until_interrupted() {
    let unwell = Arc::new(AtomicBool::new(true));
    let hook = Arc::clone(&unwell);
    let faults = Faults::none().status(move |_, _| {
        if hook.load(Ordering::SeqCst) {
            Err(failed())
        } else {
            Ok(())
        }
    });
    let (_dir, plugin) = started(faults);

    let mut command = command([plugin.socket.as_os_str(), OsStr::new("--repeat")]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let watching = tokio::task::spawn_blocking(move || {
        let mut lines = stdout
            .lines()
            .map(Result::unwrap)
            .skip_while(|line| !line.contains("Z  "));
        let first = lines.next().unwrap();
        unwell.store(false, Ordering::SeqCst);
        let second = lines.next().unwrap();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        (first, second, lines.count(), child.wait().unwrap())
    });
    let (first, second, more, status) = watching.await.unwrap();
    let problem = "not ready; the apiserver neither reads nor writes; Status: Internal: asked for";
    assert!(first.ends_with(problem), "{first}");
    assert!(
        second.ends_with("Z  ready; the apiserver reads and writes, key id double-1"),
        "{second}"
    );
    assert_eq!(more, 0);
    // It was not well at first.
    assert_eq!(status.code(), Some(3));
}
