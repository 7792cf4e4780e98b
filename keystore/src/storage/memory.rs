//! A storage in memory, for tests and benches: it keeps the contract and nothing else.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::{KEPT, Storage};
use crate::document::Document;
use crate::error::StorageError;
use crate::header::{DocumentHash, Hex};
use crate::member::MemberName;

/// A keyring that lives as long as the process.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    bytes: Mutex<Option<Vec<u8>>>,
    kept: Mutex<BTreeMap<u64, Vec<u8>>>,
    members: Mutex<BTreeMap<MemberName, Vec<u8>>>,
    changed: Notify,
}

impl MemoryStorage {
    /// Puts any bytes there, as another tool or a fault would.
    pub fn put(&self, bytes: Option<Vec<u8>>) {
        *lock(&self.bytes) = bytes;
        self.changed.notify_one();
    }
}

/// A mutex that a panicking test poisoned still holds whole bytes.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Storage for MemoryStorage {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn load(&self) -> Result<Vec<u8>, StorageError> {
        lock(&self.bytes)
            .clone()
            .ok_or_else(|| StorageError::Missing(self.place()))
    }

    async fn commit(
        &self,
        new: &Document,
        expected: Option<DocumentHash>,
    ) -> Result<(), StorageError> {
        let mut bytes = lock(&self.bytes);
        let found = bytes
            .as_ref()
            .map(|bytes| Hex(Sha256::digest(bytes).into()));
        if found != expected {
            return Err(StorageError::Conflict);
        }
        if let Some(old) = bytes.replace(new.as_bytes().to_vec())
            && let Ok(old) = Document::parse(old)
        {
            let mut kept = lock(&self.kept);
            kept.insert(old.header().revision, old.as_bytes().to_vec());
            while kept.len() > KEPT {
                kept.pop_first();
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn kept(&self) -> Result<Vec<(u64, Vec<u8>)>, StorageError> {
        let kept = lock(&self.kept);
        Ok(kept
            .iter()
            .map(|(revision, bytes)| (*revision, bytes.clone()))
            .collect())
    }

    async fn put_kept(
        &self,
        revision: u64,
        document: Option<&Document>,
    ) -> Result<(), StorageError> {
        let mut kept = lock(&self.kept);
        match (document, kept.get_mut(&revision)) {
            (Some(document), Some(there)) => *there = document.as_bytes().to_vec(),
            (Some(_), None) => {}
            (None, _) => drop(kept.remove(&revision)),
        }
        Ok(())
    }

    async fn put_member(&self, name: &MemberName, record: &[u8]) -> Result<(), StorageError> {
        lock(&self.members).insert(name.clone(), record.to_vec());
        Ok(())
    }

    async fn members(&self) -> Result<Vec<(MemberName, Vec<u8>)>, StorageError> {
        let members = lock(&self.members);
        Ok(members
            .iter()
            .map(|(name, record)| (name.clone(), record.clone()))
            .collect())
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        crate::testing::storage_contract(&MemoryStorage::default()).await;
    }
}
