//! While it runs: a member follows successors, and keeps the last good keyring from all else.

use claviger_keystore::Keystore;
use claviger_keystore::error::{ChangeError, Error, NotSuccessor, StorageError};
use claviger_keystore::key::KeyState;
use claviger_keystore::keyring::Keyring;
use claviger_keystore::snapshot::View;
use claviger_keystore::storage::Storage;
use claviger_keystore::store::Synced;
use claviger_keystore::testing::{NOW, rotate};
use jiff::Timestamp;

use crate::node::{Node, SEED, abort, elsewhere, open, revision, seal, stage, touch, unmarked};

/// A running member refuses what came, keeps what it had, and goes on once that is back.
async fn assert_kept(
    node: &Node,
    member: &Keystore,
    bad: Option<Vec<u8>>,
    refused: impl Fn(&Error) -> bool,
) {
    let good = node.bytes().await;
    let (before, sealed) = (revision(member), seal(member));
    node.storage.put(bad);
    for _ in 0..2 {
        let error = member.sync(NOW).await.unwrap_err();
        assert!(refused(&error), "{error}");
    }
    assert_eq!(revision(member), before);
    assert_eq!(open(member, &sealed).unwrap(), SEED);
    assert_eq!(open(member, &seal(member)).unwrap(), SEED);
    let conflict = touch(member).await.unwrap_err();
    assert!(
        matches!(conflict, Error::Storage(StorageError::Conflict)),
        "{conflict}"
    );
    assert_eq!(revision(member), before, "a refused commit changes nothing");
    node.storage.put(Some(good));
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Unchanged);
}

#[tokio::test]
async fn a_member_follows_successors_and_keeps_every_key() {
    let node = Node::new().await;
    let (writer, reader) = (node.member().await, unmarked(&node.storage));
    reader.sync(NOW).await.unwrap();
    let mut sealed = vec![seal(&writer)];
    for _ in 0..3 {
        let new = rotate(&writer).await;
        sealed.push(seal(&writer));
        assert_eq!(reader.sync(NOW).await.unwrap(), Synced::Opened);
        assert_eq!(reader.sync(NOW).await.unwrap(), Synced::Unchanged);
        assert_eq!(reader.view().snapshot().unwrap().primary(), Ok(new));
        for sealed in &sealed {
            assert_eq!(open(&reader, sealed).unwrap(), SEED);
        }
    }
}

#[tokio::test]
async fn a_running_member_keeps_the_last_good_keyring() {
    let node = Node::new().await;
    let member = node.member().await;
    let first = node.bytes().await;
    rotate(&member).await;
    let newest = node.bytes().await;

    let damaged = |e: &Error| matches!(e, Error::Document(_));
    for len in [0, 1, newest.len() / 2, newest.len() - 1] {
        assert_kept(&node, &member, Some(newest[..len].to_vec()), damaged).await;
    }
    assert_kept(&node, &member, Some(b"garbage\n".to_vec()), damaged).await;
    assert_kept(&node, &member, Some(vec![b'\n'; 600_000]), damaged).await;
    // Row 74.
    let missing = |e: &Error| matches!(e, Error::Storage(StorageError::Missing(_)));
    assert_kept(&node, &member, None, missing).await;
    // Row 72.
    let older = |e: &Error| {
        matches!(
            e,
            Error::NotSuccessor(NotSuccessor::Older { seen: 3, found: 1 })
        )
    };
    assert_kept(&node, &member, Some(first), older).await;
}

#[tokio::test]
async fn row_73_a_running_member_refuses_another_cluster() {
    let node = Node::new().await;
    let member = node.member().await;
    let other = Node::new().await;
    rotate(&other.member().await).await;
    let foreign = |e: &Error| matches!(e, Error::NotSuccessor(NotSuccessor::OtherKeyringKey));
    assert_kept(&node, &member, Some(other.bytes().await), foreign).await;
}

#[tokio::test]
async fn a_running_member_refuses_another_keyring_key() {
    let node = Node::new().await;
    let member = node.member().await;
    let text = String::from_utf8(node.bytes().await).unwrap();
    let id = member
        .keyring()
        .await
        .unwrap()
        .header()
        .keyring_key_id
        .to_string();
    let other: String = id.chars().rev().collect();
    let refused = |e: &Error| matches!(e, Error::NotSuccessor(NotSuccessor::OtherKeyringKey));
    assert_kept(
        &node,
        &member,
        Some(text.replace(&id, &other).into_bytes()),
        refused,
    )
    .await;
}

#[tokio::test]
async fn a_running_member_refuses_forks_lost_keys_and_steps_back() {
    let node = Node::new().await;
    let member = node.member().await;
    let first = node.bytes().await;
    let before = seal(&member).0;
    stage(&member).await.unwrap();
    let staged = member.keyring().await.unwrap().staged().unwrap();

    // The same revision, made by somebody else.
    let (other, storage) = elsewhere(&first).await;
    stage(&other).await.unwrap();
    let fork = storage.load().await.unwrap();
    let forked = |e: &Error| matches!(e, Error::NotSuccessor(NotSuccessor::Forked(2)));
    assert_kept(&node, &member, Some(fork), forked).await;

    // The next revision, of another predecessor.
    abort(&other).await;
    let fork = storage.load().await.unwrap();
    let forked = |e: &Error| matches!(e, Error::NotSuccessor(NotSuccessor::Forked(3)));
    assert_kept(&node, &member, Some(fork), forked).await;

    // A later one, which never heard of the staged key.
    stage(&other).await.unwrap();
    let fork = storage.load().await.unwrap();
    let lost =
        |e: &Error| matches!(e, Error::NotSuccessor(NotSuccessor::KeyLost(id)) if *id == staged);
    assert_kept(&node, &member, Some(fork), lost).await;

    // A later one, in which a retired key is primary.
    let (other, storage) = elsewhere(&node.bytes().await).await;
    member
        .commit(NOW, |keyring| Ok(keyring.activate(&staged, NOW)?))
        .await
        .unwrap();
    abort(&other).await;
    touch(&other).await.unwrap();
    touch(&other).await.unwrap();
    let fork = storage.load().await.unwrap();
    let (seen, found) = (KeyState::Retired, KeyState::Primary);
    let backwards = NotSuccessor::Backwards {
        id: before,
        seen,
        found,
    };
    let refused = |e: &Error| matches!(e, Error::NotSuccessor(found) if *found == backwards);
    assert_kept(&node, &member, Some(fork), refused).await;
}

#[tokio::test]
async fn row_67_every_flipped_bit_is_refused() {
    let node = Node::new().await;
    let member = node.member().await;
    rotate(&member).await;
    let (good, sealed) = (node.bytes().await, seal(&member));
    // A member that never saw a keyring believes more than one that has a mark.
    let stranger = unmarked(&node.storage);
    for position in 0..good.len() {
        for bit in 0..8 {
            let mut flipped = good.clone();
            flipped[position] ^= 1 << bit;
            node.storage.put(Some(flipped));
            for member in [&member, &stranger] {
                assert!(
                    member.sync(NOW).await.is_err(),
                    "bit {bit} of byte {position}"
                );
            }
            assert!(matches!(**stranger.view(), View::Closed(_)));
        }
        assert_eq!(open(&member, &sealed).unwrap(), SEED);
    }
    node.storage.put(Some(good));
    stranger.sync(NOW).await.unwrap();
    assert_eq!(open(&stranger, &sealed).unwrap(), SEED);
}

#[tokio::test]
async fn a_change_that_is_no_successor_is_never_committed() {
    let node = Node::new().await;
    let member = node.member().await;
    let (sealed, before) = (seal(&member), node.bytes().await);
    let another_keyring = |keyring: &Keyring| {
        let header = keyring.header();
        let fresh = Keyring::create("test", header.keyring_key_id, NOW)?;
        Ok(fresh.with_slots(header.slots.clone())?)
    };
    let refused = member.commit(NOW, another_keyring).await;
    assert!(
        matches!(refused, Err(Error::NotSuccessor(_))),
        "{refused:?}"
    );
    let refused = member
        .commit(NOW, |keyring| Ok(keyring.disable(&sealed.0, NOW)?))
        .await;
    assert!(
        matches!(refused, Err(Error::Change(ChangeError::Illegal { .. }))),
        "{refused:?}"
    );
    assert_eq!(open(&member, &sealed).unwrap(), SEED);
    assert_eq!(node.bytes().await, before);
}

#[tokio::test]
async fn row_79_no_wall_clock_changes_a_key() {
    let node = Node::new().await;
    let clocks = [
        "1970-01-01T00:00:00Z",
        "9999-12-30T21:59:59Z",
        "2024-02-29T12:00:00.9Z",
    ];
    let mut sealed = Vec::new();
    for clock in clocks {
        let now: Timestamp = clock.parse().unwrap();
        let member = node.start();
        member.sync(now).await.unwrap();
        let primary = member.view().snapshot().unwrap().primary().unwrap();
        sealed.push(seal(&member));
        member
            .commit(now, |keyring| keyring.stage(now))
            .await
            .unwrap();
        let staged = member.keyring().await.unwrap().staged().unwrap();
        assert_eq!(member.view().snapshot().unwrap().primary(), Ok(primary));
        member
            .commit(now, |keyring| Ok(keyring.activate(&staged, now)?))
            .await
            .unwrap();
        sealed.push(seal(&member));
    }
    // The clock steps back by decades, and the member starts once more.
    let member = node.member().await;
    for sealed in &sealed {
        assert_eq!(open(&member, sealed).unwrap(), SEED);
    }
}
