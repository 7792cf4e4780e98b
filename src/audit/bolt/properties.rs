//! Whatever happens to a file: no panic, no end that never comes, and no page lost in silence.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::BoltError;
use super::fixture::{Fixture, PAGE, Pair, open};

/// Every entry of the bucket `key`, from the last to the first.
fn read(bytes: &[u8]) -> Result<Vec<Pair>, BoltError> {
    let database = open(bytes)?;
    let Some(bucket) = database.bucket(b"key")? else {
        return Err(BoltError::Foreign("no bucket"));
    };
    let mut found = Vec::new();
    let mut cursor = database.walk_back(&bucket)?;
    while let Some(entry) = cursor.previous()? {
        assert!(!entry.bucket || entry.value.len() < bytes.len());
        found.push((entry.key.to_vec(), entry.value.to_vec()));
    }
    Ok(found)
}

fn file(entries: u32, value: usize) -> Vec<u8> {
    let mut fixture = Fixture::new();
    let pairs = (1..=entries).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; value]));
    fixture.tree(b"key", &pairs.collect::<Vec<_>>());
    fixture.inline(b"meta", &[(b"a".to_vec(), b"b".to_vec())]);
    fixture.bytes()
}

/// Where the file has the number of the bucket's root page. If that becomes the number of another page
/// of the same tree, all that lies below that one reads well, and the rest is gone: nothing in a bbolt
/// file tells. It is the one such place; only the SHA-256 of a whole snapshot watches over it.
fn blind_spot(good: &[u8]) -> Range<usize> {
    let root = good.len() - PAGE;
    let name = good[root..].windows(3).position(|w| w == b"key").unwrap();
    let start = root + name + 3;
    start..start + 8
}

fn spare_blind_spot(good: &[u8], bytes: &mut [u8]) {
    let spot = blind_spot(good);
    if let Some(bytes) = bytes.get_mut(spot.clone()) {
        bytes.copy_from_slice(&good[spot]);
    }
}

/// What may happen to bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    /// Numbers that lie at such places are lengths, positions and pages.
    SetWord(Index, u32),
    Zero(Index, usize),
    /// A page is written over another one.
    CopyPage(Index, Index),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let word = prop_oneof![0_u32..64, Just(u32::MAX), any::<u32>()];
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        4 => (any::<Index>(), word).prop_map(|(at, word)| Change::SetWord(at, word)),
        1 => (any::<Index>(), 1..2 * PAGE).prop_map(|(at, length)| Change::Zero(at, length)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::CopyPage(from, to)),
        1 => any::<Index>().prop_map(Change::Cut),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let pages = bytes.len() / PAGE;
    match change {
        _ if pages == 0 => {}
        Change::Set(at, byte) => bytes[at.index(pages * PAGE)] = *byte,
        Change::SetWord(at, word) => {
            let at = at.index(pages * PAGE / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        Change::Zero(at, length) => {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + length);
            bytes[at..end].fill(0);
        }
        Change::CopyPage(from, to) => {
            let (from, to) = (from.index(pages) * PAGE, to.index(pages) * PAGE);
            bytes.copy_within(from..from + PAGE, to);
        }
        Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
    }
}

proptest! {
    /// Changes may alter values, which have no checksum, or one key within the order. But an entry is
    /// never missing.
    #[test]
    fn a_changed_file_gives_all_entries_or_an_error(
        entries in 0_u32..400,
        value in prop_oneof![0_usize..40, 300..1500_usize],
        changes in vec(change(), 1..4),
    ) {
        let mut bytes = file(entries, value);
        prop_assert_eq!(read(&bytes).unwrap().len(), entries as usize);
        let good = bytes.clone();
        for change in &changes {
            apply(&mut bytes, change);
        }
        spare_blind_spot(&good, &mut bytes);
        if let Ok(found) = read(&bytes) {
            prop_assert_eq!(found.len(), entries as usize);
        }
    }

    #[test]
    fn any_bytes_after_good_meta_pages_are_survived(
        noise in vec(any::<u8>(), 0..4 * PAGE),
        at in any::<Index>(),
    ) {
        let good = file(100, 20);
        let mut bytes = good.clone();
        let start = 2 * PAGE + at.index(bytes.len() - 2 * PAGE);
        let end = bytes.len().min(start + noise.len());
        bytes[start..end].copy_from_slice(&noise[..end - start]);
        spare_blind_spot(&good, &mut bytes);
        if let Ok(found) = read(&bytes) {
            prop_assert_eq!(found.len(), 100);
        }
    }
}

/// One after another, every byte of the pages' headers and elements.
#[test]
fn every_byte_that_leads_to_an_entry_is_checked() {
    let good = file(60, 8);
    let expected = read(&good).unwrap();
    let mut survived = 0;
    let spot = blind_spot(&good);
    for at in (2 * PAGE..good.len()).filter(|at| !spot.contains(at)) {
        let byte = good[at];
        for changed in [byte ^ 1, byte ^ 4, byte ^ 8, byte ^ 0x80, 0] {
            let mut bytes = good.clone();
            bytes[at] = changed;
            if let Ok(found) = read(&bytes) {
                survived += 1;
                assert_eq!(found.len(), expected.len(), "byte {at}");
            }
        }
    }
    assert!(survived > 0, "values have no checksum");
}

#[test]
fn a_tree_that_leads_back_to_itself_ends() {
    let good = file(400, 8);
    let pages = good.len() / PAGE;
    let is_branch = |page: &usize| good[page * PAGE + 8] == 1;
    let branches: Vec<usize> = (2..pages).filter(is_branch).collect();
    assert!(!branches.is_empty());
    for branch in branches {
        for to in 0..pages + 2 {
            for element in 0..2 {
                let mut bytes = good.clone();
                let at = branch * PAGE + 16 + element * 16 + 8;
                let before = bytes[at..at + 8].to_vec();
                bytes[at..at + 8].copy_from_slice(&(to as u64).to_le_bytes());
                if bytes[at..at + 8] == before {
                    continue;
                }
                assert!(
                    read(&bytes).is_err(),
                    "page {branch}, element {element} to {to}"
                );
            }
        }
    }
}
