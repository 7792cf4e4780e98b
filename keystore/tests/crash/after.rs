//! What must be true after every fault, whatever it was.

use std::path::{Path, PathBuf};

use claviger_keystore::document::Document;
use claviger_keystore::key::KeyId;
use claviger_keystore::keyring::Keyring;
use claviger_keystore::store::{self, Synced};
use claviger_keystore::testing::{NOW, test_root};
use data_encoding::HEXLOWER;

use crate::child::{SEED, keyring_in, member_in, rotated, runtime, said};
use crate::folder::fast_folder;

/// A folder with a keyring that has had enough commits for the next one to drop a kept copy.
pub(crate) struct Template {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) document: Document,
}

/// What the child said that it did.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    pub(crate) sealed: Vec<(KeyId, Vec<u8>)>,
    pub(crate) committed: u64,
    pub(crate) refused: Option<String>,
    pub(crate) unknown: Option<String>,
    pub(crate) not_opened: Vec<String>,
    pub(crate) ended: bool,
}

impl Template {
    pub(crate) fn new() -> Self {
        let folder = fast_folder();
        let keyring = keyring_in(&Self::path(&folder));
        std::fs::create_dir(Self::path(&folder)).unwrap();
        runtime().block_on(async {
            use claviger_keystore::storage::file::{Durability, FileStorage};
            let storage = FileStorage::new(&keyring, Durability::Memory);
            store::init(&storage, &[&*test_root()], "test", NOW)
                .await
                .unwrap();
            let member = member_in(&Self::path(&folder));
            member.sync(NOW).await.unwrap();
            for _ in 0..11 {
                let same = |keyring: &Keyring| Ok(keyring.clone());
                member.commit(NOW, same).await.unwrap();
            }
        });
        let document = Document::parse(std::fs::read(keyring).unwrap()).unwrap();
        Self { folder, document }
    }

    fn path(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("template")
    }

    /// A copy of it, for one run.
    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let copy = self.folder.path().join(name);
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(Self::path(&self.folder)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        copy
    }

    pub(crate) fn revision(&self) -> u64 {
        self.document.header().revision
    }

    /// The keyring is whole and one of those that it may be; all that was promised holds; and the
    /// next commit works and cleans up. Returns the revision that was found.
    pub(crate) fn assert_sound(&self, folder: &Path, promises: &Promises) -> u64 {
        let document = Document::parse(std::fs::read(keyring_in(folder)).unwrap()).unwrap();
        let revision = document.header().revision;
        let least = self.revision() + promises.committed;
        let possible = match (promises.ended, &promises.unknown) {
            (true, None) => least..=least,
            // It was killed in a commit, or does not know.
            _ => least..=least + 1,
        };
        assert!(
            possible.contains(&revision),
            "revision {revision}: {promises:?}"
        );
        if revision == self.revision() {
            assert_eq!(
                document.as_bytes(),
                self.document.as_bytes(),
                "the old one was changed"
            );
        } else {
            let kept = folder.join(format!("keyring.{}", revision - 1));
            let kept = Document::parse(std::fs::read(kept).unwrap()).unwrap();
            assert_eq!(
                document.header().previous,
                kept.hash(),
                "the copy is not the old one"
            );
        }
        runtime().block_on(assert_serves(folder, promises));
        for name in names(folder) {
            let known = [
                "keyring",
                "keyring.lock",
                "keyring.mark",
                "keyring.mark.lock",
            ];
            let known = known.contains(&name.as_str())
                || name.trim_start_matches("keyring.").parse::<u64>().is_ok();
            assert!(known, "{name} was left behind");
        }
        revision
    }
}

/// A new member opens what is there, opens all that was sealed, and rotates.
async fn assert_serves(folder: &Path, promises: &Promises) {
    let member = member_in(folder);
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
    for round in 0..2 {
        let view = member.view();
        let snapshot = view.snapshot().unwrap();
        snapshot.primary().expect("it only decrypts");
        for (id, ciphertext) in &promises.sealed {
            assert_eq!(*snapshot.open(id, ciphertext).unwrap(), SEED);
        }
        if round == 0 {
            member
                .commit(NOW, rotated)
                .await
                .expect("the next commit does not work");
        }
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

impl Promises {
    pub(crate) fn read(report: &str) -> Self {
        let mut promises = Self::default();
        for line in report.lines() {
            if let Some(sealed) = line.strip_prefix(said::SEALED) {
                let (id, ciphertext) = sealed.trim().split_once(' ').unwrap();
                let ciphertext = HEXLOWER.decode(ciphertext.as_bytes()).unwrap();
                promises.sealed.push((id.parse().unwrap(), ciphertext));
            } else if line.starts_with(said::COMMITTED) {
                promises.committed += 1;
            } else if line.starts_with(said::REFUSED) {
                promises.refused = Some(line.to_owned());
            } else if line.starts_with(said::UNKNOWN) {
                promises.unknown = Some(line.to_owned());
            } else if line.starts_with(said::NOT_OPENED) {
                promises.not_opened.push(line.to_owned());
            } else if line.starts_with(said::END) {
                promises.ended = true;
            } else {
                panic!("what is {line:?}?");
            }
        }
        promises
    }

    /// How many keys were used to seal, which is the old one and each that was committed.
    pub(crate) fn keys_used(&self) -> u64 {
        let ids: std::collections::HashSet<_> = self.sealed.iter().map(|(id, _)| *id).collect();
        ids.len() as u64
    }
}
