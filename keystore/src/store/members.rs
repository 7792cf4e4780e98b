//! The members' records, through an open keyring: its key authenticates them.

use jiff::Timestamp;

use super::{Keystore, Open};
use crate::error::{Error, StorageError};
use crate::header::Hex;
use crate::member::{self, Acknowledged, InstanceId, Member, MemberName, MemberRecord};

/// A fresh instance id: one for each start of a plugin.
pub fn new_instance() -> Result<InstanceId, Error> {
    Hex::random()
}

impl Keystore {
    /// The document that is open: what this member acknowledges.
    pub async fn acknowledged(&self) -> Option<Acknowledged> {
        let open = self.open.lock().await;
        open.as_ref().map(|open| Acknowledged {
            revision: open.keyring.header().revision,
            sha256: open.hash,
        })
    }

    /// Puts this member's record, authenticated by the open keyring's key.
    ///
    /// # Errors
    /// [`StorageError::Missing`] where no keyring is open.
    pub async fn put_member(&self, record: &MemberRecord) -> Result<(), Error> {
        let bytes = self
            .with_open(|open| record.encode(&open.keyring.header().cluster_id, &open.key))
            .await?;
        Ok(self.storage.put_member(&record.name, &bytes).await?)
    }

    /// Leaves a dated removal in the place of a member's record: from now on nobody waits for it. A
    /// member that runs on writes its record again, and is one again.
    pub async fn remove_member(&self, name: &MemberName, now: Timestamp) -> Result<(), Error> {
        let bytes = self
            .with_open(|open| {
                let cluster_id = &open.keyring.header().cluster_id;
                member::encode_removal(name, now, cluster_id, &open.key)
            })
            .await?;
        Ok(self.storage.put_member(name, &bytes).await?)
    }

    /// Every member's record, each held against the open keyring's key; those that do not verify
    /// are there too, as unreadable ones. Which are fresh is for the reader to say, by its `now`.
    ///
    /// # Errors
    /// [`StorageError::Missing`] where no keyring is open.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        let records = self.storage.members().await?;
        self.with_open(|open| {
            let cluster_id = &open.keyring.header().cluster_id;
            records
                .into_iter()
                .map(|(name, bytes)| member::decode(name, &bytes, cluster_id, &open.key))
                .collect()
        })
        .await
    }

    async fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.open.lock().await {
            Some(open) => work(open),
            None => Err(StorageError::Missing(self.storage.place()).into()),
        }
    }
}
