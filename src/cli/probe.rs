//! `claviger probe`: what kube-apiserver would make of a plugin.

mod screen;

use std::convert::Infallible;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Unit};
use serde::Serialize;
use tokio::time::Instant;

use super::failure::{Exit, Failure};
use super::output::{Answer, Output, Style};
use crate::client::{Client, Endpoint};
use crate::probe::watch::{Apiserver, View};
use crate::probe::{Seeds, look, probe};

const ABOUT: &str = "\
Each line says what the apiserver would do: refuse the plugin, coast for up to three minutes and \
then stop writes, or not notice. The plugin is sent random seeds and damaged input; nothing in the \
cluster is touched. Exit code 0 if all is well, 3 if a line is not ok, 5 if nobody listens.";

/// The command line of `probe`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT)]
pub struct ProbeArgs {
    /// The plugin's socket: a path, @name, or the unix:// URL of an EncryptionConfiguration
    #[arg(value_name = "SOCKET")]
    pub socket: Endpoint,
    /// Go on asking as a running apiserver does, and say what changes, until Ctrl-C
    #[arg(long)]
    pub repeat: bool,
    /// How long to wait for each answer; the timeout of the EncryptionConfiguration
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    pub timeout: Duration,
    /// The only version that Status may answer: v2beta1 for Kubernetes 1.27 and 1.28
    #[arg(long, value_name = "VERSION", value_parser = ["v2", "v2beta1"])]
    pub status_version: Option<String>,
}

/// Reads a time such as `3s`, `500ms` or `10m`; more than none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let read: SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    match Duration::try_from(read) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it must be more than zero".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// Where nobody listens, or stdout is closed.
pub async fn run(args: &ProbeArgs, output: &Output) -> Result<Exit, Failure> {
    let socket = args.socket.to_string();
    let connected = Client::connect(args.socket.clone(), args.timeout).await;
    let client = connected.map_err(|error| unreachable(&socket, &error))?;
    let version = args.status_version.as_deref();
    let report = probe(socket, &client, &seeds()?, version).await;
    output.print(&report)?;
    let mut well = report.well;
    if args.repeat {
        tokio::select! {
            Err(failure) = repeat(&client, output, &mut well) => return Err(failure),
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    Ok(if well { Exit::Done } else { Exit::No })
}

fn unreachable(socket: &str, error: &io::Error) -> Failure {
    let next = match error.kind() {
        ErrorKind::NotFound => "start the plugin, or give the socket that its configuration names",
        ErrorKind::ConnectionRefused => "start the plugin: the socket is there, but nobody listens",
        ErrorKind::PermissionDenied => "run this as the user of kube-apiserver, mostly root",
        ErrorKind::TimedOut => "see what the plugin does: it takes no connection",
        _ => "give the plugin's socket: a path, @name or unix:///PATH",
    };
    Failure::new(
        Exit::Unreachable,
        format!("connecting to the plugin at {socket}"),
        error,
        next,
    )
}

fn seeds() -> Result<Seeds, Failure> {
    Seeds::generate().map_err(|_| {
        let cause = "the operating system's random generator failed";
        Failure::new(
            Exit::Fault,
            "making seeds for the probe",
            cause,
            "look at the kernel's log",
        )
    })
}

/// Asks as a running apiserver does and prints what changes, for ever. `well` becomes false when
/// the apiserver would not be ready.
async fn repeat(client: &Client, output: &Output, well: &mut bool) -> Result<Infallible, Failure> {
    let (started, mut apiserver, mut last) = (Instant::now(), Apiserver::default(), None);
    loop {
        let view = look(client, &seeds()?, &mut apiserver, started.elapsed()).await;
        *well &= view.ready;
        if last.as_ref() != Some(&view) {
            output.print(&Change {
                at: Timestamp::now(),
                view: &view,
            })?;
            last = Some(view);
        }
        tokio::time::sleep(apiserver.poll()).await;
    }
}

/// A line of `--repeat`. JSON: `kind: ProbeChange`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Change<'a> {
    /// The wall clock, for people.
    at: Timestamp,
    #[serde(flatten)]
    view: &'a View,
}

impl Answer for Change<'_> {
    const KIND: &'static str = "ProbeChange";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let at = self.at.round(Unit::Second).unwrap_or(self.at);
        let view = self.view.to_string();
        let view = if self.view.ready {
            style.good(&view)
        } else {
            style.bad(&view)
        };
        writeln!(out, "{at}  {view}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_must_be_positive() {
        assert_eq!(duration("3s"), Ok(Duration::from_secs(3)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for text in ["", "3", "0s", "-3s", "3x", "s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn who_cannot_connect_is_told_what_to_do() {
        for (kind, word) in [
            (ErrorKind::NotFound, "start the plugin"),
            (ErrorKind::ConnectionRefused, "nobody listens"),
            (ErrorKind::PermissionDenied, "root"),
            (ErrorKind::TimedOut, "no connection"),
            (ErrorKind::InvalidInput, "unix:///PATH"),
        ] {
            let failure = unreachable("/run/kms.sock", &io::Error::from(kind));
            assert_eq!(failure.exit, Exit::Unreachable);
            assert!(failure.doing.contains("/run/kms.sock"));
            assert!(failure.next.contains(word), "{kind:?}: {}", failure.next);
        }
    }
}
