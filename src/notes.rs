//! What was last done with the keyring: `notes.json` beside it. `status` and metrics show it, and no
//! guard trusts it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use claviger_keystore::durable;
use claviger_keystore::error::StorageError;
use claviger_keystore::header::SlotId;
use claviger_keystore::key::{KeyId, KeyInfo};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Longer notes are none of ours: a keyring has at most a thousand keys, each noted twice.
const MAX_LEN: u64 = 256 * 1024;

/// The notes beside one keyring.
#[derive(Debug, Clone)]
pub struct NotesFile(PathBuf);

/// What was last done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    /// When each slot was last shown to open.
    #[serde(default)]
    pub slots_tested: Vec<SlotTested>,
    /// When a recovery slot was last shown to open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_tested: Option<Timestamp>,
    /// The last backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackedUp>,
    /// The last audit of a live etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audited>,
    /// The last snapshots that an audit was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<SnapshotsAudited>,
}

/// What an audit of a live etcd found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// When.
    pub at: Timestamp,
    /// The end point.
    pub etcd: String,
    /// etcd's revision.
    pub revision: i64,
    /// Current objects that have to be rewritten.
    pub stale: u64,
    /// Stored values that could not be read.
    pub exceptions: u64,
    /// How many values named each key; none named the keys that are absent.
    pub keys: BTreeMap<KeyId, Values>,
    /// How many values were in the clear and should not have been.
    pub plaintext: Values,
}

/// How many values something protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// Current objects.
    pub current: u64,
    /// Older revisions that etcd still had.
    pub history: u64,
}

/// What an audit found in snapshot files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotsAudited {
    /// When.
    pub at: Timestamp,
    /// How many files there were.
    pub files: u64,
    /// Which keys some of them needed.
    pub keys: BTreeMap<KeyId, Needed>,
    /// In which of them something was in the clear that should not have been.
    pub plaintext: Option<Needed>,
}

/// What some snapshot files needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needed {
    /// How many files did.
    pub files: u64,
    /// Until when the newest of them is kept, where a policy says it.
    pub until: Option<Timestamp>,
}

/// A sealed copy of the keyring, made for keeping elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// The keyring's revision.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
}

/// One slot that was shown to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTested {
    /// The slot's id.
    pub id: SlotId,
    /// When.
    pub at: Timestamp,
}

impl Notes {
    /// How many values a key protected at the last audit; `None` where none looked at it, because
    /// the key is younger.
    pub fn protected(&self, key: &KeyInfo) -> Option<Values> {
        let audit = self.audit.as_ref()?;
        let looked = audit.at >= key.created;
        looked.then(|| audit.keys.get(&key.id).copied().unwrap_or_default())
    }
}

impl NotesFile {
    /// The notes beside this keyring file.
    pub fn beside(keyring: &Path) -> Self {
        Self(keyring.with_file_name("notes.json"))
    }

    /// Reads them. Notes that are absent or cannot be read say nothing, which is what they are
    /// trusted with.
    pub fn read(&self) -> Notes {
        let bytes = durable::read(&self.0, MAX_LEN).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Notes that a slot opened at `now`.
    pub fn slot_opened(
        &self,
        id: SlotId,
        recovery: bool,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let mut notes = self.read();
        notes.slots_tested.retain(|slot| slot.id != id);
        notes.slots_tested.push(SlotTested { id, at: now });
        if recovery {
            notes.recovery_tested = Some(now);
        }
        self.write(&notes)
    }

    /// Notes that the keyring was backed up.
    pub fn backed_up(&self, revision: u64, now: Timestamp) -> Result<(), StorageError> {
        let mut notes = self.read();
        notes.backup = Some(BackedUp { revision, at: now });
        self.write(&notes)
    }

    /// Notes what an audit found, in etcd, in snapshots or in both. Of what it did not look at, the
    /// last word stays.
    pub fn audited(
        &self,
        etcd: Option<Audited>,
        snapshots: Option<SnapshotsAudited>,
    ) -> Result<(), StorageError> {
        let mut notes = self.read();
        notes.audit = etcd.or(notes.audit);
        notes.snapshots = snapshots.or(notes.snapshots);
        self.write(&notes)
    }

    fn write(&self, notes: &Notes) -> Result<(), StorageError> {
        let mut bytes = serde_json::to_vec(notes).unwrap_or_default();
        bytes.push(b'\n');
        durable::replace(&self.0, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use claviger_keystore::header::Hex;

    use super::*;

    #[test]
    fn the_last_test_of_each_slot_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = NotesFile::beside(&dir.path().join("keyring"));
        assert_eq!(file.read(), Notes::default());
        let at = |second| Timestamp::from_second(second).unwrap();
        file.slot_opened(Hex([1; 8]), false, at(1)).unwrap();
        file.slot_opened(Hex([2; 8]), true, at(2)).unwrap();
        file.slot_opened(Hex([1; 8]), false, at(3)).unwrap();
        let notes = file.read();
        assert_eq!(notes.recovery_tested, Some(at(2)));
        let tested: Vec<_> = notes
            .slots_tested
            .iter()
            .map(|slot| (slot.id, slot.at))
            .collect();
        assert_eq!(tested, [(Hex([2; 8]), at(2)), (Hex([1; 8]), at(3))]);
    }
    #[test]
    fn an_audit_that_is_shown_no_snapshots_forgets_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = NotesFile::beside(&dir.path().join("keyring"));
        let at = |second| Timestamp::from_second(second).unwrap();
        let audited = |second| Audited {
            at: at(second),
            etcd: "http://127.0.0.1:2379".to_owned(),
            revision: second,
            stale: 0,
            exceptions: 0,
            keys: BTreeMap::new(),
            plaintext: Values::default(),
        };
        let snapshots = SnapshotsAudited {
            at: at(1),
            files: 3,
            keys: BTreeMap::new(),
            plaintext: None,
        };
        file.audited(Some(audited(1)), Some(snapshots.clone()))
            .unwrap();
        file.audited(Some(audited(2)), None).unwrap();
        assert_eq!(file.read().audit, Some(audited(2)));
        assert_eq!(file.read().snapshots, Some(snapshots));
    }

    #[test]
    fn notes_of_a_full_keyring_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = NotesFile::beside(&dir.path().join("keyring"));
        let ids = || (0..1000).map(|n| format!("k1-{n:032x}").parse::<KeyId>().unwrap());
        let audited = Audited {
            at: Timestamp::MAX,
            etcd: "https://etcd.example:2379".to_owned(),
            revision: i64::MAX,
            stale: u64::MAX,
            exceptions: u64::MAX,
            keys: ids()
                .map(|id| {
                    let values = Values {
                        current: u64::MAX,
                        history: u64::MAX,
                    };
                    (id, values)
                })
                .collect(),
            plaintext: Values::default(),
        };
        let needed = Needed {
            files: u64::MAX,
            until: Some(Timestamp::MAX),
        };
        let snapshots = SnapshotsAudited {
            at: Timestamp::MAX,
            files: u64::MAX,
            keys: ids().map(|id| (id, needed)).collect(),
            plaintext: Some(needed),
        };
        file.audited(Some(audited.clone()), Some(snapshots.clone()))
            .unwrap();
        let notes = file.read();
        assert_eq!(
            (notes.audit, notes.snapshots),
            (Some(audited), Some(snapshots))
        );
    }
}
