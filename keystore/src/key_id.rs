//! The public name of a KEK, and the states of its life: what errors and logs may say of a key.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize, de, ser};
use thiserror::Error;

/// A text that is no key id.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
#[error("a key id is k1- followed by 32 lower-case hex digits")]
pub struct KeyIdMalformed;

/// The public name of a KEK: `k1-` and 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(crate) [u8; Self::LEN]);

impl KeyId {
    /// Length in bytes of the raw id.
    pub const LEN: usize = 16;
    const PREFIX: &str = "k1-";

    /// The 16 raw bytes, as they stand in AADs.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The first eight hex digits, for screens.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..4])
    }

    /// The text that kube-apiserver's metrics show in the place of the id: `sha256:` and the
    /// lower-case hex SHA-256 of the id's text (KEP-3299, label `key_id_hash`).
    pub fn apiserver_hash(&self) -> String {
        use sha2::{Digest, Sha256};
        format!(
            "sha256:{}",
            HEXLOWER.encode(&Sha256::digest(self.to_string().as_bytes()))
        )
    }
}

impl FromStr for KeyId {
    type Err = KeyIdMalformed;

    /// Reads exactly the form that [`fmt::Display`] writes; nothing is trimmed or folded.
    fn from_str(text: &str) -> Result<Self, KeyIdMalformed> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(KeyIdMalformed)?;
        let mut id = [0; Self::LEN];
        if digits.len() != 2 * Self::LEN {
            return Err(KeyIdMalformed);
        }
        HEXLOWER
            .decode_mut(digits.as_bytes(), &mut id)
            .map_err(|_| KeyIdMalformed)?;
        Ok(Self(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every answer of Encrypt and Status has this text, so it is made in one piece.
        const PREFIX: usize = KeyId::PREFIX.len();
        let mut text = [0; PREFIX + 2 * KeyId::LEN];
        text[..PREFIX].copy_from_slice(Self::PREFIX.as_bytes());
        HEXLOWER.encode_mut(&self.0, &mut text[PREFIX..]);
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for KeyId {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Where a KEK stands in its life.
///
/// ```text
/// staged ──▶ primary ──▶ retired ◀──▶ disabled ──▶ destroyed
///    └───────────────────────────────────────────────▲
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Every member can decrypt with it; nobody writes with it.
    Staged,
    /// The one that writes.
    Primary,
    /// Decrypts only.
    Retired,
    /// Refuses; its bytes are kept.
    Disabled,
    /// Its bytes are gone; the id stays as a tombstone.
    Destroyed,
}

impl KeyState {
    /// Every state, in the order of a key's life.
    pub const ALL: [Self; 5] = [
        Self::Staged,
        Self::Primary,
        Self::Retired,
        Self::Disabled,
        Self::Destroyed,
    ];

    /// The states that one legal change leads to. A KEK that left `primary` never returns to it:
    /// kube-apiserver must never meet a key id again (KEP-3299, "key_id must not be reused").
    pub(crate) fn next(self) -> &'static [Self] {
        match self {
            Self::Staged => &[Self::Primary, Self::Destroyed],
            Self::Primary => &[Self::Retired],
            Self::Retired => &[Self::Disabled],
            Self::Disabled => &[Self::Retired, Self::Destroyed],
            Self::Destroyed => &[],
        }
    }

    /// Whether any number of legal changes leads from here to `later`.
    pub(crate) fn leads_to(self, later: Self) -> bool {
        match (self, later) {
            (from, to) if from == to => true,
            (Self::Staged, _) => true,
            (Self::Destroyed, _) | (_, Self::Staged | Self::Primary) => false,
            (Self::Primary | Self::Retired | Self::Disabled, _) => true,
        }
    }

    /// The word of the document and of screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Primary => "primary",
            Self::Retired => "retired",
            Self::Disabled => "disabled",
            Self::Destroyed => "destroyed",
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn apiserver_hash_is_sha256_of_the_text() {
        let id: KeyId = "k1-ed41dddad06fa5a51ae4b71183601342".parse().unwrap();
        // printf k1-ed41dddad06fa5a51ae4b71183601342 | sha256sum
        assert_eq!(
            id.apiserver_hash(),
            "sha256:5a758f39bdf1a66c908a66134841d02110a7e011fd3b616cf6c0b55695304a81"
        );
    }

    #[test]
    fn leads_to_is_the_closure_of_next() {
        for from in KeyState::ALL {
            let mut reached = vec![from];
            for i in 0.. {
                let Some(state) = reached.get(i) else { break };
                for next in state.next() {
                    if !reached.contains(next) {
                        reached.push(*next);
                    }
                }
            }
            for to in KeyState::ALL {
                assert_eq!(from.leads_to(to), reached.contains(&to), "{from} to {to}");
            }
        }
    }

    proptest! {
        #[test]
        fn text_form_reads_back(raw: [u8; 16]) {
            let id = KeyId(raw);
            prop_assert_eq!(id.to_string().parse::<KeyId>().unwrap(), id);
        }

        #[test]
        fn only_the_exact_text_is_read(text in "\\PC{0,60}") {
            if let Ok(id) = text.parse::<KeyId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
