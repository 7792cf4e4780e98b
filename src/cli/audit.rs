//! `claviger audit`: what every key, every other provider and plaintext still protects.
//!
//! Needs no key, no keyring and no configuration of Claviger's: headers alone are read. `--verify`
//! needs the keyring, and opens what our keys protect.

mod cluster;
mod keys;
mod progress;
pub(super) mod report;
mod snapshots;
mod subject;
mod textfile;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::failure::{Exit, Failure};
use super::output::Output;
use crate::app;
use crate::audit::discovery::Cluster;
use crate::audit::etcd::Etcd;
use crate::audit::keyspace::{self, ScanError};
use crate::audit::scope::Scope;
use crate::audit::snapshot::Revisions;
use crate::audit::tally::Tally;
use crate::config::Config;
pub(super) use cluster::{EtcdArgs, configuration, find, optional_config, refused};
use keys::Keys;
use progress::Progress;
use report::{Found, Question, Report, Scanned};
use subject::Asked;

const DOING: &str = "auditing what is stored";

/// Counts what every key, and every other provider and plaintext, still protects.
///
/// Reads every object's header in etcd at one revision, what older revisions still hold until etcd
/// compacts them, and snapshot files. Exit code 0 if none of these needs a key, a provider or
/// plaintext that has to go (with --key: if nothing at all names the key), 3 if something does or
/// cannot be read, 5 if etcd cannot be reached.
#[derive(Debug, clap::Args)]
pub(super) struct AuditArgs {
    #[command(flatten)]
    etcd: EtcdArgs,
    /// A file of etcdctl snapshot save, or several
    #[arg(long, value_name = "FILE", num_args = 1..)]
    snapshot: Vec<PathBuf>,
    /// Count older revisions in snapshots too
    #[arg(long, requires = "snapshot")]
    all_revisions: bool,
    /// Ask about one key: its id or the id's first digits, a provider's name, or `plaintext`
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// List every object that has to be rewritten; with --key, every current object that names it
    #[arg(long)]
    list: bool,
    /// Read only what changed since the audit that wrote FILE, and write it anew
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    since: Option<PathBuf>,
    /// Open every seed that our keys wrap, and authenticate every object under it; needs the
    /// keyring, and a root that opens it
    #[arg(long)]
    verify: bool,
    /// Write metrics for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
}

/// Runs `audit`.
pub(super) async fn run(
    config_path: &Path,
    args: &AuditArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let config = optional_config(config_path)?;
    // Before the revision is pinned: what was quiet then stays so.
    let keys = Keys::read(config.as_ref(), args.verify, output).await?;
    let cluster = match find(&args.etcd, config.as_ref()) {
        // Snapshots alone are an audit too, of them alone.
        Err(_) if !args.snapshot.is_empty() && args.since.is_none() => None,
        found => Some(found?),
    };
    let configuration = cluster::read_configuration(cluster.as_ref(), &args.etcd)?;
    let subject = args
        .key
        .as_deref()
        .map(|text| Asked::parse(text, &args.etcd));
    let subject = subject.transpose()?;
    let found = read(cluster.as_ref(), args, &keys, output).await?;
    let scope = Scope {
        configuration,
        keys: keys.states,
    };
    let subject = subject
        .map(|subject| subject.resolve(&found.tally, &scope))
        .transpose()?;
    let question = Question {
        subject,
        list: args.list,
    };
    let report = Report::new(found, &question, &scope, &keys.quiet);
    finish(&report, args, config.as_ref(), output)
}

/// Reads etcd, if there is one, and the snapshots.
async fn read(
    cluster: Option<&Cluster>,
    args: &AuditArgs,
    keys: &Keys,
    output: &Output,
) -> Result<Found, Failure> {
    let given = args.etcd.prefix.clone();
    let prefix = match cluster {
        Some(cluster) => cluster.etcd.prefix.clone(),
        None => given.unwrap_or_else(|| "/registry".to_owned()),
    };
    let verifier = keys.verifier.as_ref();
    let (live, mut tally) = match cluster {
        Some(cluster) => {
            let etcd = Etcd::connect(&cluster.etcd).await;
            let etcd = etcd.map_err(|e| refused(&ScanError::Etcd(e)))?;
            let options = keyspace::Options {
                prefix: &prefix,
                since: args.since.as_deref(),
                remember: args.list,
                verifier,
            };
            let scanned = keyspace::scan(&etcd, options, &Progress::begin(output)).await;
            let live = scanned.map_err(|e| refused(&e))?;
            let (scanned, tally) = Scanned::of(live, etcd.endpoint());
            (Some(scanned), tally)
        }
        None => (None, Tally::new(&prefix).verifying(verifier)),
    };
    let revisions = match args.all_revisions {
        true => Revisions::All,
        false => Revisions::Latest,
    };
    let snapshots = snapshots::Reading {
        revisions,
        retention: keys.snapshot_retention,
        verifier,
    };
    let snapshots = snapshots.read(&args.snapshot, &prefix, &mut tally)?;
    Ok(Found {
        live,
        snapshots,
        tally,
        prefix,
    })
}

/// Says it, and keeps what others show.
fn finish(
    report: &Report,
    args: &AuditArgs,
    config: Option<&Config>,
    output: &Output,
) -> Result<Exit, Failure> {
    output.print(report)?;
    let now = Timestamp::now();
    if let Some(path) = &args.textfile {
        textfile::write(path, report, now).map_err(|e| {
            let doing = format!("writing metrics to {}", path.display());
            Failure::new(Exit::Fault, doing, e, "check the folder and its owner")
        })?;
    }
    if let Some(config) = config
        && let Err(e) = report.note(&app::notes(config), now)
    {
        output.note(&format!("note: status will not show this audit: {e}"));
    }
    Ok(match report.is_clean() {
        true => Exit::Done,
        false => Exit::No,
    })
}
