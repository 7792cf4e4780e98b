//! Destroying a key: its bytes leave the document first, and then every earlier one that is kept.

use jiff::Timestamp;

use super::{Keystore, Open};
use crate::document::Document;
use crate::error::{Error, StorageError};
use crate::header::Header;
use crate::key::{KeyId, KeyInfo, KeyState};

/// What became of the kept documents that still held bytes of destroyed keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Sealed again without them, by revision.
    pub rewritten: Vec<u64>,
    /// Removed by revision, since no root opens them any more.
    pub removed: Vec<u64>,
}

impl Keystore {
    /// Destroys the disabled (or staged) key `id`. Asked again, it goes on where it was interrupted.
    /// Whether it may be done is for [`crate::rotation::guards::may_destroy`] to say.
    ///
    /// # Errors
    /// As [`Keystore::commit`] and [`Keystore::drop_destroyed`].
    pub async fn destroy(&self, id: &KeyId, now: Timestamp) -> Result<Dropped, Error> {
        let keyring = self.keyring().await;
        let state = keyring.and_then(|keyring| Some(keyring.key(id)?.state));
        if state != Some(KeyState::Destroyed) {
            self.commit(now, |keyring| Ok(keyring.destroy(id, now)?))
                .await?;
        }
        self.drop_destroyed(now).await
    }

    /// Drops the bytes of every destroyed key from the documents that are kept beside the keyring:
    /// each is sealed again without them, or removed where it does not open. Nothing is done where
    /// nothing is left of them, so it may be asked at any time.
    ///
    /// # Errors
    /// What the storage says; the documents that were dealt with before stay so.
    pub async fn drop_destroyed(&self, now: Timestamp) -> Result<Dropped, Error> {
        let guard = self.open.lock().await;
        let Some(open) = &*guard else {
            return Err(StorageError::Missing(self.storage.place()).into());
        };
        let gone = destroyed(open.keyring.header());
        let mut dropped = Dropped::default();
        for (revision, bytes) in self.storage.kept().await? {
            let Ok(kept) = Document::parse(bytes) else {
                // It cannot be told what it holds.
                self.storage.put_kept(revision, None).await?;
                dropped.removed.push(revision);
                continue;
            };
            let holds = |id: &&KeyId| kept.header().key(id).is_some_and(has_bytes);
            let holds: Vec<KeyId> = gone.iter().filter(holds).copied().collect();
            if holds.is_empty() {
                continue;
            }
            let without = self.without(open, &kept, &holds, now).await?;
            self.storage.put_kept(revision, without.as_ref()).await?;
            match without {
                Some(_) => dropped.rewritten.push(revision),
                None => dropped.removed.push(revision),
            }
        }
        Ok(dropped)
    }

    /// A kept document without these bytes, or none if it does not open.
    async fn without(
        &self,
        open: &Open,
        kept: &Document,
        ids: &[KeyId],
        now: Timestamp,
    ) -> Result<Option<Document>, Error> {
        let unwrapped;
        let key = if kept.header().keyring_key_id == open.keyring.header().keyring_key_id {
            &open.key
        } else {
            match self.unwrap(kept.header()).await {
                Ok(key) => unwrapped = key,
                Err(_) => return Ok(None),
            }
            &unwrapped
        };
        match kept.open(key) {
            Ok(keyring) => super::seal_checked(&keyring.without(ids, now), key).map(Some),
            Err(_) => Ok(None),
        }
    }
}

fn destroyed(header: &Header) -> Vec<KeyId> {
    let tombstones = header.keys.iter().filter(|key| !has_bytes(key));
    tombstones.map(|key| key.id).collect()
}

fn has_bytes(key: &KeyInfo) -> bool {
    key.state != KeyState::Destroyed
}
