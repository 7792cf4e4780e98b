//! One KEK: its bytes, and what the header says of it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::error::Error;
pub use crate::key_id::{KeyId, KeyIdMalformed, KeyState};
use crate::secret::{SECRET_LEN, Secret};

/// A key-encryption key: 32 bytes that are never used directly, only derived from.
pub struct Kek(Secret);

impl Kek {
    /// A fresh KEK from the operating system's generator.
    pub fn generate() -> Result<Self, Error> {
        Secret::random().map(Self)
    }

    /// A KEK with these bytes.
    pub fn from_bytes(bytes: &[u8; SECRET_LEN]) -> Result<Self, Error> {
        Secret::copy_of(bytes).map(Self)
    }

    /// The key id: the first 16 bytes of `D(KEK, "claviger/v1/kek/id")`. It is public, the same on
    /// every node, and a check value of the bytes.
    pub fn id(&self) -> Result<KeyId, Error> {
        let derived = self.0.derive("claviger/v1/kek/id")?;
        let mut id = [0; KeyId::LEN];
        id.copy_from_slice(&derived.expose()[..KeyId::LEN]);
        Ok(KeyId(id))
    }

    /// The key under which seeds are sealed: `D(KEK, "claviger/v1/kek/seal")`.
    pub(crate) fn sealing_key(&self) -> Result<Secret, Error> {
        self.0.derive("claviger/v1/kek/seal")
    }

    /// The bytes, for the document's body.
    pub(crate) fn expose(&self) -> &[u8; SECRET_LEN] {
        self.0.expose()
    }

    /// Whether both are the same key, in constant time.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(…)")
    }
}

/// What the header says of one KEK: its id, its state and when it entered each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyInfo {
    /// The key id.
    pub id: KeyId,
    /// Where it stands.
    pub state: KeyState,
    /// When it was made.
    pub created: Timestamp,
    /// When it became primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activated: Option<Timestamp>,
    /// When it last became retired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired: Option<Timestamp>,
    /// When it last became disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Timestamp>,
    /// When its bytes were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destroyed: Option<Timestamp>,
}

impl KeyInfo {
    pub(crate) fn staged(id: KeyId, created: Timestamp) -> Self {
        Self {
            id,
            state: KeyState::Staged,
            created,
            activated: None,
            retired: None,
            disabled: None,
            destroyed: None,
        }
    }

    /// When it entered its state.
    pub fn since(&self) -> Option<Timestamp> {
        match self.state {
            KeyState::Staged => Some(self.created),
            KeyState::Primary => self.activated,
            KeyState::Retired => self.retired,
            KeyState::Disabled => self.disabled,
            KeyState::Destroyed => self.destroyed,
        }
    }

    /// Enters `state` at `now`; the caller has checked that the change is legal.
    pub(crate) fn enter(&mut self, state: KeyState, now: Timestamp) {
        self.state = state;
        match state {
            KeyState::Staged => {}
            KeyState::Primary => self.activated = Some(now),
            KeyState::Retired => self.retired = Some(now),
            KeyState::Disabled => self.disabled = Some(now),
            KeyState::Destroyed => self.destroyed = Some(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascending() -> [u8; SECRET_LEN] {
        std::array::from_fn(|i| i as u8)
    }

    #[test]
    fn golden_key_id() {
        let id = Kek::from_bytes(&ascending()).unwrap().id().unwrap();
        assert_eq!(id.to_string(), "k1-ed41dddad06fa5a51ae4b71183601342");
        assert_eq!(id.short(), "ed41ddda");
    }
}
