//! The members' records, in a folder beside the keyring.

use std::os::unix::fs::{MetadataExt, chown};

use claviger_keystore::member::MemberName;
use claviger_keystore::storage::Storage;
use claviger_keystore::testing::{NOW, member_record};

use crate::files::Files;
use crate::not_run::not_run;

fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_record_is_a_private_file_in_a_private_folder() {
    let files = Files::new().await;
    let member = files.member().await;
    for _ in 0..2 {
        member.put_member(&member_record("cp1", NOW)).await.unwrap();
    }
    for (path, mode) in [("members", 0o700), ("members/cp1.json", 0o600)] {
        let metadata = std::fs::metadata(files.path(path)).unwrap();
        assert_eq!(metadata.mode() & 0o7777, mode, "{path}");
    }
    let left = std::fs::read_dir(files.path("members")).unwrap().count();
    assert_eq!(left, 1, "a temp file stays");
    assert_eq!(member.members().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_record_is_no_member() {
    let files = Files::new().await;
    files
        .storage()
        .put_member(&name("cp1"), b"one")
        .await
        .unwrap();
    for stranger in [".cp2.json.swp", "cp3.json.new", "README", ".json", "-.json"] {
        std::fs::write(files.path("members").join(stranger), "x").unwrap();
    }
    let members = files.storage().members().await.unwrap();
    assert_eq!(members, [(name("cp1"), b"one".to_vec())]);
    // What lies under a member's name and cannot be read is an error, and not nobody.
    std::fs::create_dir(files.path("members/cp4.json")).unwrap();
    let refused = files.storage().members().await.unwrap_err().to_string();
    assert!(refused.contains("cp4.json"), "{refused}");
}

#[tokio::test]
async fn the_folder_and_the_records_get_the_owner_of_the_keyrings_folder() {
    if !rustix::process::geteuid().is_root() {
        return not_run("only root can give files to another user");
    }
    let files = Files::new().await;
    let member = files.member().await;
    let owner = |path: &str| {
        let metadata = std::fs::metadata(files.path(path)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    // The folder of a command that was killed before it gave it away.
    std::fs::create_dir(files.path("members")).unwrap();
    chown(files.folder.path(), Some(12345), Some(12346)).unwrap();
    member.put_member(&member_record("cp1", NOW)).await.unwrap();
    assert_eq!(owner("members"), (12345, 12346));
    assert_eq!(owner("members/cp1.json"), (12345, 12346));
}
