//! `--verify`: that the objects of our keys open, as kube-apiserver would open them.
//!
//! A value is of ours where it lies below Kubernetes' prefix and its key id has our form. Its seed is
//! opened with the keyring, and its data authenticated under that seed and its key in etcd. Nothing
//! that was opened leaves the keystore.

use std::sync::Arc;

use claviger_keystore::key::KeyId;
use claviger_keystore::kube_object::{Objects, Stored};
use claviger_keystore::snapshot::Snapshot;
use claviger_proto::stored::EncryptedObject;
use prost::Message;

use super::object::{Header, Name};
use super::tally::{EXCEPTIONS, Place};

/// What every value of a KMS v2 provider begins with.
const KMS_V2: &[u8] = b"k8s:enc:kms:v2:";

/// What opens objects, for as many tallies as want it.
#[derive(Debug, Clone)]
pub struct Verifier(Arc<Objects>);

impl Verifier {
    /// One that opens what this keyring opens.
    pub fn new(keyring: Arc<Snapshot>) -> Self {
        Self(Arc::new(Objects::new(keyring)))
    }

    /// Opens one value under one of our keys.
    fn verify(&self, id: KeyId, key: &[u8], value: &[u8]) -> Result<(), String> {
        let payload = value.strip_prefix(KMS_V2).unwrap_or_default();
        let provider = payload.iter().take_while(|byte| **byte != b':').count();
        let message = payload.get(provider + 1..).unwrap_or_default();
        let object = EncryptedObject::decode(message)
            .map_err(|_| "its envelope has another form than those of kube-apiserver".to_owned())?;
        // Our plugin gives none, and refuses to decrypt with any.
        if !object.annotations.is_empty() {
            return Err("its envelope has annotations, and ours never do".to_owned());
        }
        let stored = Stored {
            etcd_key: key,
            key_id: id,
            seed: &object.encrypted_dek_source,
            seed_kind: object.encrypted_dek_source_type,
            data: object.encrypted_data,
        };
        self.0.authenticate(stored).map_err(|e| e.to_string())
    }
}

/// A value that does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unopened {
    /// The object.
    pub object: String,
    /// Where the value was found.
    pub place: Place,
    /// In which snapshot file, if not in etcd.
    pub snapshot: Option<String>,
    /// Why not.
    pub reason: String,
}

/// What was found behind the headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Current values that authenticate.
    pub current: u64,
    /// Old values that do.
    pub history: u64,
    /// Values in snapshot files that do.
    pub snapshots: u64,
    /// Values that do not.
    pub failed: u64,
    /// The first [`EXCEPTIONS`] of them.
    pub first: Vec<Unopened>,
}

impl Verified {
    /// Adds what was found in history.
    pub(super) fn add_history(&mut self, history: &Self) {
        self.history += history.history;
        self.add_failures(history, None);
    }

    /// Adds what was found in one snapshot file.
    pub(super) fn add_snapshot(&mut self, name: &str, file: &Self) {
        self.snapshots += file.current + file.history;
        self.add_failures(file, Some(name));
    }

    fn add_failures(&mut self, other: &Self, snapshot: Option<&str>) {
        self.failed += other.failed;
        let room = EXCEPTIONS - self.first.len().min(EXCEPTIONS);
        let more = other.first.iter().take(room).cloned();
        self.first.extend(more.map(|unopened| Unopened {
            snapshot: snapshot.map(str::to_owned),
            ..unopened
        }));
    }
}

/// A verifier, and what it found for one tally.
#[derive(Debug, Clone)]
pub(super) struct Verifying {
    pub(super) verifier: Verifier,
    pub(super) found: Verified,
}

impl Verifying {
    pub(super) fn new(verifier: &Verifier) -> Self {
        Self {
            verifier: verifier.clone(),
            found: Verified::default(),
        }
    }

    /// Looks behind one value's header.
    pub(super) fn look(
        &mut self,
        place: Place,
        (key, name): (&[u8], Option<Name<'_>>),
        (value, header): (&[u8], Header<'_>),
    ) {
        // What lies elsewhere is another cluster's, whose keyring is not at hand.
        let (Some(name), Header::KmsV2 { key_id, .. }) = (name, header) else {
            return;
        };
        let Ok(id) = key_id.parse() else { return };
        match self.verifier.verify(id, key, value) {
            Ok(()) => match place {
                Place::Current => self.found.current += 1,
                Place::History => self.found.history += 1,
            },
            Err(reason) => {
                self.found.failed += 1;
                if self.found.first.len() < EXCEPTIONS {
                    self.found.first.push(Unopened {
                        object: name.to_string(),
                        place,
                        snapshot: None,
                        reason,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unopened(object: usize) -> Unopened {
        Unopened {
            object: format!("secrets/a/{object}"),
            place: Place::Current,
            snapshot: None,
            reason: "its data is cut short".to_owned(),
        }
    }

    fn found(current: u64, history: u64, failed: usize) -> Verified {
        Verified {
            current,
            history,
            snapshots: 0,
            failed: failed as u64,
            first: (0..failed).map(unopened).collect(),
        }
    }

    #[test]
    fn what_was_found_elsewhere_is_counted_where_it_was_found() {
        let mut all = found(5, 0, 1);
        all.add_history(&found(0, 3, 1));
        all.add_snapshot("one.db", &found(2, 1, 1));
        all.add_snapshot("two.db", &found(4, 0, 0));
        assert_eq!((all.current, all.history, all.snapshots), (5, 3, 7));
        assert_eq!(all.failed, 3);
        let files: Vec<_> = all.first.iter().map(|u| u.snapshot.as_deref()).collect();
        assert_eq!(files, [None, None, Some("one.db")]);
    }

    #[test]
    fn all_failures_are_counted_and_the_first_are_named() {
        let mut all = found(0, 0, 1);
        for _ in 0..3 {
            all.add_history(&found(0, 0, EXCEPTIONS - 1));
        }
        assert_eq!(all.failed, 3 * (EXCEPTIONS as u64 - 1) + 1);
        assert_eq!(all.first.len(), EXCEPTIONS);
    }
}
