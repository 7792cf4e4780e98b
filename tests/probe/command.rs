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
    let (_dir, plugin) = started(Faults::none());
    let socket = plugin.socket.to_str().unwrap();
    let output = output(command([socket, "--status-version", "v2beta1"])).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let table = text(&output.stdout);
    assert!(table.contains("got v2, wanted v2beta1"), "{table}");
}

#[tokio::test]
async fn the_time_limit_is_that_of_the_flag() {
    let (_dir, plugin) = started(Faults::none().status(|_, _| Err(Fail::Hang)));
    let socket = plugin.socket.to_str().unwrap();
    let output = output(command([socket, "--timeout", "100ms"])).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let table = text(&output.stdout);
    assert!(table.contains("no answer within 100ms"), "{table}");
}

/// Runs `--repeat` until it has told what it found `lines` times. `told` is called after each. The
/// answer is the report, the lines, and the exit code after an interrupt.
async fn repeated(
    plugin: &Plugin,
    lines: usize,
    told: impl Fn() + Send + 'static,
) -> (Vec<String>, Vec<String>, Option<i32>) {
    let mut command = command([plugin.socket.as_os_str(), OsStr::new("--repeat")]);
    let mut child = Process(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut stdout = BufReader::new(child.0.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let watching = tokio::task::spawn_blocking(move || {
        let (mut report, mut changes) = (Vec::new(), Vec::new());
        while changes.len() < lines {
            let line = stdout.next().unwrap();
            if line.contains("Z  ") {
                changes.push(line);
                told();
            } else {
                report.push(line);
            }
        }
        kill_process(Pid::from_child(&child.0), Signal::INT).unwrap();
        changes.extend(stdout);
        (report, changes, child.0.wait().unwrap().code())
    });
    watching.await.unwrap()
}

#[tokio::test]
async fn repeat_ends_with_0_while_all_is_well() {
    let (_dir, plugin) = started(Faults::none());
    let (report, changes, code) = repeated(&plugin, 1, || {}).await;
    assert_eq!(report.last().unwrap(), "21 checks, all ok");
    let [change] = &changes[..] else {
        panic!("{changes:?}")
    };
    let wanted = "Z  ready; the apiserver reads and writes, key id double-1";
    assert!(change.ends_with(wanted), "{change}");
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn repeat_tells_what_changes() {
    let unwell = Arc::new(AtomicBool::new(true));
    let (hook, mend) = (Arc::clone(&unwell), unwell);
    let faults = Faults::none().status(move |_, _| {
        if hook.load(Ordering::SeqCst) {
            Err(failed())
        } else {
            Ok(())
        }
    });
    let (_dir, plugin) = started(faults);
    let (_, changes, code) =
        repeated(&plugin, 2, move || mend.store(false, Ordering::SeqCst)).await;
    let [first, second] = &changes[..] else {
        panic!("{changes:?}")
    };
    let problem = "not ready; the apiserver neither reads nor writes; Status: Internal: asked for";
    assert!(first.ends_with(problem), "{first}");
    assert!(
        second.ends_with("ready; the apiserver reads and writes, key id double-1"),
        "{second}"
    );
    assert_eq!(code, Some(3));
}

#[tokio::test]
async fn repeat_remembers_what_was_not_well() {
    // The report asks for Status eight times.
    let faults = Faults::none().status(|nth, _| if nth < 8 { Ok(()) } else { Err(failed()) });
    let (_dir, plugin) = started(faults);
    let (report, changes, code) = repeated(&plugin, 1, || {}).await;
    assert_eq!(report.last().unwrap(), "21 checks, all ok");
    assert!(changes[0].contains("Z  not ready"), "{changes:?}");
    assert_eq!(code, Some(3));
}
