//! Another keyring key: who follows it, and who does not.

use claviger_keystore::Keystore;
use claviger_keystore::document::{Document, KeyringKey};
use claviger_keystore::error::{ChangeError, Error, NotSuccessor};
use claviger_keystore::header::Hex;
use claviger_keystore::mark::MarkFile;
use claviger_keystore::member::Found;
use claviger_keystore::root::Root;
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::file::{Durability, FileStorage};
use claviger_keystore::store::{self, Synced};
use claviger_keystore::testing::{NOW, member_record, test_root};

use crate::files::Files;
use crate::node::{Node, SEED, closed_reason, open, seal, touch};
use crate::roots::key_file;

async fn rekey(member: &Keystore) {
    member.rekey(&[], &[], NOW).await.unwrap();
}

async fn key_id(member: &Keystore) -> Hex<32> {
    member.keyring().await.unwrap().header().keyring_key_id
}

#[tokio::test]
async fn every_key_stays_and_every_member_follows() {
    let node = Node::new().await;
    let (one, other) = (node.member().await, node.member().await);
    let (sealed, before) = (seal(&one), key_id(&one).await);
    rekey(&one).await;
    assert_ne!(key_id(&one).await, before);
    assert_eq!(open(&one, &seal(&one)).unwrap(), SEED);
    // One that runs walks the chain, one that starts has the mark.
    assert_eq!(other.sync(NOW).await.unwrap(), Synced::Opened);
    assert_eq!(key_id(&other).await, key_id(&one).await);
    assert_eq!(open(&other, &sealed).unwrap(), SEED);
    touch(&other).await.unwrap();
    assert_eq!(open(&node.member().await, &sealed).unwrap(), SEED);
}

#[tokio::test]
async fn members_that_missed_several_walk_the_whole_chain() {
    let node = Node::new().await;
    let (writer, running) = (node.member().await, node.member().await);
    let sealed = seal(&writer);
    // Another node's member, whose mark is from before; it keeps nothing but that.
    let folder = tempfile::tempdir().unwrap();
    let marked = || {
        let mark = MarkFile::new(folder.path().join("mark"));
        Keystore::new(
            Box::new(node.storage.clone()),
            vec![test_root()],
            Some(mark),
        )
    };
    marked().sync(NOW).await.unwrap();
    for _ in 0..3 {
        rekey(&writer).await;
    }
    for late in [running, marked()] {
        assert_eq!(late.sync(NOW).await.unwrap(), Synced::Opened);
        assert_eq!(key_id(&late).await, key_id(&writer).await);
        assert_eq!(open(&late, &sealed).unwrap(), SEED);
    }
}

#[tokio::test]
async fn without_the_keys_on_the_way_nobody_is_believed() {
    let node = Node::new().await;
    let (writer, running) = (node.member().await, node.member().await);
    rekey(&writer).await;
    rekey(&writer).await;
    for (revision, _) in node.storage.kept().await.unwrap() {
        node.storage.put_kept(revision, None).await.unwrap();
    }
    // The mark is the node's, and the writer left its own there.
    std::fs::remove_file(node.mark()).unwrap();
    let refused = running.sync(NOW).await.unwrap_err();
    let other_key = matches!(refused, Error::NotSuccessor(NotSuccessor::OtherKeyringKey));
    assert!(other_key, "{refused}");
    assert_eq!(open(&running, &seal(&running)).unwrap(), SEED);
}

/// A keyring under a key of its own, with the same KEKs: all that its maker lacks is the old key.
#[tokio::test]
async fn a_made_up_proof_convinces_nobody() {
    let node = Node::new().await;
    let member = node.member().await;
    let original = node.bytes().await;
    rekey(&member).await;
    let rekeyed = Document::parse(node.bytes().await).unwrap();
    let genuine = rekeyed.header().rekey_proofs[0].clone();
    for forge in [
        // No proof, a proof for another key, one of another revision, a guess.
        None,
        Some(genuine.clone()),
        Some(claviger_keystore::header::RekeyProof {
            proof: Hex([9; 32]),
            ..genuine
        }),
    ] {
        let mut header = rekeyed.header().clone();
        let key = KeyringKey::generate().unwrap();
        header.keyring_key_id = key.id().unwrap();
        header.rekey_proofs = forge.into_iter().collect();
        if let Some(proof) = header.rekey_proofs.first_mut() {
            proof.to = key.id().unwrap();
        }
        let root = test_root();
        let cluster = header.cluster_id;
        let slot = claviger_keystore::root::make_slot(&*root, &key, &cluster, NOW);
        header.slots = vec![slot.await.unwrap()];
        let forged = claviger_keystore::testing::seal_as(&member, header, &key).await;

        let victim = Node::new().await;
        victim.storage.put(Some(original.clone()));
        let running = victim.member().await;
        victim.storage.put(Some(forged.as_bytes().to_vec()));
        for member in [running, victim.start()] {
            let refused = member.sync(NOW).await.unwrap_err();
            let other_key = matches!(refused, Error::NotSuccessor(NotSuccessor::OtherKeyringKey));
            assert!(other_key, "{refused}");
        }
        let why = {
            let member = victim.start();
            member.sync(NOW).await.unwrap_err();
            closed_reason(&member)
        };
        assert!(why.contains("--accept-keyring-key"), "{why}");
    }
}

#[tokio::test]
async fn a_slot_is_added_without_and_removed_with_another_key() {
    let files = Files::empty();
    let dir = files.folder.path();
    let (local, other) = (key_file(dir, "local"), key_file(dir, "other"));
    let storage = || FileStorage::new(files.keyring(), Durability::Memory);
    store::init(&storage(), &[&*local, &*test_root()], "test", NOW)
        .await
        .unwrap();
    let member = |roots: Vec<Box<dyn Root>>| {
        let mark = MarkFile::beside(&files.keyring());
        Keystore::new(Box::new(storage()), roots, Some(mark))
    };
    let writer = member(vec![key_file(dir, "local")]);
    writer.sync(NOW).await.unwrap();
    let (sealed, before) = (seal(&writer), key_id(&writer).await);

    let added = writer.add_slot(&*other, NOW).await.unwrap();
    assert_eq!(key_id(&writer).await, before);
    let with_other = member(vec![key_file(dir, "other")]);
    with_other.sync(NOW).await.unwrap();
    assert_eq!(open(&with_other, &sealed).unwrap(), SEED);

    // Every slot that stays needs its root.
    let refused = writer
        .rekey(&[], &[added], NOW)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("recovery"), "{refused}");
    let recovery = test_root();
    let removed = writer.rekey(&[&*recovery], &[added], NOW).await.unwrap();
    assert_ne!(removed, before);
    let names: Vec<String> = writer
        .keyring()
        .await
        .unwrap()
        .header()
        .slots
        .iter()
        .map(|slot| slot.name.clone())
        .collect();
    assert_eq!(names, ["local", "recovery"]);
    let locked_out = member(vec![key_file(dir, "other")]);
    let refused = locked_out.sync(NOW).await.unwrap_err();
    assert!(matches!(refused, Error::NoSlotOpens(_)), "{refused}");
    // Who runs with the removed root alone keeps what it has, and gets nothing new.
    with_other.sync(NOW).await.unwrap_err();
    for root in [test_root(), key_file(dir, "local")] {
        let member = member(vec![root]);
        member.sync(NOW).await.unwrap();
        assert_eq!(open(&member, &sealed).unwrap(), SEED);
    }
}

#[tokio::test]
async fn a_root_of_the_same_name_with_another_key_locks_nobody_out() {
    let files = Files::empty();
    let dir = files.folder.path();
    let local = key_file(dir, "local");
    let storage = || FileStorage::new(files.keyring(), Durability::Memory);
    store::init(&storage(), &[&*local], "test", NOW)
        .await
        .unwrap();
    let member = Keystore::new(Box::new(storage()), vec![local], None);
    member.sync(NOW).await.unwrap();
    std::fs::remove_file(dir.join("local.key")).unwrap();
    let _other = key_file(dir, "local");
    let before = files.bytes();
    let refused = member.rekey(&[], &[], NOW).await.unwrap_err();
    assert!(matches!(refused, Error::SlotStays { .. }), "{refused}");
    assert_eq!(files.bytes(), before);
}

#[tokio::test]
async fn neither_the_last_slot_nor_an_unknown_one_is_dropped() {
    let node = Node::new().await;
    let member = node.member().await;
    let slot = member.keyring().await.unwrap().header().slots[0].id;
    let refused = member.rekey(&[], &[slot], NOW).await.unwrap_err();
    assert!(
        matches!(refused, Error::Change(ChangeError::NoSlot)),
        "{refused}"
    );
    let refused = member.rekey(&[], &[Hex([9; 8])], NOW).await.unwrap_err();
    assert!(
        matches!(refused, Error::Change(ChangeError::UnknownSlot(_))),
        "{refused}"
    );
}

#[tokio::test]
async fn removals_outlive_it_and_records_are_written_anew() {
    let node = Node::new().await;
    let member = node.member().await;
    for name in ["cp1", "cp2"] {
        member.put_member(&member_record(name, NOW)).await.unwrap();
    }
    member
        .remove_member(&"cp2".parse().unwrap(), NOW)
        .await
        .unwrap();
    rekey(&member).await;
    let members = member.members().await.unwrap();
    assert!(
        matches!(members[0].found, Found::Unreadable(_)),
        "{members:?}"
    );
    assert_eq!(members[1].found, Found::Removed(NOW));
}

#[tokio::test]
async fn only_the_last_sixteen_proofs_are_kept() {
    let node = Node::new().await;
    let member = node.member().await;
    for _ in 0..18 {
        rekey(&member).await;
    }
    let header = member.keyring().await.unwrap().header().clone();
    assert_eq!(header.rekey_proofs.len(), 16);
    assert_eq!(
        header.rekey_proofs.last().unwrap().to,
        header.keyring_key_id
    );
    assert_eq!(header.rekey_proofs[0].revision, 4);
}
