//! What a child did to its folder, as strace wrote it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child::{FOLDER, report_in};
use crate::disk::Files;
use crate::strace;

/// The calls that change files or make them durable. Those that the model does not know are there
/// to be noticed.
const CALLS: &str = "trace=open,openat,creat,write,fsync,rename,renameat,renameat2,unlink,\
    unlinkat,mkdir,mkdirat,rmdir,ftruncate,truncate,pwrite64,writev,pwritev,pwritev2,fdatasync,\
    sync_file_range,link,linkat,symlink,symlinkat,fallocate,copy_file_range,sendfile,mmap";

/// One call that changed the folder; paths are relative to it, and its own is empty.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Made(PathBuf),
    MadeFolder(PathBuf),
    Written(PathBuf, Vec<u8>),
    Synced(PathBuf),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
    /// A line of the report: what was promised.
    Said(String),
}

/// A run, and what was there before it.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub(crate) before: Files,
    pub(crate) events: Vec<Event>,
}

impl Recorded {
    /// Runs this child in a folder that exists.
    pub(crate) fn of(name: &str, folder: &Path) -> Self {
        let before = crate::disk::read(folder);
        let trace = folder.with_extension("trace");
        let output = Command::new("strace")
            .args(["-f", "-qq", "-y", "-xx", "-s", "1048576", "-e", CALLS, "-o"])
            .arg(&trace)
            .args(strace::child(name))
            .env(FOLDER, folder)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        let trace = std::fs::read_to_string(trace).unwrap();
        let calls = whole_calls(&trace);
        let events: Vec<_> = calls
            .iter()
            .filter_map(|call| event(call, folder))
            .collect();
        let recorded = Self { before, events };
        let said = std::fs::read_to_string(report_in(folder)).unwrap();
        assert_eq!(recorded.said(), said, "not all was traced");
        let mut disk = crate::disk::Disk::of(&recorded.before);
        for event in &recorded.events {
            disk.see(event);
        }
        let there = crate::disk::read(folder);
        assert!(disk.now() == there, "the model is not the folder");
        recorded
    }

    /// All that was promised.
    pub(crate) fn said(&self) -> String {
        let said = self.events.iter().filter_map(|event| match event {
            Event::Said(line) => Some(line.as_str()),
            _ => None,
        });
        said.collect()
    }
}

/// Calls without their threads. One that another thread's interrupted is put together again, where
/// it ended.
fn whole_calls(trace: &str) -> Vec<String> {
    let mut begun = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(beginning) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, beginning);
        } else if let Some(end) = call.strip_prefix("<... ") {
            let (_, end) = end.split_once(" resumed>").unwrap();
            calls.push(format!("{}{end}", begun.remove(thread).unwrap()));
        } else {
            calls.push(call.to_owned());
        }
    }
    calls
}

/// What a call changed in the folder, if it did.
fn event(call: &str, folder: &Path) -> Option<Event> {
    let (name, arguments) = call.split_once('(')?;
    let (arguments, result) = arguments.rsplit_once(" = ")?;
    if result.starts_with('-') {
        return None;
    }
    let quoted = hex_between(arguments, '"', '"');
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let inside = |path: PathBuf| path.strip_prefix(folder).ok().map(Path::to_owned);
    let named = |n: usize| inside(path(quoted.get(n)?));
    let opened = hex_between(arguments, '<', '>')
        .first()
        .map(|bytes| path(bytes));
    match name {
        "open" | "openat" => {
            assert!(
                !arguments.contains("O_TRUNC") || named(0).is_none(),
                "{call}"
            );
            named(0)
                .filter(|_| arguments.contains("O_CREAT"))
                .map(Event::Made)
        }
        "mkdir" | "mkdirat" => named(0).map(Event::MadeFolder),
        "unlink" | "unlinkat" => named(0).map(Event::Removed),
        "rename" | "renameat" | "renameat2" => Some(Event::Renamed(named(0)?, named(1)?)),
        "fsync" => inside(opened?).map(Event::Synced),
        "write" if opened.as_deref() == Some(&report_in(folder)) => {
            Some(Event::Said(String::from_utf8(quoted[0].clone()).unwrap()))
        }
        "write" => {
            let file = inside(opened?)?;
            assert_eq!(result, quoted[0].len().to_string(), "{call}");
            Some(Event::Written(file, quoted[0].clone()))
        }
        _ => {
            let touches = (0..quoted.len()).any(|n| named(n).is_some());
            assert!(!touches && opened.and_then(inside).is_none(), "{call}");
            None
        }
    }
}

/// What stands between these signs, written as `\x2f\x61`.
fn hex_between(text: &str, from: char, to: char) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once(from) {
        let Some((hex, behind)) = behind.split_once(to) else {
            break;
        };
        let bytes = hex.split("\\x").skip(1);
        found.push(
            bytes
                .map(|byte| u8::from_str_radix(byte, 16).unwrap())
                .collect(),
        );
        rest = behind;
    }
    found
}
