//! The configuration of one node: which socket, which storage, which roots.
//!
//! What must be the same on every node (policy, cluster id) is in the keyring instead. A file is
//! read in two steps: raw structs that know only types ([`raw`]), then the checked [`Config`].
//! Every fault of a file is reported at once, with its line and column.

pub(crate) mod fault;
pub(crate) mod fields;
mod raw;
mod refusal;
mod roots;
pub(crate) mod rules;
pub(crate) mod yaml;

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

pub use fault::Fault;

/// Where the configuration lies unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/claviger/config.yaml";

/// The longest configuration that is read, in bytes.
pub const MAX_LEN: usize = 64 * 1024;

/// A configuration in which every value has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This member's name, where the configuration gives one; see [`Config::member_name`].
    pub member: Option<String>,
    /// The KMS socket.
    pub server: ServerConfig,
    /// Where the keyring lies.
    pub storage: StorageConfig,
    /// The roots, at least one, with names that differ. The first is the one that `init` uses.
    pub roots: Vec<RootConfig>,
    /// How the cluster is reached, where its manifest does not say so.
    pub kubernetes: KubernetesConfig,
    /// The listener of `/metrics`, `/livez` and `/readyz`.
    pub metrics: MetricsConfig,
    /// The log.
    pub log: LogConfig,
}

impl Config {
    /// This member's name: the configured one, or the host's.
    pub fn member_name(&self) -> String {
        self.member.clone().unwrap_or_else(|| {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        })
    }
}

/// The KMS socket and who may connect to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where it is bound.
    pub socket: SocketAddress,
    /// The socket file's mode; at least 0600, at most 0666.
    pub mode: u32,
    /// The socket file's group, a name or a number, where it is not the process's own.
    pub group: Option<String>,
    /// The user ids that may connect; never empty.
    pub allow_uids: Vec<u32>,
    /// What Status answers as the version of the API.
    pub status_version: StatusVersion,
}

/// The address of a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketAddress {
    /// A file: an absolute path of at most 107 bytes.
    Path(PathBuf),
    /// A Linux abstract socket: its name without the leading `@`.
    Abstract(String),
}

impl SocketAddress {
    /// The longest path of a socket file, in bytes: `sun_path` of unix(7) without its final NUL.
    pub const MAX_LEN: usize = 107;

    /// The longest last part of that path, in bytes: its temporary neighbour is bound through the
    /// directory's descriptor, and that path has to fit as well.
    pub const MAX_NAME_LEN: usize = 80;
}

impl Default for SocketAddress {
    fn default() -> Self {
        Self::Path("/run/claviger/kms.sock".into())
    }
}

/// The version of the KMS API that Status names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusVersion {
    /// Kubernetes 1.29 and newer.
    V2,
    /// Kubernetes 1.27 and 1.28.
    V2Beta1,
}

impl StatusVersion {
    /// The text of `StatusResponse.version`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }
}

/// Where the keyring lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageConfig {
    /// A file of this node.
    File {
        /// The keyring's absolute path.
        path: PathBuf,
    },
}

/// A root and the name of its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootConfig {
    /// The name; a slot of the keyring has the same.
    pub name: String,
    /// What it is and where.
    pub kind: RootKindConfig,
}

/// The kinds of roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootKindConfig {
    /// 32 random bytes in a file.
    KeyFile {
        /// The file's absolute path.
        path: PathBuf,
    },
    /// The same, passed by systemd.
    Credential {
        /// The credential's name below `$CREDENTIALS_DIRECTORY`.
        name: String,
    },
    /// A recovery key, written for people, in a file.
    Recovery {
        /// The file's absolute path.
        file: PathBuf,
    },
}

/// How the cluster is reached; each is found in the apiserver's manifest if it is not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KubernetesConfig {
    /// The apiserver's static-pod manifest.
    pub apiserver_manifest: Option<PathBuf>,
    /// A kubeconfig that may patch what `migrate` rewrites.
    pub kubeconfig: Option<PathBuf>,
    /// The EncryptionConfiguration.
    pub encryption_config: Option<PathBuf>,
    /// The cluster's etcd.
    pub etcd: Option<EtcdConfig>,
}

/// The cluster's etcd, which `audit` reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `http://` or `https://` end points, at least one.
    pub endpoints: Vec<String>,
    /// The authority that signed etcd's certificate.
    pub ca_file: Option<PathBuf>,
    /// Our client certificate and its key; both or none.
    pub client: Option<TlsConfig>,
    /// The prefix of Kubernetes' keys.
    pub prefix: String,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, with its chain, in PEM.
    pub cert_file: PathBuf,
    /// Its private key, in PEM.
    pub key_file: PathBuf,
}

/// The listener of the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Address and port; port 0 is any free one.
    pub listen: SocketAddr,
    /// TLS, where it is wanted.
    pub tls: Option<TlsConfig>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9465),
            tls: None,
        }
    }
}

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// For people.
    Text,
}

/// How severe a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// One line for each key event.
    Info,
    /// One line for each request.
    Debug,
    /// Everything.
    Trace,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            level: LogLevel::Info,
        }
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It can, but these things in it are wrong; never empty.
    #[error("{}", lines(.0))]
    Faults(Vec<Fault>),
}

fn lines(faults: &[Fault]) -> String {
    faults
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Reads and checks a configuration file.
pub fn read(path: &Path) -> Result<Config, ReadError> {
    let text = read_text(path, MAX_LEN)?;
    parse(&text).map_err(ReadError::Faults)
}

/// Reads a file of UTF-8 text of at most `longest` bytes.
pub(crate) fn read_text(path: &Path, longest: usize) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is more, without reading all of it.
    File::open(path)?
        .take(longest as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > longest {
        let message = format!("the file is longer than {} KiB", longest / 1024);
        return Err(ReadError::Faults(vec![Fault::new(1, 1, message)]));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..valid];
        let line = before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        ReadError::Faults(vec![Fault::new(line, 1, "this line is not UTF-8 text")])
    })
}

/// Checks a configuration's text.
///
/// # Errors
/// Every fault of the text, in the order of its lines; at least one.
pub fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    if text.len() > MAX_LEN {
        let message = format!("the file is longer than {} KiB", MAX_LEN / 1024);
        return Err(vec![Fault::new(1, 1, message)]);
    }
    let tree = yaml::parse(text).map_err(|fault| vec![fault])?;
    let (raw, mut faults) = fields::read::<raw::RawConfig>(&tree);
    let config = rules::config(&raw, &mut faults);
    faults.sort();
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ if faults.is_empty() => Err(vec![Fault::new(1, 1, "the file cannot be used")]),
        _ => Err(faults),
    }
}
