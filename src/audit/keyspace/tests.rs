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
    let etcd = double.serve().await;
    let notes = Mutex::new(Vec::new());
    let note = |text: &str| notes.lock().unwrap().push(text.to_owned());
    let options = Options {
        prefix: "/registry",
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
            }
        });
        fill(&double);
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
