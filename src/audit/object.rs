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

use std::fmt;

use serde::Serialize;

/// What every encrypted value begins with.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// Where a name in a header ends at the latest. kube-apiserver sets no limit; what is longer is not
/// a name.
const LONGEST_NAME: usize = 1024;

/// The longest key id and the longest wrapped seed that kube-apiserver accepts, in bytes.
const LONGEST_FIELD: usize = 1024;

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

/// A resource of the API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Its name in the plural.
    pub name: String,
    /// Its API group; empty is the core group. `None` where the key does not say it and we do not
    /// know the resource.
    pub group: Option<String>,
}

impl Resource {
    /// The resource whose objects lie under this kind of key.
    ///
    /// Source: `SpecialDefaultResourcePrefixes` of k8s.io/kubernetes, `pkg/kubeapiserver`; custom
    /// resources, CustomResourceDefinitions and APIServices lie under `GROUP/RESOURCE`.
    pub fn stored_under(kind: &str) -> Self {
        let known = |name: &str, group: &str| Self {
            name: name.to_owned(),
            group: Some(group.to_owned()),
        };
        match kind {
            "minions" => known("nodes", ""),
            "controllers" => known("replicationcontrollers", ""),
            "services/specs" => known("services", ""),
            "services/endpoints" => known("endpoints", ""),
            "ingress" => known("ingresses", "networking.k8s.io"),
            _ => match kind.split_once('/') {
                Some((group, name)) => known(name, group),
                None => match GROUPS.iter().find(|(_, names)| names.contains(&kind)) {
                    Some((group, _)) => known(kind, group),
                    None => Self {
                        name: kind.to_owned(),
                        group: None,
                    },
                },
            },
        }
    }

    /// Whether kube-apiserver keeps this for itself, never encrypted even by `*.*`.
    ///
    /// Source: `TestEncryptAll` of k8s.io/kubernetes, `test/integration/controlplane`.
    pub fn is_internal(&self) -> bool {
        self.group.is_none()
            && ["masterleases", "peerserverleases", "ranges"].contains(&self.name.as_str())
    }
}

impl fmt::Display for Resource {
    /// As kubectl has it: `secrets`, `leases.coordination.k8s.io`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name.escape_debug())?;
        match self.group.as_deref() {
            None | Some("") => Ok(()),
            Some(group) => write!(f, ".{}", group.escape_debug()),
        }
    }
}

impl Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The groups of Kubernetes' own resources, whose keys do not name them. Kubernetes 1.37.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "events",
            "limitranges",
            "namespaces",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "podtemplates",
            "resourcequotas",
            "secrets",
            "serviceaccounts",
        ],
    ),
    (
        "admissionregistration.k8s.io",
        &[
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
        ],
    ),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets",
            "deployments",
            "replicasets",
            "statefulsets",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    (
        "certificates.k8s.io",
        &[
            "certificatesigningrequests",
            "clustertrustbundles",
            "podcertificaterequests",
        ],
    ),
    ("coordination.k8s.io", &["leasecandidates", "leases"]),
    ("discovery.k8s.io", &["endpointslices"]),
    (
        "flowcontrol.apiserver.k8s.io",
        &["flowschemas", "prioritylevelconfigurations"],
    ),
    ("internal.apiserver.k8s.io", &["storageversions"]),
    (
        "networking.k8s.io",
        &[
            "ingressclasses",
            "ingresses",
            "ipaddresses",
            "networkpolicies",
            "servicecidrs",
        ],
    ),
    ("node.k8s.io", &["runtimeclasses"]),
    ("policy", &["poddisruptionbudgets"]),
    (
        "rbac.authorization.k8s.io",
        &[
            "clusterrolebindings",
            "clusterroles",
            "rolebindings",
            "roles",
        ],
    ),
    (
        "resource.k8s.io",
        &[
            "deviceclasses",
            "devicetaintrules",
            "resourceclaims",
            "resourceclaimtemplates",
            "resourceslices",
        ],
    ),
    ("scheduling.k8s.io", &["priorityclasses"]),
    (
        "storage.k8s.io",
        &[
            "csidrivers",
            "csinodes",
            "csistoragecapacities",
            "storageclasses",
            "volumeattachments",
            "volumeattributesclasses",
        ],
    ),
    ("storagemigration.k8s.io", &["storageversionmigrations"]),
];

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

/// A KMS v2 envelope, of which nothing is copied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Envelope<'a> {
    /// What the seed encrypts.
    pub(crate) data: &'a [u8],
    key_id: &'a [u8],
    /// The wrapped seed.
    pub(crate) seed: &'a [u8],
    /// 0: the wrapped key itself encrypts; 1: a key derived from it does.
    pub(crate) seed_kind: u64,
}

impl<'a> Envelope<'a> {
    /// Reads the message as protobuf says: the last of repeated fields counts, and unknown fields
    /// do not.
    pub(crate) fn parse(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut envelope = Self::default();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let field = u32::try_from(tag >> 3).map_err(|_| Malformed::Envelope)?;
            match (field, tag & 7) {
                (1, 2) => envelope.data = delimited(&mut bytes)?,
                (2, 2) => envelope.key_id = delimited(&mut bytes)?,
                (3, 2) => envelope.seed = delimited(&mut bytes)?,
                (5, 0) => envelope.seed_kind = varint(&mut bytes)?,
                (0, _) => return Err(Malformed::Envelope),
                (_, 0) => drop(varint(&mut bytes)?),
                (_, 1) => drop(take(&mut bytes, 8)?),
                (_, 2) => drop(delimited(&mut bytes)?),
                (_, 5) => drop(take(&mut bytes, 4)?),
                _ => return Err(Malformed::Envelope),
            }
        }
        Ok(envelope)
    }

    /// The key id, if kube-apiserver would accept the message.
    fn key_id(&self) -> Result<&'a str, Malformed> {
        let fits = |field: &[u8]| (1..=LONGEST_FIELD).contains(&field.len());
        if self.seed_kind > 1 {
            return Err(Malformed::SeedKind);
        }
        if self.data.is_empty() {
            return Err(Malformed::Data);
        }
        if !fits(self.seed) {
            return Err(Malformed::Seed);
        }
        if !fits(self.key_id) {
            return Err(Malformed::KeyId);
        }
        std::str::from_utf8(self.key_id).map_err(|_| Malformed::Envelope)
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    prost::encoding::decode_varint(bytes).map_err(|_| Malformed::Envelope)
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = varint(bytes)?;
    take(
        bytes,
        usize::try_from(len).map_err(|_| Malformed::Envelope)?,
    )
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or(Malformed::Envelope)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests;
