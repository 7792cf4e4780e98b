//! Row 81: a backup, that is a copy of the keyring file, on a host that has nothing else.

use std::fs::{copy, write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use claviger_keystore::Keystore;
use claviger_keystore::mark::MarkFile;
use claviger_keystore::root::Root;
use claviger_keystore::root::key_file::{KeyFile, KeyFileConfig};
use claviger_keystore::root::recovery::{Recovery, RecoveryKey};
use claviger_keystore::storage::file::{Durability, FileStorage};
use claviger_keystore::store;
use claviger_keystore::testing::{NOW, rotate};

use crate::folder::fast_folder;
use crate::node::{SEED, Sealed, closed_reason, open, seal, touch};

fn key_file(path: &Path) -> Box<dyn Root> {
    Box::new(KeyFile::new("local", KeyFileConfig::Path(path.to_owned())))
}

/// A host with a keyring, a key file and a recovery key, and what was sealed there.
struct OldHost {
    folder: tempfile::TempDir,
    recovery: String,
    sealed: Vec<Sealed>,
}

impl OldHost {
    async fn new() -> Self {
        let folder = fast_folder();
        let key = folder.path().join("root.key");
        KeyFile::create(&key).unwrap();
        let recovery = RecoveryKey::generate().unwrap();
        let text = recovery.to_text().unwrap().to_string();
        let storage = FileStorage::new(folder.path().join("keyring"), Durability::Memory);
        let roots = [key_file(&key), Box::new(Recovery::with_key(recovery))];
        let roots: Vec<&dyn Root> = roots.iter().map(AsRef::as_ref).collect();
        store::init(&storage, &roots, "test", NOW).await.unwrap();
        let member = Keystore::new(Box::new(storage), vec![key_file(&key)], None);
        member.sync(NOW).await.unwrap();
        let mut sealed = vec![seal(&member)];
        rotate(&member).await;
        sealed.push(seal(&member));
        Self {
            folder,
            recovery: text,
            sealed,
        }
    }

    /// A member on a new host, to which only the keyring was brought.
    fn move_to(&self, host: &Path, root: Box<dyn Root>) -> Keystore {
        let keyring = host.join("keyring");
        copy(self.folder.path().join("keyring"), &keyring).unwrap();
        let storage = FileStorage::new(&keyring, Durability::Memory);
        Keystore::new(
            Box::new(storage),
            vec![root],
            Some(MarkFile::beside(&keyring)),
        )
    }

    async fn assert_all_opens(&self, member: &Keystore) {
        member.sync(NOW).await.unwrap();
        for sealed in self.sealed.iter().chain([&seal(member)]) {
            assert_eq!(open(member, sealed).unwrap(), SEED);
        }
        touch(member).await.unwrap();
    }
}

#[tokio::test]
async fn row_81_with_its_root_a_backup_opens_on_a_new_host() {
    let (old, new) = (OldHost::new().await, fast_folder());
    let key = new.path().join("root.key");
    copy(old.folder.path().join("root.key"), &key).unwrap();
    old.assert_all_opens(&old.move_to(new.path(), key_file(&key)))
        .await;
}

#[tokio::test]
async fn row_81_with_its_recovery_key_a_backup_opens_on_a_new_host() {
    let (old, new) = (OldHost::new().await, fast_folder());
    let typed = new.path().join("recovery.key");
    write(&typed, old.recovery.to_lowercase().replace('-', " ")).unwrap();
    std::fs::set_permissions(&typed, PermissionsExt::from_mode(0o400)).unwrap();
    let root = Recovery::with_file("paper", typed);
    old.assert_all_opens(&old.move_to(new.path(), Box::new(root)))
        .await;
}

#[tokio::test]
async fn row_81_with_neither_a_backup_is_refused_and_says_why() {
    let (old, new) = (OldHost::new().await, fast_folder());
    // The right name and another key; a recovery key of another cluster; no file at all.
    let key = new.path().join("root.key");
    KeyFile::create(&key).unwrap();
    let roots: [(Box<dyn Root>, &str); 3] = [
        (key_file(&key), "root local: its key does not open the slot"),
        (
            Box::new(Recovery::with_key(RecoveryKey::generate().unwrap())),
            "root recovery: its key does not open the slot",
        ),
        (key_file(&new.path().join("none")), "No such file"),
    ];
    for (root, cause) in roots {
        let member = old.move_to(new.path(), root);
        assert!(member.sync(NOW).await.is_err());
        let why = closed_reason(&member);
        for part in ["no slot opens", cause, "bring a root back"] {
            assert!(why.contains(part), "{why}");
        }
        assert!(touch(&member).await.is_err());
    }
}

#[tokio::test]
async fn row_81_a_root_of_another_name_is_told_which_slot_is_missing() {
    let (old, new) = (OldHost::new().await, fast_folder());
    let key = new.path().join("root.key");
    copy(old.folder.path().join("root.key"), &key).unwrap();
    let renamed = KeyFile::new("renamed", KeyFileConfig::Path(key));
    let member = old.move_to(new.path(), Box::new(renamed));
    assert!(member.sync(NOW).await.is_err());
    let why = closed_reason(&member);
    assert!(
        why.contains("the keyring has no key-file slot renamed"),
        "{why}"
    );
}
