//! What a request sees: the keyring at one moment, and what may be done with it.
//!
//! A snapshot never changes. The request path loads it once, atomically, and then needs no lock
//! and no I/O; whoever changes the keyring swaps in another snapshot.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::envelope::{EnvelopeError, SeedKey};
use crate::key::{KeyId, KeyState};

/// Why a request is refused. Each variant is one reason in metrics and one gRPC code.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    pub(crate) keys: HashMap<KeyId, SnapshotKey>,
    /// Set while Status and Encrypt are refused although the keyring is open.
    pub(crate) decrypt_only: Option<Arc<str>>,
    /// Set once a sealed seed did not open again; shared by all snapshots of the process.
    pub(crate) self_check_failed: Arc<AtomicBool>,
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
        self.may_write()?;
        if !self.may_seal(id) {
            return Err(self.refusal_of(id));
        }
        self.seed_key(id)?.seal(seed).map_err(|e| {
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
