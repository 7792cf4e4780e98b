//! What a power loss would find: the order in which a commit writes, syncs and renames. A kill does
//! not lose what was not synced; so here the calls themselves are looked at.

use std::collections::{HashMap, HashSet};
use std::process::Command;

use crate::after::{Promises, Template};
use crate::child::{FOLDER, report_in};
use crate::strace::{self, Call};

/// The file's name in `17</dir/NAME>`, or the folder's own.
fn file_of(call: &Call) -> Option<&str> {
    let path = call.text.split_once('<')?.1.split_once('>')?.0;
    path.rsplit('/').next()
}

/// The names in `"/dir/FROM", "/dir/TO"`.
fn renamed(call: &Call) -> Option<(&str, &str)> {
    if !call.name.starts_with("rename") {
        return None;
    }
    let mut quoted = call.text.split('"').skip(1).step_by(2);
    let mut name = || quoted.next()?.rsplit('/').next();
    Some((name()?, name()?))
}

/// What a power loss would take away, at one moment.
#[derive(Default)]
struct Unsynced<'a> {
    files: HashSet<&'a str>,
    renames: HashSet<&'a str>,
    locked: bool,
    read_back: HashMap<&'a str, bool>,
}

impl<'a> Unsynced<'a> {
    fn see(&mut self, call: &'a Call) {
        let file = file_of(call).unwrap_or_default();
        match call.name.as_str() {
            "flock" if file == "keyring.lock" => self.locked = call.text.contains("LOCK_EX"),
            "close" if file == "keyring.lock" => self.locked = false,
            "open" | "openat" if call.text.contains("O_CREAT") && call.text.contains(".new\"") => {
                let safe = call.text.contains("O_EXCL") && call.text.contains("O_NOFOLLOW");
                assert!(safe && call.text.contains("0600"), "{}", call.text);
            }
            "write" => {
                self.files.insert(file);
                self.read_back.insert(file, false);
            }
            "read" if !self.files.contains(file) => {
                self.read_back.insert(file, true);
            }
            "fsync" if call.text.contains(&format!("/{file}>) = 0")) && file == "run" => {
                self.renames.clear();
            }
            "fsync" => {
                self.files.remove(file);
            }
            _ => {}
        }
    }

    /// Before a name is given: the bytes are durable, and were read back after that.
    fn check_rename(&mut self, from: &'a str, to: &'a str) {
        assert!(
            !self.files.contains(from),
            "{from} is renamed before it is durable"
        );
        assert_eq!(
            self.read_back.get(from),
            Some(&true),
            "{from} was not read back"
        );
        if to == "keyring" {
            assert!(self.locked, "no lock is held");
            assert!(
                self.renames.is_empty(),
                "the copy of the old keyring is not durable"
            );
        }
        self.renames.insert(to);
    }
}

#[test]
fn row_65_nothing_is_renamed_or_promised_before_it_is_durable() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let run = strace::run(&template.copy("run"), None);
    let promises = Promises::read(&run.report);
    assert_eq!(promises.committed, 2, "{promises:?}");

    let mut unsynced = Unsynced::default();
    let mut order = Vec::new();
    for call in &run.calls {
        if let Some((from, to)) = renamed(call) {
            unsynced.check_rename(from, to);
            order.push(to);
        } else if call.name == "write" && call.text.contains("run.report") {
            assert!(
                unsynced.files.is_empty(),
                "promised before {:?}",
                unsynced.files
            );
            assert!(
                unsynced.renames.is_empty(),
                "promised before {:?}",
                unsynced.renames
            );
            let what = ["sealed", "committed", "end"]
                .iter()
                .find(|what| call.text.contains(**what));
            order.push(what.unwrap());
        } else {
            if call.name.starts_with("open") && call.text.contains("keyring.mark.new") {
                assert!(
                    unsynced.renames.is_empty(),
                    "the mark knows more than the disk"
                );
            }
            unsynced.see(call);
        }
    }
    let expected = [
        "keyring.mark",
        "sealed", // the start
        "keyring.12",
        "keyring",
        "keyring.mark",
        "committed",
        "sealed", // each commit
        "keyring.13",
        "keyring",
        "keyring.mark",
        "committed",
        "sealed",
        "end",
    ];
    assert_eq!(order, expected);
}

#[test]
fn a_keyring_that_was_copied_here_is_synced_before_it_is_used() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let run = strace::run(&template.copy("run"), None);
    let sealed = run
        .calls
        .iter()
        .position(|call| call.text.contains("sealed"))
        .unwrap();
    let synced: Vec<&str> = run.calls[..sealed]
        .iter()
        .filter(|call| call.name == "fsync" && call.text.contains(") = 0"))
        .filter_map(file_of)
        .collect();
    assert!(synced.starts_with(&["keyring", "run"]), "{synced:?}");
    // What is synced is what was read, whoever puts another file in its place meanwhile.
    let opened = run.calls[..sealed]
        .iter()
        .filter(|call| call.name.starts_with("open") && call.text.contains("/keyring\""));
    assert_eq!(
        opened.count(),
        1,
        "the file was opened by its name more than once"
    );
}

#[test]
fn no_file_is_touched_by_the_thread_that_serves() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let run = strace::run(&template.copy("run"), None);
    let (serving, working): (Vec<&Call>, Vec<&Call>) = run
        .calls
        .iter()
        .partition(|call| call.text.contains("run.report"));
    let serving: HashSet<u32> = serving.iter().map(|call| call.thread).collect();
    for call in working {
        assert!(
            !serving.contains(&call.thread),
            "a disk that hangs stops requests: {call:?}"
        );
    }
}

#[test]
fn row_80_every_nonce_is_the_kernels() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let folder = template.copy("run");
    let trace = folder.with_extension("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=getrandom", "-o"])
        .arg(&trace)
        .args(strace::child("child::rotates_twice"))
        .env(FOLDER, &folder)
        .output()
        .unwrap();
    assert!(output.status.success());
    let promises = Promises::read(&std::fs::read_to_string(report_in(&folder)).unwrap());
    // 24 bytes for each seed and each document; a generator in user space would ask once, and a
    // virtual machine that was cloned would repeat what it gives.
    let trace = std::fs::read_to_string(trace).unwrap();
    let nonces = trace
        .lines()
        .filter(|line| line.trim_end().ends_with("= 24"))
        .count();
    assert_eq!(nonces, promises.sealed.len() + 2, "{trace}");
}
