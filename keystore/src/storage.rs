//! Storages: where the keyring lies. One trait, one file per kind.

pub mod file;
pub mod memory;

use async_trait::async_trait;

use crate::document::Document;
use crate::error::StorageError;
use crate::header::DocumentHash;
use crate::member::MemberName;

/// How many earlier documents are kept beside the keyring.
const KEPT: usize = 10;

/// Where the keyring lies.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Where that is, for people: a path, an end point and prefix.
    fn place(&self) -> String;

    /// The whole document, durable where it was read. At most [`crate::document::MAX_LEN`] bytes
    /// and one are returned.
    ///
    /// # Errors
    /// [`StorageError::Missing`] where there is none.
    async fn load(&self) -> Result<Vec<u8>, StorageError>;

    /// Puts `new` in the place of the document with the hash `expected`, or where there is none
    /// yet. On success it is durable; on an error nothing has changed, unless the error is
    /// [`StorageError::DurabilityUnknown`].
    ///
    /// # Errors
    /// [`StorageError::Conflict`] where another document is there than the expected one.
    async fn commit(
        &self,
        new: &Document,
        expected: Option<DocumentHash>,
    ) -> Result<(), StorageError>;

    /// The earlier documents that are kept, with their revisions, oldest first. Nobody has looked at
    /// the bytes.
    async fn kept(&self) -> Result<Vec<(u64, Vec<u8>)>, StorageError>;

    /// Puts `document` in the place of the kept one of that revision, or removes that one; durable
    /// on success. Where none is kept of that revision, nothing is done.
    async fn put_kept(
        &self,
        revision: u64,
        document: Option<&Document>,
    ) -> Result<(), StorageError>;

    /// Puts a member's record in the place of the one that it had; durable on success.
    async fn put_member(&self, name: &MemberName, record: &[u8]) -> Result<(), StorageError>;

    /// Every member's record, by name. Nobody has looked at the bytes.
    async fn members(&self) -> Result<Vec<(MemberName, Vec<u8>)>, StorageError>;

    /// Waits until what the last [`Storage::load`] returned may have changed. It may wake without
    /// need, and dropping the future loses nothing.
    async fn changed(&self);
}

#[async_trait]
impl<S: Storage + ?Sized> Storage for std::sync::Arc<S> {
    fn place(&self) -> String {
        (**self).place()
    }

    async fn load(&self) -> Result<Vec<u8>, StorageError> {
        (**self).load().await
    }

    async fn commit(
        &self,
        new: &Document,
        expected: Option<DocumentHash>,
    ) -> Result<(), StorageError> {
        (**self).commit(new, expected).await
    }

    async fn kept(&self) -> Result<Vec<(u64, Vec<u8>)>, StorageError> {
        (**self).kept().await
    }

    async fn put_kept(
        &self,
        revision: u64,
        document: Option<&Document>,
    ) -> Result<(), StorageError> {
        (**self).put_kept(revision, document).await
    }

    async fn put_member(&self, name: &MemberName, record: &[u8]) -> Result<(), StorageError> {
        (**self).put_member(name, record).await
    }

    async fn members(&self) -> Result<Vec<(MemberName, Vec<u8>)>, StorageError> {
        (**self).members().await
    }

    async fn changed(&self) {
        (**self).changed().await;
    }
}
