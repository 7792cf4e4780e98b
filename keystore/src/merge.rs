//! One keyring from several: restore, an accepted rollback and the repair of a fork are the same.
//!
//! | one side has | the other | result |
//! |---|---|---|
//! | bytes | nothing, or the same bytes | retired; disabled only if every side that holds it says so |
//! | bytes | other bytes under that id | refused |
//! | bytes | tombstone | disabled, bytes kept; the operator decides after an audit |
//! | tombstone | nothing, or tombstone | tombstone |
//!
//! Nobody can tell which key the cluster writes under by now, so none stays primary: a fresh one is
//! staged, and nothing is written until it is activated.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::error::{Error, MergeError};
use crate::header::{DocumentHash, MAX_MERGED, Merged};
use crate::key::{Kek, KeyId, KeyInfo, KeyState};
use crate::keyring::{Keyring, whole_second};

/// One of the keyrings that are merged.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// What it holds.
    pub keyring: &'a Keyring,
    /// The hash of its document, which the result names.
    pub hash: DocumentHash,
}

/// What is merged, and what must not get lost.
#[derive(Debug, Clone, Copy)]
pub struct Merge<'a> {
    /// The keyring whose keyring key, slots, policy and name stay.
    pub base: Side<'a>,
    /// The others.
    pub others: &'a [Side<'a>],
    /// The keys that somebody saw whose keyring is not here (a mark, a header that does not open).
    pub seen: &'a [(KeyId, KeyState)],
    /// The keys that an audit found in use.
    pub needed: &'a [KeyId],
    /// The keys whose loss the operator typed out.
    pub accept_loss: &'a [KeyId],
    /// The greatest revision that anybody saw.
    pub seen_revision: u64,
    /// The document that a member saw last, if it is none of the sides: the result names it too, so
    /// that this member may follow.
    pub seen_hash: Option<DocumentHash>,
    /// The hash of the document that the result replaces.
    pub previous: DocumentHash,
}

/// Merges. The result follows every side.
///
/// # Errors
/// [`MergeError`], and what staging a fresh key says.
pub fn merge(merge: &Merge<'_>, now: Timestamp) -> Result<Keyring, Error> {
    merge.check_clusters()?;
    let (mut keys, mut keks, mut lost) = (Vec::new(), HashMap::new(), Vec::new());
    for id in merge.ids() {
        let (info, kek) = merge.key(id, now)?;
        match info {
            Some(info) => keys.push(info),
            None => lost.push(id),
        }
        keks.extend(kek.map(|kek| (id, kek)));
    }
    if !lost.is_empty() {
        return Err(MergeError::Lost(lost).into());
    }
    let mut header = merge.base.keyring.header().clone();
    header.keys = keys;
    let staged = Keyring::of_merge(header, keks).stage(now)?;
    let revision = merge.sides().map(|side| side.keyring.header().revision);
    let revision = revision.fold(merge.seen_revision, u64::max);
    let following = staged.following(revision, merge.previous)?;
    let merged = merge.merged(following.header().revision);
    Ok(following.naming(merged))
}

impl<'a> Merge<'a> {
    fn sides(&self) -> impl Iterator<Item = &Side<'a>> {
        std::iter::once(&self.base).chain(self.others)
    }

    fn check_clusters(&self) -> Result<(), MergeError> {
        let one = self.base.keyring.header().cluster_id;
        let others = self.others.iter();
        let mut others = others.map(|side| side.keyring.header().cluster_id);
        match others.find(|other| *other != one) {
            None => Ok(()),
            Some(other) => Err(MergeError::OtherCluster {
                one: one.to_string(),
                other: other.to_string(),
            }),
        }
    }

    /// Every id that anybody knows, each once.
    fn ids(&self) -> Vec<KeyId> {
        let mut known = std::collections::HashSet::new();
        let sides = self.sides().flat_map(|side| &side.keyring.header().keys);
        let sides = sides.map(|key| key.id);
        let seen = self.seen.iter().map(|(id, _)| *id);
        let all = sides.chain(seen).chain(self.needed.iter().copied());
        all.filter(|id| known.insert(*id)).collect()
    }

    /// What becomes of one key, by the table; nothing, if its bytes are lost.
    fn key(
        &self,
        id: KeyId,
        now: Timestamp,
    ) -> Result<(Option<KeyInfo>, Option<Arc<Kek>>), MergeError> {
        let infos = || self.sides().filter_map(move |side| side.keyring.key(&id));
        let mut holders = self.sides().filter_map(|side| side.keyring.kek(&id));
        let tombstone = infos().find(|info| info.state == KeyState::Destroyed);
        let buried = tombstone.is_some() || self.seen.contains(&(id, KeyState::Destroyed));
        let Some(kek) = holders.next() else {
            return Ok((self.without_bytes(id, tombstone, buried, now), None));
        };
        if holders.any(|other| !other.is_same(kek)) {
            return Err(MergeError::OtherBytes(id));
        }
        let held: Vec<&KeyInfo> = infos()
            .filter(|info| info.state != KeyState::Destroyed)
            .collect();
        let info = held.first().map(|first| {
            let mut info = (*first).clone();
            let disabled = held.iter().all(|info| info.state == KeyState::Disabled);
            let to = match buried || disabled {
                true => KeyState::Disabled,
                false => KeyState::Retired,
            };
            if info.state != to {
                info.enter(to, whole_second(now));
            }
            // The waits before a destruction begin with the last of them.
            info.disabled = info
                .disabled
                .max(held.iter().filter_map(|info| info.disabled).max());
            info
        });
        Ok((info, Some(kek.clone())))
    }

    fn without_bytes(
        &self,
        id: KeyId,
        tombstone: Option<&KeyInfo>,
        buried: bool,
        now: Timestamp,
    ) -> Option<KeyInfo> {
        let accepted = self.accept_loss.contains(&id);
        // An audit is about now: what it found is needed, whoever buried it.
        if !accepted && (!buried || self.needed.contains(&id)) {
            return None;
        }
        Some(tombstone.cloned().unwrap_or_else(|| {
            let mut info = KeyInfo::staged(id, whole_second(now));
            info.enter(KeyState::Destroyed, whole_second(now));
            info
        }))
    }

    /// Who was merged, by now and before.
    fn merged(&self, revision: u64) -> Vec<Merged> {
        let before = self.sides().flat_map(|side| &side.keyring.header().merged);
        let mut merged: Vec<Merged> = before.cloned().collect();
        let sides = self.sides().map(|side| side.hash);
        merged.extend(
            sides
                .chain(self.seen_hash)
                .map(|sha256| Merged { sha256, revision }),
        );
        merged.sort_by_key(|merged| (merged.revision, merged.sha256));
        merged.dedup();
        merged.drain(..merged.len().saturating_sub(MAX_MERGED));
        merged
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::header::{Hex, KeyringKeyId};

    const THEN: Timestamp = Timestamp::UNIX_EPOCH;
    const NOW: Timestamp = Timestamp::constant(86_400, 0);

    /// What one side says of a key: bytes in a state, a tombstone, or nothing.
    type Says = Option<KeyState>;

    fn kek(n: u8) -> Kek {
        Kek::from_bytes(&[n + 1; 32]).unwrap()
    }

    fn id(n: u8) -> KeyId {
        kek(n).id().unwrap()
    }

    /// A side that says this of the keys 0, 1, …, and has a primary of its own.
    fn side(says: &[Says]) -> Keyring {
        let base = Keyring::create("", KeyringKeyId::ZERO, THEN).unwrap();
        let mut header = base.header().clone();
        header.cluster_id = Hex([1; 16]);
        let mut keks = HashMap::new();
        for (n, state) in (0..).zip(says) {
            let Some(state) = *state else { continue };
            let mut info = KeyInfo::staged(id(n), THEN);
            info.enter(state, THEN);
            header.keys.push(info);
            if state != KeyState::Destroyed {
                keks.insert(id(n), Arc::new(kek(n)));
            }
        }
        let own = base.header().keys[0].id;
        keks.insert(own, base.kek(&own).unwrap().clone());
        Keyring::of_merge(header, keks)
    }

    fn hash(n: u8) -> DocumentHash {
        Hex([n; 32])
    }

    fn of<'a>(base: &'a Keyring, others: &'a [Side<'a>]) -> Merge<'a> {
        Merge {
            base: Side {
                keyring: base,
                hash: hash(1),
            },
            others,
            seen: &[],
            needed: &[],
            accept_loss: &[],
            seen_revision: 0,
            seen_hash: None,
            previous: hash(1),
        }
    }

    fn two(one: &Keyring, other: &Keyring) -> Result<Keyring, Error> {
        let other = Side {
            keyring: other,
            hash: hash(2),
        };
        merge(&of(one, &[other]), NOW)
    }

    fn state(keyring: &Keyring, id: KeyId) -> Option<KeyState> {
        keyring.key(&id).map(|key| key.state)
    }

    fn any_says() -> impl Strategy<Value = Says> {
        prop::option::of(prop::sample::select(&KeyState::ALL[..]))
    }

    #[test]
    fn the_whole_table() {
        use KeyState::{Destroyed, Disabled, Retired};
        let all = || KeyState::ALL.map(Some).into_iter().chain([None]);
        for one in all() {
            for other in all() {
                let expected = match (one, other) {
                    (None, None) => None,
                    (Some(Destroyed), Some(Destroyed) | None) | (None, Some(Destroyed)) => {
                        Some(Destroyed)
                    }
                    (Some(Destroyed), Some(_)) | (Some(_), Some(Destroyed)) => Some(Disabled),
                    (Some(Disabled), Some(Disabled) | None) | (None, Some(Disabled)) => {
                        Some(Disabled)
                    }
                    _ => Some(Retired),
                };
                let merged = two(&side(&[one]), &side(&[other])).unwrap();
                assert_eq!(state(&merged, id(0)), expected, "{one:?} and {other:?}");
                let bytes = ![None, Some(Destroyed)].contains(&expected);
                assert_eq!(merged.kek(&id(0)).is_some(), bytes, "{one:?} and {other:?}");
                assert_eq!(merged.primary(), None);
                assert!(merged.staged().is_some_and(|staged| staged != id(0)));
            }
        }
    }

    #[test]
    fn other_bytes_or_another_cluster_are_refused() {
        let one = side(&[Some(KeyState::Retired)]);
        let keks = HashMap::from([(id(0), Arc::new(kek(9)))]);
        let forged = Keyring::of_merge(one.header().clone(), keks);
        let refused = two(&one, &forged).unwrap_err();
        assert!(matches!(refused, Error::Merge(MergeError::OtherBytes(bad)) if bad == id(0)));
        let mut header = one.header().clone();
        header.cluster_id = Hex([2; 16]);
        let foreign = Keyring::of_merge(header, HashMap::new());
        let refused = two(&one, &foreign).unwrap_err();
        assert!(matches!(
            refused,
            Error::Merge(MergeError::OtherCluster { .. })
        ));
    }

    #[test]
    fn what_is_known_elsewhere_must_be_there_unless_its_loss_is_typed_out() {
        let base = side(&[Some(KeyState::Destroyed), Some(KeyState::Retired)]);
        let seen = [
            (id(1), KeyState::Destroyed),
            (id(2), KeyState::Retired),
            (id(3), KeyState::Destroyed),
        ];
        // 0 is a tombstone but in use, 2 was seen, 4 is in use.
        let needed = [id(0), id(1), id(4)];
        let mut asked = Merge {
            seen: &seen,
            needed: &needed,
            ..of(&base, &[])
        };
        let Err(Error::Merge(MergeError::Lost(mut lost))) = merge(&asked, NOW) else {
            panic!("nothing is missed");
        };
        lost.sort();
        let mut expected = [id(0), id(2), id(4)];
        expected.sort();
        assert_eq!(lost, expected);

        asked.accept_loss = &expected;
        let merged = merge(&asked, NOW).unwrap();
        for n in [0, 2, 3, 4] {
            assert_eq!(state(&merged, id(n)), Some(KeyState::Destroyed), "{n}");
        }
        // Bytes against a tombstone that only the mark remembers.
        assert_eq!(state(&merged, id(1)), Some(KeyState::Disabled));
    }

    #[test]
    fn it_follows_everybody_and_names_them() {
        let (one, other) = (side(&[]), side(&[]));
        let one = one.following(7, hash(9)).unwrap();
        let other = other.following(3, hash(9)).unwrap();
        let others = [Side {
            keyring: &other,
            hash: hash(2),
        }];
        let asked = of(&one, &others);
        assert_eq!(merge(&asked, NOW).unwrap().header().revision, 9);
        let asked = Merge {
            seen_revision: 20,
            seen_hash: Some(hash(3)),
            ..asked
        };
        let merged = merge(&asked, NOW).unwrap();
        assert_eq!(merged.header().revision, 21);
        assert_eq!(merged.header().previous, hash(1));
        let expected = [1, 2, 3].map(|n| Merged {
            sha256: hash(n),
            revision: 21,
        });
        assert_eq!(merged.header().merged, expected);
    }

    #[test]
    fn it_names_the_last_sixteen() {
        let mut keyring = side(&[]);
        for n in 1..=20 {
            let asked = Merge {
                base: Side {
                    keyring: &keyring,
                    hash: hash(n),
                },
                ..of(&keyring, &[])
            };
            keyring = merge(&asked, NOW).unwrap();
        }
        let merged = &keyring.header().merged;
        assert_eq!(merged.len(), MAX_MERGED);
        assert_eq!(merged.last().unwrap().sha256, hash(20));
        assert_eq!(merged[0].sha256, hash(5));
    }

    #[test]
    fn dates_are_those_of_the_last_disabling() {
        let mut one = side(&[Some(KeyState::Disabled)]).header().clone();
        one.keys.remove(0);
        one.keys[0].disabled = Some(NOW);
        let keks = HashMap::from([(id(0), Arc::new(kek(0)))]);
        let one = Keyring::of_merge(one, keks);
        let other = side(&[Some(KeyState::Disabled)]);
        for merged in [two(&one, &other), two(&other, &one)] {
            assert_eq!(merged.unwrap().key(&id(0)).unwrap().disabled, Some(NOW));
        }
    }

    proptest! {
        #[test]
        fn no_order_matters_and_no_bytes_are_lost(
            says in prop::collection::vec(prop::array::uniform3(any_says()), 0..8),
        ) {
            let side_of = |n: usize| side(&says.iter().map(|says| says[n]).collect::<Vec<_>>());
            let sides = [side_of(0), side_of(1), side_of(2)];
            let merged = |order: [usize; 3]| {
                let others = [order[1], order[2]].map(|n| Side {
                    keyring: &sides[n],
                    hash: hash(2),
                });
                merge(&of(&sides[order[0]], &others), NOW).unwrap()
            };
            let first = merged([0, 1, 2]);
            for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                let other = merged(order);
                for key in &first.header().keys {
                    if Some(key.id) == first.staged() {
                        continue;
                    }
                    prop_assert_eq!(state(&other, key.id), Some(key.state));
                }
                prop_assert_eq!(other.header().keys.len(), first.header().keys.len());
            }
            for side in &sides {
                for key in &side.header().keys {
                    let before = side.kek(&key.id);
                    let after = first.kek(&key.id);
                    prop_assert!(before.is_none() || after.is_some(), "{} lost", key.id);
                }
            }
            for key in &first.header().keys {
                let bytes = key.state != KeyState::Destroyed;
                prop_assert_eq!(first.kek(&key.id).is_some(), bytes);
            }
        }
    }
}
