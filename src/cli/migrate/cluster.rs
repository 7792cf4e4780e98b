//! The way to the cluster's kube-apiserver, and what is said where there is none.

use std::env;
use std::path::PathBuf;

use jiff::Timestamp;

use super::DOING;
use crate::cli::failure::{Exit, Failure};
use crate::config::Config;
use crate::migrate::api::{CallError, TIMEOUT};
use crate::migrate::discovery::Apis;
use crate::migrate::kubeconfig::{self, Cluster};
use crate::migrate::rewrite::Stop;

/// Who asks kube-apiserver.
#[derive(Debug, clap::Args)]
pub(super) struct ApiArgs {
    /// Who may patch; default: $KUBECONFIG, else the configuration's, else the administrator's file
    /// of kubeadm, k3s or RKE2
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl ApiArgs {
    /// A client of kube-apiserver. Nothing is connected yet.
    pub(super) async fn open(&self, config: Option<&Config>) -> Result<Cluster, Failure> {
        let configured = config.and_then(|config| config.kubernetes.kubeconfig.as_deref());
        let env = env::var_os("KUBECONFIG");
        let place = kubeconfig::find(self.kubeconfig.as_deref(), env.as_deref(), configured);
        let Some(place) = place else {
            return Err(Failure::new(
                Exit::Usage,
                "looking for a kubeconfig",
                "none is named, and this node has no administrator's file of kubeadm, k3s or RKE2",
                "name one that may patch with --kubeconfig; claviger print rbac prints its \
                 ClusterRole",
            ));
        };
        kubeconfig::open(&place, TIMEOUT).await.map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("reading the kubeconfig {place}"),
                error,
                "name another one with --kubeconfig; mostly root alone may read an \
                 administrator's file",
            )
        })
    }
}

/// What kube-apiserver serves.
pub(super) async fn discover(cluster: &Cluster) -> Result<Apis, Failure> {
    let doing = format!("asking {} what it serves", cluster.api.server());
    let error = match Apis::discover(&cluster.api).await {
        Ok(apis) => return Ok(apis),
        Err(error) => error,
    };
    Err(match error {
        CallError::Refused(refusal) if refusal.status == 401 => {
            unauthorized(doing, &refusal.message, cluster.expires)
        }
        CallError::Refused(refusal) if refusal.status == 403 => Failure::new(
            Exit::Usage,
            doing,
            format!("{} {}", refusal.status, refusal.message),
            "bind this user to the ClusterRole system:discovery, which kube-apiserver makes for \
             everybody who is authenticated",
        ),
        CallError::Refused(_) => Failure::new(
            Exit::Unreachable,
            doing,
            error,
            "run it again when kube-apiserver is well",
        ),
        CallError::NoAnswer(_) => away(doing, &error),
    })
}

/// Kube-apiserver is away, and nothing was done.
fn away(doing: String, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Exit::Unreachable,
        doing,
        error,
        "check the server and its authority in the kubeconfig, and whether kube-apiserver runs",
    )
}

/// Kube-apiserver does not know us.
fn unauthorized(doing: String, message: &str, expires: Option<Timestamp>) -> Failure {
    let expired = expires.filter(|end| *end < Timestamp::now());
    let (cause, next) = match expired {
        Some(end) => (
            format!("401 {message}: the kubeconfig's certificate expired on {end}"),
            "make a new one (kubeadm certs renew admin.conf), or name another kubeconfig",
        ),
        None => (
            format!("401 {message}"),
            "name a kubeconfig whose certificate or token this kube-apiserver accepts",
        ),
    };
    Failure::new(Exit::Usage, doing, cause, next)
}

/// Why a run stopped before it had done anything.
pub(super) fn stopped(stop: &Stop, cluster: &Cluster) -> Failure {
    let doing = format!("{DOING} through {}", cluster.api.server());
    match stop {
        Stop::Asked => Failure::new(
            Exit::Partly,
            doing,
            stop,
            "run it again; it begins with what is left",
        ),
        Stop::Unauthorized(message) => unauthorized(doing, message, cluster.expires),
        Stop::Away(why) => away(doing, why),
    }
}
