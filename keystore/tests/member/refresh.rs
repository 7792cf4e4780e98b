//! What a Decrypt with an unknown key id costs the storage, and that it heals a slow member.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::error::StorageError;
use claviger_keystore::header::DocumentHash;
use claviger_keystore::member::MemberName;
use claviger_keystore::snapshot::Refusal;
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::memory::MemoryStorage;
use claviger_keystore::testing::{NOW, rotate, test_root};
use tokio::time::{advance, timeout};

use crate::node::{Node, SEED, open, seal};

/// A storage that takes its time for each read, and counts them.
struct Slow {
    storage: Arc<MemoryStorage>,
    read_takes: Duration,
    begun: Arc<AtomicUsize>,
}

#[async_trait]
impl Storage for Slow {
    fn place(&self) -> String {
        self.storage.place()
    }

    async fn load(&self) -> Result<Vec<u8>, StorageError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.read_takes).await;
        self.storage.load().await
    }

    async fn commit(
        &self,
        new: &Document,
        expected: Option<DocumentHash>,
    ) -> Result<(), StorageError> {
        self.storage.commit(new, expected).await
    }

    async fn kept(&self) -> Result<Vec<(u64, Vec<u8>)>, StorageError> {
        self.storage.kept().await
    }

    async fn put_kept(
        &self,
        revision: u64,
        document: Option<&Document>,
    ) -> Result<(), StorageError> {
        self.storage.put_kept(revision, document).await
    }

    async fn put_member(&self, name: &MemberName, record: &[u8]) -> Result<(), StorageError> {
        self.storage.put_member(name, record).await
    }

    async fn members(&self) -> Result<Vec<(MemberName, Vec<u8>)>, StorageError> {
        self.storage.members().await
    }

    async fn changed(&self) {
        self.storage.changed().await;
    }
}

/// An open member on a storage whose reads take that long; and the reads begun since it opened.
async fn member(node: &Node, read_takes: Duration) -> (Arc<Keystore>, Arc<AtomicUsize>) {
    let begun = Arc::<AtomicUsize>::default();
    let storage = Slow {
        storage: node.storage.clone(),
        read_takes,
        begun: begun.clone(),
    };
    let member = Keystore::new(Box::new(storage), vec![test_root()], None);
    member.sync(NOW).await.unwrap();
    begun.store(0, Ordering::Relaxed);
    (Arc::new(member), begun)
}

/// Many requests at once that each name an unknown key.
async fn refresh_at_once(member: &Arc<Keystore>) {
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let member = member.clone();
        requests.spawn(async move { member.refresh(NOW).await });
    }
    requests.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn requests_at_once_share_one_read() {
    let node = Node::new().await;
    // A read that takes longer than the interval between two of them is shared too.
    for read_takes in [
        Duration::ZERO,
        Duration::from_millis(900),
        Duration::from_secs(5),
    ] {
        let (member, begun) = member(&node, read_takes).await;
        refresh_at_once(&member).await;
        assert_eq!(begun.load(Ordering::Relaxed), 1, "reads of {read_takes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_one_read_a_second() {
    let node = Node::new().await;
    let (member, begun) = member(&node, Duration::ZERO).await;
    for second in 1..=3 {
        for _ in 0..9 {
            member.refresh(NOW).await;
            advance(Duration::from_millis(100)).await;
        }
        assert_eq!(begun.load(Ordering::Relaxed), second);
        advance(Duration::from_millis(101)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_given_up_leaves_the_read_to_the_next() {
    let node = Node::new().await;
    let (member, begun) = member(&node, Duration::from_millis(500)).await;
    assert!(
        timeout(Duration::from_millis(100), member.refresh(NOW))
            .await
            .is_err()
    );
    member.refresh(NOW).await;
    assert_eq!(
        begun.load(Ordering::Relaxed),
        2,
        "the second request was told nothing new"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_keeps_what_was_open() {
    let node = Node::new().await;
    let (member, _) = member(&node, Duration::ZERO).await;
    let sealed = seal(&member);
    node.storage.put(None);
    member.refresh(NOW).await;
    assert_eq!(open(&member, &sealed).unwrap(), SEED);
}

#[tokio::test(start_paused = true)]
async fn a_second_member_opens_what_the_first_one_rotated_to() {
    let node = Node::new().await;
    let (first, (second, _)) = (node.member().await, member(&node, Duration::ZERO).await);
    for _ in 0..2 {
        rotate(&first).await;
        let sealed = seal(&first);
        assert_eq!(open(&second, &sealed), Err(Refusal::UnknownKey(sealed.0)));
        second.refresh(NOW).await;
        assert_eq!(open(&second, &sealed).unwrap(), SEED);
        // And the other way round.
        let sealed = seal(&second);
        assert_eq!(open(&first, &sealed).unwrap(), SEED);
        advance(Duration::from_secs(1)).await;
    }
}
