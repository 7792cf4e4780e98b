//! The connections that may be open at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts open connections by uid, and keeps a place free for each allowed uid that has none: who
/// floods the socket locks out at most itself.
#[derive(Debug)]
pub(super) struct Slots {
    capacity: usize,
    /// Open connections of each allowed uid.
    open: Mutex<BTreeMap<u32, usize>>,
}

/// The right to one connection, given back on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    uid: u32,
}

impl Slots {
    /// `capacity` places, or as many as there are allowed uids if that is more.
    pub(super) fn new(capacity: usize, allowed_uids: &[u32]) -> Arc<Self> {
        let open: BTreeMap<_, _> = allowed_uids.iter().map(|uid| (*uid, 0)).collect();
        Arc::new(Self {
            capacity: capacity.max(open.len()),
            open: Mutex::new(open),
        })
    }

    /// A place for a connection of this allowed uid, if one is left for it.
    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Option<Slot> {
        let mut open = self.open();
        let taken: usize = open.values().sum();
        let kept = open
            .iter()
            .filter(|(other, count)| **other != uid && **count == 0)
            .count();
        if taken + kept >= self.capacity {
            return None;
        }
        *open.entry(uid).or_default() += 1;
        Some(Slot {
            slots: self.clone(),
            uid,
        })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(count) = self.slots.open().get_mut(&self.uid) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(slots: &Slots) -> usize {
        slots.open().values().sum()
    }

    #[test]
    fn row_47_a_flood_of_one_uid_leaves_a_place_for_the_other() {
        let slots = Slots::new(32, &[0, 970]);
        let flood: Vec<_> = (0..1_000).filter_map(|_| slots.take(970)).collect();
        assert_eq!(flood.len(), 31);
        let apiserver = slots.take(0);
        assert!(apiserver.is_some());
        assert!(slots.take(0).is_none());
        drop(flood);
        assert_eq!(taken(&slots), 1);
        drop(apiserver);
        assert_eq!(taken(&slots), 0);
    }

    #[test]
    fn one_uid_alone_may_have_all() {
        let slots = Slots::new(32, &[0]);
        let all: Vec<_> = (0..40).filter_map(|_| slots.take(0)).collect();
        assert_eq!(all.len(), 32);
    }

    proptest! {
        #[test]
        fn every_allowed_uid_always_gets_its_first_connection(
            capacity in 1..8usize,
            uids in prop::collection::btree_set(0..6u32, 1..6),
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..60),
        ) {
            let uids: Vec<_> = uids.into_iter().collect();
            let slots = Slots::new(capacity, &uids);
            let mut held: Vec<Slot> = Vec::new();
            for (take, index) in steps {
                if take {
                    held.extend(slots.take(*index.get(&uids)));
                } else if !held.is_empty() {
                    held.swap_remove(index.index(held.len()));
                }
                prop_assert_eq!(taken(&slots), held.len());
                prop_assert!(held.len() <= capacity.max(uids.len()));
                for uid in &uids {
                    let has_none = held.iter().all(|slot| slot.uid != *uid);
                    prop_assert!(!has_none || slots.take(*uid).is_some());
                }
            }
        }
    }
}
