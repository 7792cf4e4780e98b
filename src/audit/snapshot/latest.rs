//! Which revision of a key is its newest one, when they come from the newest to the oldest.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// Remembers the keys that were seen, where it has to.
pub(super) struct Latest {
    /// Up to this revision there is at most one of each key, and no deletion: it was compacted.
    compacted: i64,
    seen: HashSet<Print, BuildHasherDefault<AsItIs>>,
    /// Two, since one of them gives only 64 bits.
    hashers: [RandomState; 2],
}

/// 96 bits of a key's hash, keyed anew in each process: whoever can choose names cannot make two of
/// them collide, and among twenty million keys, more than an etcd of 8 GiB has, two do so by chance
/// with a probability of 2⁻⁴⁸.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Print([u32; 3]);

impl Hash for Print {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [low, high, _] = self.0;
        state.write_u64(u64::from(high) << 32 | u64::from(low));
    }
}

/// A [`Print`] is a hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        // A print calls `write_u64`; whatever else there may be is mixed in some way.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Latest {
    /// `compacted` is the revision up to which etcd has finished a compaction; 0 for none.
    pub(super) fn new(compacted: i64) -> Self {
        Self {
            compacted,
            seen: HashSet::default(),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// A key was deleted: what comes now is older.
    pub(super) fn delete(&mut self, key: &[u8]) {
        self.seen.insert(self.print(key));
    }

    /// A key was written, and this often since it was made. Is it its newest revision?
    pub(super) fn put(&mut self, key: &[u8], revision: i64, version: i64) -> bool {
        // What is older than a key's first revision was deleted before it was made anew: that
        // deletion comes between, and is remembered.
        let oldest = version == 1 || revision <= self.compacted;
        if oldest && self.seen.is_empty() {
            return true;
        }
        let print = self.print(key);
        if oldest {
            !self.seen.contains(&print)
        } else {
            self.seen.insert(print)
        }
    }

    fn print(&self, key: &[u8]) -> Print {
        let [first, second] = self.hashers.each_ref().map(|hasher| {
            let mut hasher = hasher.build_hasher();
            hasher.write(key);
            hasher.finish()
        });
        Print([first as u32, (first >> 32) as u32, second as u32])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_that_comes_is_the_newest() {
        let mut latest = Latest::new(0);
        assert!(latest.put(b"a", 9, 3));
        assert!(!latest.put(b"a", 8, 2));
        assert!(latest.put(b"b", 7, 2));
        latest.delete(b"c");
        assert!(!latest.put(b"c", 5, 1));
        assert!(!latest.put(b"a", 4, 1));
        assert!(!latest.put(b"b", 3, 1));
        assert!(latest.put(b"d", 2, 1));
    }

    #[test]
    fn nothing_is_kept_of_what_was_compacted_or_has_nothing_before_it() {
        let mut latest = Latest::new(5);
        assert!(latest.put(b"a", 6, 2));
        assert!(!latest.put(b"a", 5, 1));
        for n in 0..1000_u32 {
            assert!(latest.put(&n.to_be_bytes(), 5, 9));
            assert!(latest.put(&n.to_le_bytes(), 6, 1));
        }
        assert_eq!(latest.seen.len(), 1);
    }

    #[test]
    fn a_key_takes_twelve_bytes() {
        assert_eq!(size_of::<Print>(), 12);
    }

    #[test]
    fn many_keys_stay_apart() {
        let mut latest = Latest::new(0);
        assert!((0..100_000_u32).all(|n| latest.put(&n.to_be_bytes(), 2, 2)));
        assert!(!(0..100_000_u32).any(|n| latest.put(&n.to_be_bytes(), 1, 1)));
    }
}
