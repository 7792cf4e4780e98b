//! Where the cluster's etcd is: flags beat the configuration, which beats the apiserver's static-pod
//! manifest.

use std::path::{Path, PathBuf};

use crate::config::yaml::{self, Node, Value};
use crate::config::{EtcdConfig, KubernetesConfig, ReadError, TlsConfig, read_text};

/// Where kubeadm puts kube-apiserver's manifest.
pub const DEFAULT_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

/// kube-apiserver's own default of `--etcd-prefix`.
const DEFAULT_PREFIX: &str = "/registry";

/// The longest manifest that is read, in bytes.
const MAX_LEN: usize = 256 * 1024;

/// What the command line says, each of it optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// End points; none if empty.
    pub endpoints: Vec<String>,
    /// The authority that signed etcd's certificate.
    pub cacert: Option<PathBuf>,
    /// Our client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub cert_key: Option<PathBuf>,
    /// The prefix of Kubernetes' keys.
    pub prefix: Option<String>,
    /// The EncryptionConfiguration.
    pub encryption_config: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// etcd, with at least one end point.
    pub etcd: EtcdConfig,
    /// The EncryptionConfiguration, where somebody names it.
    pub encryption_config: Option<PathBuf>,
}

/// Why the cluster is not found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// A manifest that somebody named, or that lies in its place, cannot be read.
    #[error("the manifest {}: {cause}", path.display())]
    Manifest {
        /// Where it lies.
        path: PathBuf,
        /// Why not.
        cause: ReadError,
    },
    /// Nobody says where etcd is.
    #[error("neither --endpoints nor kubernetes.etcd of the configuration nor {} says where etcd is", .0.display())]
    NoEtcd(PathBuf),
    /// One is of no use without the other.
    #[error("a client certificate needs its key, and a key its certificate: --cert and --cert-key")]
    HalfCertificate,
    /// An end point that is no URL.
    #[error("the end point {0:?} must be https://HOST:PORT or http://HOST:PORT")]
    Endpoint(String),
}

/// Finds etcd and the EncryptionConfiguration.
///
/// # Errors
/// Where nobody says where etcd is, or what is said cannot be used.
pub fn find(
    flags: &Flags,
    configuration: Option<&KubernetesConfig>,
) -> Result<Cluster, DiscoveryError> {
    let manifest = manifest(configuration)?;
    let configured = configuration.and_then(|config| config.etcd.as_ref());
    let base = configured.or(manifest.etcd.as_ref());
    let endpoints = match base {
        _ if !flags.endpoints.is_empty() => flags.endpoints.iter().map(|e| url(e)).collect(),
        Some(base) => base.endpoints.clone(),
        None => return Err(DiscoveryError::NoEtcd(manifest.path)),
    };
    if let Some(bad) = endpoints.iter().find(|endpoint| !is_url(endpoint)) {
        return Err(DiscoveryError::Endpoint(bad.clone()));
    }
    let client = match (&flags.cert, &flags.cert_key) {
        (Some(cert), Some(key)) => Some(TlsConfig {
            cert_file: cert.clone(),
            key_file: key.clone(),
        }),
        (None, None) => base.and_then(|base| base.client.clone()),
        _ => return Err(DiscoveryError::HalfCertificate),
    };
    let ca_file = flags.cacert.clone();
    let prefix = flags.prefix.clone();
    let prefix = prefix.or_else(|| base.map(|base| base.prefix.clone()));
    let encryption_config = flags.encryption_config.clone();
    let configured = configuration.and_then(|config| config.encryption_config.clone());
    Ok(Cluster {
        etcd: EtcdConfig {
            endpoints,
            ca_file: ca_file.or_else(|| base.and_then(|base| base.ca_file.clone())),
            client,
            prefix: normal_prefix(prefix.as_deref().unwrap_or(DEFAULT_PREFIX)),
        },
        encryption_config: encryption_config
            .or(configured)
            .or(manifest.encryption_config),
    })
}

/// As etcdctl, which takes an end point without a scheme for plain HTTP.
fn url(endpoint: &str) -> String {
    match endpoint.contains("://") {
        true => endpoint.to_owned(),
        false => format!("http://{endpoint}"),
    }
}

fn is_url(endpoint: &str) -> bool {
    let host = endpoint
        .strip_prefix("https://")
        .or_else(|| endpoint.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty() && !host.contains(|c: char| c == '/' || c == '@' || c.is_whitespace())
    })
}

/// With a slash before it and none after, as kube-apiserver takes it.
fn normal_prefix(prefix: &str) -> String {
    format!("/{}", prefix.trim_matches('/'))
}

/// What a manifest says.
#[derive(Debug, Default)]
struct Manifest {
    path: PathBuf,
    etcd: Option<EtcdConfig>,
    encryption_config: Option<PathBuf>,
}

/// Reads the manifest. That there is none in the default place is no fault.
fn manifest(configuration: Option<&KubernetesConfig>) -> Result<Manifest, DiscoveryError> {
    let named = configuration.and_then(|config| config.apiserver_manifest.as_deref());
    let path = named.unwrap_or(Path::new(DEFAULT_MANIFEST));
    let error = |cause| DiscoveryError::Manifest {
        path: path.to_owned(),
        cause,
    };
    let absent = Manifest {
        path: path.to_owned(),
        ..Manifest::default()
    };
    if named.is_none() && !path.exists() {
        return Ok(absent);
    }
    let text = read_text(path, MAX_LEN).map_err(error)?;
    let tree = yaml::parse(&text).map_err(|fault| error(ReadError::Faults(vec![fault])))?;
    let mut arguments = Vec::new();
    texts(&tree, &mut arguments);
    let value = |flag: &str| flag_value(&arguments, flag);
    let list = value("--etcd-servers").unwrap_or_default();
    let endpoints: Vec<String> = list.split(',').filter(|e| !e.is_empty()).map(url).collect();
    let client = value("--etcd-certfile").zip(value("--etcd-keyfile"));
    let etcd = (!endpoints.is_empty()).then(|| EtcdConfig {
        endpoints,
        ca_file: value("--etcd-cafile").map(PathBuf::from),
        client: client.map(|(cert, key)| TlsConfig {
            cert_file: cert.into(),
            key_file: key.into(),
        }),
        prefix: value("--etcd-prefix").unwrap_or(DEFAULT_PREFIX).to_owned(),
    });
    Ok(Manifest {
        etcd,
        encryption_config: value("--encryption-provider-config").map(PathBuf::from),
        ..absent
    })
}

/// All texts of a list, anywhere in the manifest: the container's command and arguments are such.
fn texts<'a>(node: &'a Node, found: &mut Vec<&'a str>) {
    match &node.value {
        Value::List(nodes) => {
            for node in nodes {
                match &node.value {
                    Value::Text(text) => found.push(text),
                    _ => texts(node, found),
                }
            }
        }
        Value::Map(entries) => entries.iter().for_each(|(_, node)| texts(node, found)),
        _ => {}
    }
}

/// The value of the last such flag: `--flag=value`, or the argument after `--flag`.
fn flag_value<'a>(arguments: &[&'a str], flag: &str) -> Option<&'a str> {
    let at = arguments.iter().rposition(|argument| {
        argument
            .strip_prefix(flag)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })?;
    match arguments.get(at)?.split_once('=') {
        Some((_, value)) => Some(value),
        None => arguments.get(at + 1).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system}
spec:
  containers:
  - name: kube-apiserver
    command:
    - kube-apiserver
    - --etcd-cafile=/pki/ca.crt
    - --etcd-certfile=/pki/client.crt
    - --etcd-keyfile
    - /pki/client.key
    - --etcd-servers=https://127.0.0.1:2379,https://10.0.0.2:2379
    - --encryption-provider-config=/etc/kubernetes/encryption.yaml
    image: registry.k8s.io/kube-apiserver:v1.37.2
";

    fn configuration(dir: &Path, text: &str) -> KubernetesConfig {
        let path = dir.join("kube-apiserver.yaml");
        std::fs::write(&path, text).unwrap();
        KubernetesConfig {
            apiserver_manifest: Some(path),
            ..KubernetesConfig::default()
        }
    }

    fn etcd(endpoint: &str) -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![endpoint.to_owned()],
            ca_file: None,
            client: None,
            prefix: "/k8s".to_owned(),
        }
    }

    #[test]
    fn the_manifest_says_it_all() {
        let dir = tempfile::tempdir().unwrap();
        let configuration = configuration(dir.path(), MANIFEST);
        let found = find(&Flags::default(), Some(&configuration)).unwrap();
        let expected = Cluster {
            etcd: EtcdConfig {
                endpoints: vec![
                    "https://127.0.0.1:2379".to_owned(),
                    "https://10.0.0.2:2379".to_owned(),
                ],
                ca_file: Some("/pki/ca.crt".into()),
                client: Some(TlsConfig {
                    cert_file: "/pki/client.crt".into(),
                    key_file: "/pki/client.key".into(),
                }),
                prefix: "/registry".to_owned(),
            },
            encryption_config: Some("/etc/kubernetes/encryption.yaml".into()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn flags_beat_the_configuration_which_beats_the_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let mut configuration = configuration(dir.path(), MANIFEST);
        configuration.etcd = Some(etcd("http://configured:1"));
        configuration.encryption_config = Some("/configured".into());
        let found = find(&Flags::default(), Some(&configuration)).unwrap();
        assert_eq!(found.etcd, etcd("http://configured:1"));
        assert_eq!(found.encryption_config, Some("/configured".into()));

        let flags = Flags {
            endpoints: vec!["10.0.0.1:2379".to_owned()],
            prefix: Some("registry/".to_owned()),
            encryption_config: Some("/flag".into()),
            ..Flags::default()
        };
        let found = find(&flags, Some(&configuration)).unwrap();
        assert_eq!(found.etcd.endpoints, ["http://10.0.0.1:2379"]);
        assert_eq!(found.etcd.prefix, "/registry");
        assert_eq!(found.encryption_config, Some("/flag".into()));
    }

    #[test]
    fn what_is_missing_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let empty = configuration(dir.path(), "kind: Pod");
        let error = find(&Flags::default(), Some(&empty)).unwrap_err();
        assert!(error.to_string().contains("neither --endpoints"), "{error}");
        let half = Flags {
            endpoints: vec!["http://a:1".to_owned()],
            cert: Some("/c".into()),
            ..Flags::default()
        };
        let error = find(&half, None).unwrap_err();
        assert!(matches!(error, DiscoveryError::HalfCertificate), "{error}");
        let bad = Flags {
            endpoints: vec!["unix:///x".to_owned()],
            ..Flags::default()
        };
        let error = find(&bad, None).unwrap_err();
        assert!(matches!(error, DiscoveryError::Endpoint(_)), "{error}");
        let broken = configuration(dir.path(), "a: [");
        let error = find(&Flags::default(), Some(&broken)).unwrap_err();
        assert!(matches!(error, DiscoveryError::Manifest { .. }), "{error}");
    }
}
