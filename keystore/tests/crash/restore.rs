//! A restore, killed before each system call that changes something: into a node that has nothing,
//! and into a keyring that went on since the backup. Whoever comes next restores again, or goes on
//! with what is there.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Mutex;

use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::key::KeyId;
use claviger_keystore::rotation::Request;
use claviger_keystore::testing::{NOW, member_record};

use crate::after::{Promises, Template, names};
use crate::child::{SEED, activate, backup_of, keyring_in, member_in, restore, rotated, runtime};
use crate::strace::{self, in_parallel, numbered};

/// A folder that something is restored into.
struct Node {
    folder: PathBuf,
    /// What lies there; nothing on a new node.
    before: Option<Vec<u8>>,
    /// What was ever returned to a caller.
    sealed: Vec<(KeyId, Vec<u8>)>,
}

fn seal(member: &Keystore) -> (KeyId, Vec<u8>) {
    let view = member.view();
    let snapshot = view.snapshot().unwrap();
    let id = snapshot.primary().unwrap();
    (id, snapshot.seal(&id, &SEED).unwrap())
}

impl Node {
    /// The backup lies beside the folder; what was sealed until then is under its key.
    async fn backed_up(template: &Template, name: &str) -> Self {
        let folder = template.copy(name);
        std::fs::copy(keyring_in(&folder), backup_of(&folder)).unwrap();
        let member = member_in(&folder);
        member.sync(NOW).await.unwrap();
        let sealed = vec![seal(&member)];
        Self {
            before: Some(std::fs::read(keyring_in(&folder)).unwrap()),
            folder,
            sealed,
        }
    }

    /// Another machine, with the backup alone.
    async fn new(template: &Template, name: &str) -> Self {
        let mut node = Self::backed_up(template, name).await;
        for name in names(&node.folder) {
            std::fs::remove_file(node.folder.join(name)).unwrap();
        }
        node.before = None;
        node
    }

    /// The same machine, which rotated twice since, and has a record of its member.
    async fn gone_on(template: &Template, name: &str) -> Self {
        let mut node = Self::backed_up(template, name).await;
        let member = member_in(&node.folder);
        member.sync(NOW).await.unwrap();
        for _ in 0..2 {
            member.commit(NOW, rotated).await.unwrap();
            node.sealed.push(seal(&member));
        }
        let mut record = member_record("cp1", NOW);
        record.acknowledged = member.acknowledged().await.unwrap();
        member.put_member(&record).await.unwrap();
        node.before = Some(std::fs::read(keyring_in(&node.folder)).unwrap());
        node
    }

    /// Whether the restore was committed. If not, what was there is there.
    fn is_merged(&self) -> bool {
        let now = std::fs::read(keyring_in(&self.folder)).ok();
        if now == self.before {
            return false;
        }
        let document = Document::parse(now.expect("the keyring is gone")).unwrap();
        let backup = Document::parse(std::fs::read(backup_of(&self.folder)).unwrap()).unwrap();
        let merged = &document.header().merged;
        assert!(merged.iter().any(|named| named.sha256 == backup.hash()));
        true
    }

    /// Goes on as it is, or restores once more; then the cluster writes again, under a key that
    /// nobody used before.
    async fn goes_on(&self, again: bool, fault: &str) {
        let member = member_in(&self.folder);
        match member.sync(NOW).await {
            Err(Error::Storage(StorageError::Missing(_))) if self.before.is_none() => {}
            synced => drop(synced.unwrap()),
        }
        let restores = again || !self.is_merged();
        if restores {
            restore(&member, &self.folder).await.unwrap();
            assert_eq!(member.keyring().await.unwrap().primary(), None, "{fault}");
        }
        if member.keyring().await.unwrap().primary().is_none() {
            activate(&member).await;
        }
        // Whoever starts now has all of it too.
        let member = member_in(&self.folder);
        member.sync(NOW).await.unwrap();
        let fresh = seal(&member);
        let view = member.view();
        let snapshot = view.snapshot().unwrap();
        for (id, ciphertext) in self.sealed.iter().chain([&fresh]) {
            let opened = snapshot.open(id, ciphertext);
            assert_eq!(opened.map(|seed| *seed == SEED), Ok(true), "{fault}: {id}");
        }
        let used = self.sealed.iter().any(|(id, _)| *id == fresh.0);
        assert!(!(restores && used), "{fault}: {} is used again", fresh.0);
        let request = Request::Rotate {
            from: Some(fresh.0),
        };
        let ours = "cp1".parse().unwrap();
        member.step(request, Some(&ours), NOW).await.unwrap();
        let torn = names(&self.folder)
            .into_iter()
            .find(|name| name.ends_with(".new"));
        assert_eq!(torn, None, "{fault}");
    }
}

fn killed_before_every_change(make: impl AsyncFn(&Template, &str) -> Node + Sync) {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let make = |name: &str| runtime().block_on(make(&template, name));
    let run = strace::run_child("child::restores", &make("whole").folder, None);
    let text = String::from_utf8_lossy(&run.output.stderr);
    assert!(run.output.status.success(), "{text}");
    assert!(Promises::read(&run.report).ended);
    let calls = run.calls.into_iter();
    let calls: Vec<_> = calls
        .filter(|call| !call.text.contains(".report"))
        .collect();
    let calls = numbered(&calls).into_iter();
    let calls: Vec<_> = calls.filter(|(name, _)| strace::changes(name)).collect();
    assert!(calls.len() > 20, "{} calls are too few", calls.len());

    let found = Mutex::new(Vec::new());
    in_parallel(&calls, |i, (name, number)| {
        let mut node = make(&i.to_string());
        let fault = format!("{name}:signal=SIGKILL:when={number}");
        let run = strace::run_child("child::restores", &node.folder, Some(&fault));
        assert_eq!(run.output.status.signal(), Some(9), "{fault} killed nobody");
        let promises = Promises::read(&run.report);
        let merged = node.is_merged();
        assert!(
            merged || promises.committed == 0,
            "{fault}: it is not there"
        );
        let wrote = !promises.sealed.is_empty();
        found
            .lock()
            .unwrap()
            .push((merged, promises.committed, wrote));
        node.sealed.extend(promises.sealed);
        runtime().block_on(node.goes_on(i % 2 == 0, &fault));
        std::fs::remove_dir_all(&node.folder).unwrap();
    });
    let found = found.into_inner().unwrap();
    for state in [
        (false, 0, false),
        (true, 0, false),
        (true, 1, false),
        (true, 1, true),
    ] {
        assert!(found.contains(&state), "never killed at {state:?}");
    }
}

#[test]
fn killed_before_every_change_of_a_restore_into_nothing() {
    killed_before_every_change(Node::new);
}

#[test]
fn killed_before_every_change_of_a_restore_into_a_keyring_that_went_on() {
    killed_before_every_change(Node::gone_on);
}
