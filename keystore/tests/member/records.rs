//! What members tell each other through the storage.

use claviger_keystore::error::{Error, MemberError, StorageError};
use claviger_keystore::member::{Found, MemberName};
use claviger_keystore::storage::Storage;
use claviger_keystore::testing::{NOW, member_record};

use crate::node::{Node, elsewhere};

fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

#[tokio::test]
async fn members_see_each_others_records_and_removals() {
    let node = Node::new().await;
    let (one, two) = (node.member().await, node.member().await);
    let mut record = member_record("cp1", NOW);
    record.acknowledged = one.acknowledged().await.unwrap();
    assert_eq!(record.acknowledged.revision, 1);
    one.put_member(&record).await.unwrap();
    two.put_member(&member_record("cp2", NOW)).await.unwrap();
    two.remove_member(&name("cp2"), NOW).await.unwrap();

    let members = one.members().await.unwrap();
    assert_eq!(members.len(), 2);
    assert_eq!(members[0].fresh(NOW), Some(&record));
    assert_eq!(members[1].name, name("cp2"));
    assert_eq!(members[1].found, Found::Removed(NOW));

    // One that was removed and runs on is a member again.
    two.put_member(&member_record("cp2", NOW)).await.unwrap();
    assert!(one.members().await.unwrap()[1].fresh(NOW).is_some());
}

#[tokio::test]
async fn what_does_not_verify_is_shown_as_unreadable_and_not_left_out() {
    let node = Node::new().await;
    let member = node.member().await;
    member.put_member(&member_record("cp1", NOW)).await.unwrap();
    // Copied to another name, from another cluster, and no record at all.
    let (_, ours) = node.storage.members().await.unwrap().remove(0);
    let other = Node::new().await;
    let stranger = other.member().await;
    stranger
        .put_member(&member_record("cp3", NOW))
        .await
        .unwrap();
    let (_, theirs) = other.storage.members().await.unwrap().remove(0);
    for (to, bytes) in [("cp2", &ours[..]), ("cp3", &theirs), ("cp4", b"garbage")] {
        node.storage.put_member(&name(to), bytes).await.unwrap();
    }

    let members = member.members().await.unwrap();
    assert!(members[0].fresh(NOW).is_some());
    let why: Vec<_> = members[1..]
        .iter()
        .map(|member| member.found.clone())
        .collect();
    let expected = [
        MemberError::OtherName("cp1".to_owned()),
        MemberError::Mac,
        MemberError::NoMac,
    ]
    .map(Found::Unreadable);
    assert_eq!(why, expected);
}

#[tokio::test]
async fn records_need_an_open_keyring() {
    let node = Node::new().await;
    let closed = node.start();
    let missing = |e: Error| matches!(e, Error::Storage(StorageError::Missing(_)));
    assert_eq!(closed.acknowledged().await, None);
    assert!(missing(closed.members().await.unwrap_err()));
    let record = member_record("cp1", NOW);
    assert!(missing(closed.put_member(&record).await.unwrap_err()));
    let (elsewhere, _) = elsewhere(&node.bytes().await).await;
    elsewhere.put_member(&record).await.unwrap();
}
