//! `claviger migrate`: everything that an old key, another provider or nothing protects is stored
//! anew, through kube-apiserver, and an audit says whether nothing is left.
//!
//! ```text
//! members converged? ──▶ audit: what is stale ──▶ rewrite ──▶ audit: what is left
//! ```

mod cluster;
mod guard;
mod progress;
mod screen;

use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use futures_util::{Stream, StreamExt, stream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::audit::{self, EtcdArgs};
use super::failure::{Exit, Failure};
use super::output::Output;
use crate::audit::etcd::Etcd;
use crate::audit::keyspace::{self, Live, Options};
use crate::migrate::kubeconfig::Cluster;
use crate::migrate::rewrite::{self, Limits, Stop, Tally};
use crate::migrate::rights;
use crate::migrate::stale::Stale;
use cluster::ApiArgs;
use progress::Progress;
pub(super) use screen::Migration;

const DOING: &str = "migrating objects";

const ABOUT: &str = "\
Each object is sent one empty patch, which changes nothing in it and has kube-apiserver store it as \
it stores objects now. No secret is read; the verb patch suffices (claviger print rbac). It may be \
interrupted at any time: run again, it goes on with what is left. Exit code 0 if an audit afterwards \
finds nothing left, 6 if it does, 4 if it would not be safe yet.";

/// The command line of `migrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT)]
pub(super) struct MigrateArgs {
    /// Only what this protects: a key's id or its first digits, a provider, or plaintext
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// At most this many objects a second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Count what would be rewritten, and rewrite nothing; exit code 3 if there is something
    #[arg(long)]
    dry_run: bool,
    /// Go on after an interruption; every run does, for it begins with what is left
    #[arg(long)]
    resume: bool,
    /// Without a keyring: every kube-apiserver writes with the new key by now
    #[arg(long)]
    assume_converged: bool,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    etcd: EtcdArgs,
}

/// Runs `migrate`.
pub(super) async fn run(
    config_path: &Path,
    args: &MigrateArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let config = audit::optional_config(config_path)?;
    // The members are read before an audit pins its revision: what was quiet then stays so.
    let keyring = guard::keyring(config.as_ref()).await?;
    match guard::may_migrate(keyring.as_ref(), args).await {
        Err(refusal) if args.dry_run && refusal.exit == Exit::Refused => {
            output.note(&format!("note: it would be refused now\n{refusal}"));
        }
        safe => safe?,
    }
    let place = audit::find(&args.etcd, config.as_ref())?;
    let configuration = audit::configuration(Some(&place), &args.etcd, output)?;
    let etcd = Etcd::connect(&place.etcd).await;
    let etcd = etcd.map_err(|error| audit::refused(&error.into()))?;
    let prefix = &place.etcd.prefix;
    let before = scan(&etcd, prefix, true, output).await?;
    let stale = guard::stale(keyring.as_ref(), args, &before.tally, configuration)?;
    let mut migration = Migration::new(etcd.endpoint().to_owned(), &before, &stale, args.dry_run);
    if !args.dry_run && migration.stale() > 0 {
        let cluster = args.api.open(config.as_ref()).await?;
        let objects = (&before, &stale, prefix.as_str(), migration.stale());
        let (tally, stop) = rewrite(args, &cluster, objects, output).await?;
        nothing_done(&tally, stop.as_ref(), &cluster)?;
        advise(&tally, output);
        migration.rewrote(tally);
        match stop {
            Some(why) => migration.stopped(why.to_string()),
            None => migration.audited(&scan(&etcd, prefix, false, output).await?, &stale),
        }
    }
    output.print(&migration)?;
    Ok(migration.exit())
}

async fn scan(etcd: &Etcd, prefix: &str, remember: bool, output: &Output) -> Result<Live, Failure> {
    let options = Options {
        prefix,
        remember,
        ..Options::default()
    };
    let live = keyspace::scan(etcd, options, &|note: &str| output.note(note)).await;
    live.map_err(|error| audit::refused(&error))
}

/// Rewrites everything that the audit found stale.
async fn rewrite(
    args: &MigrateArgs,
    cluster: &Cluster,
    (before, stale, prefix, total): (&Live, &Stale, &str, u64),
    output: &Output,
) -> Result<(Tally, Option<Stop>), Failure> {
    let apis = cluster::discover(cluster).await?;
    let limits = Limits {
        rate: args.rate,
        ..Limits::default()
    };
    let keys = keys(before, stale)?;
    let stop = CancellationToken::new();
    let mut signals = Signals::listen()?;
    let progress = Progress::begin(total, cluster.api.server(), output);
    let rewriting = rewrite::rewrite(
        (&cluster.api, &apis, &limits),
        prefix,
        keys,
        |outcome| progress.seen(outcome),
        &stop,
    );
    let interrupted = async {
        signals.next().await;
        stop.cancel();
        progress.interrupted(output);
        signals.next().await;
    };
    let done = tokio::select! {
        done = rewriting => done.map_err(|error| unreadable(&error)),
        () = interrupted => Err(cluster::stopped(&Stop::Asked, cluster)),
    };
    progress.end();
    done
}

/// Ctrl-C, and what systemd and others send.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                let next = "look at the limits of this user's processes";
                Failure::new(Exit::Fault, DOING, error, next)
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The keys of the stale objects, read from the audit's ledger as they are needed.
fn keys(
    before: &Live,
    stale: &Stale,
) -> Result<impl Stream<Item = Result<Vec<u8>, io::Error>> + use<>, Failure> {
    let rows = before.tally.rows().iter();
    let rows: Vec<_> = rows.map(|row| stale.is(row, &before.tally)).collect();
    let entries = before.ledger.as_ref().map(|ledger| ledger.entries());
    let entries = entries.transpose().map_err(|error| unreadable(&error))?;
    let is_wanted = move |row: u32| rows.get(row as usize) == Some(&true);
    let keys = entries.into_iter().flatten();
    let keys = keys.filter_map(move |entry| match entry {
        Ok(entry) => entry.row.is_some_and(&is_wanted).then_some(Ok(entry.key)),
        Err(error) => Some(Err(error)),
    });
    Ok(stream::iter(keys).fuse())
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::new(
        Exit::Fault,
        "reading the list of stale objects from a temporary file",
        error,
        "look at the temporary folder; claviger migrate goes on with what is left",
    )
}

/// Refuses where nothing could be done at all, so that an audit would say nothing new.
fn nothing_done(tally: &Tally, stop: Option<&Stop>, cluster: &Cluster) -> Result<(), Failure> {
    if tally.rewritten + tally.deleted > 0 {
        return Ok(());
    }
    if let Some(stop) = stop {
        return Err(cluster::stopped(stop, cluster));
    }
    let refused = |failure: &rewrite::Failed| failure.reason.starts_with("403 ");
    if tally.forbidden.is_empty() || !tally.failures.iter().all(refused) {
        return Ok(());
    }
    let reason = tally.failures.first().map(|failure| &*failure.reason);
    Err(Failure::new(
        Exit::Usage,
        format!("{DOING} through {}", cluster.api.server()),
        reason.unwrap_or_default(),
        format!(
            "bind the kubeconfig's user to this ClusterRole, or name another --kubeconfig\n{}",
            rights::cluster_role(&tally.forbidden)
        ),
    ))
}

/// What helps where some objects were forbidden.
fn advise(tally: &Tally, output: &Output) {
    if !tally.forbidden.is_empty() {
        let role = rights::cluster_role(&tally.forbidden);
        output.note(&format!(
            "note: some patches were forbidden; this ClusterRole allows them\n{role}"
        ));
    }
}
