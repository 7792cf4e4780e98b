//! A destroyed key's bytes are in no document that this node keeps.

use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::error::{ChangeError, Error};
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::storage::Storage;
use claviger_keystore::testing::{NOW, rotate};

use crate::files::Files;
use crate::node::{SEED, open, seal, touch};

/// What the kept documents say of a key, by revision.
async fn kept_states(files: &Files, id: &KeyId) -> Vec<(u64, Option<KeyState>)> {
    let kept = files.storage().kept().await.unwrap();
    kept.into_iter()
        .map(|(revision, bytes)| {
            let document = Document::parse(bytes).unwrap();
            (revision, document.header().key(id).map(|key| key.state))
        })
        .collect()
}

async fn disable(member: &Keystore, id: &KeyId) {
    let disable = |keyring: &claviger_keystore::keyring::Keyring| Ok(keyring.disable(id, NOW)?);
    member.commit(NOW, disable).await.unwrap();
}

#[tokio::test]
async fn the_bytes_leave_every_kept_document_and_nothing_else_does() {
    let files = Files::new().await;
    let member = files.member().await;
    let old = seal(&member);
    rotate(&member).await;
    let new = seal(&member);
    let refused = member.destroy(&old.0, NOW).await.unwrap_err();
    let illegal = matches!(refused, Error::Change(ChangeError::Illegal { .. }));
    assert!(illegal, "a retired key is disabled first: {refused}");
    disable(&member, &old.0).await;
    let dropped = member.destroy(&old.0, NOW).await.unwrap();
    assert_eq!(dropped.rewritten, [1, 2, 3, 4]);
    assert_eq!(dropped.removed, [] as [u64; 0]);

    let states = kept_states(&files, &old.0).await;
    assert!(
        states
            .iter()
            .all(|(_, state)| *state == Some(KeyState::Destroyed)),
        "{states:?}"
    );
    // Each still opens, with all that it had besides.
    for (revision, bytes) in files.storage().kept().await.unwrap() {
        let (reader, _) = crate::node::elsewhere(&bytes).await;
        assert!(open(&reader, &old).is_err());
        let later = states_of(&reader, &new.0).await;
        assert_eq!(later.is_some(), revision > 1);
    }
    assert_eq!(open(&member, &new).unwrap(), SEED);
    // Asked again it finds nothing to do.
    assert_eq!(member.destroy(&old.0, NOW).await.unwrap(), store_nothing());
}

async fn states_of(member: &Keystore, id: &KeyId) -> Option<KeyState> {
    member.keyring().await.unwrap().key(id).map(|key| key.state)
}

fn store_nothing() -> claviger_keystore::store::Dropped {
    claviger_keystore::store::Dropped::default()
}

#[tokio::test]
async fn what_was_interrupted_goes_on() {
    let files = Files::new().await;
    let member = files.member().await;
    let old = seal(&member).0;
    rotate(&member).await;
    disable(&member, &old).await;
    // Killed right after the commit.
    member
        .commit(NOW, |keyring| Ok(keyring.destroy(&old, NOW)?))
        .await
        .unwrap();
    touch(&member).await.unwrap();
    let member = files.member().await;
    let dropped = member.destroy(&old, NOW).await.unwrap();
    assert_eq!(dropped.rewritten, [1, 2, 3, 4]);
}

#[tokio::test]
async fn documents_under_an_earlier_keyring_key_are_opened_by_their_own() {
    let files = Files::new().await;
    let member = files.member().await;
    let old = seal(&member).0;
    rotate(&member).await;
    member.rekey(&[], &[], NOW).await.unwrap();
    // What no root opens, and what is no document, goes as a whole.
    let mut foreign = files.storage().kept().await.unwrap().remove(0).1;
    let at = foreign
        .windows(11)
        .position(|text| text == b"\"payload\":\"")
        .unwrap()
        + 20;
    foreign[at] = if foreign[at] == b'A' { b'B' } else { b'A' };
    let newest = member.keyring().await.unwrap();
    std::fs::write(files.path("keyring.1"), &foreign).unwrap();
    std::fs::write(files.path("keyring.2"), "torn").unwrap();
    disable(&member, &old).await;
    let dropped = member.destroy(&old, NOW).await.unwrap();
    assert_eq!(dropped.rewritten, [3, 4, 5]);
    assert_eq!(dropped.removed, [1, 2], "{:?}", newest.header().revision);
    let states = kept_states(&files, &old).await;
    assert!(
        states
            .iter()
            .all(|(_, state)| *state == Some(KeyState::Destroyed)),
        "{states:?}"
    );
}

#[tokio::test]
async fn a_staged_key_that_was_given_up_leaves_no_bytes_either() {
    let files = Files::new().await;
    let member = files.member().await;
    crate::node::stage(&member).await.unwrap();
    let staged = member.keyring().await.unwrap().staged().unwrap();
    let dropped = member.destroy(&staged, NOW).await.unwrap();
    assert_eq!(dropped.rewritten, [2]);
}
