//! Which cluster, and as whom: a kubeconfig, read as kubectl reads it.
//!
//! No message repeats what a kubeconfig says beyond names and paths: it holds keys and tokens.

mod exec;
mod fields;
mod file;
mod server;
mod user;

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::api::Api;
use super::session::{Session, SessionError, Settings};
use file::{ClusterEntry, File, User};

/// The administrator's files that kubeadm, k3s and RKE2 write.
const ADMIN: &[&str] = &[
    "/etc/kubernetes/admin.conf",
    "/etc/rancher/k3s/k3s.yaml",
    "/etc/rancher/rke2/rke2.yaml",
];

/// One or several files, of which the first that says something counts, and who named them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Never empty.
    pub files: Vec<PathBuf>,
    /// For people: `--kubeconfig`, `$KUBECONFIG`, …
    pub by: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<_> = self
            .files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        write!(f, "{} ({})", files.join(":"), self.by)
    }
}

/// Where the kubeconfig is: what the command line names, else `$KUBECONFIG`, else what the
/// configuration names, else the administrator's file of this node.
pub fn find(flag: Option<&Path>, env: Option<&OsStr>, configured: Option<&Path>) -> Option<Place> {
    let one = |path: &Path, by| {
        Some(Place {
            files: vec![path.to_owned()],
            by,
        })
    };
    if let Some(path) = flag {
        return one(path, "--kubeconfig");
    }
    let listed = env.into_iter().flat_map(std::env::split_paths);
    let listed: Vec<_> = listed.filter(|path| !path.as_os_str().is_empty()).collect();
    if !listed.is_empty() {
        return Some(Place {
            files: listed,
            by: "$KUBECONFIG",
        });
    }
    if let Some(path) = configured {
        return one(path, "kubernetes.kubeconfig of the configuration");
    }
    let admin = ADMIN.iter().map(Path::new).find(|path| path.exists())?;
    one(admin, "the administrator's file of this node")
}

/// Why a kubeconfig is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A file is no kubeconfig.
    #[error("{0}")]
    Parse(String),
    /// It names something that is not there: its context, a cluster, a certificate.
    #[error("{0}")]
    Unusable(String),
}

/// A cluster, and what its kubeconfig says of us.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub api: Api,
    /// When the certificate that we show expires; `None` where we show none, or its file cannot be
    /// understood.
    pub expires: Option<Timestamp>,
}

/// A client of the cluster that the kubeconfig's current context names. Nothing is connected yet,
/// but a credential program has run. `timeout` is how long each call may take.
///
/// # Errors
/// Where it cannot be read or used.
pub async fn open(place: &Place, timeout: Duration) -> Result<Cluster, Error> {
    let (cluster, user) = read(place)?.current()?;
    let session = Session::open(settings(cluster, user)?).await?;
    let expires = session.expires().await;
    Ok(Cluster {
        api: Api::new(session, timeout),
        expires,
    })
}

impl Error {
    fn read(path: &Path, error: io::Error) -> Self {
        Self::Read {
            path: path.display().to_string(),
            error,
        }
    }
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        Self::Unusable(error.to_string())
    }
}

fn read(place: &Place) -> Result<File, Error> {
    let mut merged = File::default();
    // As kubectl does: of several files some may be absent.
    let present = place.files.iter().filter(|path| path.exists());
    let mut files: Vec<_> = present.collect();
    if files.is_empty() {
        files = place.files.iter().take(1).collect();
    }
    for path in files {
        let text = fs::read_to_string(path).map_err(|error| Error::read(path, error))?;
        let dir = path.parent().unwrap_or(Path::new(""));
        let parsed = File::parse(&text, dir);
        merged.merge(parsed.map_err(|fault| Error::Parse(format!("{}: {fault}", path.display())))?);
    }
    Ok(merged)
}

fn settings(cluster: ClusterEntry, mut user: User) -> Result<Settings, Error> {
    if cluster.has_proxy {
        return unusable(
            "its cluster has a proxy-url, and Claviger knows no proxies: use a kubeconfig that \
             reaches the server directly",
        );
    }
    let (server, trust) = server::find(&cluster)?;
    let identity = user::identity(&user)?;
    Ok(Settings {
        server,
        trust,
        headers: user::headers(std::mem::take(&mut user.impersonated))?,
        login: user::login(user, identity.is_some(), &cluster)?,
        identity,
    })
}

fn unusable<T>(cause: &str) -> Result<T, Error> {
    Err(Error::Unusable(cause.to_owned()))
}

#[cfg(test)]
mod tests;
