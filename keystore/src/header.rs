//! What the document's first line says: everything about a keyring that is not secret.
//!
//! The structs' fields are the JSON's, in its order. Before the document is opened, none of this
//! may be believed; it only selects a slot.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de, ser};

use crate::error::{DocumentError, Error};
use crate::key::{KeyId, KeyInfo, KeyState};
pub use crate::limits::MAX_KEYS;
use crate::secret::random_bytes;

/// The document format that is written, and the only one that is read.
pub(crate) const FORMAT: u64 = 1;

/// How many changes of the keyring key a header remembers.
pub(crate) const MAX_PROOFS: usize = 16;
/// How many merged documents a header names.
pub(crate) const MAX_MERGED: usize = 16;

/// `N` bytes that stand as lower-case hex in JSON and on screens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// The immutable identity of a cluster, made at random by `init`; bound into every ciphertext.
pub type ClusterId = Hex<16>;
/// The identity of one slot, made at random.
pub type SlotId = Hex<8>;
/// The SHA-256 of a whole document.
pub type DocumentHash = Hex<32>;
/// What the header shows of the keyring key: `D(KK, "claviger/v1/keyring/id")`.
pub type KeyringKeyId = Hex<32>;

impl<const N: usize> Hex<N> {
    /// All zeros: `previous` at revision 1.
    pub const ZERO: Self = Self([0; N]);

    /// Fresh random bytes.
    pub(crate) fn random() -> Result<Self, Error> {
        let mut bytes = [0; N];
        random_bytes(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; N];
        if text.len() != 2 * N || HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_err() {
            return Err(format!("expected {} lower-case hex digits", 2 * N));
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Bytes that stand as padded standard base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64
            .decode(text.as_bytes())
            .map(Self)
            .map_err(de::Error::custom)
    }
}

/// The document's first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// Always 1.
    pub format: u64,
    /// Which cluster the keys belong to.
    pub cluster_id: ClusterId,
    /// A name for people; it may be empty.
    pub cluster_name: String,
    /// Grows by one with every commit; 1 is the one that `init` writes.
    pub revision: u64,
    /// The hash of the document before this one.
    pub previous: DocumentHash,
    /// Which keyring key seals the body and lies in every slot.
    pub keyring_key_id: KeyringKeyId,
    /// The last 16 changes of the keyring key.
    pub rekey_proofs: Vec<RekeyProof>,
    /// The last 16 documents that were merged into this one.
    pub merged: Vec<Merged>,
    /// What must be the same on every node.
    pub policy: Policy,
    /// Every KEK that ever was, in the order of their making.
    pub keys: Vec<KeyInfo>,
    /// The keyring key, wrapped by each root.
    pub slots: Vec<Slot>,
}

/// That whoever held one keyring key made the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RekeyProof {
    /// The keyring key before.
    pub from: KeyringKeyId,
    /// The keyring key after.
    pub to: KeyringKeyId,
    /// The revision that brought it.
    pub revision: u64,
    /// HMAC-SHA-256 under the key before.
    pub proof: Hex<32>,
}

/// One document that was merged into this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merged {
    /// Its hash.
    pub sha256: DocumentHash,
    /// The revision that merged it.
    pub revision: u64,
}

/// What must be the same on every node. Durations in seconds; 0 is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// How old the primary KEK may get before a rotation starts by itself.
    pub rotate_every: u64,
    /// How long a KEK stays disabled before it may be destroyed.
    pub disabled_for: u64,
    /// How long etcd snapshots are kept.
    pub snapshot_retention: u64,
    /// After how long without a sign a member is removed.
    pub remove_member_after: u64,
    /// The names of the nodes that copy a `file` keyring.
    pub replicas: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            rotate_every: 0,
            disabled_for: 7 * DAY,
            snapshot_retention: 30 * DAY,
            remove_member_after: 0,
            replicas: Vec::new(),
        }
    }
}

/// The kind of root that wrapped a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotKind {
    /// 32 bytes in a file or a systemd credential.
    KeyFile,
    /// 32 bytes on paper.
    Recovery,
    /// A passphrase.
    Passphrase,
    /// Transit of Vault or OpenBao.
    Vault,
    /// AWS KMS.
    AwsKms,
    /// Azure Key Vault.
    AzureKeyVault,
    /// Google Cloud KMS.
    GcpKms,
    /// A hardware security module.
    Pkcs11,
}

impl SlotKind {
    /// The word of the document, of AADs and of screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyFile => "key-file",
            Self::Recovery => "recovery",
            Self::Passphrase => "passphrase",
            Self::Vault => "vault",
            Self::AwsKms => "aws-kms",
            Self::AzureKeyVault => "azure-key-vault",
            Self::GcpKms => "gcp-kms",
            Self::Pkcs11 => "pkcs11",
        }
    }
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The keyring key as one root wrapped it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Random; bound into the payload.
    pub id: SlotId,
    /// The kind of root.
    pub kind: SlotKind,
    /// The root's name in the configuration.
    pub name: String,
    /// When it was wrapped.
    pub created: Timestamp,
    /// What the root returned.
    pub payload: Base64,
    /// How a passphrase becomes a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kdf: Option<Kdf>,
}

impl Slot {
    /// Parameters are believed before anything is authenticated, so they are bounded here.
    fn check_kdf(&self) -> Result<(), DocumentError> {
        let Some(kdf) = &self.kdf else {
            return match self.kind {
                SlotKind::Passphrase => Err(DocumentError::Value("a passphrase slot without kdf")),
                _ => Ok(()),
            };
        };
        let bounded = (65_536..=1_048_576).contains(&kdf.m)
            && (3..=10).contains(&kdf.t)
            && (1..=8).contains(&kdf.p);
        if self.kind != SlotKind::Passphrase || kdf.name != "argon2id" || kdf.salt.0.len() != 16 {
            return Err(DocumentError::Value(
                "a kdf that is not a passphrase's argon2id",
            ));
        }
        if bounded {
            Ok(())
        } else {
            Err(DocumentError::Value("kdf parameters out of bounds"))
        }
    }
}

/// Argon2id's parameters (RFC 9106).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kdf {
    /// Always `argon2id`.
    pub name: String,
    /// 16 random bytes.
    pub salt: Base64,
    /// Memory in KiB.
    pub m: u32,
    /// Passes.
    pub t: u32,
    /// Lanes.
    pub p: u32,
}

impl Header {
    /// The primary key's id, if there is one.
    pub fn primary(&self) -> Option<KeyId> {
        self.in_state(KeyState::Primary)
    }

    /// The staged key's id, if a rotation is under way.
    pub fn staged(&self) -> Option<KeyId> {
        self.in_state(KeyState::Staged)
    }

    /// What it says of one key.
    pub fn key(&self, id: &KeyId) -> Option<&KeyInfo> {
        self.keys.iter().find(|key| key.id == *id)
    }

    fn in_state(&self, state: KeyState) -> Option<KeyId> {
        let key = self.keys.iter().find(|key| key.state == state)?;
        Some(key.id)
    }

    /// Reads the document's first line, which must be byte for byte what [`Header::to_line`] writes.
    pub(crate) fn from_line(line: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u64,
        }
        let unreadable = |e: serde_json::Error| DocumentError::Header(e.to_string());
        // A newer format may have any fields, so its number is read by itself first.
        let FormatOnly { format } = serde_json::from_slice(line).map_err(unreadable)?;
        if format == 0 {
            return Err(DocumentError::Value("format 0"));
        }
        if format != FORMAT {
            return Err(DocumentError::NewerFormat(format));
        }
        let header: Self = serde_json::from_slice(line).map_err(unreadable)?;
        if header.to_line()? != line {
            return Err(DocumentError::NotCanonical);
        }
        header.check()?;
        Ok(header)
    }

    /// The one way in which this header is written.
    pub(crate) fn to_line(&self) -> Result<Vec<u8>, DocumentError> {
        serde_json::to_vec(self).map_err(|e| DocumentError::Header(e.to_string()))
    }

    /// Refuses what no keyring of ours can say, opened or not.
    pub(crate) fn check(&self) -> Result<(), DocumentError> {
        let impossible = |what| Err(DocumentError::Value(what));
        if self.revision == 0 {
            return impossible("revision 0");
        }
        if (self.revision == 1) != (self.previous == DocumentHash::ZERO) {
            return impossible("only revision 1 has no previous document");
        }
        if self.slots.is_empty() {
            return impossible("no slot");
        }
        if self.rekey_proofs.len() > MAX_PROOFS || self.merged.len() > MAX_MERGED {
            return impossible("more than 16 rekey proofs or merged documents");
        }
        if self.rekey_proofs.iter().any(|proof| proof.revision == 0)
            || self.merged.iter().any(|merged| merged.revision == 0)
        {
            return impossible("revision 0");
        }
        let tombstones = |key: &&KeyInfo| key.state == KeyState::Destroyed;
        let kept = self.keys.len() - self.keys.iter().filter(tombstones).count();
        if kept > MAX_KEYS {
            return Err(DocumentError::TooManyKeys(kept));
        }
        for slot in &self.slots {
            slot.check_kdf()?;
        }
        self.check_dates()?;
        self.check_duplicates()
    }

    fn check_dates(&self) -> Result<(), DocumentError> {
        let slots = self.slots.iter().map(|slot| slot.created);
        let keys = self.keys.iter().flat_map(|key| {
            [
                Some(key.created),
                key.activated,
                key.retired,
                key.disabled,
                key.destroyed,
            ]
        });
        match slots
            .chain(keys.flatten())
            .any(|date| date.subsec_nanosecond() != 0)
        {
            true => Err(DocumentError::Value("a date with a fraction of a second")),
            false => Ok(()),
        }
    }

    fn check_duplicates(&self) -> Result<(), DocumentError> {
        let mut ids = std::collections::HashSet::new();
        if let Some(twice) = self.keys.iter().find(|key| !ids.insert(key.id)) {
            return Err(DocumentError::DuplicateKey(twice.id));
        }
        let mut slots = std::collections::HashSet::new();
        if let Some(twice) = self.slots.iter().find(|slot| !slots.insert(slot.id)) {
            return Err(DocumentError::DuplicateSlot(twice.id.to_string()));
        }
        let primaries = self
            .keys
            .iter()
            .filter(|key| key.state == KeyState::Primary)
            .count();
        if primaries > 1 {
            Err(DocumentError::TwoPrimaries)
        } else {
            Ok(())
        }
    }
}
