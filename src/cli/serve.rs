//! `claviger serve`: the plugin's life on one screen.

pub(super) mod dev;
mod parts;
mod threads;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use claviger_keystore::Keystore;
use claviger_keystore::secret;
use claviger_keystore::storage::file::Durability;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::parts::Parts;
use super::failure::{Exit, Failure};
use super::output::Output;
use crate::app;
use crate::config::{Config, SocketAddress};
use crate::convergence::Convergence;
use crate::footprint;
use crate::hygiene;
use crate::keeper::Keeper;
use crate::metrics::Metrics;
use crate::metrics_server::{MetricsServer, Pages};
use crate::rotator::{self, Rotator};
use crate::server::socket::Socket;
use crate::server::{self, Deps, Limits};
use crate::service::{self, Clock, Kms};
use crate::telemetry::{self, Logs};

/// How long connections wait for the first attempt to open the keyring. kube-apiserver gives a call
/// three seconds.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// How to serve.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Make all that is needed for a try-out, and say what to paste
    #[arg(long)]
    dev: bool,
    /// Where `--dev` keeps it [default: ${XDG_STATE_HOME:-~/.local/state}/claviger-dev]
    #[arg(long, value_name = "DIR", requires = "dev")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    cluster: dev::ClusterArgs,
}

impl ServeArgs {
    /// The try-out, if this is one.
    pub(super) fn dev(&self) -> Option<Result<dev::TryOut, Failure>> {
        self.dev
            .then(|| dev::TryOut::new(self.dir.as_deref(), &self.cluster))
    }
}

/// Serves with the node's configuration until a signal says otherwise.
pub(super) fn run(config: &Config) -> Result<Exit, Failure> {
    let prepared = Prepared::new(config)?;
    prepared
        .runtime
        .block_on(serve(config, &prepared, Durability::Disk, async |_| Ok(())))
}

/// Makes a try-out and serves it.
pub(super) fn run_dev(try_out: &dev::TryOut, output: &Output) -> Result<Exit, Failure> {
    let config = try_out.configuration()?;
    let prepared = Prepared::new(&config)?;
    prepared.runtime.block_on(async {
        try_out.make_keyring(&config).await?;
        let announce = async |metrics: &MetricsServer| {
            // A port that is taken must not keep the plugin from serving.
            let bound = tokio::time::timeout(Duration::from_secs(1), metrics.bound()).await;
            try_out.announce(&config, bound.ok().flatten(), output)
        };
        serve(&config, &prepared, Durability::Memory, announce).await
    })
}

/// What must stand before there is more than one thread.
struct Prepared {
    runtime: Runtime,
    socket: std::cell::Cell<Option<Socket>>,
    logs: Logs,
}

impl Prepared {
    fn new(config: &Config) -> Result<Self, Failure> {
        let failed = |e: &dyn std::fmt::Display| {
            Failure::new(
                Exit::Fault,
                "starting the plugin",
                e,
                "mend that and start it again",
            )
        };
        hygiene::make_files_private();
        secret::check_random().map_err(|e| failed(&e))?;
        threads::check().map_err(|e| {
            let next =
                "raise TasksMax=, LimitNPROC= or MemoryMax=, or what your container has of them";
            Failure::new(Exit::Fault, "starting the plugin's threads", e, next)
        })?;
        let socket = Socket::open(&config.server).map_err(|e| failed(&e))?;
        let logs = telemetry::start(config.log).map_err(|e| failed(&e))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(4)
            // A thread that reads files stays: to have none, where no other can be had, is a panic.
            .thread_keep_alive(Duration::from_secs(365 * 24 * 3600))
            .enable_all()
            .build()
            .map_err(|e| failed(&e))?;
        Ok(Self {
            runtime,
            socket: std::cell::Cell::new(Some(socket)),
            logs,
        })
    }
}

async fn serve(
    config: &Config,
    prepared: &Prepared,
    durability: Durability,
    announce: impl AsyncFnOnce(&MetricsServer) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let failed = |doing: &str, e: &dyn std::fmt::Display| {
        Failure::new(Exit::Fault, doing, e, "mend that and start it again")
    };
    let socket = prepared
        .socket
        .take()
        .ok_or_else(|| failed("serving", &"no socket"))?;
    warn(config, durability);
    let dropped = prepared.logs.dropped();
    let metrics = Metrics::new(Timestamp::now(), move || dropped.count());
    let metrics = Arc::new(metrics.map_err(|e| failed("making the metrics", &e))?);
    let keystore = Arc::new(app::keystore(config, durability));

    let mut signals = Signals::new().map_err(|e| failed("listening for signals", &e))?;
    let (shutdown, mut parts) = (CancellationToken::new(), Parts::default());
    let pages = Pages::new(metrics.clone(), readiness(keystore.clone()));
    let metrics_server =
        MetricsServer::start(config.metrics.clone(), pages, shutdown.child_token())
            .map_err(|e| failed("starting the metrics server", &e))?;
    let keeper = Keeper::new(keystore.clone(), metrics.clone(), app::notes(config));
    let looked = keeper.looked();
    let convergence = Arc::<Convergence>::default();
    let rotator = Rotator::new(rotator::Deps {
        keystore: keystore.clone(),
        convergence: convergence.clone(),
        roots: keeper.roots(),
        name: app::member_name(config).map_err(|e| failed("naming this member", &e))?,
        keyring: app::keyring_path(config).to_owned(),
        clock: clock(),
    });
    parts.spawn(keeper.run(shutdown.child_token()));
    parts.spawn(rotator.run(shutdown.child_token()));
    parts.spawn(watchdog(shutdown.child_token()));

    let (version, clock) = (config.server.status_version, clock());
    let kms = Kms::new(keystore, version, metrics.clone(), convergence, clock);
    let deps = Deps {
        services: kms.into_services(),
        allowed_uids: config.server.allow_uids.clone(),
        observer: metrics,
        limits: Limits::default(),
    };
    tell_systemd(NotifyState::Ready);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), socket = %socket_text(config), "serving");
    announce(&metrics_server).await?;
    // Who calls in the moment that a keyring takes to open waits in the socket's backlog. Refused, a
    // call of kube-apiserver's would fail the read that needs it, at each restart.
    let _ = tokio::time::timeout(FIRST_LOOK, looked.cancelled()).await;
    if let Err(error) = footprint::give_back_code() {
        tracing::debug!(%error, "the code that only the start needs stays in memory");
    }
    let mut broken = false;
    let stop = async {
        tokio::select! {
            () = signals.stop() => {}
            () = parts.broken() => broken = true,
        }
        tell_systemd(NotifyState::Stopping);
    };
    let served = server::run(socket, deps, stop).await;
    tracing::info!("stopped");
    shutdown.cancel();
    // A commit that is under way ends; nothing else takes as long.
    parts.end_within(Duration::from_millis(400)).await;
    metrics_server.join();
    if broken {
        return Err(Parts::failure());
    }
    served
        .map(|()| Exit::Done)
        .map_err(|e| failed("serving", &e))
}

/// Says what is not as it should be and keeps nobody from serving.
fn warn(config: &Config, durability: Durability) {
    if !hygiene::memory_can_be_locked() {
        tracing::warn!(
            "RLIMIT_MEMLOCK is too low to lock key pages; set LimitMEMLOCK=64M, or swap off"
        );
    }
    if let (Durability::Memory, Err(e)) = (durability, app::durable_storage(config)) {
        tracing::warn!(error = %e, "fit for a try-out only: a restart of the host loses every key");
    }
}

fn socket_text(config: &Config) -> String {
    match &config.server.socket {
        SocketAddress::Path(path) => path.display().to_string(),
        SocketAddress::Abstract(name) => format!("@{name}"),
    }
}

/// What `/readyz` says: whether Status would be answered now.
fn readiness(keystore: Arc<Keystore>) -> impl Fn() -> Result<(), String> + Send + Sync {
    move || {
        let view = keystore.view();
        let primary = view.snapshot().and_then(|snapshot| snapshot.primary());
        primary
            .map(drop)
            .map_err(|refusal| service::explain(&refusal, None))
    }
}

fn clock() -> Clock {
    Clock {
        boottime,
        wall: Timestamp::now,
    }
}

/// CLOCK_BOOTTIME goes on while the host sleeps, and nobody can set it.
fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Tells systemd that the runtime that serves requests still turns.
async fn watchdog(shutdown: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut beats = tokio::time::interval(limit / 2);
    let beat = async {
        loop {
            beats.tick().await;
            tell_systemd(NotifyState::Watchdog);
        }
    };
    shutdown.run_until_cancelled(beat).await;
}

/// Elsewhere than under systemd, this does nothing.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd was not told");
    }
}

/// The signals that a plugin gets.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: [Signal; 2],
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    /// Ready when the plugin is asked to stop. A hang-up or a user signal must not end it.
    async fn stop(&mut self) {
        let [first, second] = &mut self.user;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP: the configuration is read at the start only");
                }
                _ = first.recv() => {}
                _ = second.recv() => {}
            }
        }
    }
}
