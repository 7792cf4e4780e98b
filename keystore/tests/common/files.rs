//! A folder with a keyring file, as `init` makes it, and members on it.

use std::path::PathBuf;

use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::mark::MarkFile;
use claviger_keystore::storage::file::{Durability, FileStorage};
use claviger_keystore::store;
use claviger_keystore::testing::{NOW, test_root};

use crate::folder::fast_folder;

pub(crate) struct Files {
    pub(crate) folder: tempfile::TempDir,
}

impl Files {
    /// A folder without a keyring.
    pub(crate) fn empty() -> Self {
        Self {
            folder: fast_folder(),
        }
    }

    /// A folder with a keyring of revision 1.
    pub(crate) async fn new() -> Self {
        let files = Self::empty();
        files.init().await;
        files
    }

    pub(crate) async fn init(&self) -> Document {
        store::init(&self.storage(), &[&*test_root()], "test", NOW)
            .await
            .unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn keyring(&self) -> PathBuf {
        self.path("keyring")
    }

    pub(crate) fn storage(&self) -> FileStorage {
        FileStorage::new(self.keyring(), Durability::Memory)
    }

    /// What lies there, whatever it is.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.keyring()).unwrap()
    }

    /// A member after its start, with its mark beside the keyring: nothing is open yet.
    pub(crate) fn start(&self) -> Keystore {
        let mark = MarkFile::beside(&self.keyring());
        Keystore::new(Box::new(self.storage()), vec![test_root()], Some(mark))
    }

    /// A member that is open.
    pub(crate) async fn member(&self) -> Keystore {
        let member = self.start();
        member.sync(NOW).await.unwrap();
        member
    }

    /// The names of all files, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}
