//! Which keys somebody needs who restores a snapshot.

use std::collections::BTreeMap;

use super::{Revisions, Snapshot, SnapshotError};
use crate::audit::object::Protection;
use crate::audit::tally::Tally;

/// What a snapshot's values need in order to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The key ids of KMS v2 plugins, ours and any other one's, with the number of values.
    pub key_ids: BTreeMap<String, u64>,
    /// Values that need a key of another kind of provider.
    pub other: u64,
    /// Values that need none.
    pub plaintext: u64,
    /// Values whose header cannot be read: nobody can say what they need.
    pub unreadable: u64,
}

impl Snapshot {
    /// Reads every object and says what it takes to read them; `prefix` is that of Kubernetes' keys.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn needs(&self, revisions: Revisions, prefix: &str) -> Result<Needs, SnapshotError> {
        Ok(Needs::of(&self.tally(revisions, prefix)?))
    }
}

impl Needs {
    /// What the values of one snapshot's tally need.
    pub fn of(tally: &Tally) -> Self {
        let mut needs = Self {
            unreadable: tally.exception_count(),
            ..Self::default()
        };
        for row in tally.rows() {
            let values = row.counts.current + row.counts.history;
            match &row.protection {
                Protection::KmsV2 { key_id, .. } => {
                    *needs.key_ids.entry(key_id.clone()).or_default() += values;
                }
                Protection::Other { .. } => needs.other += values,
                Protection::Plaintext => needs.plaintext += values,
            }
        }
        needs
    }
}
