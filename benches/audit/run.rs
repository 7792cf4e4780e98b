//! A program that is run, and what it took.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wait4::Wait4;

/// What a program took from its start to its end.
pub(crate) struct Ran {
    pub(crate) wall: Duration,
    /// Processor time, its own and the kernel's for it.
    pub(crate) cpu: Duration,
    /// The most that it ever had in memory at once (`ru_maxrss`), in bytes.
    pub(crate) peak: u64,
    pub(crate) stdout: Vec<u8>,
}

/// Runs a program, whose answer is short; it must succeed.
pub(crate) fn run(mut command: Command) -> Ran {
    let began = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdout, mut said) = (Vec::new(), String::new());
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut stdout)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    let ended = child.wait4().unwrap();
    let wall = began.elapsed();
    assert!(ended.status.success(), "{command:?}: {said}");
    Ran {
        wall,
        cpu: ended.rusage.utime + ended.rusage.stime,
        peak: ended.rusage.maxrss,
        stdout,
    }
}
