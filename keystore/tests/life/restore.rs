//! Restore, accepted rollback, repair of a fork: nothing that was sealed is lost, and everybody may
//! follow.

use std::sync::Arc;

use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::error::{Error, MergeError, NotSuccessor};
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::keyring::Keyring;
use claviger_keystore::member::Found;
use claviger_keystore::rotation::{Action, Idle, Request};
use claviger_keystore::snapshot::Refusal;
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::memory::MemoryStorage;
use claviger_keystore::store::{self, Restore, Restored};
use claviger_keystore::testing::{NOW, member_record, rotate, test_root};

use crate::node::{Node, SEED, Sealed, elsewhere, open, revision, seal, unmarked};
use crate::roots::key_file;

fn plain(from: &Document) -> Restore<'_> {
    Restore {
        from,
        roots: &[],
        needed: &[],
        accept_loss: &[],
        accept_keyring_key: None,
    }
}

fn parse(bytes: &[u8]) -> Document {
    Document::parse(bytes.to_vec()).unwrap()
}

async fn restore(member: &Keystore, from: &[u8]) -> Result<Restored, Error> {
    member.restore(plain(&parse(from)), NOW).await
}

async fn change(member: &Keystore, change: impl FnOnce(&Keyring) -> Keyring) {
    member
        .commit(NOW, |keyring| Ok(change(keyring)))
        .await
        .unwrap();
}

async fn state(member: &Keystore, id: &KeyId) -> Option<KeyState> {
    member.keyring().await.unwrap().key(id).map(|key| key.state)
}

/// Decrypt goes on, and Status and Encrypt are refused until the fresh key is activated.
async fn assert_waits_for_activation(member: &Keystore, sealed: &[&Sealed]) {
    let refused = member.view().snapshot().unwrap().primary();
    assert_eq!(refused, Err(Refusal::NoPrimary));
    for sealed in sealed {
        assert_eq!(open(member, sealed).unwrap(), SEED);
    }
    let timer = Request::Timer {
        due_for: std::time::Duration::ZERO,
    };
    let cp1 = "cp1".parse().unwrap();
    let action = member.step(timer, Some(&cp1), NOW).await.unwrap();
    assert!(matches!(action, Action::Activate(_)), "{action:?}");
    let fresh = seal(member);
    assert!(sealed.iter().all(|sealed| sealed.0 != fresh.0));
}

fn lost(refused: &Error) -> Vec<KeyId> {
    match refused {
        Error::Merge(MergeError::Lost(ids)) => ids.clone(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_lost_node_comes_back_from_its_backup() {
    let node = Node::new().await;
    let member = node.member().await;
    let old = seal(&member);
    rotate(&member).await;
    let new = seal(&member);
    let backup = node.bytes().await;

    let empty = Arc::<MemoryStorage>::default();
    let member = unmarked(&empty);
    let restored = restore(&member, &backup).await.unwrap();
    assert_eq!(restored.revision, 4);
    assert!(restored.removed.is_empty() && restored.not_removed.is_empty());
    assert_waits_for_activation(&member, &[&old, &new]).await;
}

#[tokio::test]
async fn a_backup_is_merged_and_never_replaces() {
    let node = Node::new().await;
    let (member, running) = (node.member().await, node.member().await);
    let first = seal(&member);
    let backup = node.bytes().await;
    rotate(&member).await;
    let second = seal(&member);
    running.sync(NOW).await.unwrap();
    running
        .put_member(&member_record("cp1", NOW))
        .await
        .unwrap();
    running
        .put_member(&member_record("cp2", NOW))
        .await
        .unwrap();

    let restored = restore(&member, &backup).await.unwrap();
    assert_eq!(restored.revision, 4);
    let names: Vec<&str> = restored.removed.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["cp1", "cp2"]);
    for sealed in [&first, &second] {
        assert_eq!(state(&member, &sealed.0).await, Some(KeyState::Retired));
    }
    // Nobody is waited for but those that come back, at least one.
    let members = member.members().await.unwrap();
    assert!(
        members
            .iter()
            .all(|member| member.found == Found::Removed(NOW))
    );
    let staged = member.keyring().await.unwrap().staged().unwrap();
    let nobody = member.step(Request::Activate, None, NOW).await.unwrap();
    assert_eq!(nobody, Action::Nothing(Idle::NoMember(staged)));
    running.sync(NOW).await.unwrap();
    let mut record = member_record("cp1", NOW);
    record.acknowledged = running.acknowledged().await.unwrap();
    running.put_member(&record).await.unwrap();
    let action = member.step(Request::Activate, None, NOW).await.unwrap();
    assert_eq!(action, Action::Activate(staged));
    running.sync(NOW).await.unwrap();
    assert_eq!(seal(&running).0, staged);
}

#[tokio::test]
async fn what_the_mark_knows_is_not_lost_silently() {
    let node = Node::new().await;
    let member = node.member().await;
    let (first, backup) = (seal(&member), node.bytes().await);
    rotate(&member).await;
    let second = seal(&member);
    // The keyring and all that was kept of it are gone; the mark is there.
    node.storage.put(None);
    for (revision, _) in node.storage.kept().await.unwrap() {
        node.storage.put_kept(revision, None).await.unwrap();
    }
    let member = node.start();
    let refused = restore(&member, &backup).await.unwrap_err();
    assert_eq!(lost(&refused), [second.0]);
    assert!(refused.to_string().contains(&second.0.to_string()));
    assert!(
        node.storage.load().await.is_err(),
        "a refused restore wrote"
    );

    let document = parse(&backup);
    let accept_loss = [second.0];
    let accepted = Restore {
        accept_loss: &accept_loss,
        ..plain(&document)
    };
    let restored = member.restore(accepted, NOW).await.unwrap();
    assert_eq!(restored.revision, 4, "it is behind what the mark saw");
    assert_eq!(state(&member, &second.0).await, Some(KeyState::Destroyed));
    assert_waits_for_activation(&member, &[&first]).await;
    // A member that saw the lost key follows too.
    assert_waits_for_nothing(&node).await;
}

/// A member of this node starts, and serves.
async fn assert_waits_for_nothing(node: &Node) {
    let member = node.member().await;
    assert_eq!(open(&member, &seal(&member)).unwrap(), SEED);
}

#[tokio::test]
async fn what_kept_documents_and_audits_know_is_not_lost_either() {
    let node = Node::new().await;
    let member = node.member().await;
    let backup = node.bytes().await;
    rotate(&member).await;
    let second = seal(&member).0;
    crate::node::touch(&member).await.unwrap();
    node.storage.put(None);
    std::fs::remove_file(node.mark()).unwrap();
    let refused = restore(&node.start(), &backup).await.unwrap_err();
    assert_eq!(lost(&refused), [second]);

    let empty = Arc::<MemoryStorage>::default();
    let document = parse(&backup);
    let needed = [second];
    let asked = Restore {
        needed: &needed,
        ..plain(&document)
    };
    let refused = unmarked(&empty).restore(asked, NOW).await.unwrap_err();
    assert_eq!(lost(&refused), [second]);
}

#[tokio::test]
async fn an_older_keyring_that_was_put_back_is_accepted_by_a_restore() {
    let node = Node::new().await;
    let member = node.member().await;
    let (sealed, older) = (seal(&member), node.bytes().await);
    crate::node::touch(&member).await.unwrap();
    node.storage.put(Some(older.clone()));
    let restarted = node.member().await;
    let refused = restarted.view().snapshot().unwrap().primary();
    assert!(
        matches!(refused, Err(Refusal::DecryptOnly(_))),
        "{refused:?}"
    );

    let restored = restore(&restarted, &older).await.unwrap();
    assert_eq!(restored.revision, 3);
    assert_waits_for_activation(&restarted, &[&sealed]).await;
    // The one that ran all the time follows as well.
    member.sync(NOW).await.unwrap();
    assert_eq!(revision(&member), 4);
    assert_waits_for_nothing(&node).await;
}

#[tokio::test]
async fn both_branches_of_a_fork_follow_the_merge() {
    let node = Node::new().await;
    let ours = node.member().await;
    let root = seal(&ours);
    // The other branch: another node went on from the same document.
    let (theirs, their_storage) = elsewhere(&node.bytes().await).await;
    rotate(&theirs).await;
    rotate(&ours).await;
    let (our_seal, their_seal) = (seal(&ours), seal(&theirs));
    let branch = their_storage.load().await.unwrap();
    let our_branch = node.bytes().await;
    node.storage.put(Some(branch.clone()));
    let forked = ours.sync(NOW).await.unwrap_err();
    assert!(
        matches!(forked, Error::NotSuccessor(NotSuccessor::Forked(3))),
        "{forked}"
    );
    node.storage.put(Some(our_branch));

    let merger = node.start();
    restore(&merger, &branch).await.unwrap();
    let merged = node.bytes().await;
    for sealed in [&root, &our_seal, &their_seal] {
        assert_eq!(open(&merger, sealed).unwrap(), SEED);
    }
    ours.sync(NOW).await.unwrap();
    their_storage.put(Some(merged));
    theirs.sync(NOW).await.unwrap();
    for member in [&ours, &theirs] {
        assert_eq!(revision(member), 4);
        assert_eq!(open(member, &our_seal).unwrap(), SEED);
        assert_eq!(open(member, &their_seal).unwrap(), SEED);
    }
}

#[tokio::test]
async fn bytes_against_a_tombstone_are_kept_and_disabled() {
    let node = Node::new().await;
    let (member, running) = (node.member().await, node.member().await);
    let old = seal(&member);
    let backup = node.bytes().await;
    rotate(&member).await;
    let id = old.0;
    change(&member, |keyring| keyring.disable(&id, NOW).unwrap()).await;
    member.destroy(&id, NOW).await.unwrap();
    running.sync(NOW).await.unwrap();

    restore(&member, &backup).await.unwrap();
    assert_eq!(state(&member, &id).await, Some(KeyState::Disabled));
    // Those that saw the tombstone follow; the operator may use the key again.
    running.sync(NOW).await.unwrap();
    let refused = open(&running, &old).unwrap_err();
    assert!(matches!(
        refused,
        Refusal::KeyState(_, KeyState::Disabled, _)
    ));
    change(&running, |keyring| keyring.enable(&id, NOW).unwrap()).await;
    assert_eq!(open(&running, &old).unwrap(), SEED);
    let restarted = node.member().await;
    assert_eq!(open(&restarted, &old).unwrap(), SEED);
}

#[tokio::test]
async fn another_clusters_backup_is_refused() {
    let (node, other) = (Node::new().await, Node::new().await);
    let member = node.member().await;
    let before = node.bytes().await;
    let document = parse(&other.bytes().await);
    let key = document.header().keyring_key_id;
    for accept_keyring_key in [None, Some(key)] {
        let asked = Restore {
            accept_keyring_key,
            ..plain(&document)
        };
        let refused = member.restore(asked, NOW).await.unwrap_err();
        let foreign = matches!(
            refused,
            Error::Merge(MergeError::OtherCluster { .. })
                | Error::NotSuccessor(NotSuccessor::OtherKeyringKey)
        );
        assert!(foreign, "{refused}");
        assert_eq!(node.bytes().await, before);
    }
    // Where the keyring is gone, the mark knows which cluster this is.
    node.storage.put(None);
    let accepted = Restore {
        accept_keyring_key: Some(key),
        ..plain(&document)
    };
    let refused = node.start().restore(accepted, NOW).await.unwrap_err();
    let ids = matches!(refused, Error::Merge(MergeError::Lost(_)));
    assert!(ids, "{refused}");
    let known = member.keyring().await.unwrap().primary().unwrap();
    let loss = [known];
    let accepted = Restore {
        accept_loss: &loss,
        ..accepted
    };
    let refused = node.start().restore(accepted, NOW).await.unwrap_err();
    let foreign = matches!(
        refused,
        Error::NotSuccessor(NotSuccessor::OtherCluster { .. })
    );
    assert!(foreign, "{refused}");
}

#[tokio::test]
async fn a_backup_from_before_a_rekey_goes_under_the_new_key() {
    let node = Node::new().await;
    let member = node.member().await;
    let (sealed, backup) = (seal(&member), node.bytes().await);
    member.rekey(&[], &[], NOW).await.unwrap();
    let key = member.keyring().await.unwrap().header().keyring_key_id;
    restore(&member, &backup).await.unwrap();
    assert_eq!(member.keyring().await.unwrap().header().keyring_key_id, key);
    assert_waits_for_activation(&member, &[&sealed]).await;
    assert_waits_for_nothing(&node).await;
}

#[tokio::test]
async fn a_backup_from_after_a_rekey_brings_its_key() {
    let node = Node::new().await;
    let member = node.member().await;
    let (sealed, before) = (seal(&member), node.bytes().await);
    member.rekey(&[], &[], NOW).await.unwrap();
    let key = member.keyring().await.unwrap().header().keyring_key_id;
    let after = node.bytes().await;
    let (late, storage) = elsewhere(&before).await;
    restore(&late, &after).await.unwrap();
    assert_eq!(late.keyring().await.unwrap().header().keyring_key_id, key);
    assert_waits_for_activation(&late, &[&sealed]).await;
    drop(storage);
}

#[tokio::test]
async fn a_keyring_key_without_proof_is_typed_out() {
    let node = Node::new().await;
    let (member, running) = (node.member().await, node.member().await);
    let sealed = seal(&member);
    // Two changes of the key, and nothing is kept of the one between.
    let (remote, remote_storage) = elsewhere(&node.bytes().await).await;
    remote.rekey(&[], &[], NOW).await.unwrap();
    remote.rekey(&[], &[], NOW).await.unwrap();
    let document = parse(&remote_storage.load().await.unwrap());
    node.storage.put(Some(document.as_bytes().to_vec()));
    let refused = restore(&member, document.as_bytes()).await.unwrap_err();
    let other_key = matches!(refused, Error::NotSuccessor(NotSuccessor::OtherKeyringKey));
    assert!(other_key, "{refused}");

    let accepted = Restore {
        accept_keyring_key: Some(document.header().keyring_key_id),
        ..plain(&document)
    };
    member.restore(accepted, NOW).await.unwrap();
    assert_waits_for_activation(&member, &[&sealed]).await;
    // The plugin of this node follows what a command on it accepted, also while it runs.
    running.sync(NOW).await.unwrap();
    assert_eq!(open(&running, &seal(&member)).unwrap(), SEED);
    assert_waits_for_nothing(&node).await;
}

#[tokio::test]
async fn a_recovery_key_opens_what_no_configured_root_does() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::<MemoryStorage>::default();
    let local = key_file(folder.path(), "local");
    store::init(&*storage, &[&*local, &*test_root()], "test", NOW)
        .await
        .unwrap();
    let member = Keystore::new(Box::new(storage.clone()), vec![local], None);
    member.sync(NOW).await.unwrap();
    let sealed = seal(&member);
    let document = parse(&storage.load().await.unwrap());

    // The node is gone, and its key file with it.
    std::fs::remove_file(folder.path().join("local.key")).unwrap();
    let roots = vec![key_file(folder.path(), "local")];
    let member = Keystore::new(Box::new(MemoryStorage::default()), roots, None);
    let refused = member.restore(plain(&document), NOW).await.unwrap_err();
    assert!(matches!(refused, Error::NoSlotOpens(_)), "{refused}");
    let recovery = test_root();
    let with_recovery = Restore {
        roots: &[&*recovery],
        ..plain(&document)
    };
    member.restore(with_recovery, NOW).await.unwrap();
    assert_waits_for_activation(&member, &[&sealed]).await;
}

#[tokio::test]
async fn what_is_no_document_is_neither_replaced_nor_restored() {
    let node = Node::new().await;
    let backup = node.bytes().await;
    node.storage.put(Some(b"torn".to_vec()));
    let refused = restore(&node.start(), &backup).await.unwrap_err();
    assert!(matches!(refused, Error::Document(_)), "{refused}");
    assert_eq!(node.bytes().await, b"torn");
}
