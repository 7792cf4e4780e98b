//! Several who commit at once: one wins, and nothing is lost.

use std::collections::HashSet;
use std::sync::Arc;

use claviger_keystore::Keystore;
use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::key::KeyState;
use claviger_keystore::keyring::Keyring;
use claviger_keystore::storage::file::{Durability, FileStorage};
use claviger_keystore::store;
use claviger_keystore::testing::{NOW, test_root};
use tokio::sync::Barrier;

use crate::folder::fast_folder;
use crate::node::{revision, seal};

const ROUNDS: u64 = 1000;

/// A legal change, another one each round; a rotation in every hundredth, for its keys make every
/// later round longer.
fn change(keyring: &Keyring, round: u64) -> Result<Keyring, Error> {
    let header = keyring.header();
    let last = header
        .keys
        .iter()
        .rev()
        .find(|key| matches!(key.state, KeyState::Retired | KeyState::Disabled));
    match (keyring.staged(), last, round % 100) {
        (Some(staged), ..) => Ok(keyring.activate(&staged, NOW)?),
        (None, None, _) | (None, _, 0) => keyring.stage(NOW),
        (None, Some(key), _) if key.state == KeyState::Retired => {
            Ok(keyring.disable(&key.id, NOW)?)
        }
        (None, Some(key), _) => Ok(keyring.enable(&key.id, NOW)?),
    }
}

/// Both commit in the same moment. Says which of them won.
async fn round(members: &[Arc<Keystore>; 2], round: u64) -> usize {
    let start = Arc::new(Barrier::new(2));
    let commits = members.clone().map(|member| {
        let start = start.clone();
        tokio::spawn(async move {
            member.sync(NOW).await.unwrap();
            start.wait().await;
            member.commit(NOW, |keyring| change(keyring, round)).await
        })
    });
    let mut won = Vec::new();
    for (i, commit) in commits.into_iter().enumerate() {
        match commit.await.unwrap() {
            Ok(()) => won.push(i),
            Err(Error::Storage(StorageError::Conflict)) => {}
            Err(e) => panic!("round {round}: {e}"),
        }
    }
    assert_eq!(won.len(), 1, "round {round}: {won:?} won");
    won[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_75_two_committers_a_thousand_rounds() {
    let folder = fast_folder();
    let path = folder.path().join("keyring");
    // Each has its own open files, as two processes would.
    let storage = || FileStorage::new(&path, Durability::Memory);
    store::init(&storage(), &[&*test_root()], "test", NOW)
        .await
        .unwrap();
    let members: [Arc<Keystore>; 2] = std::array::from_fn(|_| {
        Arc::new(Keystore::new(Box::new(storage()), vec![test_root()], None))
    });
    let (mut wins, mut made) = ([0; 2], HashSet::new());
    for i in 1..=ROUNDS {
        let winner = round(&members, i).await;
        wins[winner] += 1;
        let keyring = members[winner].keyring().await.unwrap();
        assert_eq!(
            keyring.header().revision,
            i + 1,
            "a revision was left out or made twice"
        );
        assert_eq!(revision(&members[winner]), i + 1);
        made.extend(keyring.header().keys.iter().map(|key| key.id));
        assert_eq!(
            made.len(),
            keyring.header().keys.len(),
            "a generation was lost"
        );
    }
    assert!(
        made.len() > 8,
        "{} keys: too few rotations to show anything",
        made.len()
    );
    assert!(
        wins.iter().all(|wins| *wins > 0),
        "they never met: {wins:?}"
    );
    for member in &members {
        member.sync(NOW).await.unwrap();
        seal(member);
    }
}
