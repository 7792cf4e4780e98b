//! `claviger serve --dev`: all that a try-out needs, in one folder, made once.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use claviger_keystore::storage::file::Durability;
use rustix::process::getuid;
use serde_json::{Value, json};

use super::super::failure::{Exit, Failure};
use super::super::init::{self, InitArgs};
use super::super::output::Output;
use crate::config::{self, Config, ReadError};

const CONFIG: &str = "config.yaml";

/// How a try-out's cluster is reached, by the names that `audit` and `migrate` use. Kept in the
/// configuration when that is made, so that they need not be told again.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kept in the configuration of --dev")]
pub(in crate::cli) struct ClusterArgs {
    /// The cluster's etcd, as https://HOST:PORT; several with commas
    #[arg(long, value_name = "URL", value_delimiter = ',', requires = "dev")]
    endpoints: Vec<String>,
    /// The authority that signed etcd's certificate
    #[arg(long, value_name = "FILE", requires = "endpoints")]
    cacert: Option<PathBuf>,
    /// A client certificate that etcd accepts
    #[arg(long, value_name = "FILE", requires_all = ["endpoints", "cert_key"])]
    cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    cert_key: Option<PathBuf>,
    /// The prefix of Kubernetes' keys, as kube-apiserver's --etcd-prefix
    #[arg(long, requires = "endpoints")]
    prefix: Option<String>,
    /// A kubeconfig that may patch what `migrate` rewrites
    #[arg(long, value_name = "FILE", requires = "dev")]
    kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// The configuration's `kubernetes`; null where nothing is given.
    fn kubernetes(&self) -> io::Result<Value> {
        let mut etcd = json!({"endpoints": self.endpoints});
        for (name, path) in [
            ("caFile", &self.cacert),
            ("certFile", &self.cert),
            ("keyFile", &self.cert_key),
        ] {
            if let Some(path) = path {
                etcd[name] = text(&std::path::absolute(path)?);
            }
        }
        if let Some(prefix) = &self.prefix {
            etcd["prefix"] = prefix.as_str().into();
        }
        let mut kubernetes = Value::Null;
        if !self.endpoints.is_empty() {
            kubernetes["etcd"] = etcd;
        }
        if let Some(path) = &self.kubeconfig {
            kubernetes["kubeconfig"] = text(&std::path::absolute(path)?);
        }
        Ok(kubernetes)
    }
}

/// A path as a configuration's text.
fn text(path: &Path) -> Value {
    path.to_string_lossy().into()
}

/// A try-out, and the folder that has all of it.
#[derive(Debug)]
pub(in crate::cli) struct TryOut {
    dir: PathBuf,
    /// What the flags say of the cluster.
    kubernetes: Value,
}

impl TryOut {
    /// Without a folder, in `${XDG_STATE_HOME:-~/.local/state}/claviger-dev`. The configuration has
    /// absolute paths only.
    pub(super) fn new(dir: Option<&Path>, cluster: &ClusterArgs) -> Result<Self, Failure> {
        let dir = match dir {
            Some(dir) => std::path::absolute(dir).map_err(|e| failure(dir, &e))?,
            None => default_dir()?,
        };
        let kubernetes = cluster.kubernetes().map_err(|e| failure(&dir, &e))?;
        Ok(Self { dir, kubernetes })
    }

    /// The folder's configuration, made if there is none. What exists is never made anew.
    pub(super) fn configuration(&self) -> Result<Config, Failure> {
        let path = self.dir.join(CONFIG);
        let text = self.text();
        let wanted = config::parse(&text).map_err(|faults| {
            Failure::new(
                Exit::Usage,
                format!("making the try-out's {}", path.display()),
                ReadError::Faults(faults),
                "mend the flags, or name another folder with --dir",
            )
        })?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|e| failure(&self.dir, &e))?;
        if !path.exists() {
            std::fs::write(&path, text).map_err(|e| failure(&path, &e))?;
        }
        let config = super::super::read_config(&path)?;
        let (found, wanted) = (&config.kubernetes, &wanted.kubernetes);
        let same = (wanted.etcd.is_none() || found.etcd == wanted.etcd)
            && (wanted.kubeconfig.is_none() || found.kubeconfig == wanted.kubeconfig);
        if !same {
            return Err(Failure::new(
                Exit::Usage,
                format!("serving the try-out of {}", path.display()),
                "it exists, and says something else of the cluster than the flags",
                format!(
                    "leave the flags out, or write this into it, and start again:\n{}",
                    self.cluster()
                ),
            ));
        }
        Ok(config)
    }

    /// A small configuration; JSON is YAML too, whatever a path holds.
    fn text(&self) -> String {
        let quoted = |name: &str| text(&self.dir.join(name)).to_string();
        let mut uids = vec![0, getuid().as_raw()];
        uids.dedup();
        format!(
            "# Made by claviger serve --dev; edit it and start again.\n\
             apiVersion: claviger.io/v1alpha1\n\
             kind: ClavigerConfiguration\n\
             server:\n  socket: {socket}\n  allowUIDs: {uids:?}\n\
             storage: {{file: {{path: {keyring}}}}}\n\
             roots: [{{name: local, keyFile: {{path: {root_key}}}}}]\n\
             metrics: {{listen: \"127.0.0.1:0\"}}\n\
             log: {{format: text, level: info}}\n\
             {cluster}",
            socket = quoted("kms.sock"),
            keyring = quoted("keyring"),
            root_key = quoted("root.key"),
            cluster = self.cluster(),
        )
    }

    /// Its lines about the cluster.
    fn cluster(&self) -> String {
        let mut lines = String::new();
        for (name, value) in self.kubernetes.as_object().into_iter().flatten() {
            if lines.is_empty() {
                lines.push_str("kubernetes:\n");
            }
            lines.push_str(&format!("  {name}: {value}\n"));
        }
        lines
    }

    /// The folder's keyring, made if there is none.
    pub(super) async fn make_keyring(&self, config: &Config) -> Result<(), Failure> {
        let args = InitArgs::for_dev(self.dir.join("recovery.key"));
        match init::make(config, &args, Durability::Memory).await {
            Err(failure) if failure.exit == Exit::Refused => Ok(()),
            made => made.map(drop),
        }
    }

    /// Says what to paste, and how to see that it works.
    pub(super) fn announce(
        &self,
        config: &Config,
        metrics: Option<SocketAddr>,
        output: &Output,
    ) -> Result<(), Failure> {
        let config_path = self.dir.join(CONFIG);
        output.line(&super::super::print::encryption_config(config))?;
        let mut notes = format!(
            "\n# Above is the EncryptionConfiguration. Save it, and give kube-apiserver\n\
             #   --encryption-provider-config=FILE\n\
             # Then see it work, from another terminal:\n\
             #   claviger --config {0} probe {1}\n\
             #   claviger --config {0} status\n",
            config_path.display(),
            super::socket_text(config),
        );
        if config.kubernetes.etcd.is_some() {
            notes.push_str(&format!(
                "#   claviger --config {} audit\n",
                config_path.display()
            ));
        }
        if let Some(address) = metrics {
            let path = self.dir.join("metrics.addr");
            std::fs::write(&path, format!("{address}\n")).map_err(|e| failure(&path, &e))?;
            notes.push_str(&format!("#   curl http://{address}/metrics\n"));
        }
        notes.push_str("# Ctrl-C stops it. The keys of a try-out are for a try-out.");
        output.line(&notes)
    }
}

/// `${XDG_STATE_HOME:-~/.local/state}/claviger-dev`.
fn default_dir() -> Result<PathBuf, Failure> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| Path::new(dir).is_absolute());
    let state = state
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    state
        .map(|state| state.join("claviger-dev"))
        .ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "choosing a folder for the try-out",
                "neither $XDG_STATE_HOME nor a home directory is known",
                "name one with --dir",
            )
        })
}

fn failure(path: &Path, cause: &io::Error) -> Failure {
    let doing = format!("making the try-out's {}", path.display());
    Failure::new(
        Exit::Fault,
        doing,
        cause,
        "mend that, or name another folder with --dir",
    )
}
