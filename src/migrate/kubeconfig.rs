//! Which cluster, and as whom: a kubeconfig, read as kubectl reads it.
//!
//! No message repeats what a kubeconfig says beyond names and paths: it holds keys and tokens.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use jiff::Timestamp;
use kube_client::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube_client::{Client, Config};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::api::Api;
use crate::config::yaml;

/// The administrator's files that kubeadm, k3s and RKE2 write.
const ADMIN: &[&str] = &[
    "/etc/kubernetes/admin.conf",
    "/etc/rancher/k3s/k3s.yaml",
    "/etc/rancher/rke2/rke2.yaml",
];

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

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

/// A client of the cluster that the kubeconfig's current context names. Nothing is connected yet.
/// `timeout` is how long each call may take.
///
/// # Errors
/// Where it cannot be read or used.
pub async fn open(place: &Place, timeout: Duration) -> Result<Cluster, Error> {
    let kubeconfig = read(place)?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| Error::Unusable(error.to_string()))?;
    config.connect_timeout = Some(CONNECT);
    // Which failures are worth another try is decided where objects are counted.
    config.default_retry = false;
    let expires = expiry(&config.auth_info);
    let server = config.cluster_url.to_string();
    let server = server.trim_end_matches('/').to_owned();
    let client = Client::try_from(config).map_err(|error| Error::Unusable(error.to_string()))?;
    Ok(Cluster {
        api: Api::new(client, server, timeout),
        expires,
    })
}

fn read(place: &Place) -> Result<Kubeconfig, Error> {
    let mut merged = Kubeconfig::default();
    // As kubectl does: of several files some may be absent.
    let present = place.files.iter().filter(|path| path.exists());
    let mut files: Vec<_> = present.collect();
    if files.is_empty() {
        files = place.files.iter().take(1).collect();
    }
    for path in files {
        let next = Kubeconfig::read_from(path).map_err(|error| read_error(path, error))?;
        let next = merged.merge(next);
        merged = next.map_err(|error| Error::Unusable(error.to_string()))?;
    }
    Ok(merged)
}

fn read_error(path: &Path, error: KubeconfigError) -> Error {
    let shown = path.display();
    match error {
        KubeconfigError::ReadConfig(error, _) => Error::Read {
            path: shown.to_string(),
            error,
        },
        // Its own message shows the lines around the fault, with keys and tokens.
        KubeconfigError::Parse(_) => {
            let fault = fs::read_to_string(path)
                .ok()
                .and_then(|text| yaml::parse(&text).err());
            Error::Parse(match fault {
                Some(fault) => format!("{shown}: {fault}"),
                None => format!("{shown} is no kubeconfig: a field has a value of a wrong type"),
            })
        }
        error => Error::Unusable(format!("{shown}: {error}")),
    }
}

/// When the client certificate expires.
fn expiry(user: &AuthInfo) -> Option<Timestamp> {
    let pem = match (&user.client_certificate_data, &user.client_certificate) {
        (Some(data), _) => BASE64.decode(data.trim().as_bytes()).ok()?,
        (None, Some(path)) => fs::read(path).ok()?,
        (None, None) => return None,
    };
    let der = CertificateDer::from_pem_slice(&pem).ok()?;
    let certificate = Certificate::from_der(&der).ok()?;
    let end = certificate.tbs_certificate().validity().not_after;
    let seconds = i64::try_from(end.to_unix_duration().as_secs()).ok()?;
    Timestamp::from_second(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(flag: Option<&str>, env: Option<&str>, configured: Option<&str>) -> Option<String> {
        let place = find(
            flag.map(Path::new),
            env.map(OsStr::new),
            configured.map(Path::new),
        );
        place.map(|place| place.to_string())
    }

    #[test]
    fn the_nearest_names_the_kubeconfig() {
        let all = found(Some("/f"), Some("/e:/e2"), Some("/c"));
        assert_eq!(all.as_deref(), Some("/f (--kubeconfig)"));
        let env = found(None, Some("/e::/e2"), Some("/c"));
        assert_eq!(env.as_deref(), Some("/e:/e2 ($KUBECONFIG)"));
        for empty in [None, Some(""), Some(":")] {
            let configured = found(None, empty, Some("/c"));
            assert!(configured.is_some_and(|place| place.starts_with("/c (")));
        }
    }

    #[test]
    fn of_several_files_the_first_that_says_something_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, context: &str| {
            let path = dir.path().join(name);
            fs::write(&path, format!("current-context: {context}\n")).unwrap();
            path
        };
        let place = Place {
            files: vec![
                dir.path().join("absent"),
                write("a", "first"),
                write("b", "second"),
            ],
            by: "the test",
        };
        let read = read(&place).unwrap();
        assert_eq!(read.current_context.as_deref(), Some("first"));
    }
}
