use std::sync::Mutex;

use super::*;
use crate::audit::etcd::double::Double;

/// More than the first page has, and than a part of a stream.
const OBJECTS: usize = 1300;

fn value(key: &str) -> Vec<u8> {
    format!("k8s:enc:aescbc:v1:{key}:data").into_bytes()
}

fn fill(double: &Double) {
    for n in 0..OBJECTS {
        double.put(&format!("/registry/secrets/a/{n:04}"), &value("old"));
    }
}

/// What was found, and what a person was told.
async fn scanned(double: &Double) -> (Result<Live, ScanError>, Vec<String>) {
    scanned_since(double, None).await
}

async fn scanned_since(
    double: &Double,
    since: Option<&Path>,
) -> (Result<Live, ScanError>, Vec<String>) {
    let etcd = double.serve().await;
    let notes = Mutex::new(Vec::new());
    let note = |text: &str| notes.lock().unwrap().push(text.to_owned());
    let options = Options {
        prefix: "/registry",
        since,
        ..Options::default()
    };
    let live = scan(&etcd, options, &note).await;
    (live, notes.into_inner().unwrap())
}

/// Current objects under this name of a key.
fn current(live: &Live, key: &str) -> u64 {
    let named = |row: &&crate::audit::tally::Row| row.protection.to_string().ends_with(key);
    let rows = live.tally.rows().iter().filter(named);
    rows.map(|row| row.counts.current).sum()
}

#[tokio::test]
async fn a_compaction_in_the_middle_begins_anew_at_what_is_there_then() {
    for streams in [true, false] {
        // Before the second part, an object that was read already is written anew, one is added, and
        // what was pinned is gone.
        let double = Double::new(streams, |etcd, part| {
            if part == 2 {
                etcd.put("/registry/secrets/a/0001", &value("new"));
                etcd.put("/registry/secrets/a/added", &value("new"));
                etcd.compact();
            }
        });
        fill(&double);
        double.compact();
        let pinned = double.revision();
        let (live, notes) = scanned(&double).await;
        let live = live.unwrap();
        assert_eq!(live.pin.revision, pinned + 2, "streams: {streams}");
        assert_eq!(live.pin.revision, double.revision());
        assert_eq!(live.pin.keys, OBJECTS as u64 + 1);
        assert_eq!(live.fetched, OBJECTS as u64 + 1);
        assert_eq!(current(&live, "old"), OBJECTS as u64 - 1);
        assert_eq!(current(&live, "new"), 2);
        let anew = "etcd compacted the revision that was being read: beginning anew";
        assert_eq!(notes, [anew], "streams: {streams}");
    }
}

#[tokio::test]
async fn compactions_again_and_again_are_no_result() {
    for streams in [true, false] {
        let double = Double::new(streams, |etcd, part| {
            if part % 2 == 0 {
                etcd.put("/registry/secrets/a/0001", &value("new"));
                etcd.compact();
            }
        });
        fill(&double);
        let (live, notes) = scanned(&double).await;
        assert!(matches!(live, Err(ScanError::Compacted)), "{live:?}");
        assert_eq!(notes.len(), ATTEMPTS as usize);
    }
}

#[tokio::test]
async fn an_etcd_without_streams_is_read_page_by_page() {
    let found = async |streams| {
        let double = Double::new(streams, |_, _| {});
        fill(&double);
        double.put("/registry/configmaps/a/1", b"k8s\0plain");
        let (live, notes) = scanned(&double).await;
        assert_eq!(notes, [""; 0]);
        let live = live.unwrap();
        assert_eq!(live.fetched, OBJECTS as u64 + 1);
        (format!("{:?}", live.tally.rows()), double.parts())
    };
    let (by_stream, parts) = found(true).await;
    let (by_pages, pages) = found(false).await;
    assert_eq!(by_pages, by_stream);
    assert_eq!(parts, 14);
    // The first page has 500 keys; the second has room for all that is left.
    assert_eq!(pages, 2);
}

/// An etcd with some objects, and the file of an audit of it.
async fn audited() -> (Double, tempfile::TempDir, std::path::PathBuf) {
    let double = Double::new(true, |_, _| {});
    fill(&double);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("since");
    scanned_since(&double, Some(&file)).await.0.unwrap();
    (double, dir, file)
}

/// Audits it since that file and without one: both must find the same. Returns how many values and
/// how many parts of the list were read for the former.
async fn same_since(double: &Double, file: &Path) -> (u64, usize) {
    let before = double.parts();
    let since = scanned_since(double, Some(file)).await.0.unwrap();
    let parts = double.parts() - before;
    let full = scanned(double).await.0.unwrap();
    assert_eq!(since.pin, full.pin);
    for key in ["old", "new", "plaintext"] {
        assert_eq!(current(&since, key), current(&full, key), "{key}");
    }
    assert_eq!(since.tally.exception_count(), full.tally.exception_count());
    (since.fetched, parts)
}

#[tokio::test]
async fn where_history_reaches_back_nothing_is_listed() {
    let (double, _dir, file) = audited().await;
    assert_eq!(same_since(&double, &file).await, (0, 0));
    double.put("/registry/secrets/a/0001", &value("old"));
    double.put("/registry/secrets/a/0001", &value("new"));
    double.put("/registry/secrets/a/0002", &value("new"));
    double.put("/registry/configmaps/a/1", b"k8s\0plain");
    double.put("/registry/secrets/b/gone", &value("new"));
    double.delete("/registry/secrets/b/gone");
    double.delete("/registry/secrets/a/1299");
    double.put("/registry/secrets/b/last", &value("new"));
    assert_eq!(same_since(&double, &file).await, (4, 0));
    // The file of that audit serves the next one as well, also after nothing has happened.
    for _ in 0..2 {
        assert_eq!(same_since(&double, &file).await, (0, 0));
    }
    double.put("/registry/secrets/a/0003", &value("new"));
    double.compact();
    let (_, parts) = same_since(&double, &file).await;
    assert!(parts > 0, "history was compacted");
}

#[tokio::test]
async fn a_deletion_last_leaves_no_mark_and_the_next_audit_lists() {
    let (double, _dir, file) = audited().await;
    double.delete("/registry/secrets/a/0001");
    assert_eq!(same_since(&double, &file).await, (0, 0));
    assert!(same_since(&double, &file).await.1 > 0);
}

#[tokio::test]
async fn what_an_earlier_audit_could_not_read_is_read_again() {
    let (double, _dir, file) = audited().await;
    double.put("/registry/secrets/a/broken", b"k8s:enc:");
    assert_eq!(same_since(&double, &file).await, (1, 0));
    double.put("/registry/secrets/a/0001", &value("new"));
    let (_, parts) = same_since(&double, &file).await;
    assert!(
        parts > 0,
        "a key that is in no file was found without a list"
    );
}

/// An etcd that was restored from an old snapshot and went on to the same revision has the same ids.
#[tokio::test]
async fn another_history_up_to_the_same_revision_is_not_taken_for_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("since");
    let etcd = |puts: &[(&str, &str)]| {
        let double = Double::new(true, |_, _| {});
        for (name, key) in puts {
            double.put(&format!("/registry/secrets/a/{name}"), &value(key));
        }
        double
    };
    let first = etcd(&[("1", "old"), ("2", "old")]);
    scanned_since(&first, Some(&file)).await.0.unwrap();
    let restored = etcd(&[("1", "old"), ("1", "new"), ("2", "new")]);
    let (_, parts) = same_since(&restored, &file).await;
    assert!(parts > 0, "it was taken for the same");
}
