//! What is kept of an audit, for `status` to show.

use std::collections::{BTreeMap, BTreeSet};

use claviger_keystore::error::StorageError;
use claviger_keystore::key::KeyId;
use jiff::Timestamp;

use super::Report;
use super::keys::KeyVerdict;
use crate::audit::object::Protection;
use crate::audit::scope::Scope;
use crate::audit::tally::Tally;
use crate::cli::audit::snapshots::Snapshots;
use crate::cli::audit::subject::Subject;
use crate::notes::{Audited, Needed, NotesFile, SnapshotsAudited, Values};

/// What every key protects, whatever was asked.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Whether it was known which keys the keyring has: what is absent below would not be zero else.
    known: bool,
    keys: BTreeMap<KeyId, KeyVerdict>,
    plaintext: Option<KeyVerdict>,
}

impl Noted {
    pub(super) fn new(tally: &Tally, scope: &Scope, snapshots: &Snapshots) -> Self {
        let about = |subject: &Subject| {
            let mut verdict = KeyVerdict::about(subject, tally, scope);
            verdict.find_in(snapshots);
            verdict.needed.then_some(verdict)
        };
        let named = tally.rows().iter().filter_map(|row| match &row.protection {
            // Of other keyrings' keys `status` says nothing.
            Protection::KmsV2 { key_id, .. } => key_id.parse().ok(),
            _ => None,
        });
        let ours = named.filter(|id| scope.keys.contains_key(id));
        let ours: BTreeSet<KeyId> = ours.collect();
        let keys = ours.into_iter();
        Self {
            known: !scope.keys.is_empty(),
            keys: keys
                .filter_map(|id| Some((id, about(&Subject::Ours(id))?)))
                .collect(),
            plaintext: about(&Subject::Plaintext),
        }
    }
}

impl Report {
    /// Keeps what `status` shows of an audit.
    pub(in crate::cli::audit) fn note(
        &self,
        notes: &NotesFile,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let Noted {
            known: true,
            keys,
            plaintext,
        } = &self.noted
        else {
            return Ok(());
        };
        let etcd = self.etcd.as_ref().map(|etcd| Audited {
            at: now,
            etcd: etcd.endpoint.clone(),
            revision: etcd.revision,
            stale: self.stale_objects,
            exceptions: self.exceptions.count,
            keys: keys
                .iter()
                .map(|(id, verdict)| (*id, values(verdict)))
                .filter(|(_, values)| *values != Values::default())
                .collect(),
            plaintext: plaintext.as_ref().map(values).unwrap_or_default(),
        });
        let files = self.snapshots.files.len() as u64;
        let snapshots = (files > 0).then(|| SnapshotsAudited {
            at: now,
            files,
            keys: keys
                .iter()
                .filter_map(|(id, verdict)| Some((*id, needed(verdict)?)))
                .collect(),
            plaintext: plaintext.as_ref().and_then(needed),
        });
        notes.audited(etcd, snapshots)
    }
}

fn values(verdict: &KeyVerdict) -> Values {
    Values {
        current: verdict.current,
        history: verdict.history,
    }
}

fn needed(verdict: &KeyVerdict) -> Option<Needed> {
    (verdict.snapshots > 0).then_some(Needed {
        files: verdict.snapshots,
        until: verdict.needed_until,
    })
}
