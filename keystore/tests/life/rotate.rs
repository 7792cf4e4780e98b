//! Steps of a rotation, each by itself.

use claviger_keystore::Keystore;
use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::key::KeyState;
use claviger_keystore::member::MemberName;
use claviger_keystore::rotation::{Action, Idle, Request};
use claviger_keystore::testing::{NOW, member_record};

use crate::node::{Node, SEED, open, seal, stage};

fn cp1() -> MemberName {
    "cp1".parse().unwrap()
}

async fn acknowledge(member: &Keystore) {
    let mut record = member_record("cp1", NOW);
    record.acknowledged = member.acknowledged().await.unwrap();
    member.put_member(&record).await.unwrap();
}

#[tokio::test]
async fn a_command_waits_until_the_plugin_has_loaded_the_staged_key() {
    let node = Node::new().await;
    let (plugin, command) = (node.member().await, node.member().await);
    acknowledge(&plugin).await;
    let sealed = seal(&plugin);
    let from = command.keyring().await.unwrap().primary();
    let step = async || {
        command
            .step(Request::Rotate { from }, None, NOW)
            .await
            .unwrap()
    };

    assert_eq!(step().await, Action::Stage);
    let waits = |action: &Action| matches!(action, Action::Wait(awaited) if awaited.len() == 1);
    assert!(waits(&step().await));
    plugin.sync(NOW).await.unwrap();
    assert!(waits(&step().await), "it loaded it, but has not said so");
    acknowledge(&plugin).await;
    let staged = command.keyring().await.unwrap().staged().unwrap();
    assert_eq!(step().await, Action::Activate(staged));
    assert_eq!(step().await, Action::Nothing(Idle::Done(staged)));

    plugin.sync(NOW).await.unwrap();
    assert_eq!(seal(&plugin).0, staged);
    assert_eq!(open(&plugin, &sealed).unwrap(), SEED);
}

#[tokio::test]
async fn the_plugin_itself_waits_for_nobody() {
    let node = Node::new().await;
    let plugin = node.member().await;
    acknowledge(&plugin).await;
    let from = plugin.keyring().await.unwrap().primary();
    let request = Request::Rotate { from };
    assert_eq!(
        plugin.step(request, Some(&cp1()), NOW).await.unwrap(),
        Action::Stage
    );
    let second = plugin.step(request, Some(&cp1()), NOW).await.unwrap();
    assert!(matches!(second, Action::Activate(_)), "{second:?}");
}

#[tokio::test]
async fn a_rotation_is_given_up_and_its_key_never_used() {
    let node = Node::new().await;
    let plugin = node.member().await;
    stage(&plugin).await.unwrap();
    let staged = plugin.keyring().await.unwrap().staged().unwrap();
    let action = plugin
        .step(Request::Abort, Some(&cp1()), NOW)
        .await
        .unwrap();
    assert_eq!(action, Action::Abort(staged));
    let keyring = plugin.keyring().await.unwrap();
    assert_eq!(keyring.key(&staged).unwrap().state, KeyState::Destroyed);
    let none = plugin
        .step(Request::Activate, Some(&cp1()), NOW)
        .await
        .unwrap();
    assert_eq!(none, Action::Nothing(Idle::NothingStaged));
}

#[tokio::test]
async fn of_two_who_stage_one_wins_and_the_other_says_so() {
    let node = Node::new().await;
    let (one, other) = (node.member().await, node.member().await);
    let step = |member| Keystore::step(member, Request::StageOnly, None, NOW);
    assert_eq!(step(&one).await.unwrap(), Action::Stage);
    let late = step(&other).await.unwrap_err();
    assert!(
        matches!(late, Error::Storage(StorageError::Conflict)),
        "{late}"
    );
    other.sync(NOW).await.unwrap();
    let staged = one.keyring().await.unwrap().staged().unwrap();
    let already = Action::Nothing(Idle::AlreadyStaged(staged));
    assert_eq!(step(&other).await.unwrap(), already);
}
