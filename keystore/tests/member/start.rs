//! At the start: what opens, what only decrypts, what stays closed, and that each of them heals.

use std::sync::Arc;
use std::time::Duration;

use claviger_keystore::error::{DocumentError, Error, NotSuccessor};
use claviger_keystore::mark::MarkFile;
use claviger_keystore::root::recovery::{Recovery, RecoveryKey};
use claviger_keystore::snapshot::Refusal;
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::memory::MemoryStorage;
use claviger_keystore::store::{self, Synced};
use claviger_keystore::testing::{NOW, rotate};
use tokio::time::timeout;

use crate::node::{
    Node, SEED, abort, closed_reason, decrypt_only_reason, elsewhere, open, seal, stage, touch,
};

/// The document with another format number.
fn newer_format(document: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(document).unwrap();
    let newer = text.replacen(r#"{"format":1,"#, r#"{"format":2,"#, 1);
    assert_ne!(newer, text);
    newer.into_bytes()
}

#[tokio::test]
async fn rows_66_and_74_a_start_without_a_good_keyring_says_why_and_heals() {
    let node = Node::new().await;
    let good = node.bytes().await;
    let restore =
        "move it away, then run claviger restore with the newest good keyring.<revision> or backup";
    let cases: [(Option<Vec<u8>>, &str, &str); 6] = [
        (None, "there is no keyring at memory", "run claviger init"),
        (Some(Vec::new()), "is not two lines of text", restore),
        (
            Some(good[..good.len() / 2].to_vec()),
            "may be torn",
            restore,
        ),
        (
            Some(b"garbage".to_vec()),
            "is not two lines of text",
            restore,
        ),
        (
            Some(b"{}\n\n".to_vec()),
            "has a header that cannot be read",
            restore,
        ),
        (
            Some(newer_format(&good)),
            "has format 2",
            "a newer one is needed",
        ),
    ];
    for (bytes, cause, help) in cases {
        let member = node.start();
        assert_eq!(closed_reason(&member), "the keyring is not open yet");
        node.storage.put(bytes);
        assert!(member.sync(NOW).await.is_err(), "{cause}");
        let why = closed_reason(&member);
        assert!(why.contains(cause) && why.contains(help), "{why}");
        assert!(member.keyring().await.is_none());
        let refused = touch(&member).await.unwrap_err().to_string();
        assert!(
            refused.contains(cause),
            "a change is refused for another reason: {refused}"
        );
        // It heals by itself.
        node.storage.put(Some(good.clone()));
        assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
        assert_eq!(open(&member, &seal(&member)).unwrap(), SEED);
    }
}

#[tokio::test]
async fn row_66_no_torn_keyring_opens_at_any_length() {
    let node = Node::new().await;
    let good = node.bytes().await;
    for len in 0..good.len() {
        node.storage.put(Some(good[..len].to_vec()));
        let member = node.start();
        let refused = member.sync(NOW).await.unwrap_err();
        assert!(matches!(refused, Error::Document(_)), "{len}: {refused}");
        closed_reason(&member);
    }
}

#[tokio::test]
async fn a_newer_format_is_not_answered_with_an_older_copy() {
    let node = Node::new().await;
    node.storage.put(Some(newer_format(&node.bytes().await)));
    let member = node.start();
    let refused = member.sync(NOW).await.unwrap_err();
    assert!(
        matches!(refused, Error::Document(DocumentError::NewerFormat(2))),
        "{refused}"
    );
    let why = closed_reason(&member);
    assert!(
        !why.contains("restore"),
        "it tells people to restore an older keyring: {why}"
    );
}

#[tokio::test]
async fn a_start_without_a_root_that_opens_says_why_and_heals() {
    let node = Node::new().await;
    let file = node.mark().with_file_name("recovery.key");
    let root = Recovery::with_file("paper", &file);
    let member = node.start_with(Box::new(root));
    let put = |text: &str| std::fs::write(&file, text).unwrap();

    // No root answers.
    let refused = member.sync(NOW).await.unwrap_err();
    assert!(matches!(refused, Error::NoSlotOpens(_)), "{refused}");
    let why = closed_reason(&member);
    for part in [
        "no slot opens",
        "root paper",
        "bring a root back",
        "claviger slot test",
    ] {
        assert!(why.contains(part), "{why}");
    }
    // It answers with another key.
    let mine = RecoveryKey::generate().unwrap();
    put(&mine.to_text().unwrap());
    assert!(member.sync(NOW).await.is_err());
    let why = closed_reason(&member);
    assert!(why.contains("its key does not open the slot"), "{why}");
    // A keyring comes that it opens: the roots are asked afresh at every look.
    let storage: Arc<MemoryStorage> = Arc::default();
    let slots_root = Recovery::with_key(mine);
    store::init(&*storage, &[&slots_root], "test", NOW)
        .await
        .unwrap();
    node.storage.put(Some(storage.load().await.unwrap()));
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
    assert_eq!(open(&member, &seal(&member)).unwrap(), SEED);
}

#[tokio::test]
async fn row_73_another_clusters_keyring_is_refused_where_a_mark_is() {
    let (node, other) = (Node::new().await, Node::new().await);
    let good = node.bytes().await;
    drop(node.member().await);
    node.storage.put(Some(other.bytes().await));
    let member = node.start();
    let refused = member.sync(NOW).await.unwrap_err();
    let foreign = matches!(
        refused,
        Error::NotSuccessor(NotSuccessor::OtherCluster { .. })
    );
    assert!(foreign, "{refused}");
    let why = closed_reason(&member);
    for part in ["another cluster", "put the keyring back that this node had"] {
        assert!(why.contains(part), "{why}");
    }
    node.storage.put(Some(good));
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
    seal(&member);
}

#[tokio::test]
async fn a_fork_is_refused_where_a_mark_is() {
    let node = Node::new().await;
    let (other, storage) = elsewhere(&node.bytes().await).await;
    stage(&node.member().await).await.unwrap();
    stage(&other).await.unwrap();
    let (good, fork) = (node.bytes().await, storage.load().await.unwrap());
    node.storage.put(Some(fork));
    let member = node.start();
    assert!(member.sync(NOW).await.is_err());
    assert!(
        closed_reason(&member).contains("forked"),
        "{}",
        closed_reason(&member)
    );
    node.storage.put(Some(good));
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
}

#[tokio::test]
async fn another_keyring_key_is_refused_where_a_mark_is() {
    let node = Node::new().await;
    let member = node.member().await;
    let id = member
        .keyring()
        .await
        .unwrap()
        .header()
        .keyring_key_id
        .to_string();
    touch(&member).await.unwrap();
    drop(member);
    // The mark of a node that saw revision 1 under another keyring key.
    let mark = MarkFile::new(node.mark()).read().unwrap().unwrap();
    let (revision, hash) = mark.history[0];
    let text = std::fs::read_to_string(node.mark()).unwrap();
    let other: String = id.chars().rev().collect();
    let older = text
        .replacen(&id, &other, 1)
        .replacen(&mark.hash.to_string(), &hash.to_string(), 1)
        .replacen("\"revision\":2", &format!("\"revision\":{revision}"), 1);
    std::fs::write(node.mark(), older).unwrap();
    let refused = node.start().sync(NOW).await.unwrap_err();
    assert!(
        matches!(refused, Error::NotSuccessor(NotSuccessor::OtherKeyringKey)),
        "{refused}"
    );
}

#[tokio::test]
async fn row_72_an_older_keyring_decrypts_only() {
    let node = Node::new().await;
    let first = node.bytes().await;
    let member = node.member().await;
    let old = seal(&member);
    rotate(&member).await;
    let (newest, new) = (node.bytes().await, seal(&member));
    drop(member);

    node.storage.put(Some(first.clone()));
    let member = node.start();
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
    let why = decrypt_only_reason(&member, &old.0);
    for part in [
        "revision 1",
        "revision 3 was seen",
        "put the newest keyring back",
    ] {
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(open(&member, &old).unwrap(), SEED);
    assert_eq!(open(&member, &new), Err(Refusal::UnknownKey(new.0)));
    // Looking again changes nothing, and a commit would fork what is only mislaid.
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Unchanged);
    let refused = touch(&member).await.unwrap_err().to_string();
    assert!(refused.contains("revision 3 was seen"), "{refused}");
    assert_eq!(node.bytes().await, first);
    decrypt_only_reason(&member, &old.0);

    node.storage.put(Some(newest));
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
    for sealed in [old, new, seal(&member)] {
        assert_eq!(open(&member, &sealed).unwrap(), SEED);
    }
    touch(&member).await.unwrap();
}

#[tokio::test]
async fn with_an_unreadable_mark_a_member_decrypts_only() {
    let node = Node::new().await;
    let member = node.member().await;
    let sealed = seal(&member);
    rotate(&member).await;
    drop(member);
    let mark = std::fs::read(node.mark()).unwrap();

    for torn in [&mark[..mark.len() / 2], &[], b"garbage"] {
        std::fs::write(node.mark(), torn).unwrap();
        let member = node.start();
        assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
        let why = decrypt_only_reason(&member, &sealed.0);
        assert!(
            why.contains(&format!("the mark {}", node.mark().display())),
            "{why}"
        );
        assert!(
            why.contains("remove the mark"),
            "it does not say what helps: {why}"
        );
        assert_eq!(open(&member, &sealed).unwrap(), SEED);
        assert!(touch(&member).await.is_err());
        assert_eq!(
            std::fs::read(node.mark()).unwrap(),
            torn,
            "the evidence is gone"
        );
    }
    std::fs::write(node.mark(), &mark).unwrap();
    seal(&node.member().await);
}

#[tokio::test]
async fn an_unreadable_mark_lets_nothing_but_decrypting_until_it_is_mended() {
    let node = Node::new().await;
    let member = node.member().await;
    let id = seal(&member).0;
    let first = node.bytes().await;
    stage(&member).await.unwrap();
    let second = node.bytes().await;
    abort(&member).await;
    let mark = std::fs::read(node.mark()).unwrap();
    drop(member);

    // A keyring that follows the one that is open may still be older than what was seen.
    std::fs::write(node.mark(), "garbage").unwrap();
    node.storage.put(Some(first));
    let member = node.start();
    member.sync(NOW).await.unwrap();
    node.storage.put(Some(second));
    let _ = member.sync(NOW).await;
    decrypt_only_reason(&member, &id);

    // The mark knows that it is; where there is none, nothing says so.
    std::fs::write(node.mark(), mark).unwrap();
    let _ = member.sync(NOW).await;
    let why = decrypt_only_reason(&member, &id);
    assert!(why.contains("revision 3 was seen"), "{why}");
    std::fs::remove_file(node.mark()).unwrap();
    member.sync(NOW).await.unwrap();
    seal(&member);
}

#[tokio::test]
async fn the_mark_remembers_each_document_once() {
    let node = Node::new().await;
    stage(&node.member().await).await.unwrap();
    for _ in 0..70 {
        node.member().await;
    }
    let mark = MarkFile::new(node.mark()).read().unwrap().unwrap();
    let revisions: Vec<u64> = mark.history.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(revisions, [1, 2], "restarts pushed out what was seen");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_only_decrypts_looks_again_by_itself() {
    let node = Node::new().await;
    let sealed = seal(&node.member().await);
    std::fs::write(node.mark(), "garbage").unwrap();
    let member = node.start();
    member.sync(NOW).await.unwrap();
    decrypt_only_reason(&member, &sealed.0);
    // The storage tells nothing of a mark that was removed.
    std::fs::remove_file(node.mark()).unwrap();
    timeout(Duration::from_secs(60), member.changed())
        .await
        .expect("nobody looks at the mark");
    member.sync(NOW).await.unwrap();
    seal(&member);
    // Then only the storage wakes it; the commit of the start still does, once.
    member.changed().await;
    let woken = timeout(Duration::from_secs(60), member.changed()).await;
    assert!(woken.is_err(), "it wakes without a change");
}
