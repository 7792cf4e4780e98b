//! The keyring: every KEK of one cluster, and the changes that are legal.
//!
//! A keyring never changes. Each change returns another one, which becomes true when its document
//! is committed; the commit gives it its revision.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::error::{ChangeError, DocumentError, Error};
use crate::header::{
    ClusterId, DocumentHash, FORMAT, Header, KeyringKeyId, MAX_KEYS, MAX_PROOFS, Merged, Policy,
    RekeyProof, Slot,
};
use crate::key::{Kek, KeyId, KeyInfo, KeyState};

/// All KEKs of one cluster and the policy for them, at one revision.
#[derive(Clone)]
pub struct Keyring {
    header: Header,
    /// The bytes of every key that is not destroyed.
    keks: HashMap<KeyId, Arc<Kek>>,
}

impl Keyring {
    /// The first keyring of a cluster: one KEK, primary from the start, since nothing was ever
    /// written under another. It gets its slots before it is committed.
    pub fn create(
        cluster_name: &str,
        keyring_key_id: KeyringKeyId,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let now = whole_second(now);
        let kek = Kek::generate()?;
        let mut info = KeyInfo::staged(kek.id()?, now);
        info.enter(KeyState::Primary, now);
        let header = Header {
            format: FORMAT,
            cluster_id: ClusterId::random()?,
            cluster_name: cluster_name.to_owned(),
            revision: 1,
            previous: DocumentHash::ZERO,
            keyring_key_id,
            rekey_proofs: Vec::new(),
            merged: Vec::new(),
            policy: Policy::default(),
            keys: vec![info],
            slots: Vec::new(),
        };
        let keks = HashMap::from([(header.keys[0].id, Arc::new(kek))]);
        Ok(Self { header, keks })
    }

    /// A keyring of a header and the KEKs of its keys, each held against its id.
    pub(crate) fn from_parts(header: Header, keks: Vec<Kek>) -> Result<Self, Error> {
        let kept: Vec<KeyId> = kept_keys(&header).collect();
        if kept.len() != keks.len() {
            return Err(DocumentError::Body(kept.len()).into());
        }
        let mut by_id = HashMap::with_capacity(keks.len());
        for (id, kek) in kept.into_iter().zip(keks) {
            if kek.id()? != id {
                return Err(DocumentError::ForeignKek(id).into());
            }
            by_id.insert(id, Arc::new(kek));
        }
        Ok(Self {
            header,
            keks: by_id,
        })
    }

    /// What is not secret.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The primary key's id, if there is one.
    pub fn primary(&self) -> Option<KeyId> {
        self.header.primary()
    }

    /// The staged key's id, if a rotation is under way.
    pub fn staged(&self) -> Option<KeyId> {
        self.header.staged()
    }

    /// What the header says of one key.
    pub fn key(&self, id: &KeyId) -> Option<&KeyInfo> {
        self.header.key(id)
    }

    /// The bytes of one key, unless it is destroyed.
    pub(crate) fn kek(&self, id: &KeyId) -> Option<&Arc<Kek>> {
        self.keks.get(id)
    }

    /// The bytes of all keys that are not destroyed, in the header's order.
    pub(crate) fn keks(&self) -> impl Iterator<Item = &Arc<Kek>> {
        kept_keys(&self.header).filter_map(|id| self.keks.get(&id))
    }

    /// With a fresh KEK, staged: the first step of a rotation.
    pub fn stage(&self, now: Timestamp) -> Result<Self, Error> {
        if let Some(staged) = self.staged() {
            return Err(ChangeError::AlreadyStaged(staged).into());
        }
        if self.keks.len() >= MAX_KEYS {
            return Err(ChangeError::Full.into());
        }
        let kek = Kek::generate()?;
        let info = KeyInfo::staged(kek.id()?, whole_second(now));
        let mut next = self.clone();
        next.keks.insert(info.id, Arc::new(kek));
        next.header.keys.push(info);
        Ok(next)
    }

    /// With the staged key `id` primary, and the old primary retired.
    pub fn activate(&self, id: &KeyId, now: Timestamp) -> Result<Self, ChangeError> {
        let retired = match self.primary() {
            Some(old) => self.change(&old, KeyState::Retired, now)?,
            None => self.clone(),
        };
        retired.change(id, KeyState::Primary, now)
    }

    /// With the retired key `id` disabled.
    pub fn disable(&self, id: &KeyId, now: Timestamp) -> Result<Self, ChangeError> {
        self.change(id, KeyState::Disabled, now)
    }

    /// With the disabled key `id` retired again.
    pub fn enable(&self, id: &KeyId, now: Timestamp) -> Result<Self, ChangeError> {
        match self.key(id).map(|key| key.state) {
            Some(KeyState::Primary) => Err(ChangeError::Illegal {
                id: *id,
                from: KeyState::Primary,
                to: KeyState::Retired,
            }),
            _ => self.change(id, KeyState::Retired, now),
        }
    }

    /// Without the bytes of the disabled (or never published, staged) key `id`.
    pub fn destroy(&self, id: &KeyId, now: Timestamp) -> Result<Self, ChangeError> {
        let mut next = self.change(id, KeyState::Destroyed, now)?;
        next.keks.remove(id);
        Ok(next)
    }

    /// With this policy.
    #[must_use]
    pub fn with_policy(&self, policy: Policy) -> Self {
        let mut next = self.clone();
        next.header.policy = policy;
        next
    }

    /// With these slots and no others.
    pub fn with_slots(&self, slots: Vec<Slot>) -> Result<Self, ChangeError> {
        if slots.is_empty() {
            return Err(ChangeError::NoSlot);
        }
        let mut next = self.clone();
        next.header.slots = slots;
        Ok(next)
    }

    /// With another keyring key, which these slots wrap, and the proof of it.
    pub(crate) fn rekeyed(&self, slots: Vec<Slot>, proof: RekeyProof) -> Result<Self, ChangeError> {
        let mut next = self.with_slots(slots)?;
        next.header.keyring_key_id = proof.to;
        keep_last(&mut next.header.rekey_proofs, proof, MAX_PROOFS);
        Ok(next)
    }

    /// Without the bytes of these keys, whatever their states: for documents that are only kept.
    pub(crate) fn without(&self, ids: &[KeyId], now: Timestamp) -> Self {
        let mut next = self.clone();
        for key in next
            .header
            .keys
            .iter_mut()
            .filter(|key| ids.contains(&key.id))
        {
            key.enter(KeyState::Destroyed, whole_second(now));
            next.keks.remove(&key.id);
        }
        next
    }

    /// A keyring of what others held; each key was held against its id when they were opened.
    pub(crate) fn of_merge(header: Header, keks: HashMap<KeyId, Arc<Kek>>) -> Self {
        Self { header, keks }
    }

    /// Naming these merged documents and no others.
    pub(crate) fn naming(mut self, merged: Vec<Merged>) -> Self {
        self.header.merged = merged;
        self
    }

    /// As the successor of the document with this revision and hash.
    pub(crate) fn following(
        mut self,
        revision: u64,
        hash: DocumentHash,
    ) -> Result<Self, ChangeError> {
        self.header.revision = revision
            .checked_add(1)
            .ok_or(ChangeError::RevisionExhausted)?;
        self.header.previous = hash;
        Ok(self)
    }

    /// The one place where a key changes its state.
    fn change(&self, id: &KeyId, to: KeyState, now: Timestamp) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        let key = next.header.keys.iter_mut().find(|key| key.id == *id);
        let key = key.ok_or(ChangeError::UnknownKey(*id))?;
        if !key.state.next().contains(&to) {
            return Err(ChangeError::Illegal {
                id: *id,
                from: key.state,
                to,
            });
        }
        key.enter(to, whole_second(now));
        Ok(next)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// Adds to a list that remembers only the last few.
pub(crate) fn keep_last<T>(list: &mut Vec<T>, item: T, most: usize) {
    list.push(item);
    list.drain(..list.len().saturating_sub(most));
}

/// The ids whose bytes the body holds, in its order.
pub(crate) fn kept_keys(header: &Header) -> impl Iterator<Item = KeyId> + '_ {
    header
        .keys
        .iter()
        .filter(|key| key.state != KeyState::Destroyed)
        .map(|key| key.id)
}

/// The document keeps whole seconds.
pub(crate) fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn keyring() -> Keyring {
        Keyring::create("test", KeyringKeyId::ZERO, NOW).unwrap()
    }

    #[test]
    fn a_new_keyring_has_one_primary_key() {
        let keyring = keyring();
        let primary = keyring.primary().unwrap();
        assert_eq!(keyring.kek(&primary).unwrap().id().unwrap(), primary);
        assert_eq!(keyring.key(&primary).unwrap().activated, Some(NOW));
    }

    #[test]
    fn a_rotation_retires_the_old_primary() {
        let first = keyring();
        let old = first.primary().unwrap();
        let staged = first.stage(NOW).unwrap();
        let new = staged.staged().unwrap();
        assert_eq!(staged.primary(), Some(old));
        let rotated = staged.activate(&new, NOW).unwrap();
        assert_eq!(rotated.primary(), Some(new));
        assert_eq!(rotated.key(&old).unwrap().state, KeyState::Retired);
        assert!(rotated.kek(&old).is_some());
    }

    #[test]
    fn one_rotation_at_a_time() {
        let staged = keyring().stage(NOW).unwrap();
        let refused = staged.stage(NOW).unwrap_err();
        assert!(matches!(
            refused,
            Error::Change(ChangeError::AlreadyStaged(_))
        ));
    }

    #[test]
    fn a_primary_key_is_not_enabled_into_retirement() {
        let keyring = keyring();
        assert!(keyring.enable(&keyring.primary().unwrap(), NOW).is_err());
    }

    #[test]
    fn destroying_drops_the_bytes_and_keeps_the_id() {
        let first = keyring();
        let old = first.primary().unwrap();
        let staged = first.stage(NOW).unwrap();
        let rotated = staged.activate(&staged.staged().unwrap(), NOW).unwrap();
        assert!(
            rotated.destroy(&old, NOW).is_err(),
            "a retired key must be disabled first"
        );
        let gone = rotated
            .disable(&old, NOW)
            .unwrap()
            .destroy(&old, NOW)
            .unwrap();
        assert!(gone.kek(&old).is_none());
        assert_eq!(gone.key(&old).unwrap().destroyed, Some(NOW));
    }

    #[test]
    fn dates_are_whole_seconds() {
        let now = Timestamp::new(10, 999_999_999).unwrap();
        let created = Keyring::create("", KeyringKeyId::ZERO, now)
            .unwrap()
            .header
            .keys[0]
            .created;
        assert_eq!(created, Timestamp::from_second(10).unwrap());
    }

    #[test]
    fn tombstones_do_not_fill_a_keyring() {
        let mut keyring = keyring();
        for _ in 0..MAX_KEYS {
            let staged = keyring.stage(NOW).unwrap();
            keyring = staged.destroy(&staged.staged().unwrap(), NOW).unwrap();
        }
        assert_eq!(keyring.header.keys.len(), MAX_KEYS + 1);
        assert!(keyring.stage(NOW).is_ok());
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Stage,
        Activate(usize),
        Disable(usize),
        Enable(usize),
        Destroy(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        (0..5_usize, 0..6_usize).prop_map(|(kind, key)| match kind {
            0 => Step::Stage,
            1 => Step::Activate(key),
            2 => Step::Disable(key),
            3 => Step::Enable(key),
            _ => Step::Destroy(key),
        })
    }

    fn apply(keyring: &Keyring, step: Step) -> Option<Keyring> {
        let id = |i: usize| keyring.header.keys.get(i).map(|key| key.id);
        match step {
            Step::Stage => keyring.stage(NOW).ok(),
            Step::Activate(i) => keyring.activate(&id(i)?, NOW).ok(),
            Step::Disable(i) => keyring.disable(&id(i)?, NOW).ok(),
            Step::Enable(i) => keyring.enable(&id(i)?, NOW).ok(),
            Step::Destroy(i) => keyring.destroy(&id(i)?, NOW).ok(),
        }
    }

    proptest! {
        #[test]
        fn any_changes_keep_the_keyring_whole(steps in prop::collection::vec(any_step(), 0..40)) {
            let mut keyring = keyring();
            let mut was_primary = Vec::new();
            for step in steps {
                let Some(next) = apply(&keyring, step) else { continue };
                let primaries = next
                    .header
                    .keys
                    .iter()
                    .filter(|key| key.state == KeyState::Primary)
                    .count();
                prop_assert_eq!(primaries, 1);
                for key in &keyring.header.keys {
                    let later = next.key(&key.id).expect("no id is ever lost");
                    prop_assert!(key.state.leads_to(later.state));
                }
                let primary = next.primary().unwrap();
                if Some(primary) != keyring.primary() {
                    prop_assert!(!was_primary.contains(&primary), "an id came back");
                    was_primary.extend(keyring.primary());
                }
                for key in &next.header.keys {
                    prop_assert_eq!(
                        next.kek(&key.id).is_some(),
                        key.state != KeyState::Destroyed
                    );
                }
                keyring = next;
            }
        }
    }
}
