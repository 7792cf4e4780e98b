//! The mark: what a member has seen, kept beside it, so that an older keyring that was put back, a
//! fork or a lost key is noticed after a restart too.
//!
//! It is written after the keyring is durable. It holds no secret. Whoever can roll back both the
//! keyring and the mark is beyond what it guards against.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::durable;
use crate::error::{Error, StorageError};
use crate::header::{ClusterId, DocumentHash, Header, KeyringKeyId};
use crate::key::{KeyId, KeyState};

/// How many earlier documents a mark remembers.
const HISTORY: usize = 64;
/// No mark is longer: some 2,000 keys, as many as a document holds, of 55 bytes, and the history.
const MAX_LEN: u64 = 256 * 1024;

/// What a member has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
// Fields of a newer Claviger are passed over: one that was put back must not take the mark for broken
// and refuse to write.
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The last document's revision.
    pub revision: u64,
    /// Its hash.
    pub hash: DocumentHash,
    /// The keyring key that it was sealed with.
    pub keyring_key_id: KeyringKeyId,
    /// Every key that it had, with its state.
    pub keys: Vec<(KeyId, KeyState)>,
    /// The last documents, oldest first, this one included.
    pub history: Vec<(u64, DocumentHash)>,
    /// When the storage was last read, by the wall clock.
    pub last_read: Timestamp,
}

impl Mark {
    /// The mark of this document, which follows the one that `before` was made of.
    pub(crate) fn of(
        header: &Header,
        hash: DocumentHash,
        before: Option<&Self>,
        now: Timestamp,
    ) -> Self {
        let mut history = before.map(|mark| mark.history.clone()).unwrap_or_default();
        // A restart sees the same one again, and would push out what came before it.
        if history.last() != Some(&(header.revision, hash)) {
            history.push((header.revision, hash));
        }
        history.drain(..history.len().saturating_sub(HISTORY));
        Self {
            cluster_id: header.cluster_id,
            revision: header.revision,
            hash,
            keyring_key_id: header.keyring_key_id,
            keys: header.keys.iter().map(|key| (key.id, key.state)).collect(),
            history,
            last_read: now,
        }
    }
}

/// Where a member's mark lies.
#[derive(Debug, Clone)]
pub struct MarkFile {
    path: PathBuf,
    /// Held while a mark is written, also where nobody waits for it any more.
    writing: Arc<Mutex<()>>,
}

impl MarkFile {
    /// The mark at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            writing: Arc::default(),
        }
    }

    /// The mark beside a keyring file.
    pub fn beside(keyring: &Path) -> Self {
        let mut name = keyring.as_os_str().to_owned();
        name.push(".mark");
        Self::new(name)
    }

    /// Reads it; a member that never saw a keyring has none.
    pub fn read(&self) -> Result<Option<Mark>, Error> {
        match durable::read(&self.path, MAX_LEN) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| self.error(&e)),
            Err(StorageError::Missing(_)) => Ok(None),
            Err(e) => Err(self.error(&e)),
        }
    }

    /// Under a lock, and never an older one over a newer: a command commits while the plugin runs,
    /// and both remember it here.
    pub(crate) fn write(&self, mark: &Mark) -> Result<(), Error> {
        let lock = durable::beside(&self.path, "lock");
        let _lock = durable::lock(&lock).map_err(|e| self.error(&e))?;
        if let Ok(Some(there)) = self.read()
            && there.cluster_id == mark.cluster_id
            && there.revision > mark.revision
        {
            return Ok(());
        }
        let mut bytes = serde_json::to_vec(mark).map_err(|e| self.error(&e))?;
        bytes.push(b'\n');
        durable::replace(&self.path, &bytes).map_err(|e| self.error(&e))
    }

    /// As [`MarkFile::read`], on a thread of its own: a disk that hangs must not stop requests.
    pub(crate) async fn load(&self) -> Result<Option<Mark>, Error> {
        let file = self.clone();
        tokio::task::spawn_blocking(move || file.read())
            .await
            .unwrap_or_else(|e| Err(self.error(&e)))
    }

    /// As [`MarkFile::write`], on a thread of its own, and after all that were stored before.
    pub(crate) async fn store(&self, mark: Mark) -> Result<(), Error> {
        let (file, turn) = (self.clone(), self.writing.clone().lock_owned().await);
        let write = move || {
            let _turn = turn;
            file.write(&mark)
        };
        tokio::task::spawn_blocking(write)
            .await
            .unwrap_or_else(|e| Err(self.error(&e)))
    }

    fn error(&self, cause: &dyn std::fmt::Display) -> Error {
        Error::Mark {
            path: self.path.clone(),
            cause: cause.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Hex;
    use crate::keyring::Keyring;

    #[test]
    fn it_reads_back_and_remembers_the_last_64() {
        let dir = tempfile::tempdir().unwrap();
        let file = MarkFile::beside(&dir.path().join("keyring"));
        assert_eq!(file.read().unwrap(), None);
        let keyring = Keyring::create("", Hex([1; 32]), Timestamp::UNIX_EPOCH).unwrap();
        let mut mark = None;
        for revision in 1..=70_u8 {
            let hash = Hex([revision; 32]);
            mark = Some(Mark::of(
                keyring.header(),
                hash,
                mark.as_ref(),
                Timestamp::UNIX_EPOCH,
            ));
        }
        let mark = mark.unwrap();
        file.write(&mark).unwrap();
        assert_eq!(file.read().unwrap().as_ref(), Some(&mark));
        assert_eq!(mark.history.len(), HISTORY);
        assert_eq!(mark.history.last().unwrap().1, Hex([70; 32]));
    }

    fn mark(revision: u64) -> Mark {
        let keyring = Keyring::create("", Hex([1; 32]), Timestamp::UNIX_EPOCH).unwrap();
        let mut header = keyring.header().clone();
        header.cluster_id = Hex([3; 16]);
        header.revision = revision;
        header.keys.clear();
        Mark::of(&header, Hex([2; 32]), None, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_newer_one_is_not_put_back_by_a_slower_writer() {
        let dir = tempfile::tempdir().unwrap();
        let file = MarkFile::new(dir.path().join("keyring.mark"));
        for (written, there) in [(5, 5), (4, 5), (6, 6)] {
            file.write(&mark(written)).unwrap();
            assert_eq!(file.read().unwrap(), Some(mark(there)));
        }
        // Another cluster's revisions say nothing.
        let mut other = mark(1);
        other.cluster_id = Hex([9; 16]);
        file.write(&other).unwrap();
        assert_eq!(file.read().unwrap(), Some(other));
    }

    #[test]
    fn fields_of_a_newer_version_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.mark");
        let mut newer = serde_json::to_value(mark(5)).unwrap();
        newer["later"] = 1.into();
        std::fs::write(&path, newer.to_string()).unwrap();
        assert_eq!(MarkFile::new(path).read().unwrap(), Some(mark(5)));
    }

    #[test]
    fn a_broken_mark_is_an_error_and_not_an_absent_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.mark");
        std::fs::write(&path, "{}").unwrap();
        assert!(MarkFile::new(path).read().is_err());
    }
}
