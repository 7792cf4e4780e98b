//! A keyring document without bytes: keys are numbers in the order of their making, hashes too.

use claviger_keystore::header::{Header, Hex, KeyringKeyId, Merged};
use claviger_keystore::key::{KeyId, KeyInfo, KeyState};
use claviger_keystore::keyring::Keyring;
use claviger_keystore::mark::Mark;
use claviger_keystore::testing::{NOW, may_follow};

/// A key, by the order of its making.
pub(crate) type Key = u8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Doc {
    pub(crate) revision: u8,
    /// Which document it is: its hash.
    pub(crate) serial: u8,
    pub(crate) previous: u8,
    /// What it merged, and at which revision the last merge was.
    pub(crate) merged: Option<(u8, Vec<u8>)>,
    pub(crate) keys: Vec<(Key, KeyState)>,
}

impl Doc {
    pub(crate) fn first() -> Self {
        Self {
            revision: 1,
            serial: 1,
            previous: 0,
            merged: None,
            keys: vec![(0, KeyState::Primary)],
        }
    }

    pub(crate) fn state(&self, key: Key) -> Option<KeyState> {
        let found = self.keys.iter().find(|(id, _)| *id == key)?;
        Some(found.1)
    }

    pub(crate) fn in_state(&self, state: KeyState) -> Option<Key> {
        let found = self.keys.iter().find(|(_, found)| *found == state)?;
        Some(found.0)
    }

    pub(crate) fn primary(&self) -> Option<Key> {
        self.in_state(KeyState::Primary)
    }

    pub(crate) fn set(&mut self, key: Key, state: KeyState) {
        match self.keys.iter_mut().find(|(id, _)| *id == key) {
            Some(found) => found.1 = state,
            None => self.keys.push((key, state)),
        }
    }

    /// Holds this document against what a member saw last, by the real rule.
    pub(crate) fn follows(&self, seen: &Self) -> bool {
        may_follow(&seen.mark(), &self.header(), &hash(self.serial)).is_ok()
    }

    pub(crate) fn header(&self) -> Header {
        let mut header = template();
        header.revision = self.revision.into();
        header.previous = hash(self.previous);
        header.keys = self
            .keys
            .iter()
            .map(|(key, state)| info(*key, *state))
            .collect();
        if let Some((revision, serials)) = &self.merged {
            let named = |serial: &u8| Merged {
                sha256: hash(*serial),
                revision: (*revision).into(),
            };
            header.merged = serials.iter().map(named).collect();
        }
        header
    }

    fn mark(&self) -> Mark {
        let header = self.header();
        Mark {
            cluster_id: header.cluster_id,
            revision: header.revision,
            hash: hash(self.serial),
            keyring_key_id: header.keyring_key_id,
            keys: header.keys.iter().map(|key| (key.id, key.state)).collect(),
            history: Vec::new(),
            last_read: NOW,
        }
    }
}

pub(crate) fn hash(serial: u8) -> Hex<32> {
    Hex([serial; 32])
}

pub(crate) fn id(key: Key) -> KeyId {
    format!("k1-{key:032x}").parse().unwrap()
}

/// The number of a key id.
pub(crate) fn key(id: &KeyId) -> Key {
    id.as_bytes()[15]
}

fn info(key: Key, state: KeyState) -> KeyInfo {
    let mut info = template().keys.remove(0);
    info.id = id(key);
    info.state = state;
    info.disabled = (state == KeyState::Disabled).then_some(NOW);
    info
}

fn template() -> Header {
    static TEMPLATE: std::sync::OnceLock<Header> = std::sync::OnceLock::new();
    let make = || {
        let keyring = Keyring::create("", KeyringKeyId::ZERO, NOW).unwrap();
        keyring.header().clone()
    };
    TEMPLATE.get_or_init(make).clone()
}
