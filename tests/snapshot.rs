//! etcd's own snapshot files, read in place: what etcd answers at that revision, and what its own tool
//! says of the file, is what we say.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![expect(clippy::print_stderr, reason = "helpers of tests")]

#[path = "snapshot/command.rs"]
mod command;
#[path = "common/components.rs"]
mod components;
#[path = "snapshot/etcd.rs"]
mod etcd;
#[path = "common/port.rs"]
mod port;
#[expect(dead_code, reason = "others use more of it")]
#[path = "common/process.rs"]
mod process;
#[expect(dead_code, reason = "others use more of it")]
#[path = "common/web.rs"]
mod web;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use claviger::audit::bolt::Database;
use claviger::audit::snapshot::{About, Revisions, Snapshot, SnapshotError};

use etcd::{Etcd, Versions, status};
use process::folder;

/// What a snapshot says, and its objects: by key, revision and value.
fn read(path: &Path) -> Result<(About, Versions), SnapshotError> {
    let snapshot = Snapshot::open(path)?;
    let mut found = BTreeMap::new();
    snapshot.read(Revisions::Latest, |stored| {
        assert!(stored.latest);
        let version = (stored.mod_revision, stored.value.to_vec());
        let twice = found.insert(stored.key.to_vec(), version);
        assert!(twice.is_none(), "{:?} came twice", stored.key);
    })?;
    Ok((snapshot.about().clone(), found))
}

fn error(path: &Path) -> String {
    read(path).unwrap_err().to_string()
}

/// The hash that `etcdutl snapshot status` shows: CRC-32C over every name, key and value there is. So
/// it is equal only if everything was read.
fn hash(path: &Path) -> u32 {
    // In the order of their names, in which etcd has them.
    const BUCKETS: [&str; 10] = [
        "alarm",
        "auth",
        "authRoles",
        "authUsers",
        "cluster",
        "key",
        "lease",
        "members",
        "members_removed",
        "meta",
    ];
    let length = fs::metadata(path).unwrap().len() / 512 * 512;
    let database = Database::open(fs::File::open(path).unwrap(), length).unwrap();
    let mut crc = u32::MAX;
    for name in BUCKETS {
        let bucket = database.bucket(name.as_bytes()).unwrap().unwrap();
        let mut backwards = Vec::new();
        let mut cursor = database.walk_back(&bucket).unwrap();
        while let Some(entry) = cursor.previous().unwrap() {
            backwards.push([entry.key, entry.value].concat());
        }
        crc = crc32c(crc, name.as_bytes());
        for entry in backwards.iter().rev() {
            crc = crc32c(crc, entry);
        }
    }
    !crc
}

fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    static OF_BYTES: LazyLock<[u32; 256]> = LazyLock::new(|| {
        let step = |crc: u32, _| (crc >> 1) ^ (REVERSED * (crc & 1));
        std::array::from_fn(|byte| (0..8).fold(byte as u32, step))
    });
    let table = *OF_BYTES;
    let mut crc = crc;
    // Not a fold: without optimisation every closure costs a call, and here are many bytes.
    for byte in bytes {
        crc = (crc >> 8) ^ table[usize::from(crc as u8 ^ byte)];
    }
    crc
}

/// Compares a snapshot with what etcd answers at its revision, and with what etcd's tool says of it.
fn compare(etcd: &Etcd, path: &Path) -> About {
    let (about, found) = read(path).unwrap();
    let (revision, expected) = etcd.all();
    assert_eq!(about.revision, revision);
    assert_eq!(found.len(), expected.len());
    // Not `assert_eq!`: nobody reads megabytes of values.
    assert!(found == expected, "other objects than etcd's");
    let status = status(path);
    assert_eq!(status["totalKey"], found.len());
    assert_eq!(status["hash"], hash(path));
    about
}

#[test]
fn a_snapshot_has_what_etcd_answers() {
    let dir = folder();
    let Some(etcd) = Etcd::start(dir.path(), &[]) else {
        return;
    };
    let saved = dir.path().join("empty.db");
    etcd.save(&saved);
    let about = compare(&etcd, &saved);
    assert!(about.hashed);
    assert_eq!((about.revision, about.compacted), (1, 0));

    for round in 0..3 {
        let keys = (0..300).filter(|n| n % (round + 1) == 0);
        etcd.put(keys.map(|n| (format!("/registry/secrets/a/{n}"), vec![round as u8; n])));
        etcd.delete(&format!("/registry/secrets/a/{}", 30 + round), None);
    }
    // A deletion and what follows of the same key, in one revision after another.
    etcd.delete("/registry/secrets/a/6", None);
    etcd.put([("/registry/secrets/a/6".to_owned(), b"again".to_vec())]);
    etcd.delete("/registry/secrets/a/7", Some("/registry/secrets/a/8"));
    let saved = dir.path().join("saved.db");
    etcd.save(&saved);
    let about = compare(&etcd, &saved);
    assert_eq!(status(&saved)["revision"], about.revision);
    assert_eq!((about.compacted, about.compacting), (0, None));
    assert!(about.consistent_index > 0);

    // A copy of the database itself has no hash, and the same objects.
    let copy = etcd.stop_and_copy();
    let (plain, objects) = read(&copy).unwrap();
    assert!(!plain.hashed);
    assert_eq!(plain.revision, about.revision);
    assert!(objects == read(&saved).unwrap().1);
}

/// Pages that are free, pages that run over others, and branches above branches.
#[test]
fn a_large_snapshot_after_compactions_too() {
    let dir = folder();
    let Some(etcd) = Etcd::start(dir.path(), &[]) else {
        return;
    };
    let saved = dir.path().join("saved.db");
    for round in 0..3_usize {
        let keys = (0..15_000).filter(|n| round == 0 || n % 7 == round);
        etcd.put(keys.map(|n| {
            (
                format!("/registry/secrets/a/{n}"),
                vec![n as u8; 100 + n % 400],
            )
        }));
        for n in 0..3 {
            let key = format!("/registry/configmaps/a/large-{round}-{n}");
            etcd.put([(key, vec![n; 400_000 * (1 + usize::from(n))])]);
        }
        let from = format!("/registry/secrets/a/{}", 2 + round);
        etcd.delete(&from, Some(&format!("{from}~")));
        let revision = etcd.all().0;
        etcd.compact(revision - 50);
        etcd.save(&saved);
        let about = compare(&etcd, &saved);
        assert_eq!(about.compacted, revision - 50);
        assert_eq!(about.compacting, None);
    }
}

/// What a compaction that is under way has removed was old, whatever it has not come to yet.
#[test]
fn a_snapshot_taken_during_a_compaction_has_every_object() {
    let dir = folder();
    // It removes five revisions, and then rests longer than this test takes.
    let slow = [
        "--compaction-batch-limit=5",
        "--compaction-sleep-interval=1h",
    ];
    let Some(etcd) = Etcd::start(dir.path(), &slow) else {
        return;
    };
    for round in 0..4 {
        let keys = (0..50).map(|n| (format!("/registry/secrets/a/{n}"), vec![round; 10]));
        etcd.put_one_by_one(keys);
    }
    etcd.delete("/registry/secrets/a/3", None);
    let revision = etcd.all().0;
    etcd.begin_to_compact(revision);
    let saved = dir.path().join("saved.db");
    etcd.save(&saved);
    let about = compare(&etcd, &saved);
    assert_eq!(about.compacted, 0);
    assert_eq!(about.compacting, Some(revision));
}

/// `etcd-3.4.db` is of Debian's etcd 3.4.23: five keys put at revisions 2 to 6, the second again at 7,
/// the third deleted at 8, compacted up to 4, and a sixth key put at 9. Its etcdctl says of it
/// `{"hash":2982817797,"revision":9,…}`.
#[test]
fn a_snapshot_of_etcd_3_4_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshot/etcd-3.4.db");
    let (about, found) = read(&path).unwrap();
    assert!(about.hashed);
    assert_eq!(
        (about.revision, about.compacted, about.compacting),
        (9, 4, None)
    );
    let expected = [
        (1, 2, "v1"),
        (2, 7, "again"),
        (4, 5, "v4"),
        (5, 6, "v5"),
        (6, 9, "six"),
    ];
    let expected = expected.map(|(n, revision, value)| {
        let key = format!("/registry/secrets/a/{n}").into_bytes();
        (key, (revision, value.as_bytes().to_vec()))
    });
    assert_eq!(found, BTreeMap::from(expected));
    assert_eq!(hash(&path), 2_982_817_797);
}

#[test]
fn a_snapshot_that_is_not_whole_is_refused() {
    let dir = folder();
    let Some(etcd) = Etcd::start(dir.path(), &[]) else {
        return;
    };
    etcd.put((0..2_000).map(|n| (format!("/registry/secrets/a/{n}"), vec![1; 300])));
    let saved = dir.path().join("saved.db");
    etcd.save(&saved);
    assert_eq!(read(&saved).unwrap().1.len(), 2_000);
    let good = fs::read(&saved).unwrap();
    let bad = dir.path().join("bad.db");

    for length in (0..good.len())
        .step_by(good.len() / 50)
        .chain([good.len() - 1])
    {
        // All pages are there, and only the hash is not.
        if length == good.len() - 32 {
            continue;
        }
        fs::write(&bad, &good[..length]).unwrap();
        assert!(read(&bad).is_err(), "cut at {length}");
    }
    for at in (0..good.len())
        .step_by(good.len() / 50)
        .chain([good.len() - 1])
    {
        let mut changed = good.clone();
        changed[at] ^= 0x40;
        fs::write(&bad, &changed).unwrap();
        assert!(read(&bad).is_err(), "byte {at} of {}", good.len());
    }
    // A whole page that was lost, with a hash and without.
    let mut lost = good.clone();
    let page = good.len() / 4096 / 2 * 4096;
    lost[page..page + 4096].fill(0);
    fs::write(&bad, &lost).unwrap();
    assert!(error(&bad).contains("SHA-256"), "{}", error(&bad));
    fs::write(&bad, &lost[..good.len() - 32]).unwrap();
    assert!(error(&bad).contains("is damaged"), "{}", error(&bad));

    fs::write(&bad, b"apiVersion: v1\nkind: Secret\n".repeat(40)).unwrap();
    assert!(
        error(&bad).contains("not a bbolt database"),
        "{}",
        error(&bad)
    );
}
