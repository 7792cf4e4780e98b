//! Where a keyring may lie.

use std::path::Path;

use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::storage::file::{Durability, FileStorage, check_file_system};
use claviger_keystore::store;
use claviger_keystore::testing::{NOW, test_root};

use crate::files::Files;
use crate::not_run::not_run;

#[tokio::test]
async fn a_memory_file_system_is_for_tests_only() {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return not_run("there is no /dev/shm");
    }
    let folder = tempfile::tempdir_in(memory).unwrap();
    let keyring = folder.path().join("keyring");
    let on = |durability| FileStorage::new(&keyring, durability);
    let refused = store::init(&on(Durability::Disk), &[&*test_root()], "test", NOW).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, Error::Storage(StorageError::Unsafe { .. })),
        "{refused}"
    );
    let refused = refused.to_string();
    for part in [
        "a memory file system",
        "local disk",
        &folder.path().display().to_string(),
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        0,
        "something was written"
    );
    store::init(&on(Durability::Memory), &[&*test_root()], "test", NOW)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_not_made() {
    let files = Files::empty();
    let folder = files.path("missing");
    assert!(check_file_system(&folder, Durability::Memory).is_err());
    let storage = FileStorage::new(folder.join("keyring"), Durability::Memory);
    let refused = store::init(&storage, &[&*test_root()], "test", NOW)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains(&folder.display().to_string()),
        "{refused}"
    );
    assert!(!folder.exists());
}
