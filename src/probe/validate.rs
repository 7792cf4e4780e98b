//! What kube-apiserver 1.37 checks in a plugin's answers; pure. The texts are the apiserver's own,
//! so that they are found in its log.
//!
//! Sources: k8s.io/apiserver v0.37 `encryptionconfig/config.go`
//! (`isKMSv2ProviderHealthyAndMaybeRotateDEK`), `envelope/kmsv2/envelope.go`
//! (`ValidateEncryptedObject`), and k8s.io/apimachinery `util/validation`
//! (`IsFullyQualifiedDomainName`). There, as here, a value of exactly the limit passes.

use std::collections::BTreeMap;

use claviger_proto::v2::{EncryptResponse, StatusResponse};
use thiserror::Error;

/// Longest key id, in bytes.
pub const MAX_KEY_ID: usize = 1024;
/// Longest wrapped seed, in bytes.
pub const MAX_CIPHERTEXT: usize = 1024;
/// Most bytes of all annotations, keys and values together.
pub const MAX_ANNOTATIONS: usize = 32 * 1024;
/// Shortest seed that the apiserver takes back, in bytes; it generates seeds of this length.
pub const SEED: usize = 32;

/// What Status must say in `healthz`.
const OK: &str = "ok";
/// What Status may say in `version`.
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];
/// Longest annotation key without its trailing dot, in bytes (RFC 1123).
const MAX_DOMAIN: usize = 253;
/// Longest part of an annotation key between dots, in bytes.
const MAX_LABEL: usize = 63;

/// What is wrong with `healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("got unexpected healthz status: {0}")]
pub struct Unhealthy(pub String);

/// What is wrong with `version`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VersionFault {
    /// Neither `v2` nor `v2beta1`.
    #[error("expected KMSv2 API version v2, got {0}")]
    Unknown(String),
    /// Another one than this plugin's first.
    #[error(
        "KMSv2 API version should not change after the initial status response version {first}, \
         got {now}"
    )]
    Changed {
        /// The first one.
        first: String,
        /// This one.
        now: String,
    },
}

/// What is wrong with a key id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyIdFault {
    /// Nothing is in it.
    #[error("keyID is empty")]
    Empty,
    /// It has this many bytes.
    #[error("keyID is {0} bytes, which exceeds the max size of {MAX_KEY_ID}")]
    TooLong(usize),
}

/// What is wrong with a wrapped seed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CiphertextFault {
    /// Nothing is in it.
    #[error("encrypted DEK source is empty")]
    Empty,
    /// It has this many bytes.
    #[error("encrypted DEK source is {0} bytes, which exceeds the max size of {MAX_CIPHERTEXT}")]
    TooLong(usize),
}

/// What is wrong with annotations.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnnotationFault {
    /// This key is no lower-case domain name of at least two parts.
    #[error("annotation key {0:?} is not a lower-case domain name with at least two segments")]
    Key(String),
    /// Keys and values have this many bytes.
    #[error("total size of annotations is {0}, which exceeds the max size of {MAX_ANNOTATIONS}")]
    TooLong(usize),
}

/// Everything that is wrong with an answer of Status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusFaults {
    /// In `healthz`. The apiserver is never ready, but goes on to use the key id.
    pub healthz: Option<Unhealthy>,
    /// In `version`. As `healthz`.
    pub version: Option<VersionFault>,
    /// In `key_id`. The apiserver does not use this answer.
    pub key_id: Option<KeyIdFault>,
}

impl StatusFaults {
    /// All of them, in the apiserver's order.
    pub fn all(&self) -> Vec<String> {
        let healthz = self.healthz.as_ref().map(ToString::to_string);
        let version = self.version.as_ref().map(ToString::to_string);
        let key_id = self.key_id.as_ref().map(ToString::to_string);
        healthz.into_iter().chain(version).chain(key_id).collect()
    }
}

/// Everything that is wrong with an answer of Encrypt by itself. Its key id must besides be the one
/// that Status answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptFaults {
    /// In `ciphertext`.
    pub ciphertext: Option<CiphertextFault>,
    /// In `key_id`.
    pub key_id: Option<KeyIdFault>,
    /// In `annotations`.
    pub annotations: Vec<AnnotationFault>,
}

impl EncryptFaults {
    /// All of them, in the apiserver's order.
    pub fn all(&self) -> Vec<String> {
        let ciphertext = self.ciphertext.as_ref().map(ToString::to_string);
        let key_id = self.key_id.as_ref().map(ToString::to_string);
        let annotations = self.annotations.iter().map(ToString::to_string);
        ciphertext
            .into_iter()
            .chain(key_id)
            .chain(annotations)
            .collect()
    }
}

/// Checks an answer of Status. `first_version` is the first one that [`accepted_version`] accepted
/// from this plugin, if one was.
pub fn status(answer: &StatusResponse, first_version: Option<&str>) -> StatusFaults {
    StatusFaults {
        healthz: (answer.healthz != OK).then(|| Unhealthy(answer.healthz.clone())),
        version: version(&answer.version, first_version).err(),
        key_id: key_id(&answer.key_id).err(),
    }
}

/// Whether the apiserver knows this `version` of Status.
pub fn accepted_version(version: &str) -> bool {
    VERSIONS.contains(&version)
}

/// Checks an answer of Encrypt by itself.
pub fn encrypted(answer: &EncryptResponse) -> EncryptFaults {
    EncryptFaults {
        ciphertext: ciphertext(&answer.ciphertext).err(),
        key_id: key_id(&answer.key_id).err(),
        annotations: annotations(&answer.annotations),
    }
}

fn version(now: &str, first: Option<&str>) -> Result<(), VersionFault> {
    if !accepted_version(now) {
        return Err(VersionFault::Unknown(now.to_owned()));
    }
    match first {
        Some(first) if first != now => Err(VersionFault::Changed {
            first: first.to_owned(),
            now: now.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn key_id(key_id: &str) -> Result<(), KeyIdFault> {
    match key_id.len() {
        0 => Err(KeyIdFault::Empty),
        1..=MAX_KEY_ID => Ok(()),
        len => Err(KeyIdFault::TooLong(len)),
    }
}

fn ciphertext(ciphertext: &[u8]) -> Result<(), CiphertextFault> {
    match ciphertext.len() {
        0 => Err(CiphertextFault::Empty),
        1..=MAX_CIPHERTEXT => Ok(()),
        len => Err(CiphertextFault::TooLong(len)),
    }
}

fn annotations(annotations: &BTreeMap<String, Vec<u8>>) -> Vec<AnnotationFault> {
    let total: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let keys = annotations
        .keys()
        .filter(|key| !is_fully_qualified_domain_name(key));
    let mut faults: Vec<_> = keys.cloned().map(AnnotationFault::Key).collect();
    if total > MAX_ANNOTATIONS {
        faults.push(AnnotationFault::TooLong(total));
    }
    faults
}

/// A lower-case RFC 1123 subdomain of at least two labels; one trailing dot is allowed.
fn is_fully_qualified_domain_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= MAX_DOMAIN && name.contains('.') && name.split('.').all(is_label)
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 bytes.
fn is_label(label: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match label.as_bytes() {
        [first, .., last] if label.len() <= MAX_LABEL => {
            alphanumeric(*first)
                && alphanumeric(*last)
                && label.bytes().all(|byte| alphanumeric(byte) || byte == b'-')
        }
        [only] => alphanumeric(*only),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
