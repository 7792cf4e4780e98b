use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::audit::bolt::fixture::{Fixture, Pair};
use crate::audit::object::Protection;

/// What a test puts into an etcd that exists only as a file.
#[derive(Default)]
struct Etcd {
    keys: Vec<Pair>,
    meta: Vec<Pair>,
    revision: i64,
    /// By key: when it was made, and how often it was written since.
    alive: BTreeMap<String, [i64; 2]>,
}

impl Etcd {
    fn put(&mut self, key: &str, value: &[u8]) -> &mut Self {
        self.revision += 1;
        let alive = self.alive.entry(key.to_owned());
        let [created, version] = alive.or_insert([self.revision, 0]);
        *version += 1;
        let numbers = [*created, self.revision, *version];
        let value = key_value::write(key.as_bytes(), numbers, value);
        self.keys.push((key_of(self.revision, ""), value));
        self
    }

    fn delete(&mut self, key: &str) -> &mut Self {
        self.revision += 1;
        self.alive.remove(key);
        let mut value = Vec::new();
        prost::encoding::bytes::encode(1, &key.as_bytes().to_vec(), &mut value);
        self.keys.push((key_of(self.revision, "t"), value));
        self
    }

    fn meta(&mut self, name: &str, value: Vec<u8>) -> &mut Self {
        self.meta.push((name.into(), value));
        self.meta.sort();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut fixture = Fixture::new();
        fixture.tree(b"key", &self.keys);
        fixture.inline(b"meta", &self.meta);
        fixture.bytes()
    }

    fn hashed(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        let hash = Sha256::digest(&bytes);
        bytes.extend(hash.as_slice());
        bytes
    }
}

fn key_of(revision: i64, mark: &str) -> Vec<u8> {
    let mut key = revision.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend(0_i64.to_be_bytes());
    key.extend(mark.bytes());
    key
}

fn saved(bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot.db");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Key and value, revision, and whether that is the newest.
type Seen = (String, Vec<u8>, i64, bool);

fn read(bytes: &[u8], revisions: Revisions) -> Result<Vec<Seen>, SnapshotError> {
    let (_dir, path) = saved(bytes);
    let snapshot = Snapshot::open(&path)?;
    let mut seen = Vec::new();
    snapshot.read(revisions, |stored| {
        let key = String::from_utf8(stored.key.to_vec()).unwrap_or_default();
        let value = stored.value.to_vec();
        seen.push((key, value, stored.mod_revision, stored.latest));
    })?;
    Ok(seen)
}

fn error(bytes: &[u8]) -> String {
    read(bytes, Revisions::All).unwrap_err().to_string()
}

fn seen(key: &str, value: &[u8], revision: i64, latest: bool) -> Seen {
    (key.to_owned(), value.to_vec(), revision, latest)
}

#[test]
fn the_newest_revision_of_each_key_counts() {
    let mut etcd = Etcd::default();
    etcd.put("a", b"1")
        .put("b", b"2")
        .put("a", b"3")
        .put("c", b"4");
    etcd.delete("c").put("d", b"6").delete("d").put("d", b"8");
    let latest = [
        seen("d", b"8", 8, true),
        seen("a", b"3", 3, true),
        seen("b", b"2", 2, true),
    ];
    assert_eq!(read(&etcd.bytes(), Revisions::Latest).unwrap(), latest);
    let all = [
        seen("d", b"8", 8, true),
        seen("d", b"6", 6, false),
        seen("c", b"4", 4, false),
        seen("a", b"3", 3, true),
        seen("b", b"2", 2, true),
        seen("a", b"1", 1, false),
    ];
    assert_eq!(read(&etcd.hashed(), Revisions::All).unwrap(), all);
}

#[test]
fn it_says_what_it_is() {
    let mut etcd = Etcd::default();
    etcd.put("a", b"1")
        .meta("consistent_index", 77_u64.to_be_bytes().into());
    let (_dir, path) = saved(&etcd.bytes());
    let about = Snapshot::open(&path).unwrap().about().clone();
    assert!(!about.hashed);
    assert_eq!((about.revision, about.consistent_index), (1, 77));
    assert_eq!((about.compacted, about.compacting), (0, None));
    assert!(about.modified > Timestamp::UNIX_EPOCH);

    // The newest revision was a deletion, and a compaction began to remove it.
    etcd.meta("finishedCompactRev", key_of(1, ""))
        .meta("scheduledCompactRev", key_of(5, ""));
    let (_dir, path) = saved(&etcd.hashed());
    let about = Snapshot::open(&path).unwrap().about().clone();
    assert!(about.hashed);
    assert_eq!(about.revision, 5);
    assert_eq!((about.compacted, about.compacting), (1, Some(5)));
}

#[test]
fn an_empty_etcd_has_no_object() {
    assert_eq!(read(&Etcd::default().hashed(), Revisions::All).unwrap(), []);
}

#[test]
fn a_wrong_hash_is_the_reason_for_all_else() {
    let mut etcd = Etcd::default();
    for n in 0..200 {
        etcd.put(&format!("k{n}"), b"value");
    }
    let good = etcd.hashed();
    assert_eq!(read(&good, Revisions::Latest).unwrap().len(), 200);
    let mut changed = good.clone();
    let value = good.windows(5).position(|w| w == b"value").unwrap();
    changed[value] ^= 1;
    assert!(error(&changed).starts_with("its SHA-256 does not match"));
    // Without a hash that byte cannot be told from any other.
    changed.truncate(good.len() - 32);
    assert_eq!(read(&changed, Revisions::Latest).unwrap().len(), 200);
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let mut etcd = Etcd::default();
    for n in 0..30 {
        etcd.put(&format!("k{n}"), b"value");
    }
    let good = etcd.hashed();
    for length in 0..good.len() {
        // All pages are there, and only the hash is not.
        if length != good.len() - 32 {
            let error = read(&good[..length], Revisions::All);
            assert!(error.is_err(), "cut at {length}");
        }
    }
    let partial = error(&good[..good.len() - 16]);
    assert!(partial.contains("neither whole pages"), "{partial}");
}

#[test]
fn what_is_not_etcd_s_is_refused() {
    let mut fixture = Fixture::new();
    fixture.inline(b"v1", &[(b"a".to_vec(), b"b".to_vec())]);
    assert_eq!(
        error(&fixture.bytes()),
        "it is a bbolt database without the bucket 'key': not etcd's"
    );
    let mut fixture = Fixture::new();
    fixture.tree(b"key", &[(b"name".to_vec(), b"value".to_vec())]);
    fixture.inline(b"meta", &[]);
    let text = error(&fixture.bytes());
    assert!(
        text.ends_with("revision 'name': it is no revision"),
        "{text}"
    );

    let dir = tempfile::tempdir().unwrap();
    let folder = Snapshot::open(dir.path()).unwrap_err();
    assert!(matches!(folder, SnapshotError::NoFile), "{folder}");
    let missing = Snapshot::open(&dir.path().join("none")).unwrap_err();
    assert!(matches!(missing, SnapshotError::Open(_)), "{missing}");
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        Mode::RUSR,
        0,
    )
    .unwrap();
    let pipe = Snapshot::open(&pipe).unwrap_err();
    assert!(matches!(pipe, SnapshotError::NoFile), "{pipe}");
}

#[test]
fn entries_that_etcd_could_not_write_are_refused() {
    let good = key_value::write(b"k", [1, 1, 1], b"v");
    for (key, value, fault) in [
        (key_of(2, ""), good.clone(), "of another revision"),
        (key_of(1, "x"), good.clone(), "it is no revision"),
        (key_of(-1, ""), good.clone(), "it is no revision"),
        (key_of(1, ""), good[..10].to_vec(), "cut off"),
        (key_of(1, ""), Vec::new(), "names no key"),
    ] {
        let etcd = Etcd {
            keys: vec![(key, value)],
            ..Etcd::default()
        };
        let text = error(&etcd.hashed());
        let negative = text.contains("negative");
        assert!(text.contains(fault) || negative, "{fault}: {text}");
    }
    for (name, value) in [
        ("consistent_index", vec![1; 7]),
        ("finishedCompactRev", vec![1; 8]),
        ("scheduledCompactRev", Vec::new()),
    ] {
        let mut etcd = Etcd::default();
        let text = error(&etcd.put("a", b"1").meta(name, value).hashed());
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn a_file_that_is_written_meanwhile_is_refused() {
    let mut etcd = Etcd::default();
    etcd.put("a", b"1").put("b", b"2");
    let (_dir, path) = saved(&etcd.bytes());
    let snapshot = Snapshot::open(&path).unwrap();
    let mut longer = etcd.bytes();
    longer.push(0);
    let read = snapshot.read(Revisions::All, |_| fs::write(&path, &longer).unwrap());
    assert!(matches!(read, Err(SnapshotError::Changed)), "{read:?}");
}

/// A KMS v2 envelope with this key id.
fn envelope(key_id: &str) -> Vec<u8> {
    let mut value = b"k8s:enc:kms:v2:claviger:".to_vec();
    for (tag, field) in [(1, "data"), (2, key_id), (3, "seed")] {
        prost::encoding::string::encode(tag, &field.to_owned(), &mut value);
    }
    value
}

#[test]
fn it_is_counted_and_says_which_keys_it_needs() {
    let mut etcd = Etcd::default();
    etcd.put("/registry/secrets/a/1", &envelope("old"))
        .put("/registry/secrets/a/2", &envelope("old"))
        .put("/registry/configmaps/a/1", &envelope("old"))
        .put("/registry/secrets/a/1", &envelope("new"))
        .put("/registry/secrets/a/3", b"k8s:enc:aescbc:v1:key1:data")
        .put("/registry/secrets/a/4", b"k8s\0plain")
        .put("/registry/secrets/a/5", b"k8s:enc:kms:v2:claviger:?")
        .put("/registry/secrets/a/6", &envelope("gone"))
        .delete("/registry/secrets/a/6");
    let (_dir, path) = saved(&etcd.hashed());
    let snapshot = Snapshot::open(&path).unwrap();
    let needs = |revisions| snapshot.needs(revisions, "/registry").unwrap();
    let keys = |keys: &[(&str, u64)]| {
        let keys = keys.iter().map(|(id, n)| ((*id).to_owned(), *n));
        keys.collect::<BTreeMap<_, _>>()
    };
    let rest = Needs {
        other: 1,
        plaintext: 1,
        unreadable: 1,
        ..Needs::default()
    };
    let latest = Needs {
        key_ids: keys(&[("new", 1), ("old", 2)]),
        ..rest.clone()
    };
    assert_eq!(needs(Revisions::Latest), latest);
    let all = Needs {
        key_ids: keys(&[("gone", 1), ("new", 1), ("old", 3)]),
        ..rest
    };
    assert_eq!(needs(Revisions::All), all);

    let mut total = Tally::new("/registry");
    total.add_snapshot(
        "db",
        &snapshot.tally(Revisions::Latest, "/registry").unwrap(),
    );
    let old = total.rows().iter().filter(
        |row| matches!(&row.protection, Protection::KmsV2 { key_id, .. } if key_id == "old"),
    );
    let counts = old.map(|row| row.counts);
    assert!(counts.clone().all(|c| (c.current, c.snapshots) == (0, 1)));
    assert_eq!(counts.map(|c| c.snapshot_values).sum::<u64>(), 2);
}

/// What happened to some of a few keys.
#[derive(Debug, Clone)]
enum Event {
    Put(u8),
    Delete(u8),
}

proptest! {
    /// Compared with a map that lives through the same events, and through a compaction as etcd does it:
    /// of each key the newest revision up to there stays, unless it is a deletion.
    #[test]
    fn the_latest_revisions_are_those_of_a_map(
        events in proptest::collection::vec(
            prop_oneof![
                3 => (0..12_u8).prop_map(Event::Put),
                1 => (0..12_u8).prop_map(Event::Delete),
            ],
            0..120,
        ),
        compacted in 0..120_i64,
        removed in 0..120_i64,
    ) {
        let mut etcd = Etcd::default();
        let mut map = BTreeMap::new();
        for event in &events {
            match event {
                Event::Put(key) => {
                    etcd.put(&format!("k{key}"), b"v");
                    map.insert(format!("k{key}"), etcd.revision);
                }
                Event::Delete(key) => {
                    let key = format!("k{key}");
                    // etcd writes nothing where there is nothing to delete.
                    if map.remove(&key).is_some() {
                        etcd.delete(&key);
                    }
                }
            }
        }
        let compacted = compacted.min(etcd.revision);
        let removed = removed.min(compacted);
        compact(&mut etcd, compacted, removed);
        let found = read(&etcd.hashed(), Revisions::Latest).unwrap();
        let found: BTreeMap<_, _> = found.into_iter().map(|(key, _, at, _)| (key, at)).collect();
        prop_assert_eq!(found, map);
    }

    /// With a hash, no change at all goes unseen.
    #[test]
    fn no_changed_byte_of_a_hashed_file_is_missed(
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut etcd = Etcd::default();
        for n in 0..50 {
            etcd.put(&format!("k{n}"), b"value");
        }
        let mut bytes = etcd.hashed();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(read(&bytes, Revisions::All).is_err());
    }
}

/// Compacts up to a revision; of what goes, only what lies up to `removed` has gone yet.
fn compact(etcd: &mut Etcd, compacted: i64, removed: i64) {
    let mut newest = BTreeMap::new();
    for (key, value) in &etcd.keys {
        let revision = Revision::parse(key).unwrap();
        if revision.main <= compacted {
            newest.insert(KeyValue::parse(value).unwrap().key.to_vec(), revision);
        }
    }
    etcd.keys.retain(|(key, value)| {
        let revision = Revision::parse(key).unwrap();
        let newest = newest.get(KeyValue::parse(value).unwrap().key);
        let stays = newest == Some(&revision) && !revision.deletes;
        revision.main > removed || stays
    });
    etcd.meta("scheduledCompactRev", key_of(compacted, ""));
    if removed == compacted {
        etcd.meta("finishedCompactRev", key_of(compacted, ""));
    }
}
