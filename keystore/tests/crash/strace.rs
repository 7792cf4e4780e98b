//! Runs the child under strace, with one fault or none, and reads what strace wrote.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use crate::child::{FOLDER, keyring_in, report_in};
use crate::not_run::not_run;

/// One system call, as strace wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    pub(crate) name: String,
    /// Everything behind the name; paths stand behind descriptors.
    pub(crate) text: String,
}

/// How a run ended.
pub(crate) struct Run {
    pub(crate) output: Output,
    pub(crate) calls: Vec<Call>,
    pub(crate) report: String,
}

/// Whether strace is there and may trace. If not, it says so loudly, or fails where components are
/// required.
pub(crate) fn is_there() -> bool {
    let trace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "true"])
        .output();
    let why = match trace {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(e) => format!("strace: {e}; run tests/components/install debian"),
    };
    let required = std::env::var_os("CLAVIGER_REQUIRE_COMPONENTS").is_some_and(|one| one == "1");
    assert!(!required, "{why}");
    not_run(&why);
    false
}

/// The child, alone: `name` is the test to run.
pub(crate) fn child(name: &str) -> Vec<OsString> {
    let exe = std::env::current_exe().unwrap();
    let mut command = vec![exe.into_os_string()];
    command.extend([name, "--exact", "--ignored", "--nocapture"].map(OsString::from));
    command
}

/// Runs the child in this folder. Only calls on the keyring's files are traced, counted and made to
/// fail: `inject` is an expression of strace(1), as `fsync:error=EIO:when=2`.
pub(crate) fn run(folder: &Path, inject: Option<&str>) -> Run {
    run_child("child::rotates_twice", folder, inject)
}

/// As [`run`], with another child.
pub(crate) fn run_child(name: &str, folder: &Path, inject: Option<&str>) -> Run {
    let trace = folder.with_extension("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-o"]).arg(&trace);
    for path in paths(folder) {
        strace.arg("-P").arg(path);
    }
    match inject {
        Some(fault) => strace.arg("-e").arg(format!("inject={fault}")),
        // What was promised belongs into the order of events, but no fault belongs there.
        None => strace.arg("-P").arg(report_in(folder)),
    };
    let output = strace
        .args(child(name))
        .env(FOLDER, folder)
        .output()
        .unwrap();
    let trace = std::fs::read_to_string(trace).unwrap();
    let report = std::fs::read_to_string(report_in(folder)).unwrap_or_default();
    Run {
        output,
        calls: trace.lines().filter_map(call).collect(),
        report,
    }
}

/// Every path that opening and two commits may touch; the folder itself too.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<String> = ["", ".lock", ".mark", ".mark.lock", ".mark.new", ".new"]
        .map(str::to_owned)
        .to_vec();
    names
        .extend((1..=20).flat_map(|revision| [format!(".{revision}"), format!(".{revision}.new")]));
    let keyring = keyring_in(folder);
    let members = folder.join("members");
    let record = members.join("cp1.json");
    let temp = members.join("cp1.json.new");
    let mut paths = vec![folder.to_owned(), members, record, temp];
    paths.extend(names.iter().map(|name| {
        let mut path = keyring.clone().into_os_string();
        path.push(name);
        path.into()
    }));
    paths
}

fn call(line: &str) -> Option<Call> {
    let (thread, call) = line.split_once(' ')?;
    let (name, text) = call.trim_start().split_once('(')?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then(|| Call {
        thread: thread.parse().unwrap(),
        name: name.to_owned(),
        text: text.to_owned(),
    })
}

/// The calls numbered as strace counts them: each name by itself, from 1.
pub(crate) fn numbered(calls: &[Call]) -> Vec<(&str, usize)> {
    let mut counts = std::collections::HashMap::new();
    calls
        .iter()
        .map(|call| {
            let count = counts.entry(call.name.as_str()).or_insert(0);
            *count += 1;
            (call.name.as_str(), *count)
        })
        .collect()
}

/// Whether a call of this name may change something that lasts: a kill before any other is one before
/// the next of these.
pub(crate) fn changes(name: &str) -> bool {
    let kinds = ["write", "fsync", "rename", "unlink", "mkdir", "flock"];
    kinds.iter().any(|kind| name.starts_with(kind))
}

/// Works through all items, two at a time.
pub(crate) fn in_parallel<T: Sync>(items: &[T], work: impl Fn(usize, &T) + Sync) {
    let queue = Mutex::new(items.iter().enumerate());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((i, item)) = queue.lock().unwrap().next() else {
                        return;
                    };
                    work(i, item);
                }
            });
        }
    });
}
