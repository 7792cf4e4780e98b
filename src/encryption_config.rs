//! An EncryptionConfiguration, read as strictly as kube-apiserver reads it: what it would refuse at
//! its start or at a reload is a fault with a place here. What it would accept and the operator
//! regret is a [`Finding`] of [`judge`].
//!
//! Source: `k8s.io/apiserver` 0.37, `pkg/apis/apiserver/validation/validation_encryption.go` and
//! `pkg/server/options/encryptionconfig/config.go`. Works for any provider, without a keyring.

mod advice;
mod go;
mod phase;
mod raw;
mod rules;

use std::fmt;
use std::path::Path;
use std::time::Duration;

pub use phase::{Finding, Level, Phase, judge};

use crate::client::SocketUrl;
use crate::config::{Fault, ReadError, SocketAddress, fields, read_text, yaml};

/// The longest file that is read, in bytes.
const MAX_LEN: usize = 1024 * 1024;

/// A configuration that kube-apiserver accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionConfiguration {
    /// Its blocks, in the file's order; at least one.
    pub blocks: Vec<Block>,
}

/// Some resources and the providers that encrypt them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line on which it begins.
    pub line: u64,
    /// What it is about; at least one.
    pub resources: Vec<Resource>,
    /// The first one writes, all of them read; at least one.
    pub providers: Vec<Provider>,
}

/// A resource, or a wildcard for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The line on which it stands.
    pub line: u64,
    /// Its name in the plural; `*` is every resource of the group.
    pub name: String,
    /// Its API group; empty is the core group, and `*` every group.
    pub group: String,
}

/// What encrypts, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The line on which it begins.
    pub line: u64,
    /// Its kind.
    pub kind: ProviderKind,
}

/// The kinds of providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKind {
    /// Objects in the clear.
    Identity,
    /// AES-CBC with keys of the file.
    AesCbc,
    /// AES-GCM with keys of the file.
    AesGcm,
    /// XSalsa20 and Poly1305 with keys of the file.
    Secretbox,
    /// A KMS plugin.
    Kms(Kms),
}

/// A KMS plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kms {
    /// The API that it is spoken to by.
    pub version: KmsVersion,
    /// Its name, which stands in the prefix of every object it encrypts.
    pub name: String,
    /// Its socket.
    pub endpoint: SocketUrl,
    /// How long each call may take.
    pub timeout: Duration,
}

/// The API of a KMS plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KmsVersion {
    /// Deprecated, and refused without the feature gate `KMSv1` since Kubernetes 1.29.
    V1,
    /// The one that Claviger speaks.
    V2,
}

impl EncryptionConfiguration {
    /// The providers by which kube-apiserver reads and writes a resource, in their order: those of
    /// all blocks that name it, else of the first that has its group's wildcard, else of `*.*`.
    /// None where no block is about it: it lies in etcd in the clear.
    pub fn providers_of(&self, name: &str, group: &str) -> Vec<&Provider> {
        [(name, group), ("*", group), ("*", "*")]
            .into_iter()
            .map(|(name, group)| self.providers_named(name, group))
            .find(|providers| !providers.is_empty())
            .unwrap_or_default()
    }

    fn providers_named(&self, name: &str, group: &str) -> Vec<&Provider> {
        let names_it = |block: &&Block| {
            block
                .resources
                .iter()
                .any(|resource| (&*resource.name, &*resource.group) == (name, group))
        };
        self.blocks
            .iter()
            .filter(names_it)
            .flat_map(|block| &block.providers)
            .collect()
    }
}

impl Provider {
    /// Whether it leaves objects in the clear.
    pub fn is_identity(&self) -> bool {
        self.kind == ProviderKind::Identity
    }

    /// The KMS plugin that it is, if it is one.
    pub fn kms(&self) -> Option<&Kms> {
        match &self.kind {
            ProviderKind::Kms(kms) => Some(kms),
            _ => None,
        }
    }
}

impl Kms {
    /// Whether kube-apiserver reaches this socket by it.
    pub fn reaches(&self, socket: &SocketAddress) -> bool {
        let dialled = &self.endpoint.address;
        match socket {
            SocketAddress::Abstract(name) => dialled.as_os_str() == &*format!("@{name}"),
            SocketAddress::Path(path) => {
                // /var/run is a link to /run wherever Kubernetes runs.
                let canonical = |path: &Path| match path.strip_prefix("/var/run") {
                    Ok(rest) => Path::new("/run").join(rest),
                    Err(_) => path.to_owned(),
                };
                canonical(dialled) == canonical(path)
            }
        }
    }
}

impl fmt::Display for Resource {
    /// As the file has it: `secrets`, `deployments.apps`, `*.`, `*.*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.name, &*self.group) {
            ("*", "") => f.write_str("*."),
            (name, "") => f.write_str(name),
            (name, group) => write!(f, "{name}.{group}"),
        }
    }
}

impl fmt::Display for Provider {
    /// As operators say it: `identity`, `aescbc`, `kms claviger`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ProviderKind::Identity => f.write_str("identity"),
            ProviderKind::AesCbc => f.write_str("aescbc"),
            ProviderKind::AesGcm => f.write_str("aesgcm"),
            ProviderKind::Secretbox => f.write_str("secretbox"),
            ProviderKind::Kms(kms) => write!(f, "kms {}", kms.name),
        }
    }
}

/// Reads a file.
pub fn read(path: &Path) -> Result<EncryptionConfiguration, ReadError> {
    parse(&read_text(path, MAX_LEN)?).map_err(ReadError::Faults)
}

/// Reads a file's text.
///
/// # Errors
/// Everything for which kube-apiserver would refuse it, in the order of its lines; at least one.
pub fn parse(text: &str) -> Result<EncryptionConfiguration, Vec<Fault>> {
    let tree = yaml::parse(text).map_err(|fault| vec![fault])?;
    let (raw, mut faults) = fields::read::<raw::RawConfiguration>(&tree);
    let configuration = rules::configuration(&raw, &mut faults);
    faults.sort();
    match configuration {
        Some(configuration) if faults.is_empty() => Ok(configuration),
        _ if faults.is_empty() => Err(vec![Fault::new(1, 1, "the file cannot be used")]),
        _ => Err(faults),
    }
}
