//! The contract suites that every storage and every root must pass, and doubles for tests.
//!
//! A storage's or root's own tests only add what is special about it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "these are the bodies of tests"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use crate::Keystore;
use crate::document::{Document, KeyringKey};
use crate::error::{Error, NotSuccessor, RootError, StorageError};
use crate::header::{ClusterId, DocumentHash, Header, Hex, SlotId};
use crate::key::{Kek, KeyId, KeyInfo, KeyState};
use crate::keyring::Keyring;
use crate::mark::Mark;
use crate::member::{Acknowledged, Connections, MemberName, MemberRecord};
use crate::root::{self, Root};
use crate::secret::Secret;
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;
use crate::store;
use crate::successor::{self, Standing};

/// The wall clock of tests.
pub const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A root whose key is known to the test.
pub fn test_root() -> Box<dyn Root> {
    let key = Secret::copy_of(&[0x42; 32]).unwrap();
    Box::new(root::recovery::Recovery::with_key(
        root::recovery::RecoveryKey::from_secret(key),
    ))
}

/// An open keystore in memory, and its storage.
pub async fn open_keystore() -> (Arc<Keystore>, Arc<MemoryStorage>) {
    let storage = Arc::new(MemoryStorage::default());
    let root = test_root();
    store::init(&*storage, &[&*root], "test", NOW)
        .await
        .unwrap();
    let keystore = Keystore::new(Box::new(storage.clone()), vec![root], None);
    keystore.sync(NOW).await.unwrap();
    (Arc::new(keystore), storage)
}

/// Writes a first keyring with these KEKs: the first one primary, the others retired.
pub async fn init_with_keks(
    storage: &dyn Storage,
    root: &dyn Root,
    keks: &[[u8; 32]],
) -> Vec<KeyId> {
    let key = KeyringKey::generate().unwrap();
    let mut header = Keyring::create("test", key.id().unwrap(), NOW)
        .unwrap()
        .header()
        .clone();
    let keks: Vec<_> = keks
        .iter()
        .map(|bytes| Kek::from_bytes(bytes).unwrap())
        .collect();
    header.keys.clear();
    for (i, kek) in keks.iter().enumerate() {
        let mut info = KeyInfo::staged(kek.id().unwrap(), NOW);
        info.enter(KeyState::Primary, NOW);
        if i > 0 {
            info.enter(KeyState::Retired, NOW);
        }
        header.keys.push(info);
    }
    header.slots = vec![
        root::make_slot(root, &key, &header.cluster_id, NOW)
            .await
            .unwrap(),
    ];
    let ids = header.keys.iter().map(|key| key.id).collect();
    let keyring = Keyring::from_parts(header, keks).unwrap();
    storage
        .commit(&Document::seal(&keyring, &key).unwrap(), None)
        .await
        .unwrap();
    ids
}

/// Whether a member with this mark may follow a document with this header and hash.
pub fn may_follow(
    mark: &Mark,
    header: &Header,
    hash: &DocumentHash,
) -> Result<Standing, NotSuccessor> {
    successor::check(mark, header, hash, false)
}

/// What somebody would make who has the KEKs of an open keystore, and this keyring key of his own.
pub async fn seal_as(keystore: &Keystore, header: Header, key: &KeyringKey) -> Document {
    let keyring = keystore.keyring().await.unwrap();
    let keks = keyring
        .keks()
        .map(|kek| Kek::from_bytes(kek.expose()).unwrap());
    let keyring = Keyring::from_parts(header, keks.collect()).unwrap();
    let document = Document::seal(&keyring, key).unwrap();
    Document::parse(document.as_bytes().to_vec()).unwrap()
}

/// Stages and activates a fresh KEK, and returns its id.
pub async fn rotate(keystore: &Keystore) -> KeyId {
    keystore
        .commit(NOW, |keyring| keyring.stage(NOW))
        .await
        .unwrap();
    let staged = keystore.keyring().await.unwrap().staged().unwrap();
    keystore
        .commit(NOW, |keyring| Ok(keyring.activate(&staged, NOW)?))
        .await
        .unwrap();
    staged
}

/// The next seed that the keystore seals does not pass its self-check, as after a flipped bit.
pub fn fail_next_self_check(keystore: &Keystore) {
    let view = keystore.view();
    let snapshot = view.snapshot().unwrap();
    snapshot
        .next_self_check_fails
        .store(true, Ordering::Relaxed);
}

/// What every storage promises.
pub async fn storage_contract(storage: &dyn Storage) {
    let key = KeyringKey::generate().unwrap();
    let first = document(&key, None);
    assert!(!storage.place().is_empty());
    assert!(
        matches!(storage.load().await, Err(StorageError::Missing(_))),
        "it must begin empty"
    );

    // A commit over a document that is not there changes nothing.
    let refused = storage.commit(&first, Some(Hex([1; 32]))).await;
    assert!(
        matches!(refused, Err(StorageError::Conflict)),
        "{refused:?}"
    );
    assert!(matches!(
        storage.load().await,
        Err(StorageError::Missing(_))
    ));

    storage.commit(&first, None).await.unwrap();
    assert_eq!(storage.load().await.unwrap(), first.as_bytes());

    // Only the expected document is replaced, and only once.
    let second = document(&key, Some(&first));
    let other = document(&key, Some(&first));
    for expected in [None, Some(second.hash())] {
        let refused = storage.commit(&second, expected).await;
        assert!(
            matches!(refused, Err(StorageError::Conflict)),
            "{refused:?}"
        );
        assert_eq!(storage.load().await.unwrap(), first.as_bytes());
    }
    storage.commit(&second, Some(first.hash())).await.unwrap();
    let late = storage.commit(&other, Some(first.hash())).await;
    assert!(matches!(late, Err(StorageError::Conflict)), "{late:?}");
    assert_eq!(storage.load().await.unwrap(), second.as_bytes());

    members_contract(storage).await;
    kept_contract(storage, &first).await;

    // A commit wakes who waits, and a waiter may come late.
    let third = document(&key, Some(&second));
    storage.commit(&third, Some(second.hash())).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), storage.changed())
        .await
        .unwrap_or_else(|_| panic!("a commit woke nobody"));
    assert_eq!(storage.load().await.unwrap(), third.as_bytes());
}

/// `first` was replaced by now.
async fn kept_contract(storage: &dyn Storage, first: &Document) {
    let revision = first.header().revision;
    let kept = [(revision, first.as_bytes().to_vec())];
    assert_eq!(storage.kept().await.unwrap(), kept);
    let current = storage.load().await.unwrap();
    let other = Document::parse(current.clone()).unwrap();
    // What is not kept is not made; what is kept may be replaced and removed.
    storage.put_kept(99, None).await.unwrap();
    storage.put_kept(99, Some(&other)).await.unwrap();
    storage.put_kept(revision, Some(&other)).await.unwrap();
    let kept = [(revision, other.as_bytes().to_vec())];
    assert_eq!(storage.kept().await.unwrap(), kept);
    storage.put_kept(revision, None).await.unwrap();
    assert_eq!(storage.kept().await.unwrap(), []);
    assert_eq!(storage.load().await.unwrap(), current);
}

async fn members_contract(storage: &dyn Storage) {
    let name = |text: &str| text.parse::<MemberName>().unwrap();
    assert_eq!(storage.members().await.unwrap(), [], "it must begin empty");
    // In any order, with names that are the beginning of others; each has one record, the last.
    for (put, record) in [
        ("cp2", "two"),
        ("cp1.json", "dots"),
        ("cp1", "old"),
        ("cp1", "one"),
    ] {
        let put = storage.put_member(&name(put), record.as_bytes()).await;
        put.unwrap();
    }
    let expected = [("cp1", "one"), ("cp1.json", "dots"), ("cp2", "two")]
        .map(|(member, record)| (name(member), record.as_bytes().to_vec()));
    assert_eq!(storage.members().await.unwrap(), expected);
}

/// A member's record that says nothing yet.
pub fn member_record(name: &str, written: Timestamp) -> MemberRecord {
    MemberRecord {
        name: name.parse().unwrap(),
        instance: Hex([1; 16]),
        written,
        acknowledged: Acknowledged {
            revision: 1,
            sha256: Hex([1; 32]),
        },
        formats: vec![1],
        answers: None,
        published: None,
        quiet: Vec::new(),
        connections: Connections::default(),
        converged: None,
        restarted: Vec::new(),
        roots: Vec::new(),
        last_read: written,
    }
}

/// What every root promises. `other` is a root of the same kind with another key.
pub async fn root_contract(root: &dyn Root, other: &dyn Root) {
    let key = KeyringKey::generate().unwrap();
    let cluster = ClusterId::random().unwrap();
    root.check().await.unwrap();
    assert!(!root.name().is_empty());

    let slot = root::make_slot(root, &key, &cluster, NOW).await.unwrap();
    assert_eq!((slot.kind, slot.name.as_str()), (root.kind(), root.name()));
    let id = key.id().unwrap();
    let opened = root::open_slot(root, &slot, &cluster, &id).await.unwrap();
    assert_eq!(opened.id().unwrap(), id);

    // The same key never wraps alike, and every slot has its own id.
    let again = root::make_slot(root, &key, &cluster, NOW).await.unwrap();
    assert_ne!(slot.payload, again.payload);
    assert_ne!(slot.id, again.id);

    // Another slot, cluster, keyring key or root: never a key, always a refusal.
    let mut moved = slot.clone();
    moved.id = SlotId::random().unwrap();
    assert_refused(root::open_slot(root, &moved, &cluster, &id).await);
    let elsewhere = ClusterId::random().unwrap();
    assert_refused(root::open_slot(root, &slot, &elsewhere, &id).await);
    assert_refused(root::open_slot(root, &slot, &cluster, &Hex([9; 32])).await);
    assert_refused(root::open_slot(other, &slot, &cluster, &id).await);

    for position in [0, slot.payload.0.len() / 2, slot.payload.0.len() - 1] {
        let mut changed = slot.clone();
        changed.payload.0[position] ^= 1;
        assert_refused(root::open_slot(root, &changed, &cluster, &id).await);
    }
    for len in [0, 1, slot.payload.0.len() - 1] {
        let mut cut = slot.clone();
        cut.payload.0.truncate(len);
        assert_refused(root::open_slot(root, &cut, &cluster, &id).await);
    }
}

fn assert_refused(opened: Result<KeyringKey, Error>) {
    match opened {
        Ok(_) => panic!("a slot opened that must not"),
        Err(
            Error::Root {
                source: RootError::NotMine(_),
                ..
            }
            | Error::Document(_),
        ) => {}
        Err(other) => panic!("refused in the wrong class: {other}"),
    }
}

/// A document that follows `previous`, or a first one.
pub fn document(key: &KeyringKey, previous: Option<&Document>) -> Document {
    let keyring = match previous {
        None => Keyring::create("test", key.id().unwrap(), NOW).unwrap(),
        Some(previous) => {
            let header = previous.header();
            previous
                .open(key)
                .unwrap()
                .following(header.revision, previous.hash())
                .unwrap()
        }
    };
    let slots = match previous {
        Some(previous) => previous.header().slots.clone(),
        None => vec![slot()],
    };
    Document::seal(&keyring.with_slots(slots).unwrap(), key).unwrap()
}

/// A slot that no root opens; documents need one.
fn slot() -> crate::header::Slot {
    crate::header::Slot {
        id: Hex([1; 8]),
        kind: crate::header::SlotKind::KeyFile,
        name: "local".to_owned(),
        created: NOW,
        payload: crate::header::Base64(vec![0; 104]),
        kdf: None,
    }
}
