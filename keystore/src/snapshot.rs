//! What a request sees: the keyring at one moment, and what may be done with it.
//!
//! A snapshot never changes. The request path loads it once, atomically, and then needs no lock
//! and no I/O; whoever changes the keyring swaps in another snapshot.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::envelope::{EnvelopeError, SeedKey};
use crate::error::Error;
use crate::key::{KeyId, KeyState};
use crate::keyring::Keyring;

/// Why a request is refused. Each variant is one reason in metrics and one gRPC code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The keyring is not open; the text says why and what helps.
    NotOpen(Arc<str>),
    /// An older document than the one seen before: Decrypt only. The text says what helps.
    DecryptOnly(Arc<str>),
    /// There is no primary key (a merged keyring waits for its activation).
    NoPrimary,
    /// A sealed seed did not open again: this process seals no more until it is restarted.
    SelfCheckFailed,
    /// The operating system's random generator failed.
    Random,
    /// A key id that the keyring does not know, after a fresh read of the storage.
    UnknownKey(KeyId),
    /// A key id that the keyring in memory does not know, where the storage could not be read: it
    /// may be there.
    Unread(KeyId),
    /// The key id is not one of ours.
    MalformedKeyId,
    /// The key is disabled or destroyed, since then.
    KeyState(KeyId, KeyState, Option<Timestamp>),
    /// The seed is empty or longer than 512 bytes.
    SeedLength(usize),
    /// The ciphertext is shorter or longer than any that we return.
    CiphertextLength(usize),
    /// The first byte says that another program made it.
    ForeignCiphertext,
    /// The first byte says that a newer Claviger made it.
    NewerCiphertext(u8),
    /// The tag did not verify: another cluster, another key, or changed bytes.
    Authentication,
}

/// The keyring at one moment, ready for requests.
pub struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) primary: Option<KeyId>,
    pub(crate) keys: BTreeMap<KeyId, SnapshotKey>,
    /// Set while Status and Encrypt are refused although the keyring is open.
    pub(crate) decrypt_only: Option<Arc<str>>,
    /// Set once a sealed seed did not open again; shared by all snapshots of the process.
    pub(crate) self_check_failed: Arc<AtomicBool>,
    /// A test's fault: the next seed is sealed, and then does not pass its self-check.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) next_self_check_fails: AtomicBool,
}

/// One key of a snapshot: its state, and its cipher where its bytes may be used.
pub(crate) struct SnapshotKey {
    pub(crate) state: KeyState,
    /// When it entered that state.
    pub(crate) since: Option<Timestamp>,
    /// Present for staged, primary and retired keys only.
    pub(crate) seed_key: Option<SeedKey>,
}

impl Snapshot {
    /// A keyring, ready for requests.
    pub(crate) fn new(
        keyring: &Keyring,
        decrypt_only: Option<Arc<str>>,
        self_check_failed: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let header = keyring.header();
        let mut keys = BTreeMap::new();
        for info in &header.keys {
            let seed_key = match (info.state, keyring.kek(&info.id)) {
                (KeyState::Staged | KeyState::Primary | KeyState::Retired, Some(kek)) => {
                    Some(SeedKey::new(kek, &info.id, &header.cluster_id.0)?)
                }
                _ => None,
            };
            let key = SnapshotKey {
                state: info.state,
                since: info.since(),
                seed_key,
            };
            keys.insert(info.id, key);
        }
        Ok(Self {
            revision: header.revision,
            primary: keyring.primary(),
            keys,
            decrypt_only,
            self_check_failed,
            #[cfg(any(test, feature = "testing"))]
            next_self_check_fails: AtomicBool::new(false),
        })
    }

    /// The revision of the document that this snapshot was made of.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The id that Status answers and Encrypt uses, unless something forbids both.
    pub fn primary(&self) -> Result<KeyId, Refusal> {
        self.may_write()?;
        self.primary.ok_or(Refusal::NoPrimary)
    }

    /// Whether Encrypt may still use `id`: a key that was the primary a moment ago (design §3.4).
    /// Key state beats the recency of a Status answer.
    pub fn may_seal(&self, id: &KeyId) -> bool {
        self.keys
            .get(id)
            .is_some_and(|key| matches!(key.state, KeyState::Primary | KeyState::Retired))
    }

    /// Seals one seed under `id`, and opens the result again before it is returned:
    /// kube-apiserver never checks what it stores.
    pub fn seal(&self, id: &KeyId, seed: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.seal_by(id, |key| {
            let sealed = key.seal(seed)?;
            #[cfg(any(test, feature = "testing"))]
            if self.next_self_check_fails.swap(false, Ordering::Relaxed) {
                return Err(EnvelopeError::SelfCheck);
            }
            Ok(sealed)
        })
    }

    /// Seals by the key `id`. A sealed seed that does not open again is the process's last.
    fn seal_by(
        &self,
        id: &KeyId,
        seal: impl FnOnce(&SeedKey) -> Result<Vec<u8>, EnvelopeError>,
    ) -> Result<Vec<u8>, Refusal> {
        self.may_write()?;
        if !self.may_seal(id) {
            return Err(self.refusal_of(id));
        }
        seal(self.seed_key(id)?).map_err(|e| {
            if e == EnvelopeError::SelfCheck {
                self.self_check_failed.store(true, Ordering::Relaxed);
            }
            Refusal::from(e)
        })
    }

    /// Opens one sealed seed.
    pub fn open(&self, id: &KeyId, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.seed_key(id)?.open(ciphertext).map_err(Refusal::from)
    }

    /// Whether the keyring has this id, a tombstone included.
    pub fn knows(&self, id: &KeyId) -> bool {
        self.keys.contains_key(id)
    }

    /// Every id with its state, for metrics.
    pub fn states(&self) -> impl Iterator<Item = (KeyId, KeyState)> + '_ {
        self.keys.iter().map(|(id, key)| (*id, key.state))
    }

    fn may_write(&self) -> Result<(), Refusal> {
        if self.self_check_failed.load(Ordering::Relaxed) {
            return Err(Refusal::SelfCheckFailed);
        }
        match &self.decrypt_only {
            Some(why) => Err(Refusal::DecryptOnly(why.clone())),
            None => Ok(()),
        }
    }

    fn seed_key(&self, id: &KeyId) -> Result<&SeedKey, Refusal> {
        self.keys
            .get(id)
            .and_then(|key| key.seed_key.as_ref())
            .ok_or_else(|| self.refusal_of(id))
    }

    fn refusal_of(&self, id: &KeyId) -> Refusal {
        match self.keys.get(id) {
            Some(key) => Refusal::KeyState(*id, key.state, key.since),
            None => Refusal::UnknownKey(*id),
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("primary", &self.primary)
            .finish_non_exhaustive()
    }
}

impl From<EnvelopeError> for Refusal {
    fn from(error: EnvelopeError) -> Self {
        use EnvelopeError as E;
        match error {
            E::SeedLength(len) => Self::SeedLength(len),
            E::CiphertextLength(len) => Self::CiphertextLength(len),
            E::Foreign => Self::ForeignCiphertext,
            E::Newer(format) => Self::NewerCiphertext(format),
            E::Authentication => Self::Authentication,
            E::SelfCheck => Self::SelfCheckFailed,
            E::Random => Self::Random,
        }
    }
}

/// What the request path loads: a snapshot, or why there is none.
#[derive(Debug, Clone)]
pub enum View {
    /// The keyring is not open. The text says why and what helps.
    Closed(Arc<str>),
    /// The keyring is open.
    Open(Arc<Snapshot>),
}

impl View {
    /// The snapshot, or the refusal that every call gets meanwhile.
    pub fn snapshot(&self) -> Result<&Arc<Snapshot>, Refusal> {
        match self {
            Self::Open(snapshot) => Ok(snapshot),
            Self::Closed(why) => Err(Refusal::NotOpen(why.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keystore;
    use crate::testing::{NOW, open_keystore, rotate};

    fn snapshot(keystore: &Keystore) -> Arc<Snapshot> {
        keystore.view().snapshot().unwrap().clone()
    }

    #[tokio::test]
    async fn row_36_a_failed_self_check_ends_status_and_encrypt_for_good() {
        let (keystore, _) = open_keystore().await;
        let before = snapshot(&keystore);
        let old = before.primary().unwrap();
        let sealed = before.seal(&old, &[7; 32]).unwrap();

        let failed = before.seal_by(&old, |_| Err(EnvelopeError::SelfCheck));
        assert_eq!(failed, Err(Refusal::SelfCheckFailed));
        let new = rotate(&keystore).await;
        keystore.sync(NOW).await.unwrap();
        // The snapshot that a request may still hold, and every later one.
        for (snapshot, id) in [(before, old), (snapshot(&keystore), new)] {
            assert_eq!(snapshot.primary(), Err(Refusal::SelfCheckFailed));
            let refused = snapshot.seal_by(&id, |_| panic!("it still seals"));
            assert_eq!(refused, Err(Refusal::SelfCheckFailed));
            assert_eq!(*snapshot.open(&old, &sealed).unwrap(), [7; 32]);
        }
    }

    #[tokio::test]
    async fn other_failures_of_sealing_end_nothing() {
        let (keystore, _) = open_keystore().await;
        let snapshot = snapshot(&keystore);
        let id = snapshot.primary().unwrap();
        for error in [EnvelopeError::Random, EnvelopeError::SeedLength(0)] {
            assert!(snapshot.seal_by(&id, |_| Err(error)).is_err());
        }
        assert_eq!(snapshot.primary(), Ok(id));
        snapshot.seal(&id, &[7; 32]).unwrap();
    }
}
