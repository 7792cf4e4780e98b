//! A node whose storage, in memory, and whose mark outlive its members; and what a member answers.

use std::path::PathBuf;
use std::sync::Arc;

use claviger_keystore::Keystore;
use claviger_keystore::error::Error;
use claviger_keystore::key::KeyId;
use claviger_keystore::mark::MarkFile;
use claviger_keystore::root::Root;
use claviger_keystore::snapshot::{Refusal, View};
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::memory::MemoryStorage;
use claviger_keystore::store::{self, Synced};
use claviger_keystore::testing::{NOW, test_root};

pub(crate) const SEED: [u8; 32] = [7; 32];

/// A node with an initialized keyring.
pub(crate) struct Node {
    pub(crate) storage: Arc<MemoryStorage>,
    folder: tempfile::TempDir,
}

/// A seed that a member sealed.
#[derive(Debug, Clone)]
pub(crate) struct Sealed(pub(crate) KeyId, pub(crate) Vec<u8>);

impl Node {
    pub(crate) async fn new() -> Self {
        let node = Self {
            storage: Arc::default(),
            folder: crate::folder::fast_folder(),
        };
        store::init(&*node.storage, &[&*test_root()], "test", NOW)
            .await
            .unwrap();
        node
    }

    /// A member after its start: nothing is open yet.
    pub(crate) fn start(&self) -> Keystore {
        self.start_with(test_root())
    }

    pub(crate) fn start_with(&self, root: Box<dyn Root>) -> Keystore {
        let mark = MarkFile::new(self.mark());
        Keystore::new(Box::new(self.storage.clone()), vec![root], Some(mark))
    }

    /// A member that is open.
    pub(crate) async fn member(&self) -> Keystore {
        let member = self.start();
        assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
        member
    }

    /// Where the mark lies.
    pub(crate) fn mark(&self) -> PathBuf {
        self.folder.path().join("mark")
    }

    /// What lies in the storage.
    pub(crate) async fn bytes(&self) -> Vec<u8> {
        self.storage.load().await.unwrap()
    }
}

/// An open keystore elsewhere, which has no mark and knows of nothing that came after `bytes`.
pub(crate) async fn elsewhere(bytes: &[u8]) -> (Keystore, Arc<MemoryStorage>) {
    let storage: Arc<MemoryStorage> = Arc::default();
    storage.put(Some(bytes.to_vec()));
    let keystore = unmarked(&storage);
    keystore.sync(NOW).await.unwrap();
    (keystore, storage)
}

/// A keystore on this storage that remembers nothing, not open yet.
pub(crate) fn unmarked(storage: &Arc<MemoryStorage>) -> Keystore {
    Keystore::new(Box::new(storage.clone()), vec![test_root()], None)
}

pub(crate) fn seal(member: &Keystore) -> Sealed {
    let view = member.view();
    let snapshot = view.snapshot().unwrap();
    let id = snapshot.primary().unwrap();
    Sealed(id, snapshot.seal(&id, &SEED).unwrap())
}

pub(crate) fn open(member: &Keystore, Sealed(id, ciphertext): &Sealed) -> Result<Vec<u8>, Refusal> {
    member
        .view()
        .snapshot()?
        .open(id, ciphertext)
        .map(|seed| seed.to_vec())
}

pub(crate) fn revision(member: &Keystore) -> u64 {
    member.view().snapshot().unwrap().revision()
}

pub(crate) async fn stage(member: &Keystore) -> Result<(), Error> {
    member.commit(NOW, |keyring| keyring.stage(NOW)).await
}

/// Makes the staged key a tombstone: a rotation that was given up.
pub(crate) async fn abort(member: &Keystore) {
    let staged = member.keyring().await.unwrap().staged().unwrap();
    member
        .commit(NOW, |keyring| Ok(keyring.destroy(&staged, NOW)?))
        .await
        .unwrap();
}

/// Commits a keyring that differs in its revision alone, which is legal at any time.
pub(crate) async fn touch(member: &Keystore) -> Result<(), Error> {
    let same = |keyring: &claviger_keystore::keyring::Keyring| Ok(keyring.clone());
    member.commit(NOW, same).await
}

/// Why every call is refused.
pub(crate) fn closed_reason(member: &Keystore) -> String {
    match &**member.view() {
        View::Closed(why) => why.to_string(),
        View::Open(snapshot) => panic!("{snapshot:?} is open"),
    }
}

/// Why Status and Encrypt are refused while Decrypt is not.
pub(crate) fn decrypt_only_reason(member: &Keystore, id: &KeyId) -> String {
    let view = member.view();
    let snapshot = view.snapshot().unwrap();
    let refused = snapshot.primary().unwrap_err();
    assert_eq!(snapshot.seal(id, &SEED), Err(refused.clone()));
    match refused {
        Refusal::DecryptOnly(why) => why.to_string(),
        other => panic!("{other:?}"),
    }
}
