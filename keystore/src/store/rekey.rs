//! Slots, and another keyring key for all of them. No KEK and no object changes.

use jiff::Timestamp;

use super::{Keystore, Open};
use crate::document::{Document, KeyringKey};
use crate::error::{ChangeError, Error};
use crate::header::{Header, KeyringKeyId, MAX_PROOFS, Slot, SlotId};
use crate::member::{self, Found};
use crate::proof;
use crate::root::{self, Root};

impl Keystore {
    /// Wraps the keyring key with one more root.
    ///
    /// # Errors
    /// As [`Keystore::commit`], and what the root says.
    pub async fn add_slot(&self, root: &dyn Root, now: Timestamp) -> Result<SlotId, Error> {
        let mut guard = self.open.lock().await;
        let open = self.changeable(&mut guard)?;
        let header = open.keyring.header();
        let slot = root::make_slot(root, &open.key, &header.cluster_id, now).await?;
        let id = slot.id;
        let slots = header.slots.iter().cloned().chain([slot]).collect();
        let next = open.keyring.with_slots(slots)?;
        self.commit_next(open, next, None, now).await?;
        Ok(id)
    }

    /// Makes another keyring key, and wraps it anew for every slot but those of `drop`. Each slot
    /// needs the root that opens it: one of `roots`, or else of the configuration. To remove a slot
    /// is to rekey without it, for whoever can open it may have the old key.
    ///
    /// # Errors
    /// [`Error::SlotStays`] where a slot's root is missing; [`ChangeError::UnknownSlot`]; and as
    /// [`Keystore::commit`].
    pub async fn rekey(
        &self,
        roots: &[&dyn Root],
        drop: &[SlotId],
        now: Timestamp,
    ) -> Result<KeyringKeyId, Error> {
        let mut guard = self.open.lock().await;
        let open = self.changeable(&mut guard)?;
        let header = open.keyring.header();
        if let Some(unknown) = drop
            .iter()
            .find(|id| !header.slots.iter().any(|slot| slot.id == **id))
        {
            return Err(ChangeError::UnknownSlot(unknown.to_string()).into());
        }
        let key = KeyringKey::generate()?;
        let id = key.id()?;
        let mut slots = Vec::new();
        for slot in header.slots.iter().filter(|slot| !drop.contains(&slot.id)) {
            slots.push(self.wrap_anew(slot, header, &key, roots, now).await?);
        }
        let revision = header.revision.saturating_add(1);
        let proof = proof::prove(&open.key, &header.cluster_id, id, revision)?;
        let next = open.keyring.rekeyed(slots, proof)?;
        let removals = self.removals(open).await?;
        self.commit_next(open, next, Some(key), now).await?;
        for (name, removed) in removals {
            let cluster_id = &open.keyring.header().cluster_id;
            let bytes = member::encode_removal(&name, removed, cluster_id, &open.key)?;
            self.storage.put_member(&name, &bytes).await?;
        }
        Ok(id)
    }

    /// The same slot around another key, by the root that opens it now.
    async fn wrap_anew(
        &self,
        slot: &Slot,
        header: &Header,
        key: &KeyringKey,
        roots: &[&dyn Root],
        now: Timestamp,
    ) -> Result<Slot, Error> {
        let mut tried = Vec::new();
        let configured = self.roots.iter().map(AsRef::as_ref);
        let matching = roots.iter().copied().chain(configured);
        for root in matching.filter(|root| root::matches(*root, slot)) {
            let (cluster, old) = (&header.cluster_id, &header.keyring_key_id);
            // Another root of that name would lock its owner out.
            match root::open_slot(root, slot, cluster, old).await {
                Ok(_) => {
                    let new = root::make_slot(root, key, cluster, now).await?;
                    let name = slot.name.clone();
                    return Ok(Slot { name, ..new });
                }
                Err(e) => tried.push(e.to_string()),
            }
        }
        if tried.is_empty() {
            tried.push("no root of that kind and name is configured".to_owned());
        }
        Err(Error::SlotStays {
            slot: format!("{} {}", slot.kind, slot.name),
            tried,
        })
    }

    /// Members write their records under the new key by themselves; nobody else does for those that
    /// were removed.
    async fn removals(&self, open: &Open) -> Result<Vec<(member::MemberName, Timestamp)>, Error> {
        let cluster_id = &open.keyring.header().cluster_id;
        let mut removals = Vec::new();
        for (name, bytes) in self.storage.members().await? {
            let member = member::decode(name, &bytes, cluster_id, &open.key)?;
            if let Found::Removed(removed) = member.found {
                removals.push((member.name, removed));
            }
        }
        Ok(removals)
    }

    /// Whether the chain of this document's rekey proofs leads from the keyring key `from` to its
    /// own. Every key on the way is needed to check the next step: `held` is one that the caller
    /// has, the others are unwrapped from the documents that are kept.
    pub(super) async fn leads_to(
        &self,
        from: &KeyringKeyId,
        held: Option<&KeyringKey>,
        document: &Document,
    ) -> Result<bool, Error> {
        let header = document.header();
        let mut at = *from;
        // The header holds no more of them, so this ends.
        for _ in 0..=MAX_PROOFS {
            if at == header.keyring_key_id {
                return Ok(true);
            }
            let Some(step) = header.rekey_proofs.iter().find(|proof| proof.from == at) else {
                return Ok(false);
            };
            let verified = match held {
                Some(held) if held.id()? == at => proof::verify(step, held, &header.cluster_id)?,
                _ => match self.kept_key(&at, header).await? {
                    Some(key) => proof::verify(step, &key, &header.cluster_id)?,
                    None => false,
                },
            };
            if !verified {
                return Ok(false);
            }
            at = step.to;
        }
        Ok(false)
    }

    /// An earlier keyring key, from a kept document that a root still opens.
    async fn kept_key(
        &self,
        id: &KeyringKeyId,
        header: &Header,
    ) -> Result<Option<KeyringKey>, Error> {
        for (_, bytes) in self.storage.kept().await? {
            let Ok(kept) = Document::parse(bytes) else {
                continue;
            };
            let kept = kept.header();
            if kept.keyring_key_id != *id || kept.cluster_id != header.cluster_id {
                continue;
            }
            if let Ok(key) = self.unwrap(kept).await {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}
