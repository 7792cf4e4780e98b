//! `claviger audit`: what every key, every other provider and plaintext still protects.
//!
//! Needs no key, no keyring and no configuration of Claviger's: headers alone are read.

mod keys;
pub(super) mod report;
mod snapshots;
mod subject;
mod textfile;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::failure::{Exit, Failure};
use super::output::Output;
use super::read_config;
use crate::app;
use crate::audit::discovery::{self, Cluster, DiscoveryError, Flags};
use crate::audit::etcd::{Etcd, EtcdError};
use crate::audit::keyspace::{self, Live, ScanError};
use crate::audit::scope::Scope;
use crate::audit::snapshot::Revisions;
use crate::audit::tally::Tally;
use crate::config::{self, Config};
use crate::encryption_config;
use crate::notes::Audited;
use keys::Keys;
use report::Report;
use subject::Subject;

const DOING: &str = "auditing what is stored";

/// Where the cluster's etcd is, in etcdctl's words. `ETCDCTL_ENDPOINTS`, `ETCDCTL_CACERT`,
/// `ETCDCTL_CERT` and `ETCDCTL_KEY` serve as well.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct EtcdArgs {
    /// etcd's end points; default: the configuration's, else those of kube-apiserver's manifest
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// The authority that signed etcd's certificate
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// A client certificate that etcd accepts
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key (etcdctl's --key, which names a KEK here)
    #[arg(long, value_name = "FILE")]
    cert_key: Option<PathBuf>,
    /// The prefix of Kubernetes' keys, as kube-apiserver's --etcd-prefix [default: /registry]
    #[arg(long)]
    prefix: Option<String>,
    /// The EncryptionConfiguration, which says what should be encrypted, and how
    #[arg(long, value_name = "FILE")]
    encryption_config: Option<PathBuf>,
}

/// Counts what every key, and every other provider and plaintext, still protects.
///
/// Reads every object's header in etcd at one revision, what older revisions still hold until etcd
/// compacts them, and snapshot files. Exit code 0 if nothing has to be rewritten (with --key: if
/// nothing at all names the key), 3 if something does, 5 if etcd cannot be reached.
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
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
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
    let keys = Keys::read(config.as_ref(), output).await;
    let cluster = match find(&args.etcd, config.as_ref()) {
        // Snapshots alone are an audit too, of them alone.
        Err(_) if !args.snapshot.is_empty() && args.since.is_none() => None,
        found => Some(found?),
    };
    let scope = Scope {
        configuration: configuration(cluster.as_ref(), &args.etcd, output)?,
        keys: keys.states,
    };
    let subject = args
        .key
        .as_deref()
        .map(|text| Subject::parse(text, &args.etcd));
    let subject = subject.transpose()?;
    let (live, endpoint) = match &cluster {
        Some(cluster) => {
            let (live, endpoint) = scan(cluster, args, output).await?;
            (Some(live), endpoint)
        }
        None => (None, String::new()),
    };
    let prefix = match cluster {
        Some(cluster) => cluster.etcd.prefix,
        None => args.etcd.prefix.clone().unwrap_or("/registry".to_owned()),
    };
    let (live, mut tally) = match live {
        Some(mut live) => {
            let tally = std::mem::replace(&mut live.tally, Tally::new(&prefix));
            (Some(live), tally)
        }
        None => (None, Tally::new(&prefix)),
    };
    let revisions = match args.all_revisions {
        true => Revisions::All,
        false => Revisions::Latest,
    };
    let snapshots = snapshots::read(
        &args.snapshot,
        revisions,
        keys.snapshot_retention,
        &prefix,
        &mut tally,
    )?;
    let subject = subject
        .map(|subject| subject.resolve(&tally, &scope))
        .transpose()?;
    let report = Report::new(report::Found {
        live,
        endpoint,
        prefix,
        tally,
        scope,
        subject,
        snapshots,
        quiet: keys.quiet,
        list: args.list,
    });
    finish(&report, args, config.as_ref(), output)
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
    if let (Some(config), Some(etcd)) = (config, report.etcd()) {
        let audited = Audited {
            at: now,
            etcd: etcd.endpoint.clone(),
            revision: etcd.revision,
            stale: report.stale(),
            exceptions: report.exceptions(),
        };
        if let Err(e) = app::notes(config).audited(audited) {
            output.note(&format!("note: status will not show this audit: {e}"));
        }
    }
    Ok(match report.is_clean() {
        true => Exit::Done,
        false => Exit::No,
    })
}

/// The configuration; that there is none in the default place is as well.
pub(super) fn optional_config(path: &Path) -> Result<Option<Config>, Failure> {
    if path == Path::new(config::DEFAULT_PATH) && !path.exists() {
        return Ok(None);
    }
    read_config(path).map(Some)
}

/// Finds the cluster.
pub(super) fn find(args: &EtcdArgs, config: Option<&Config>) -> Result<Cluster, Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let path = |name: &str| variable(name).map(PathBuf::from);
    let endpoints = match variable("ETCDCTL_ENDPOINTS") {
        Some(list) if args.endpoints.is_empty() => list.split(',').map(str::to_owned).collect(),
        _ => args.endpoints.clone(),
    };
    let flags = Flags {
        endpoints,
        cacert: args.cacert.clone().or_else(|| path("ETCDCTL_CACERT")),
        cert: args.cert.clone().or_else(|| path("ETCDCTL_CERT")),
        cert_key: args.cert_key.clone().or_else(|| path("ETCDCTL_KEY")),
        prefix: args.prefix.clone(),
        encryption_config: args.encryption_config.clone(),
    };
    discovery::find(&flags, config.map(|config| &config.kubernetes)).map_err(|e| {
        let next = match &e {
            DiscoveryError::NoEtcd(_) => {
                "give --endpoints https://HOST:2379 with --cacert, --cert and --cert-key; on a \
                 control-plane node of kubeadm nothing has to be given"
            }
            DiscoveryError::Manifest { .. } => "give --endpoints, or mend the manifest",
            _ => "claviger audit --help shows the flags",
        };
        Failure::new(Exit::Usage, "looking for the cluster's etcd", e, next)
    })
}

pub(super) fn configuration(
    cluster: Option<&Cluster>,
    args: &EtcdArgs,
    output: &Output,
) -> Result<Option<encryption_config::EncryptionConfiguration>, Failure> {
    let found = cluster.and_then(|cluster| cluster.encryption_config.as_deref());
    let Some(path) = args.encryption_config.as_deref().or(found) else {
        output.note(
            "note: no EncryptionConfiguration was found (--encryption-config FILE): plaintext \
             counts secrets, and resources of which some object is encrypted",
        );
        return Ok(None);
    };
    encryption_config::read(path).map(Some).map_err(|e| {
        let doing = format!("reading the EncryptionConfiguration {}", path.display());
        let next = "claviger check --encryption-config says more; or name another file";
        Failure::new(Exit::Usage, doing, e, next)
    })
}

async fn scan(
    cluster: &Cluster,
    args: &AuditArgs,
    output: &Output,
) -> Result<(Live, String), Failure> {
    let etcd = Etcd::connect(&cluster.etcd).await;
    let etcd = etcd.map_err(|e| refused(&ScanError::Etcd(e)))?;
    let options = keyspace::Options {
        prefix: &cluster.etcd.prefix,
        since: args.since.as_deref(),
        remember: args.list,
        verifier: None,
    };
    let live = keyspace::scan(&etcd, options, &|text: &str| output.note(text)).await;
    let live = live.map_err(|e| refused(&e))?;
    Ok((live, etcd.endpoint().to_owned()))
}

/// Why there is no result, and what helps.
pub(super) fn refused(error: &ScanError) -> Failure {
    let (exit, next) = match error {
        ScanError::Etcd(EtcdError::File { .. }) => (
            Exit::Usage,
            "name files that this user may read; root may read those of kubeadm",
        ),
        ScanError::Etcd(EtcdError::Denied(_)) => (
            Exit::Unreachable,
            "use a client certificate that may read every key, such as kube-apiserver's own",
        ),
        ScanError::Etcd(EtcdError::Unreachable(_)) => (
            Exit::Unreachable,
            "check the end points, the authority (--cacert) and the client certificate (--cert, \
             --cert-key)",
        ),
        ScanError::Etcd(_) => (Exit::Unreachable, "run it again when etcd is well"),
        ScanError::Compacted => (Exit::Partly, "run it again; --since FILE makes it faster"),
        ScanError::File(_) | ScanError::Ended => (
            Exit::Fault,
            "check the file of --since, and the temporary folder",
        ),
    };
    Failure::new(exit, DOING, error, next)
}
