//! Row 68 with a disk that is really full: short writes and all.

use std::path::{Path, PathBuf};
use std::process::Command;

use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::store;
use claviger_keystore::testing::{NOW, test_root};

use crate::child::{FOLDER, keyring_in, member_in, rotated, runtime};
use crate::folder::fast_folder;
use crate::not_run::not_run;
use crate::strace::child;

#[test]
fn row_68_a_full_disk_refuses_the_commit_and_heals() {
    let folder = fast_folder();
    // A file system of its own, in a mount namespace that ends with the child.
    let script = r#"mount -t tmpfs -o size=256k tmpfs "$0" && exec "$@""#;
    let unshare = |command: &[std::ffi::OsString]| {
        Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(folder.path())
            .args(command)
            .env(FOLDER, folder.path())
            .output()
    };
    match unshare(&["true".into()]) {
        Ok(output) if output.status.success() => {}
        Ok(output) => return not_run(String::from_utf8_lossy(&output.stderr).trim()),
        Err(e) => return not_run(&format!("unshare: {e}")),
    }
    let output = unshare(&child("full_disk::commits_on_a_full_disk")).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");
}

/// Takes all but `pages` of what is left.
fn fill(folder: &Path, pages: u64) -> PathBuf {
    let ballast = folder.join("ballast");
    let free = rustix::fs::statfs(folder).unwrap().f_bfree;
    std::fs::write(
        &ballast,
        vec![0; usize::try_from((free - pages) * 4096).unwrap()],
    )
    .unwrap();
    ballast
}

#[test]
#[ignore = "the test above runs it in a mount namespace"]
fn commits_on_a_full_disk() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let storage = claviger_keystore::storage::file::FileStorage::new(
        keyring_in(&folder),
        claviger_keystore::storage::file::Durability::Memory,
    );
    runtime().block_on(async {
        store::init(&storage, &[&*test_root()], "test", NOW)
            .await
            .unwrap();
        let member = member_in(&folder);
        member.sync(NOW).await.unwrap();
        // Long enough for a write to stop half-way.
        member
            .commit(NOW, |keyring| {
                (0..40).try_fold(keyring.clone(), |keyring, _| rotated(&keyring))
            })
            .await
            .unwrap();
        let before = std::fs::read(keyring_in(&folder)).unwrap();
        assert!(before.len() > 2 * 4096, "{} bytes", before.len());
        let primary = member.view().snapshot().unwrap().primary();
        // No page at all; one page; enough for the new one, but not for the copy of the old one.
        let whole = before.len().div_ceil(4096) as u64;
        for pages in [0, 1, whole, whole + 1] {
            let ballast = fill(&folder, pages);
            let refused = member.commit(NOW, rotated).await.unwrap_err();
            let full = matches!(&refused, Error::Storage(StorageError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull);
            assert!(full, "{pages} pages: {refused}");
            assert_eq!(std::fs::read(keyring_in(&folder)).unwrap(), before);
            assert_eq!(member.view().snapshot().unwrap().primary(), primary);
            let left = crate::after::names(&folder);
            assert!(!left.iter().any(|name| name.ends_with(".new")), "{left:?}");
            std::fs::remove_file(ballast).unwrap();
        }
        member.commit(NOW, rotated).await.unwrap();
        let member = member_in(&folder);
        member.sync(NOW).await.unwrap();
        assert_ne!(member.view().snapshot().unwrap().primary(), primary);
    });
}
