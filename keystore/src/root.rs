//! Roots: what lies outside and wraps the keyring key. One trait, one file per kind.

pub mod key_file;
pub mod recovery;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::document::KeyringKey;
use crate::error::{DocumentError, Error, RootError};
use crate::header::{Base64, ClusterId, Kdf, KeyringKeyId, Slot, SlotId, SlotKind};
use crate::keyring::whole_second;
use crate::secret::{SECRET_LEN, Secret, length_prefixed};

/// Length in bytes of what a root wraps: the keyring key, and what binds it to its slot.
pub const PAYLOAD_LEN: usize = 2 * SECRET_LEN;

/// One way to protect the keyring key.
///
/// Roots are asked when the keyring is opened and then in the background, never by a request.
#[async_trait]
pub trait Root: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &str;

    /// Its kind, which its slots carry.
    fn kind(&self) -> SlotKind;

    /// Wraps a payload for the slot that `binding` names.
    async fn wrap(&self, binding: &Binding, payload: &Payload) -> Result<Wrapped, RootError>;

    /// Unwraps what [`Root::wrap`] made for the same slot, and nothing else.
    ///
    /// # Errors
    /// [`RootError::NotMine`] where it answered and the payload is not its own; the other classes
    /// where it did not come that far.
    async fn unwrap(&self, binding: &Binding, wrapped: &Wrapped) -> Result<Payload, RootError>;

    /// Whether it can be used at all, without any slot.
    async fn check(&self) -> Result<(), RootError>;
}

/// What a root returns, as a slot keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The root's own bytes.
    pub payload: Vec<u8>,
    /// How a passphrase becomes a key.
    pub kdf: Option<Kdf>,
}

/// What a slot's payload is bound to: S of the format, the AAD where the root has one.
#[derive(Debug, Clone)]
pub struct Binding(Vec<u8>);

impl Binding {
    /// `LP("claviger/v1/slot", cluster id, slot id, root kind, keyringKeyId)`.
    pub fn new(
        cluster_id: &ClusterId,
        slot_id: &SlotId,
        kind: SlotKind,
        keyring_key_id: &KeyringKeyId,
    ) -> Self {
        Self(length_prefixed(&[
            b"claviger/v1/slot",
            &cluster_id.0,
            &slot_id.0,
            kind.as_str().as_bytes(),
            &keyring_key_id.0,
        ]))
    }

    /// The bytes of S.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

/// What a root wraps: the keyring key, then the SHA-256 of what it is bound to. The second half
/// holds a root to its slot even where it knows no AAD.
pub struct Payload(Zeroizing<Vec<u8>>);

impl Payload {
    fn new(key: &KeyringKey, binding: &Binding) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(PAYLOAD_LEN));
        bytes.extend_from_slice(key.0.expose());
        bytes.extend_from_slice(&binding.digest());
        Self(bytes)
    }

    /// The 64 bytes that a root unwrapped.
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Result<Self, RootError> {
        match bytes.len() {
            PAYLOAD_LEN => Ok(Self(bytes)),
            len => Err(RootError::NotMine(format!(
                "it unwrapped {len} bytes, where a slot holds {PAYLOAD_LEN}"
            ))),
        }
    }

    /// The 64 bytes, for the root to wrap.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The keyring key, if both halves are right; compared in constant time.
    pub(crate) fn into_key(
        self,
        binding: &Binding,
        id: &KeyringKeyId,
    ) -> Result<KeyringKey, Error> {
        let other = || DocumentError::OtherKeyringKey;
        let (key, bound) = self.0.split_first_chunk().ok_or_else(other)?;
        let key = KeyringKey(Secret::copy_of(key)?);
        let right = bound.ct_eq(&binding.digest()) & key.id()?.0.ct_eq(&id.0);
        if bool::from(right) {
            Ok(key)
        } else {
            Err(other().into())
        }
    }
}

/// Wraps the keyring key with a root, and unwraps it again before the slot is believed.
pub async fn make_slot(
    root: &dyn Root,
    key: &KeyringKey,
    cluster_id: &ClusterId,
    now: jiff::Timestamp,
) -> Result<Slot, Error> {
    let named = |source| Error::Root {
        name: root.name().to_owned(),
        source,
    };
    let (id, key_id) = (SlotId::random()?, key.id()?);
    let binding = Binding::new(cluster_id, &id, root.kind(), &key_id);
    let wrapped = root
        .wrap(&binding, &Payload::new(key, &binding))
        .await
        .map_err(named)?;
    let slot = Slot {
        id,
        kind: root.kind(),
        name: root.name().to_owned(),
        created: whole_second(now),
        payload: Base64(wrapped.payload),
        kdf: wrapped.kdf,
    };
    open_slot(root, &slot, cluster_id, &key_id).await?;
    Ok(slot)
}

/// Unwraps a slot with a root.
pub async fn open_slot(
    root: &dyn Root,
    slot: &Slot,
    cluster_id: &ClusterId,
    keyring_key_id: &KeyringKeyId,
) -> Result<KeyringKey, Error> {
    let binding = Binding::new(cluster_id, &slot.id, slot.kind, keyring_key_id);
    let wrapped = Wrapped {
        payload: slot.payload.0.clone(),
        kdf: slot.kdf.clone(),
    };
    let payload = root
        .unwrap(&binding, &wrapped)
        .await
        .map_err(|source| Error::Root {
            name: root.name().to_owned(),
            source,
        })?;
    payload.into_key(&binding, keyring_key_id)
}

/// Whether this root made that slot: a recovery key is the same under any name, every other root
/// goes by its name.
pub fn matches(root: &dyn Root, slot: &Slot) -> bool {
    root.kind() == slot.kind && (slot.kind == SlotKind::Recovery || root.name() == slot.name)
}
