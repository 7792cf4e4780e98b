//! Row 65 of the faults: the power fails. Whatever was not synced may be lost, in any combination:
//! bytes of files, names that were made, given or removed. The system calls that the real code made
//! are replayed on a model of a disk; after each, every folder that a power cut could leave is made
//! for real, and opened.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests"
)]

#[expect(dead_code, reason = "shared with the tests of kills")]
#[path = "crash/after.rs"]
mod after;
#[path = "crash/child.rs"]
mod child;
#[path = "power_cut/disk.rs"]
mod disk;
#[path = "common/folder.rs"]
mod folder;
#[path = "common/not_run.rs"]
mod not_run;
#[expect(dead_code, reason = "shared with the tests of kills")]
#[path = "crash/strace.rs"]
mod strace;
#[path = "power_cut/trace.rs"]
mod trace;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::file::{Durability, FileStorage};
use claviger_keystore::store;
use claviger_keystore::testing::{NOW, test_root};

use crate::after::{Promises, Template};
use crate::child::{
    FOLDER, activate, backup_of, first_key, keyring_in, live, member_in, report_in, restore,
    rotated, runtime,
};
use crate::disk::{Disk, Files};
use crate::trace::{Event, Recorded};

/// Every folder that a power cut could leave, each once for all that was promised by then.
fn after_every_cut(recorded: &Recorded) -> HashSet<(Files, String)> {
    let mut disk = Disk::of(&recorded.before);
    let mut promised = String::new();
    let mut found = HashSet::new();
    for event in &recorded.events {
        match event {
            Event::Said(line) => promised.push_str(line),
            change => disk.see(change),
        }
        found.extend(
            disk.after_a_cut()
                .into_iter()
                .map(|files| (files, promised.clone())),
        );
    }
    found
}

#[test]
fn row_65_a_power_cut_at_any_moment_of_two_rotations_loses_nothing() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let recorded = Recorded::of("child::rotates_twice", &template.copy("run"));
    assert_eq!(Promises::read(&recorded.said()).committed, 2);
    let left = after_every_cut(&recorded);
    assert!(left.len() > 50, "{} folders are too few", left.len());
    let folder = template.folder.path().join("cut");
    let mut revisions = HashSet::new();
    for (files, promised) in left {
        disk::make(&folder, &files);
        revisions.insert(template.assert_sound(&folder, &Promises::read(&promised)));
        std::fs::remove_dir_all(&folder).unwrap();
    }
    assert_eq!(revisions.len(), 3, "{revisions:?}");
}

/// The model finds what it is there for: without one of its syncs, a commit is not safe.
#[test]
fn without_a_sync_a_power_cut_would_lose_keys() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let mut recorded = Recorded::of("child::rotates_twice", &template.copy("run"));
    let committed =
        |event: &Event| matches!(event, Event::Said(line) if line.contains("committed"));
    let first = recorded.events.iter().position(committed).unwrap();
    recorded.events.truncate(first + 1);
    let folder = template.folder.path().join("cut");
    let is_sound = |recorded: &Recorded| {
        after_every_cut(recorded).into_iter().all(|(files, said)| {
            disk::make(&folder, &files);
            let look = || template.assert_sound(&folder, &Promises::read(&said));
            let sound = catch_unwind(AssertUnwindSafe(look)).is_ok();
            std::fs::remove_dir_all(&folder).unwrap();
            sound
        })
    };
    for of_folder in [false, true] {
        let synced = |event: &Event| matches!(event, Event::Synced(path) if path.as_os_str().is_empty() == of_folder);
        let mut syncs = (0..recorded.events.len()).filter(|n| synced(&recorded.events[*n]));
        let missed = syncs.any(|n| {
            let mut without = recorded.clone();
            without.events.remove(n);
            !is_sound(&without)
        });
        assert!(missed, "no sync is needed; of the folder: {of_folder}");
    }
}

/// Whoever comes next brings the key's life to its end.
fn assert_goes_on(folder: &Path, promises: &Promises) -> KeyState {
    runtime().block_on(async {
        let member = member_in(folder);
        member.sync(NOW).await.unwrap();
        let old = first_key(&member).await;
        let found = member.keyring().await.unwrap().key(&old).unwrap().state;
        live(&member, &old).await.unwrap();
        let view = member.view();
        let snapshot = view.snapshot().unwrap();
        for (id, ciphertext) in &promises.sealed {
            assert_eq!(*snapshot.open(id, ciphertext).unwrap(), child::SEED);
        }
        let storage = FileStorage::new(keyring_in(folder), Durability::Memory);
        let mut documents = storage.kept().await.unwrap();
        documents.push((0, storage.load().await.unwrap()));
        for (revision, bytes) in documents {
            let document = Document::parse(bytes).unwrap();
            let state = document.header().key(&old).map(|key| key.state);
            assert_eq!(state, Some(KeyState::Destroyed), "revision {revision}");
        }
        let members = member.members().await.unwrap();
        assert!(members.len() == 1 && members[0].fresh(NOW).is_some());
        if promises.ended {
            assert_eq!(found, KeyState::Destroyed);
        }
        found
    })
}

#[test]
fn row_65_a_power_cut_at_any_moment_of_a_keys_life_leaves_what_can_go_on() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let recorded = Recorded::of("child::lives", &template.copy("run"));
    let left = after_every_cut(&recorded);
    assert!(left.len() > 100, "{} folders are too few", left.len());
    let folder = template.folder.path().join("cut");
    let mut found = Vec::new();
    for (files, promised) in left {
        disk::make(&folder, &files);
        found.push(assert_goes_on(&folder, &Promises::read(&promised)));
        std::fs::remove_dir_all(&folder).unwrap();
    }
    for state in [
        KeyState::Primary,
        KeyState::Retired,
        KeyState::Disabled,
        KeyState::Destroyed,
    ] {
        assert!(found.contains(&state), "no power cut while it was {state}");
    }
}

#[test]
#[ignore = "the test below records its system calls"]
fn makes_a_keyring() {
    let Some(folder) = std::env::var_os(FOLDER).map(std::path::PathBuf::from) else {
        return;
    };
    runtime().block_on(async {
        let storage = FileStorage::new(keyring_in(&folder), Durability::Memory);
        store::init(&storage, &[&*test_root()], "test", NOW)
            .await
            .unwrap();
    });
    std::fs::write(report_in(&folder), "end\n").unwrap();
}

#[test]
fn row_65_a_power_cut_while_a_keyring_is_made_leaves_all_of_it_or_nothing() {
    if !strace::is_there() {
        return;
    }
    let parent = folder::fast_folder();
    let run = parent.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let recorded = Recorded::of("makes_a_keyring", &run);
    let left = after_every_cut(&recorded);
    let folder = parent.path().join("cut");
    let (mut whole, mut nothing) = (0, 0);
    for (files, promised) in left {
        disk::make(&folder, &files);
        runtime().block_on(async {
            let member = member_in(&folder);
            match member.sync(NOW).await {
                Ok(_) => whole += 1,
                Err(Error::Storage(StorageError::Missing(_))) if promised.is_empty() => {
                    nothing += 1;
                    let storage = FileStorage::new(keyring_in(&folder), Durability::Memory);
                    store::init(&storage, &[&*test_root()], "test", NOW)
                        .await
                        .expect("what is left is in the way");
                    member.sync(NOW).await.unwrap();
                }
                Err(e) => panic!("{e} after {promised:?}"),
            }
        });
        std::fs::remove_dir_all(&folder).unwrap();
    }
    assert!(whole > 0 && nothing > 0, "{whole} whole, {nothing} without");
}

/// A restore of a backup into this folder, cut off at every moment. Whoever comes next restores
/// again, or goes on; `sealed` is what was ever returned to a caller.
fn restores(template: &Template, run: &Path, sealed: &[(KeyId, Vec<u8>)]) {
    let recorded = Recorded::of("child::restores", run);
    let folder = template.folder.path().join("cut");
    std::fs::copy(backup_of(run), backup_of(&folder)).unwrap();
    let (mut again, mut went_on) = (0, 0);
    for (files, promised) in after_every_cut(&recorded) {
        disk::make(&folder, &files);
        let promises = Promises::read(&promised);
        runtime().block_on(async {
            let member = member_in(&folder);
            match member.sync(NOW).await {
                Err(Error::Storage(StorageError::Missing(_))) if recorded.before.is_empty() => {
                    assert_eq!(promises.committed, 0, "it is gone");
                }
                synced => drop(synced.unwrap()),
            }
            if promises.committed == 0 {
                restore(&member, &folder).await.unwrap();
                again += 1;
            } else {
                went_on += 1;
            }
            if member.keyring().await.unwrap().primary().is_none() {
                activate(&member).await;
            }
            let view = member.view();
            let snapshot = view.snapshot().unwrap();
            snapshot.primary().expect("it only decrypts");
            for (id, ciphertext) in sealed.iter().chain(&promises.sealed) {
                assert_eq!(*snapshot.open(id, ciphertext).unwrap(), child::SEED);
            }
        });
        std::fs::remove_dir_all(&folder).unwrap();
    }
    assert!(again > 0 && went_on > 0, "{again} again, {went_on} went on");
}

async fn sealed(member: &Keystore) -> (KeyId, Vec<u8>) {
    let view = member.view();
    let snapshot = view.snapshot().unwrap();
    let id = snapshot.primary().unwrap();
    (id, snapshot.seal(&id, &child::SEED).unwrap())
}

#[test]
fn row_65_a_power_cut_while_a_backup_is_restored_leaves_what_can_go_on() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    // On the node itself, which rotated since; and on a new one.
    let here = template.copy("here");
    let elsewhere = template.folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for node in [&here, &elsewhere] {
        std::fs::copy(keyring_in(&here), backup_of(node)).unwrap();
    }
    let returned = runtime().block_on(async {
        let member = member_in(&here);
        member.sync(NOW).await.unwrap();
        let mut returned = vec![sealed(&member).await];
        member.commit(NOW, rotated).await.unwrap();
        returned.push(sealed(&member).await);
        returned
    });
    restores(&template, &elsewhere, &returned[..1]);
    restores(&template, &here, &returned);
}
