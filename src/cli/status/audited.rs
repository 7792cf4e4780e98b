//! What the last audit found, as it was noted beside the keyring: shown here, and trusted by no guard.

use claviger_keystore::key::KeyInfo;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::output::{date, grouped};
use crate::notes::{Needed, Notes, SnapshotsAudited, Values};

/// An audit, as it was noted.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct LastAudit {
    pub(super) at: Timestamp,
    /// etcd's revision.
    pub(super) etcd_revision: i64,
    /// Objects that had to be rewritten.
    pub(super) stale: u64,
    /// Values that could not be read, of which nobody knows what they need.
    pub(super) exceptions: u64,
}

/// The snapshots that an audit was shown, as it was noted.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct LastSnapshots {
    pub(super) at: Timestamp,
    /// How many files there were.
    pub(super) files: u64,
}

/// What one key, or nothing, protected at the last audits. Null is what they did not look at: there
/// was none, or the key is younger.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct Protects {
    /// Current objects.
    objects: Option<u64>,
    /// Older revisions that etcd still had.
    history: Option<u64>,
    /// Snapshot files that needed it.
    snapshots: Option<u64>,
    /// Until when the newest of these is kept, as the policy had it.
    snapshots_until: Option<Timestamp>,
}

/// The columns of [`Protects`].
pub(super) const HEADING: &str = "  OBJECTS   HISTORY  SNAPSHOTS";

impl LastAudit {
    pub(super) fn of(notes: &Notes) -> Option<Self> {
        notes.audit.as_ref().map(|audit| Self {
            at: audit.at,
            etcd_revision: audit.revision,
            stale: audit.stale,
            exceptions: audit.exceptions,
        })
    }
}

impl LastSnapshots {
    pub(super) fn of(notes: &Notes) -> Option<Self> {
        notes.snapshots.as_ref().map(|snapshots| Self {
            at: snapshots.at,
            files: snapshots.files,
        })
    }
}

impl Protects {
    /// What a key protected.
    pub(super) fn by(key: &KeyInfo, notes: &Notes) -> Self {
        let values = notes.protected(key);
        let snapshots = notes.snapshots.as_ref();
        let snapshots = snapshots.filter(|snapshots| snapshots.at >= key.created);
        Self::new(values, snapshots, |snapshots| {
            snapshots.keys.get(&key.id).copied()
        })
    }

    /// What was in the clear and should not have been; `None` if nobody looked.
    pub(super) fn by_nothing(notes: &Notes) -> Option<Self> {
        let values = notes.audit.as_ref().map(|audit| audit.plaintext);
        let snapshots = notes.snapshots.as_ref();
        let looked = values.is_some() || snapshots.is_some();
        looked.then(|| Self::new(values, snapshots, |snapshots| snapshots.plaintext))
    }

    fn new(
        values: Option<Values>,
        snapshots: Option<&SnapshotsAudited>,
        needed: impl Fn(&SnapshotsAudited) -> Option<Needed>,
    ) -> Self {
        let needed = snapshots.map(needed);
        Self {
            objects: values.map(|values| values.current),
            history: values.map(|values| values.history),
            snapshots: needed.map(|needed| needed.map_or(0, |needed| needed.files)),
            snapshots_until: needed.flatten().and_then(|needed| needed.until),
        }
    }

    /// The cells under [`HEADING`].
    pub(super) fn text(&self) -> String {
        let cell = |number: Option<u64>| number.map_or("-".to_owned(), grouped);
        let until = match self.snapshots_until {
            Some(until) => format!(", until {}", date(until)),
            None => String::new(),
        };
        format!(
            "{:>9}{:>10}  {}{until}",
            cell(self.objects),
            cell(self.history),
            cell(self.snapshots)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use claviger_keystore::header::KeyringKeyId;
    use claviger_keystore::keyring::Keyring;

    use super::*;
    use crate::notes::Audited;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A key that was made at 10.
    fn key() -> KeyInfo {
        let keyring = Keyring::create("test", KeyringKeyId::ZERO, at(10)).unwrap();
        keyring.header().keys[0].clone()
    }

    fn notes(second: i64, key: &KeyInfo) -> Notes {
        let values = Values {
            current: 14_602,
            history: 3,
        };
        let needed = Needed {
            files: 31,
            until: Some(at(86_400)),
        };
        Notes {
            audit: Some(Audited {
                at: at(second),
                etcd: String::new(),
                revision: 1,
                stale: 0,
                exceptions: 0,
                keys: BTreeMap::from([(key.id, values)]),
                plaintext: Values::default(),
            }),
            snapshots: Some(SnapshotsAudited {
                at: at(second),
                files: 40,
                keys: BTreeMap::from([(key.id, needed)]),
                plaintext: None,
            }),
            ..Notes::default()
        }
    }

    #[test]
    fn a_key_protects_what_was_noted_and_else_nothing() {
        let (key, other) = (key(), key());
        let notes = notes(20, &key);
        let protects = Protects::by(&key, &notes);
        let text = "   14 602         3  31, until 1970-01-02";
        assert_eq!(protects.text(), text);
        assert_eq!(
            Protects::by(&other, &notes).text(),
            "        0         0  0"
        );
        let nothing = Protects::by_nothing(&notes).unwrap();
        assert_eq!(nothing.text(), "        0         0  0");
    }

    #[test]
    fn of_what_no_audit_looked_at_nothing_is_said() {
        let key = key();
        // It was made after the audit.
        let protects = Protects::by(&key, &notes(9, &key));
        assert_eq!(protects, Protects::default());
        assert_eq!(protects.text(), "        -         -  -");
        assert_eq!(Protects::by(&key, &Notes::default()), Protects::default());
        assert_eq!(Protects::by_nothing(&Notes::default()), None);
    }
}
