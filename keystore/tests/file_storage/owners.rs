//! Row 71: whose the files are, and who may read them.

use std::fs::{Permissions, hard_link, rename, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::snapshot::View;
use claviger_keystore::storage::Storage;
use claviger_keystore::testing::{NOW, rotate};

use crate::files::Files;
use crate::node::{SEED, closed_reason, open, seal, touch};
use crate::not_run::not_run;

/// Nobody on this machine.
const STRANGER: u32 = 12345;

fn chmod(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Owner, group and mode.
fn facts(path: &Path) -> (u32, u32, u32) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

/// Only root can give files away.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        not_run("only root can give files to another user");
    }
    is_root
}

/// Neither a member that starts nor one that runs takes the keyring as it lies there.
async fn assert_refused(files: &Files, cause: &str) {
    let member = files.start();
    let refused = member.sync(NOW).await.unwrap_err();
    assert!(
        matches!(refused, Error::Storage(StorageError::Unsafe { .. })),
        "{refused}"
    );
    let why = closed_reason(&member);
    assert!(why.contains(cause), "{why}");
    assert!(
        why.contains(&files.keyring().display().to_string()),
        "{why}"
    );
}

#[tokio::test]
async fn row_71_a_keyring_that_others_may_read_or_change_is_refused() {
    let files = Files::new().await;
    let running = files.member().await;
    let sealed = seal(&running);
    for mode in [0o644, 0o606, 0o660, 0o620, 0o602, 0o601, 0o604, 0o777] {
        chmod(&files.keyring(), mode);
        assert_refused(&files, &format!("its mode is {mode:04o}; run chmod 0600")).await;
        assert!(running.sync(NOW).await.is_err(), "{mode:o}");
        assert!(touch(&running).await.is_err(), "{mode:o}");
        assert_eq!(open(&running, &sealed).unwrap(), SEED);
    }
    for mode in [0o600, 0o640, 0o400, 0o440] {
        chmod(&files.keyring(), mode);
        files.member().await;
        running.sync(NOW).await.unwrap();
    }
}

#[tokio::test]
async fn row_71_a_strangers_keyring_is_refused() {
    if !is_root() {
        return;
    }
    let files = Files::new().await;
    chown(files.keyring(), Some(STRANGER), None).unwrap();
    let cause = format!("it belongs to uid {STRANGER}; give it to the user that runs Claviger");
    assert_refused(&files, &cause).await;
    // The user whose folder it is may have it.
    chown(files.folder.path(), Some(STRANGER), None).unwrap();
    files.member().await;
}

#[tokio::test]
async fn row_71_a_symbolic_link_is_refused_and_a_hard_link_is_not() {
    let files = Files::new().await;
    hard_link(files.keyring(), files.path("second")).unwrap();
    let member = files.member().await;
    touch(&member).await.unwrap();

    rename(files.keyring(), files.path("elsewhere")).unwrap();
    symlink("elsewhere", files.keyring()).unwrap();
    assert_refused(&files, "it is a symbolic link; name the file itself").await;
    assert!(touch(&member).await.is_err());
    // Nor is a keyring made where one points.
    std::fs::remove_file(files.path("elsewhere")).unwrap();
    let root = claviger_keystore::testing::test_root();
    let made = claviger_keystore::store::init(&files.storage(), &[&*root], "", NOW).await;
    assert!(made.is_err());
    assert!(!files.path("elsewhere").exists());
}

#[tokio::test]
async fn what_is_no_file_is_refused_and_nobody_waits_for_it() {
    let files = Files::empty();
    std::fs::create_dir(files.keyring()).unwrap();
    chmod(&files.keyring(), 0o700);
    assert_refused(&files, "it is not a regular file").await;
    std::fs::remove_dir(files.keyring()).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let pipe = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, files.keyring(), pipe, mode, 0).unwrap();
    assert_refused(&files, "it is not a regular file").await;
}

#[tokio::test]
async fn a_planted_link_neither_locks_nor_marks_elsewhere() {
    let files = Files::new().await;
    std::fs::remove_file(files.path("keyring.lock")).unwrap();
    symlink("planted", files.path("keyring.lock")).unwrap();
    let member = files.member().await;
    assert!(touch(&member).await.is_err());
    std::fs::remove_file(files.path("keyring.lock")).unwrap();
    // Whatever name a commit writes to: a link there is replaced, and what it names stays.
    std::fs::write(files.path("planted"), "mine").unwrap();
    for name in [
        "keyring.new",
        "keyring.1",
        "keyring.1.new",
        "keyring.mark.new",
    ] {
        symlink("planted", files.path(name)).unwrap();
    }
    touch(&member).await.unwrap();
    assert_eq!(std::fs::read(files.path("planted")).unwrap(), b"mine");
    files.member().await;
}

#[tokio::test]
async fn root_leaves_every_file_to_whom_it_belongs() {
    if !is_root() {
        return;
    }
    let files = Files::empty();
    chown(files.folder.path(), Some(STRANGER), Some(STRANGER + 1)).unwrap();
    files.init().await;
    let member = files.member().await;
    rotate(&member).await;
    // New files take the folder's owner: the member runs as that user, and must open them all.
    for name in files.names() {
        let (uid, gid, mode) = facts(&files.path(&name));
        assert_eq!((uid, gid, mode), (STRANGER, STRANGER + 1, 0o600), "{name}");
    }
    // What is there keeps what it has.
    chown(files.keyring(), Some(0), Some(STRANGER + 2)).unwrap();
    chmod(&files.keyring(), 0o640);
    rotate(&member).await;
    assert_eq!(facts(&files.keyring()), (0, STRANGER + 2, 0o640));
    assert!(files.storage().load().await.is_ok());
    assert!(matches!(**member.view(), View::Open(_)));
}
