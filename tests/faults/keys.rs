//! Rows 30, 31, 104 and 107: keys that come, go and change while calls need them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use claviger::observer::Reason;
use claviger::service::Clock;
use claviger_keystore::Keystore;
use claviger_keystore::testing::{self, NOW, rotate};
use claviger_proto::v2::StatusRequest;
use tonic::Code;

use crate::calls::{encrypt, refused};
use crate::plugin::{Calls, Plugin, Setup};

/// Another member on the same storage, with its own view of it.
async fn other_member(plugin: &Plugin) -> Arc<Keystore> {
    let root = testing::test_root();
    let member = Keystore::new(Box::new(plugin.storage.clone()), vec![root], None);
    member.sync(NOW).await.unwrap();
    Arc::new(member)
}

#[tokio::test]
async fn row_104_a_key_that_another_member_made_is_found_by_a_fresh_read() {
    let plugin = Plugin::start().await;
    let member = other_member(&plugin).await;
    let id = rotate(&member).await;
    let sealed = member
        .view()
        .snapshot()
        .unwrap()
        .seal(&id, &[7; 32])
        .unwrap();
    assert!(!plugin.keystore.view().snapshot().unwrap().knows(&id));
    let opened = plugin
        .client()
        .await
        .open(&id.to_string(), &sealed)
        .await
        .unwrap();
    assert_eq!(opened, [7; 32]);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_104_an_unknown_key_is_not_called_lost_while_the_storage_cannot_be_read() {
    let plugin = Plugin::start().await;
    let stranger = Plugin::start().await;
    let sealed = stranger.client().await.seal(&[7; 32]).await;
    plugin.storage.put(Some(b"garbage".to_vec()));
    let answer = plugin
        .client()
        .await
        .open(&sealed.key_id, &sealed.ciphertext)
        .await;
    assert_eq!(refused(answer), (Code::Unavailable, "unread".to_owned()));
    plugin.ends_unharmed().await;
    stranger.ends_unharmed().await;
}

#[tokio::test]
async fn row_30_a_staged_key_decrypts() {
    let plugin = Plugin::start().await;
    plugin
        .keystore
        .commit(NOW, |keyring| keyring.stage(NOW))
        .await
        .unwrap();
    // Another member is ahead: it has activated the key and seals with it already.
    let member = other_member(&plugin).await;
    let id = member.keyring().await.unwrap().staged().unwrap();
    member
        .commit(NOW, |keyring| Ok(keyring.activate(&id, NOW)?))
        .await
        .unwrap();
    let sealed = member
        .view()
        .snapshot()
        .unwrap()
        .seal(&id, &[7; 32])
        .unwrap();
    assert_eq!(plugin.keystore.keyring().await.unwrap().staged(), Some(id));
    let mut client = plugin.client().await;
    assert_eq!(
        client.open(&id.to_string(), &sealed).await.unwrap(),
        [7; 32]
    );
    assert_ne!(client.answer_status().await.key_id, id.to_string());
    assert_ne!(client.seal(&[7; 32]).await.key_id, id.to_string());
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_31_a_disabled_and_a_destroyed_key_are_refused_by_state_and_date() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    let id = sealed.key_id.parse().unwrap();
    rotate(&plugin.keystore).await;
    plugin
        .keystore
        .commit(NOW, |keyring| Ok(keyring.disable(&id, NOW)?))
        .await
        .unwrap();
    for state in ["disabled", "destroyed"] {
        let answer = client.open(&sealed.key_id, &sealed.ciphertext).await;
        let message = answer.as_ref().unwrap_err().message().to_owned();
        let said = format!("key {id} is {state} since {NOW}");
        assert!(message.starts_with(&said), "{message}");
        assert_eq!(
            refused(answer),
            (Code::FailedPrecondition, "key_state".to_owned())
        );
        if state == "disabled" {
            plugin
                .keystore
                .commit(NOW, |keyring| Ok(keyring.destroy(&id, NOW)?))
                .await
                .unwrap();
        }
    }
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn a_keyring_that_is_not_open_refuses_every_call_with_its_reason() {
    let plugin = Plugin::start().await;
    let sealed = plugin.client().await.seal(&[7; 32]).await;
    let closed = Plugin::start_closed().await;
    let mut client = closed.client().await;
    let not_open = (Code::Unavailable, "not_open".to_owned());
    assert_eq!(refused(client.status(StatusRequest {}).await), not_open);
    assert_eq!(refused(encrypt(&mut client, &[7; 32], "").await), not_open);
    assert_eq!(
        refused(client.open(&sealed.key_id, &sealed.ciphertext).await),
        not_open
    );
    assert_eq!(closed.tally().status_answers, []);
    assert_eq!(closed.tally().refusals, [Reason::NotOpen; 3]);
    plugin.ends_unharmed().await;
}

/// A clock that stands still until a test moves it.
struct ByHand;

static SECONDS: AtomicU64 = AtomicU64::new(5_000);

impl ByHand {
    fn clock() -> Clock {
        Clock {
            boottime: || Duration::from_secs(SECONDS.load(Ordering::SeqCst)),
            wall: || NOW,
        }
    }

    fn pass(seconds: u64) {
        SECONDS.fetch_add(seconds, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn row_107_encrypt_answers_the_key_id_that_status_gave() {
    let plugin = Plugin::start_with(Setup {
        clock: ByHand::clock(),
        ..Setup::default()
    })
    .await;
    let mut apiserver = plugin.client().await;
    let old = apiserver.answer_status().await.key_id;
    let new = rotate(&plugin.keystore).await.to_string();

    // The same connection, and another one where the first broke between the two calls.
    assert_eq!(apiserver.seal(&[7; 32]).await.key_id, old);
    let mut reconnected = plugin.client().await;
    assert_eq!(reconnected.seal(&[7; 32]).await.key_id, old);

    // A Status on one connection changes nothing on the one that was told the old id.
    assert_eq!(reconnected.answer_status().await.key_id, new);
    assert_eq!(reconnected.seal(&[7; 32]).await.key_id, new);
    assert_eq!(apiserver.seal(&[7; 32]).await.key_id, old);

    // The old id is published no more ten seconds later, with no call in between.
    ByHand::pass(9);
    assert_eq!(apiserver.seal(&[7; 32]).await.key_id, old);
    ByHand::pass(1);
    assert_eq!(apiserver.seal(&[7; 32]).await.key_id, new);
    drop((apiserver, reconnected));
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn a_disabled_key_is_not_used_although_status_just_gave_it() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let old = client.answer_status().await.key_id.parse().unwrap();
    let new = rotate(&plugin.keystore).await;
    plugin
        .keystore
        .commit(NOW, |keyring| Ok(keyring.disable(&old, NOW)?))
        .await
        .unwrap();
    assert_eq!(client.seal(&[7; 32]).await.key_id, new.to_string());
    drop(client);
    plugin.ends_unharmed().await;
}
