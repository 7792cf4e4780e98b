//! The copies that a commit keeps of what it replaces.

use claviger_keystore::document::Document;
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::file::kept_copies;
use claviger_keystore::testing::NOW;

use crate::files::Files;
use crate::node::touch;

#[tokio::test]
async fn the_last_ten_are_kept_byte_for_byte() {
    let files = Files::new().await;
    let member = files.member().await;
    let mut documents = vec![files.bytes()];
    for _ in 0..14 {
        touch(&member).await.unwrap();
        documents.push(files.bytes());
        let mut kept = kept_copies(&files.keyring());
        kept.sort_unstable();
        let newest = documents.len() as u64;
        let expected: Vec<u64> = (newest.saturating_sub(10).max(1)..newest).collect();
        assert_eq!(kept, expected);
        for revision in kept {
            let copy = std::fs::read(files.path(&format!("keyring.{revision}"))).unwrap();
            assert_eq!(copy, documents[revision as usize - 1], "keyring.{revision}");
        }
    }
    let is_copy = |name: &String| name.trim_start_matches("keyring.").parse::<u64>().is_ok();
    let (_, others): (Vec<_>, Vec<_>) = files.names().into_iter().partition(is_copy);
    assert_eq!(
        others,
        [
            "keyring",
            "keyring.lock",
            "keyring.mark",
            "keyring.mark.lock"
        ],
        "something was left behind"
    );
}

#[tokio::test]
async fn a_copy_is_a_file_of_its_own() {
    let files = Files::new().await;
    let before = files.bytes();
    touch(&files.member().await).await.unwrap();
    // Whoever writes into the keyring in its place does not reach the copy.
    std::fs::write(files.keyring(), "garbage").unwrap();
    assert_eq!(std::fs::read(files.path("keyring.1")).unwrap(), before);
}

#[tokio::test]
async fn a_copy_has_the_revision_that_it_holds() {
    let files = Files::new().await;
    let first = Document::parse(files.bytes()).unwrap();
    // A merge goes beyond the highest revision that it merged; here only the form matters.
    let text = std::str::from_utf8(first.as_bytes()).unwrap();
    let previous = format!(r#""previous":"{}""#, first.hash());
    let merged = text
        .replacen(r#""revision":1"#, r#""revision":7"#, 1)
        .replacen(&format!(r#""previous":"{}""#, "0".repeat(64)), &previous, 1);
    let merged = Document::parse(merged.into_bytes()).unwrap();
    files
        .storage()
        .commit(&merged, Some(first.hash()))
        .await
        .unwrap();
    assert_eq!(files.bytes(), merged.as_bytes());
    assert_eq!(kept_copies(&files.keyring()), [1]);
    assert_eq!(
        std::fs::read(files.path("keyring.1")).unwrap(),
        first.as_bytes()
    );
}

#[tokio::test]
async fn other_files_are_neither_counted_nor_removed() {
    let files = Files::new().await;
    let strangers = [
        "keyring.007",
        "keyring.+8",
        "keyring.-9",
        "keyring.1.bak",
        "keyring.99999999999999999999999",
        "keyring.old",
        "keyrings.3",
        "mykeyring.3",
    ];
    for name in strangers {
        std::fs::write(files.path(name), name).unwrap();
    }
    let member = files.member().await;
    for _ in 0..14 {
        touch(&member).await.unwrap();
    }
    let mut kept = kept_copies(&files.keyring());
    kept.sort_unstable();
    assert_eq!(kept, (5..15).collect::<Vec<u64>>());
    for name in strangers {
        assert_eq!(std::fs::read(files.path(name)).unwrap(), name.as_bytes());
    }
    assert!(files.start().sync(NOW).await.is_ok());
}
