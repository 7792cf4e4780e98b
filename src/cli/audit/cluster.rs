//! Where the cluster's etcd and its EncryptionConfiguration are, by flags, configuration or manifest.

use std::path::{Path, PathBuf};

use crate::audit::discovery::{self, Cluster, DiscoveryError, Flags};
use crate::audit::etcd::EtcdError;
use crate::audit::keyspace::ScanError;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::read_config;
use crate::config::{self, Config};
use crate::encryption_config::{self, EncryptionConfiguration};

/// Where the cluster's etcd is, in etcdctl's words. `ETCDCTL_ENDPOINTS`, `ETCDCTL_CACERT`,
/// `ETCDCTL_CERT` and `ETCDCTL_KEY` serve as well.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct EtcdArgs {
    /// etcd's end points; default: the configuration's, else those of kube-apiserver's manifest
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(super) endpoints: Vec<String>,
    /// The authority that signed etcd's certificate
    #[arg(long, value_name = "FILE")]
    pub(super) cacert: Option<PathBuf>,
    /// A client certificate that etcd accepts
    #[arg(long, value_name = "FILE")]
    pub(super) cert: Option<PathBuf>,
    /// Its private key (etcdctl's --key, which names a KEK here)
    #[arg(long, value_name = "FILE")]
    pub(super) cert_key: Option<PathBuf>,
    /// The prefix of Kubernetes' keys, as kube-apiserver's --etcd-prefix [default: /registry]
    #[arg(long)]
    pub(super) prefix: Option<String>,
    /// The EncryptionConfiguration, which says what should be encrypted, and how
    #[arg(long, value_name = "FILE")]
    pub(super) encryption_config: Option<PathBuf>,
}

/// The configuration; that there is none in the default place is as well.
pub(in crate::cli) fn optional_config(path: &Path) -> Result<Option<Config>, Failure> {
    if path == Path::new(config::DEFAULT_PATH) && !path.exists() {
        return Ok(None);
    }
    read_config(path).map(Some)
}

/// Finds the cluster.
pub(in crate::cli) fn find(args: &EtcdArgs, config: Option<&Config>) -> Result<Cluster, Failure> {
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

/// What plaintext counts where nobody says what should be encrypted.
pub(super) const WITHOUT_CONFIGURATION: &str = "no EncryptionConfiguration was found (--encryption-config FILE): plaintext counts secrets, and \
     resources of which some object is encrypted";

/// The EncryptionConfiguration, if there is one; a note says if there is none.
pub(in crate::cli) fn configuration(
    cluster: Option<&Cluster>,
    args: &EtcdArgs,
    output: &Output,
) -> Result<Option<EncryptionConfiguration>, Failure> {
    let found = read_configuration(cluster, args)?;
    if found.is_none() {
        output.note(&format!("note: {WITHOUT_CONFIGURATION}"));
    }
    Ok(found)
}

/// The EncryptionConfiguration, if there is one.
pub(super) fn read_configuration(
    cluster: Option<&Cluster>,
    args: &EtcdArgs,
) -> Result<Option<EncryptionConfiguration>, Failure> {
    let found = cluster.and_then(|cluster| cluster.encryption_config.as_deref());
    let Some(path) = args.encryption_config.as_deref().or(found) else {
        return Ok(None);
    };
    encryption_config::read(path).map(Some).map_err(|e| {
        let doing = format!("reading the EncryptionConfiguration {}", path.display());
        let next = "claviger check --encryption-config says more; or name another file";
        Failure::new(Exit::Usage, doing, e, next)
    })
}

/// Why there is no result, and what helps.
pub(in crate::cli) fn refused(error: &ScanError) -> Failure {
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
    Failure::new(exit, super::DOING, error, next)
}
