//! The log never holds up a request, never tells two events as one or one as two, and never shows
//! what a panic may have had in its hands.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

#[path = "telemetry/serve.rs"]
mod serve;

use std::env;
use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use claviger::config::{LogConfig, LogFormat, LogLevel};
use claviger::telemetry::{self, DroppedLines};
use serde_json::Value;

/// No step of these tests takes so long, unless it is blocked for good.
const STUCK: Duration = Duration::from_secs(60);

const JSON: LogConfig = LogConfig {
    format: LogFormat::Json,
    level: LogLevel::Info,
};
const TEXT: LogConfig = LogConfig {
    format: LogFormat::Text,
    level: LogLevel::Info,
};

/// Everything that `log` makes a log say.
fn said(config: LogConfig, color: bool, log: impl FnOnce()) -> String {
    let (mut read, write) = pipe().unwrap();
    let (subscriber, logs) = telemetry::subscriber(config, color, write);
    let reader = thread::spawn(move || {
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        text
    });
    tracing::subscriber::with_default(subscriber, log);
    drop(logs);
    reader.join().unwrap()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

#[test]
fn json_is_one_object_per_line() {
    let text = said(JSON, false, || {
        tracing::info!(target: "claviger::server", revision = 42, "opened");
        tracing::warn!(target: "claviger::server", uid = "a\nb\u{1b}[31m", "refused");
    });
    let lines: Vec<_> = text.lines().map(json).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["level"], "INFO");
    assert_eq!(lines[0]["message"], "opened");
    assert_eq!(lines[0]["target"], "claviger::server");
    assert_eq!(lines[0]["revision"], 42);
    lines[0]["timestamp"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();
    assert_eq!(lines[1]["uid"], "a\nb\u{1b}[31m");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn text_is_one_line_per_event() {
    let text = said(TEXT, false, || {
        let reason = "first\r\nsecond\n2026-01-01T00:00:00Z  INFO forged";
        tracing::warn!(target: "claviger::server", reason, "refused: {reason}");
        tracing::info!(target: "claviger::server", "bells \u{7} and colours \u{1b}[31m");
    });
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.contains("WARN claviger::server: refused: first\\r\\nsecond\\n2026"),
        "{text}"
    );
    assert!(
        !text.contains('\u{1b}') && !text.contains('\u{7}'),
        "{text:?}"
    );
}

#[test]
fn colour_only_where_it_is_wanted() {
    let hello = || tracing::info!(target: "claviger", "hello");
    assert!(said(TEXT, true, hello).contains("\u{1b}["));
    assert!(!said(TEXT, false, hello).contains("\u{1b}["));
    assert!(!said(JSON, true, hello).contains("\u{1b}["));
}

#[test]
fn the_level_is_ours_and_libraries_only_warn() {
    let log = || {
        tracing::error!(target: "claviger::a", "our error");
        tracing::info!(target: "claviger_keystore::b", "our info");
        tracing::debug!(target: "claviger::a", "our debug");
        tracing::trace!(target: "claviger::a", "our trace");
        tracing::error!(target: "h2::codec", "their error");
        tracing::warn!(target: "h2::codec", "their warning");
        tracing::info!(target: "h2::codec", "their info");
        tracing::trace!(target: "h2::codec", "their trace");
    };
    let expected = [
        (LogLevel::Error, "our error, their error"),
        (LogLevel::Warn, "our error, their error, their warning"),
        (
            LogLevel::Info,
            "our error, our info, their error, their warning",
        ),
        (
            LogLevel::Debug,
            "our error, our info, our debug, their error, their warning",
        ),
        (
            LogLevel::Trace,
            "our error, our info, our debug, our trace, their error, their warning",
        ),
    ];
    for (level, expected) in expected {
        let text = said(LogConfig { level, ..JSON }, false, log);
        let messages = text
            .lines()
            .map(|line| json(line)["message"].as_str().unwrap().to_owned());
        assert_eq!(
            messages.collect::<Vec<_>>().join(", "),
            expected,
            "{level:?}"
        );
    }
}

/// Logs `count` events into a pipe that nobody reads meanwhile; returns the pipe, the counter of
/// lost lines and the log. That it returns at all is the point.
fn log_into_a_blocked_pipe(count: u32) -> (PipeReader, DroppedLines, telemetry::Logs) {
    let (read, write) = pipe().unwrap();
    let (subscriber, logs) = telemetry::subscriber(JSON, false, write);
    let (done, logged) = mpsc::channel();
    thread::spawn(move || {
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..count {
                tracing::info!(target: "claviger", number, "an event");
            }
        });
        done.send(()).unwrap();
    });
    logged
        .recv_timeout(STUCK)
        .expect("logging is blocked by a pipe that nobody reads");
    (read, logs.dropped(), logs)
}

#[test]
fn a_blocked_pipe_blocks_nobody_and_every_lost_line_is_counted() {
    let count = 20_000;
    let (read, dropped, logs) = log_into_a_blocked_pipe(count);
    let lost = dropped.count();
    assert!(
        lost > 0,
        "a pipe holds 64 KiB and the queue 2,048 lines; {count} lines were not lost"
    );

    let reader = thread::spawn(move || {
        let lines = BufReader::new(read).lines().map(Result::unwrap);
        lines
            .map(|line| json(&line)["number"].as_u64().unwrap())
            .collect::<Vec<_>>()
    });
    drop(logs);
    let numbers = reader.join().unwrap();
    assert_eq!(numbers.len() as u64 + lost, u64::from(count));
    assert_eq!(dropped.count(), lost);
    assert!(numbers.is_sorted(), "lines are out of order");
    assert!(
        numbers.len() > 2_048,
        "only {} lines were kept",
        numbers.len()
    );
}

#[test]
fn the_end_does_not_wait_for_a_blocked_pipe() {
    let (read, _, logs) = log_into_a_blocked_pipe(20_000);
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let started = Instant::now();
        drop(logs);
        done.send(started.elapsed()).unwrap();
    });
    let took = ended
        .recv_timeout(STUCK)
        .expect("the end of the log is blocked");
    assert!(
        took < Duration::from_secs(4),
        "{took:?}: SIGTERM leaves 5 s for everything"
    );
    drop(read);
}

#[test]
fn a_reader_that_went_away_costs_lines_and_nothing_else() {
    let (read, write) = pipe().unwrap();
    drop(read);
    let (subscriber, logs) = telemetry::subscriber(JSON, false, write);
    let dropped = logs.dropped();
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..10 {
            tracing::info!(target: "claviger", "an event");
        }
    });
    drop(logs);
    assert_eq!(dropped.count(), 10);
}

#[test]
fn a_panic_is_an_event_without_formatted_words() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(telemetry::log_panic));
    let seed = "0123456789abcdef";
    let fails = move || Err::<(), _>(seed);
    let panics = move || {
        let formatted = panic::catch_unwind(|| panic!("the seed was {seed}"));
        let literal = panic::catch_unwind(|| panic!("only words of the source"));
        let wrapped = panic::catch_unwind(AssertUnwindSafe(|| fails().unwrap()));
        assert!(formatted.is_err() && literal.is_err() && wrapped.is_err());
    };
    let thread = thread::Builder::new().name("some-thread".into());
    let text = thread
        .spawn(move || said(JSON, false, panics))
        .unwrap()
        .join()
        .unwrap();
    panic::set_hook(before);

    let lines: Vec<_> = text.lines().map(json).collect();
    assert_eq!(lines.len(), 3, "{text}");
    for line in &lines {
        assert_eq!(line["level"], "ERROR");
        assert!(
            line["location"]
                .as_str()
                .unwrap()
                .starts_with("tests/telemetry.rs:"),
            "{line}"
        );
        assert_eq!(line["thread"], "some-thread");
    }
    let words: Vec<_> = lines
        .iter()
        .map(|line| line["said"].as_str().unwrap())
        .collect();
    assert_eq!(
        words,
        ["(not shown)", "only words of the source", "(not shown)"]
    );
    assert!(!text.contains(seed), "{text}");
}

/// What the next test's child does: a whole process with its log on its own stderr.
fn log_as_a_process_does() {
    let logs = telemetry::start(JSON).unwrap();
    assert!(
        telemetry::start(JSON).is_err(),
        "a second log in one process"
    );
    for number in 0..20_000 {
        tracing::info!(target: "claviger", number, "an event");
    }
    assert!(thread::spawn(|| panic!("in a thread")).join().is_err());
    let mut stdout = std::io::stdout();
    writeln!(stdout, "lost {}", logs.dropped().count()).unwrap();
}

#[test]
fn a_process_whose_stderr_is_blocked_goes_on() {
    const CHILD: &str = "CLAVIGER_TEST_LOGGING_CHILD";
    if env::var_os(CHILD).is_some() {
        return log_as_a_process_does();
    }
    let this = "a_process_whose_stderr_is_blocked_goes_on";
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let lines: Vec<_> = stdout.lines().map(Result::unwrap).collect();
        done.send(lines).unwrap();
    });
    // Its stderr is read only once it has ended.
    let lines = ended.recv_timeout(STUCK);
    if lines.is_err() {
        child.kill().unwrap();
    }
    let lines = lines.expect("the process is blocked by its stderr");
    let lost = lines
        .iter()
        .find_map(|line| line.split_once("lost "))
        .expect("how much was lost");
    assert!(lost.1.parse::<u64>().unwrap() > 0);
    assert!(child.wait().unwrap().success());
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(json(stderr.lines().next().unwrap())["number"], 0);
}
