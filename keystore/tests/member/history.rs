//! Any history of commits, restarts and meddling: what was sealed opens, and no key id goes back.

use std::sync::Arc;

use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::error::Error;
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::keyring::Keyring;
use claviger_keystore::mark::MarkFile;
use claviger_keystore::snapshot::{Refusal, View};
use claviger_keystore::storage::Storage;
use claviger_keystore::store::Restore;
use claviger_keystore::testing::NOW;
use proptest::prelude::*;

use crate::node::{Node, SEED, Sealed, open, seal, unmarked};

#[derive(Debug, Clone, Copy)]
enum Step {
    Commit(Change),
    Restart,
    /// The member dies when what it committed is durable, and before it remembers or uses it.
    Crash(Change),
    /// Restores the n-th newest document.
    Restore(usize),
    /// Puts the n-th newest document into the storage: 0 is the newest.
    Put(usize),
    PutGarbage,
    RemoveKeyring,
    RemoveMark,
    TearMark,
}

/// A change of the keyring; keys by the order in which they were made, from the newest.
#[derive(Debug, Clone, Copy)]
enum Change {
    Stage,
    Activate,
    Abort,
    Disable(usize),
    Enable(usize),
    Destroy(usize),
}

/// A node, its member, and what must be true of both.
struct World {
    node: Node,
    member: Keystore,
    /// Every document that was committed, oldest first.
    documents: Vec<Vec<u8>>,
    /// Which of them lies in the storage, if one does.
    stored: Option<usize>,
    /// The keyring of the newest document.
    newest: Arc<Keyring>,
    sealed: Vec<Sealed>,
    /// The last id that the member answered.
    published: Option<KeyId>,
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => Just(Change::Stage),
        4 => Just(Change::Activate),
        1 => Just(Change::Abort),
        2 => (0..4_usize).prop_map(Change::Disable),
        1 => (0..4_usize).prop_map(Change::Enable),
        1 => (0..4_usize).prop_map(Change::Destroy),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => any_change().prop_map(Step::Commit),
        4 => Just(Step::Restart),
        3 => any_change().prop_map(Step::Crash),
        2 => (0..6_usize).prop_map(Step::Restore),
        4 => (0..4_usize).prop_map(Step::Put),
        4 => Just(Step::Put(0)),
        2 => Just(Step::PutGarbage),
        1 => Just(Step::RemoveKeyring),
        1 => Just(Step::RemoveMark),
        1 => Just(Step::TearMark),
    ]
}

fn changed(keyring: &Keyring, change: Change) -> Result<Keyring, Error> {
    let keys = &keyring.header().keys;
    let nth = |n: usize| keys.iter().rev().nth(n).unwrap_or(&keys[0]).id;
    let staged = keyring.staged().unwrap_or(keys[0].id);
    Ok(match change {
        Change::Stage => keyring.stage(NOW)?,
        Change::Activate => keyring.activate(&staged, NOW)?,
        Change::Abort => keyring.destroy(&staged, NOW)?,
        Change::Disable(n) => keyring.disable(&nth(n), NOW)?,
        Change::Enable(n) => keyring.enable(&nth(n), NOW)?,
        Change::Destroy(n) => keyring.destroy(&nth(n), NOW)?,
    })
}

impl World {
    async fn new() -> Self {
        let node = Node::new().await;
        let member = node.member().await;
        let newest = member.keyring().await.unwrap();
        let documents = vec![node.bytes().await];
        Self {
            node,
            member,
            documents,
            stored: Some(0),
            newest,
            sealed: Vec::new(),
            published: None,
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Commit(change) => self.commit(change).await,
            Step::Restart => self.member = self.node.start(),
            Step::Crash(change) => self.crash(change).await,
            Step::Restore(n) => self.restore(n).await,
            Step::Put(n) => {
                let i = self.documents.len().saturating_sub(1 + n);
                self.put(Some(self.documents[i].clone()), Some(i));
            }
            Step::PutGarbage => self.put(Some(b"garbage".to_vec()), None),
            Step::RemoveKeyring => self.put(None, None),
            Step::RemoveMark => {
                let _ = std::fs::remove_file(self.node.mark());
            }
            Step::TearMark => std::fs::write(self.node.mark(), "{").unwrap(),
        }
        self.forget_what_nobody_remembers();
        let _ = self.member.sync(NOW).await;
        self.check();
    }

    /// A restore loses no key that anybody knows of, whatever it is given and finds.
    async fn restore(&mut self, n: usize) {
        let i = self.documents.len().saturating_sub(1 + n);
        let from = Document::parse(self.documents[i].clone()).unwrap();
        let restore = Restore {
            from: &from,
            roots: &[],
            needed: &[],
            accept_loss: &[],
            accept_keyring_key: None,
        };
        let before = self.node.storage.load().await.ok();
        let newest = self.newest.header().revision;
        let open = self.member.keyring().await;
        let remembered = self.node.mark().exists()
            || open.is_some_and(|keyring| keyring.header().revision == newest);
        let restored = self.member.restore(restore, NOW).await;
        let after = self.node.storage.load().await.ok();
        let Ok(restored) = restored else {
            assert_eq!(after, before, "a refused restore wrote");
            return;
        };
        self.documents.push(after.unwrap());
        self.stored = Some(self.documents.len() - 1);
        let merged = self.member.keyring().await.unwrap();
        assert_eq!(merged.header().revision, restored.revision);
        assert_eq!(merged.primary(), None);
        if !remembered {
            self.newest = merged;
            self.published = None;
            self.sealed
                .retain(|Sealed(id, _)| self.newest.key(id).is_some());
            return;
        }
        assert!(merged.header().revision > newest);
        for key in &self.newest.header().keys {
            let kept = merged.key(&key.id).unwrap();
            let buried = |state| state == KeyState::Destroyed;
            assert!(
                buried(key.state) || !buried(kept.state),
                "bytes of {} were lost",
                key.id
            );
        }
        self.newest = merged;
    }

    fn put(&mut self, bytes: Option<Vec<u8>>, stored: Option<usize>) {
        self.node.storage.put(bytes);
        self.stored = stored;
    }

    /// A commit succeeds only on the newest document, by a member that may write.
    async fn commit(&mut self, change: Change) {
        let (writes, before) = (self.may_commit(), self.node_bytes().await);
        let legal = changed(&self.newest, change).is_ok();
        let on_newest = self.stored == Some(self.documents.len() - 1);
        let committed = self
            .member
            .commit(NOW, |keyring| changed(keyring, change))
            .await;
        assert_eq!(
            committed.is_ok(),
            writes && legal && on_newest,
            "{committed:?}"
        );
        if committed.is_err() {
            assert_eq!(self.node_bytes().await, before, "a refused commit wrote");
            return;
        }
        self.documents.push(self.node.bytes().await);
        self.stored = Some(self.documents.len() - 1);
        self.newest = self.member.keyring().await.unwrap();
    }

    /// Somebody without a mark, who is gone right after, leaves what such a member leaves.
    async fn crash(&mut self, change: Change) {
        if self.may_commit() && self.stored == Some(self.documents.len() - 1) {
            let dies = unmarked(&self.node.storage);
            dies.sync(NOW).await.unwrap();
            let change = |keyring: &Keyring| changed(keyring, change);
            if dies.commit(NOW, change).await.is_ok() {
                self.documents.push(self.node.bytes().await);
                self.stored = Some(self.documents.len() - 1);
                self.newest = dies.keyring().await.unwrap();
            }
        }
        self.member = self.node.start();
    }

    async fn node_bytes(&self) -> Option<Vec<u8>> {
        match self.stored {
            Some(_) => Some(self.node.bytes().await),
            None => None,
        }
    }

    /// A member that starts without a mark takes what it finds for the newest; what came after it
    /// is lost to everybody.
    fn forget_what_nobody_remembers(&mut self) {
        let Some(stored) = self.stored else { return };
        if self.may_commit() || self.node.mark().exists() || stored + 1 == self.documents.len() {
            return;
        }
        self.documents.truncate(stored + 1);
        self.newest = keyring_of(&self.documents[stored]);
        self.published = None;
        self.sealed
            .retain(|Sealed(id, _)| self.newest.key(id).is_some());
    }

    /// After a restore there is no primary key, and yet the keyring may be changed.
    fn may_commit(&self) -> bool {
        let view = self.member.view();
        let Ok(snapshot) = view.snapshot() else {
            return false;
        };
        matches!(snapshot.primary(), Ok(_) | Err(Refusal::NoPrimary))
    }

    fn writes(&self) -> bool {
        self.member
            .view()
            .snapshot()
            .is_ok_and(|snapshot| snapshot.primary().is_ok())
    }

    fn check(&mut self) {
        let readable = MarkFile::new(self.node.mark()).read().is_ok();
        if readable && self.stored == Some(self.documents.len() - 1) {
            assert!(self.may_commit(), "all is right, and yet it does not serve");
        }
        let View::Open(snapshot) = (**self.member.view()).clone() else {
            return;
        };
        if snapshot.revision() == self.newest.header().revision {
            self.sealed
                .iter()
                .for_each(|sealed| self.check_opens(sealed));
        }
        if !self.writes() {
            return;
        }
        assert_eq!(
            snapshot.revision(),
            self.newest.header().revision,
            "it serves an older one"
        );
        let sealed = seal(&self.member);
        let made = |id: &KeyId| {
            self.newest
                .header()
                .keys
                .iter()
                .position(|key| key.id == *id)
        };
        assert!(made(&sealed.0).is_some());
        let before = self.published.replace(sealed.0);
        assert!(
            before.is_none_or(|before| made(&before) <= made(&sealed.0)),
            "a key id went back"
        );
        self.sealed.push(sealed);
    }

    fn check_opens(&self, sealed: &Sealed) {
        let opened = open(&self.member, sealed);
        match self.newest.key(&sealed.0).unwrap().state {
            state @ (KeyState::Disabled | KeyState::Destroyed) => {
                let refused = matches!(opened, Err(Refusal::KeyState(id, found, _))
                    if id == sealed.0 && found == state);
                assert!(refused, "{opened:?}");
            }
            _ => assert_eq!(opened.unwrap(), SEED),
        }
    }
}

/// What a document holds, by the eyes of a reader that has no part in the history.
fn keyring_of(document: &[u8]) -> Arc<Keyring> {
    let bytes = document.to_vec();
    let opened = std::thread::spawn(move || {
        runtime().block_on(async {
            let (reader, _) = crate::node::elsewhere(&bytes).await;
            reader.keyring().await.unwrap()
        })
    });
    opened.join().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_keeps_what_was_sealed(steps in prop::collection::vec(any_step(), 1..40)) {
        runtime().block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.take(step).await;
            }
        });
    }
}
