//! Logs: one line per event on stderr, written by a thread of its own.
//!
//! ```text
//! event ──▶ subscriber ──▶ queue of 2,048 lines ──▶ thread "logs" ──▶ stderr
//!             (format)       full: dropped, counted      failed: counted
//! ```
//!
//! A request never waits for whoever reads the log: when stderr is a pipe that nobody empties, or a
//! file on a full disk, lines are dropped and counted. stdout stays free for a command's answer.

use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogConfig, LogFormat, LogLevel};

mod sink;

pub use sink::DroppedLines;
use sink::Sink;

/// Lines that wait for stderr. The queue is what a reader that stands still costs in memory: with
/// lines of some hundred bytes, less than 1 MiB.
const QUEUE_LINES: usize = 2_048;

/// How long the end of the process waits for the last lines: a little more than the appender's own
/// limits (100 ms to enter the queue, 1 s to empty it).
const FLUSH_LIMIT: Duration = Duration::from_millis(1_500);

/// The log could not be set up.
#[derive(Debug, Error)]
#[error("a log was set up before in this process")]
pub struct AlreadyStarted;

/// The running log. Dropping it writes what still waits, for at most 1.5 s.
#[must_use = "dropping it ends the log"]
pub struct Logs {
    writer: Option<WorkerGuard>,
    dropped: DroppedLines,
}

/// Sets up this process's log on stderr, panics included.
pub fn start(config: LogConfig) -> Result<Logs, AlreadyStarted> {
    let stderr = io::stderr();
    let color = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (subscriber, logs) = subscriber(config, color, stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| AlreadyStarted)?;
    panic::set_hook(Box::new(log_panic));
    Ok(logs)
}

/// A log that goes elsewhere, for tests; [`start`] puts it on stderr.
pub fn subscriber<W>(
    config: LogConfig,
    color: bool,
    to: W,
) -> (impl Subscriber + Send + Sync + 'static, Logs)
where
    W: Write + Send + 'static,
{
    let failed = sink::Failed::default();
    let (queue, writer) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE_LINES)
        .thread_name("logs")
        .finish(Sink::new(to, failed.clone()));
    let dropped = DroppedLines::new(queue.error_counter(), failed);
    let lines = lines(config.format, color, queue).with_filter(wanted(config.level));
    let subscriber = tracing_subscriber::registry().with(lines);
    (
        subscriber,
        Logs {
            writer: Some(writer),
            dropped,
        },
    )
}

/// The configured level is Claviger's own. Of libraries only warnings and errors are logged at any
/// level: they do not know which of their bytes are seeds.
fn wanted(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("claviger", level)
}

fn lines<S>(format: LogFormat, color: bool, queue: NonBlocking) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(queue);
    match format {
        LogFormat::Text => layer.with_ansi(color).boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    }
}

/// Logs a panic: where, on which thread, and what was said where that is a literal of the source.
/// A message that was formatted may hold bytes of a request, so it is left out.
pub fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let said = panic
        .payload()
        .downcast_ref::<&'static str>()
        .unwrap_or(&"(not shown)");
    tracing::error!(location, thread, said, "a panic: please report it");
}

impl Logs {
    /// How many lines were lost, for metrics.
    pub fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else {
            return;
        };
        // The appender's guard may print to stdout, and that may block as stderr does. The end of
        // the process must not wait for either.
        let (done, written) = mpsc::channel();
        let flush = thread::Builder::new()
            .name("logs-flush".into())
            .spawn(move || {
                drop(writer);
                let _ = done.send(());
            });
        if flush.is_ok() {
            let _ = written.recv_timeout(FLUSH_LIMIT);
        }
    }
}
