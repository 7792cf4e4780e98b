//! What one stored value says of itself: whose it is, and what protects it.
//!
//! Only the header is read. Of a KMS v2 envelope that is everything but the encrypted data, which is
//! stepped over and never copied, so the cost does not depend on the object's size.
//!
//! ```text
//! /registry/secrets/prod/db          k8s:enc:kms:v2:<provider>:<EncryptedObject>
//! └ prefix ┘└ kind ┘└ns┘ └ name      k8s:enc:aescbc:v1:<key>:…   k8s\0… or {…}: plaintext
//! ```
//!
//! Source: k8s.io/apiserver 0.37, `encryptionconfig/config.go` (prefixes),
//! `envelope/kmsv2/v2/api.proto` (fields), `envelope/kmsv2/envelope.go`, `validateEncryptedObject`.

mod envelope;
mod resource;

use std::fmt;

pub(crate) use envelope::Envelope;
pub use resource::Resource;

/// What every encrypted value begins with.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// Where a name in a header ends at the latest. kube-apiserver sets no limit; what is longer is not
/// a name.
const LONGEST_NAME: usize = 1024;

/// The place of one object in etcd, as its key says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// What kind of object it is, as the key has it: `secrets`, `services/specs`,
    /// `example.com/widgets`. [`Resource::stored_under`] makes the API's name of it.
    pub kind: &'a str,
    /// Its namespace, unless it belongs to the whole cluster.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
}

impl<'a> Name<'a> {
    /// Reads a key. `None` where it is not below the prefix (`/registry`, without a final slash), or
    /// is not text.
    pub fn parse(key: &'a [u8], prefix: &str) -> Option<Self> {
        let path = std::str::from_utf8(key).ok()?;
        let path = path.strip_prefix(prefix)?.strip_prefix('/')?;
        // A group of custom resources has a dot, and no resource of Kubernetes' own has one.
        let first = path.split('/').next()?;
        let levels = if first.contains('.') || first == "services" {
            2
        } else {
            1
        };
        let end = path.match_indices('/').nth(levels - 1);
        let Some((end, _)) = end else {
            return Some(Self {
                kind: path,
                namespace: None,
                name: "",
            });
        };
        let (kind, rest) = (&path[..end], &path[end + 1..]);
        // The tally separates names by NUL.
        if kind.contains('\0') {
            return None;
        }
        let (namespace, name) = match rest.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, rest),
        };
        Some(Self {
            kind,
            namespace,
            name,
        })
    }
}

impl fmt::Display for Name<'_> {
    /// `secrets/prod/db`, and `namespaces/prod`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = Resource::stored_under(self.kind);
        write!(f, "{resource}/")?;
        if let Some(namespace) = self.namespace {
            write!(f, "{}/", namespace.escape_debug())?;
        }
        write!(f, "{}", self.name.escape_debug())
    }
}

/// What protects one value, as its header says it. It borrows from the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header<'a> {
    /// Nothing: whatever does not begin with `k8s:enc:`.
    Plaintext,
    /// A KMS v2 plugin.
    KmsV2 {
        /// The provider's name.
        provider: &'a str,
        /// The key id that the plugin answered; of ours, `k1-…`.
        key_id: &'a str,
    },
    /// Another provider of an EncryptionConfiguration, or one that we do not know.
    Other {
        /// What stands between `k8s:enc:` and the name: `aescbc:v1`, `kms:v1`.
        scheme: &'a str,
        /// The name of the key, or of the KMS v1 provider.
        name: &'a str,
    },
}

/// What protects some values. [`Header`] that owns what it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protection {
    /// Nothing.
    Plaintext,
    /// A key of a KMS v2 plugin.
    KmsV2 {
        /// The provider's name.
        provider: String,
        /// The key id.
        key_id: String,
    },
    /// A key of another provider.
    Other {
        /// Kind and version: `aescbc:v1`.
        scheme: String,
        /// The name of the key, or of the KMS v1 provider.
        name: String,
    },
}

/// Why a value's header says nothing that may be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Malformed {
    /// `k8s:enc:` without what must follow.
    #[error("its header ends in the middle")]
    Header,
    /// A name that is empty, not UTF-8 or has control characters.
    #[error("its header has a name that is no text")]
    Name,
    /// A KMS v2 envelope that is no protobuf message.
    #[error("its envelope is cut off or is no protobuf message")]
    Envelope,
    /// A message without a key id, or with one that kube-apiserver refuses.
    #[error("its envelope has no key id of 1 to 1024 bytes")]
    KeyId,
    /// A message without a wrapped seed, or with one that kube-apiserver refuses.
    #[error("its envelope has no wrapped seed of 1 to 1024 bytes")]
    Seed,
    /// A message without data.
    #[error("its envelope has no encrypted data")]
    Data,
    /// A kind of seed that kube-apiserver refuses.
    #[error("its envelope names an unknown kind of seed")]
    SeedKind,
    /// An encrypted value under a key that is not text.
    #[error("its key in etcd is no text")]
    Key,
    /// More kinds of protection than are counted one by one.
    #[error("there are too many different keys to count one by one")]
    TooMany,
}

impl<'a> Header<'a> {
    /// Reads a value's header.
    ///
    /// # Errors
    /// Where the value says that it is encrypted and kube-apiserver could not read it. Such a value
    /// is listed, and never counted as anything.
    pub fn parse(value: &'a [u8]) -> Result<Self, Malformed> {
        let Some(rest) = value.strip_prefix(ENCRYPTED) else {
            return Ok(Self::Plaintext);
        };
        let (_, after) = part(rest)?;
        let (_, after_version) = part(after)?;
        let scheme = text(&rest[..rest.len() - after_version.len() - 1])?;
        let (name, payload) = part(after_version)?;
        let name = text(name)?;
        match scheme {
            "kms:v2" => Ok(Self::KmsV2 {
                provider: name,
                key_id: Envelope::parse(payload)?.key_id()?,
            }),
            "kms:v1" => match payload {
                // The wrapped key's length, big-endian, and then the wrapped key.
                [high, low, rest @ ..]
                    if rest.len() > usize::from(u16::from_be_bytes([*high, *low])) =>
                {
                    Ok(Self::Other { scheme, name })
                }
                _ => Err(Malformed::Envelope),
            },
            _ if payload.is_empty() => Err(Malformed::Data),
            _ => Ok(Self::Other { scheme, name }),
        }
    }

    /// The same, owned.
    pub fn to_protection(self) -> Protection {
        match self {
            Self::Plaintext => Protection::Plaintext,
            Self::KmsV2 { provider, key_id } => Protection::KmsV2 {
                provider: provider.to_owned(),
                key_id: key_id.to_owned(),
            },
            Self::Other { scheme, name } => Protection::Other {
                scheme: scheme.to_owned(),
                name: name.to_owned(),
            },
        }
    }
}

impl Protection {
    /// The same, borrowed.
    pub fn as_header(&self) -> Header<'_> {
        match self {
            Self::Plaintext => Header::Plaintext,
            Self::KmsV2 { provider, key_id } => Header::KmsV2 { provider, key_id },
            Self::Other { scheme, name } => Header::Other { scheme, name },
        }
    }
}

impl fmt::Display for Protection {
    /// `plaintext`, `aescbc:key1`, `claviger/k1-…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext => f.write_str("plaintext"),
            Self::KmsV2 { provider, key_id } => {
                write!(f, "{}/{}", provider.escape_debug(), key_id.escape_debug())
            }
            Self::Other { scheme, name } => {
                // Only KMS has two versions.
                let scheme = match scheme.strip_suffix(":v1") {
                    Some(kind) if kind != "kms" => kind,
                    _ => scheme,
                };
                write!(f, "{}:{}", scheme.escape_debug(), name.escape_debug())
            }
        }
    }
}

/// What ends at the next colon, and what follows it.
fn part(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let within = &bytes[..bytes.len().min(LONGEST_NAME + 1)];
    let end = within.iter().position(|byte| *byte == b':');
    let end = end.ok_or(Malformed::Header)?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => Ok(text),
        _ => Err(Malformed::Name),
    }
}

#[cfg(test)]
mod tests;
