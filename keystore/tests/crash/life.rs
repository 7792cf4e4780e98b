//! A key's whole life, killed before each system call: stage, activate, a member's record, disable,
//! destroy, and dropping its bytes from every document that is kept. After each it goes on to its end.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use claviger_keystore::document::Document;
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::file::{Durability, FileStorage};
use claviger_keystore::testing::NOW;

use crate::after::{Promises, Template, names};
use crate::child::{SEED, first_key, keyring_in, live, member_in, runtime};
use crate::strace::{self, in_parallel, numbered};

/// Whoever comes next opens what is there, and brings the key's life to its end.
async fn assert_goes_on(folder: &Path, fault: &str) -> KeyState {
    let member = member_in(folder);
    member.sync(NOW).await.unwrap();
    let view = member.view();
    let snapshot = view.snapshot().unwrap();
    let primary = snapshot.primary().unwrap();
    let sealed = snapshot.seal(&primary, &SEED).unwrap();
    let old = first_key(&member).await;
    let found = member.keyring().await.unwrap().key(&old).unwrap().state;

    live(&member, &old).await.unwrap();
    assert_gone(folder, &old, fault).await;
    if primary != old {
        let view = member.view();
        let opened = view.snapshot().unwrap().open(&primary, &sealed);
        assert_eq!(*opened.unwrap(), SEED, "{fault}");
    }
    let members = member.members().await.unwrap();
    assert!(
        members.len() == 1 && members[0].fresh(NOW).is_some(),
        "{fault}: {members:?}"
    );
    found
}

/// No file of the folder holds the key's bytes.
async fn assert_gone(folder: &Path, old: &KeyId, fault: &str) {
    let storage = FileStorage::new(keyring_in(folder), Durability::Memory);
    let mut documents = storage.kept().await.unwrap();
    assert!(
        documents.len() >= 10,
        "{fault}: {} are kept",
        documents.len()
    );
    documents.push((0, storage.load().await.unwrap()));
    for (revision, bytes) in documents {
        let document = Document::parse(bytes).unwrap();
        let state = document.header().key(old).map(|key| key.state);
        assert_eq!(
            state,
            Some(KeyState::Destroyed),
            "{fault}: revision {revision}"
        );
    }
    let torn = names(folder)
        .into_iter()
        .find(|name| name.ends_with(".new"));
    assert_eq!(torn, None, "{fault}");
}

#[test]
fn killed_before_every_system_call_of_a_keys_life() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let whole = template.copy("whole");
    let run = strace::run_child("child::lives", &whole, None);
    let text = String::from_utf8_lossy(&run.output.stderr);
    assert!(run.output.status.success(), "{text}");
    assert!(Promises::read(&run.report).ended);
    let calls: Vec<_> = run
        .calls
        .into_iter()
        .filter(|call| !call.text.contains(".report"))
        .collect();
    let calls = numbered(&calls);
    let calls: Vec<_> = calls
        .into_iter()
        .filter(|(name, _)| strace::changes(name))
        .collect();
    assert!(calls.len() > 100, "{} calls are too few", calls.len());

    let found = std::sync::Mutex::new(Vec::new());
    in_parallel(&calls, |i, (name, number)| {
        let folder = template.copy(&i.to_string());
        let fault = format!("{name}:signal=SIGKILL:when={number}");
        let run = strace::run_child("child::lives", &folder, Some(&fault));
        assert_eq!(run.output.status.signal(), Some(9), "{fault} killed nobody");
        let state = runtime().block_on(assert_goes_on(&folder, &fault));
        found.lock().unwrap().push(state);
        std::fs::remove_dir_all(&folder).unwrap();
    });
    let found = found.into_inner().unwrap();
    for state in [
        KeyState::Primary,
        KeyState::Retired,
        KeyState::Disabled,
        KeyState::Destroyed,
    ] {
        assert!(found.contains(&state), "never killed while it was {state}");
    }
}
