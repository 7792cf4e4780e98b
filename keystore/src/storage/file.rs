//! The keyring as a file, for one node, or for one writer and the replicas that copy it.
//!
//! A commit, under a lock (`keyring.lock`):
//!
//! ```text
//! read and compare → write the new one beside it, durably → keep the old one as keyring.<revision>
//! → rename the new one over it → make the folder durable → drop all but the last 10 kept ones
//! ```
//!
//! The members' records lie in `members/NAME.json` in the same folder.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{KEPT, Storage};
use crate::document::{Document, MAX_LEN};
use crate::durable::{self, PRIVATE, Replacement, folder_of, io_error};
use crate::error::StorageError;
use crate::header::DocumentHash;
use crate::member::{MAX_MEMBER_LEN, MemberName};

/// What a member's file is called behind its name.
const MEMBER_SUFFIX: &str = ".json";
/// How often a change is looked for.
const POLL: Duration = Duration::from_secs(1);

/// What the folder's file system may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It must survive a power loss.
    Disk,
    /// It may lie in memory: for a development server and for tests.
    Memory,
}

/// A keyring file.
#[derive(Debug, Clone)]
pub struct FileStorage {
    path: PathBuf,
    durability: Durability,
    /// What the last load saw, so that a change is noticed without reading.
    seen: Arc<Mutex<Option<Stamp>>>,
}

/// What tells one file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStorage {
    /// The keyring at `path`.
    pub fn new(path: impl Into<PathBuf>, durability: Durability) -> Self {
        Self {
            path: path.into(),
            durability,
            seen: Arc::default(),
        }
    }

    /// The keyring file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn load_now(&self) -> Result<Vec<u8>, StorageError> {
        // Network file systems: neither their locks nor their fsync can be relied on.
        check_file_system(folder_of(&self.path), Durability::Memory)?;
        let stamp = Stamp::of(&self.path);
        let bytes = self.read()?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        Ok(bytes)
    }

    /// What lies there, durable: no ciphertext may leave under a key that a power loss takes away.
    fn read(&self) -> Result<Vec<u8>, StorageError> {
        durable::read_synced(&self.path, MAX_LEN as u64, |file| {
            check_file(&self.path, file)
        })
    }

    fn commit_now(
        &self,
        new: &Document,
        expected: Option<DocumentHash>,
    ) -> Result<(), StorageError> {
        check_file_system(folder_of(&self.path), self.durability)?;
        let _lock = durable::lock(&durable::beside(&self.path, "lock"))?;
        // Not by `load_now`: what is seen here was not handed to anybody who waits for a change.
        let old = match self.read() {
            // Garbage is never what was expected.
            Ok(bytes) => Some(Document::parse(bytes).map_err(|_| StorageError::Conflict)?),
            Err(StorageError::Missing(_)) => None,
            Err(e) => return Err(e),
        };
        if old.as_ref().map(Document::hash) != expected {
            return Err(StorageError::Conflict);
        }
        let replacement = Replacement::write(&self.path, new.as_bytes(), PRIVATE)?;
        let Some(old) = old else {
            return replacement.place_where_nothing_is();
        };
        // Its own revision: a merge may be several after the one that it replaces.
        let revision = old.header().revision.to_string();
        let copy = durable::beside(&self.path, &revision);
        durable::replace(&copy, old.as_bytes()).map_err(only_the_copy)?;
        replacement.place()?;
        self.drop_old_copies();
        Ok(())
    }

    /// Where the members' records lie.
    fn members_folder(&self) -> PathBuf {
        folder_of(&self.path).join("members")
    }

    /// Under the keyring's lock: a command may remove a member while that member writes.
    fn put_member_now(&self, name: &MemberName, record: &[u8]) -> Result<(), StorageError> {
        check_file_system(folder_of(&self.path), self.durability)?;
        let _lock = durable::lock(&durable::beside(&self.path, "lock"))?;
        let folder = self.members_folder();
        durable::create_folder(&folder)?;
        durable::replace(&folder.join(format!("{name}{MEMBER_SUFFIX}")), record)
    }

    fn members_now(&self) -> Result<Vec<(MemberName, Vec<u8>)>, StorageError> {
        let folder = self.members_folder();
        let reading = || io_error("listing", &folder);
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(reading())?,
        };
        let mut members = Vec::new();
        for entry in entries {
            let name = entry.map_err(reading())?.file_name();
            // Temp files, and what is no member's.
            let Some(name) = name
                .to_str()
                .and_then(|name| name.strip_suffix(MEMBER_SUFFIX))
            else {
                continue;
            };
            let Ok(name) = name.parse::<MemberName>() else {
                continue;
            };
            let path = folder.join(format!("{name}{MEMBER_SUFFIX}"));
            members.push((name, durable::read(&path, MAX_MEMBER_LEN as u64)?));
        }
        members.sort();
        Ok(members)
    }

    /// Removes all but the last copies, and what killed writers left of any. One that stays is no
    /// harm, so an error is only told.
    fn drop_old_copies(&self) {
        let mut kept = kept_copies(&self.path);
        kept.sort_unstable();
        let old = kept.iter().rev().skip(KEPT).map(u64::to_string);
        let torn = numbered_beside(&self.path, ".new");
        let torn = torn.iter().map(|revision| format!("{revision}.new"));
        for suffix in old.chain(torn) {
            let copy = durable::beside(&self.path, &suffix);
            if let Err(e) = std::fs::remove_file(&copy) {
                tracing::warn!(path = %copy.display(), error = %e, "an old keyring copy stays");
            }
        }
    }

    fn kept_now(&self) -> Result<Vec<(u64, Vec<u8>)>, StorageError> {
        let mut revisions = kept_copies(&self.path);
        revisions.sort_unstable();
        let mut kept = Vec::with_capacity(revisions.len());
        for revision in revisions {
            let copy = durable::beside(&self.path, &revision.to_string());
            match durable::read(&copy, MAX_LEN as u64) {
                Ok(bytes) => kept.push((revision, bytes)),
                // A commit dropped it meanwhile.
                Err(StorageError::Missing(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(kept)
    }

    fn put_kept_now(&self, revision: u64, document: Option<&Document>) -> Result<(), StorageError> {
        check_file_system(folder_of(&self.path), self.durability)?;
        let _lock = durable::lock(&durable::beside(&self.path, "lock"))?;
        let copy = durable::beside(&self.path, &revision.to_string());
        // A commit may have dropped it meanwhile; it does not come back.
        match (document, copy.exists()) {
            (Some(document), true) => durable::replace(&copy, document.as_bytes()),
            (None, true) => durable::remove(&copy),
            (_, false) => Ok(()),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let storage = self.clone();
        // A disk that hangs must not stop requests, and a commit is never cancelled half-way.
        tokio::task::spawn_blocking(move || work(&storage))
            .await
            .unwrap_or_else(|e| Err(io_error("working on", &self.path)(io::Error::other(e))))
    }
}

#[async_trait]
impl Storage for FileStorage {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn load(&self) -> Result<Vec<u8>, StorageError> {
        self.blocking(Self::load_now).await
    }

    async fn commit(
        &self,
        new: &Document,
        expected: Option<DocumentHash>,
    ) -> Result<(), StorageError> {
        let new = new.clone();
        self.blocking(move |storage| storage.commit_now(&new, expected))
            .await
    }

    async fn kept(&self) -> Result<Vec<(u64, Vec<u8>)>, StorageError> {
        self.blocking(Self::kept_now).await
    }

    async fn put_kept(
        &self,
        revision: u64,
        document: Option<&Document>,
    ) -> Result<(), StorageError> {
        let document = document.cloned();
        self.blocking(move |storage| storage.put_kept_now(revision, document.as_ref()))
            .await
    }

    async fn put_member(&self, name: &MemberName, record: &[u8]) -> Result<(), StorageError> {
        let (name, record) = (name.clone(), record.to_vec());
        self.blocking(move |storage| storage.put_member_now(&name, &record))
            .await
    }

    async fn members(&self) -> Result<Vec<(MemberName, Vec<u8>)>, StorageError> {
        self.blocking(Self::members_now).await
    }

    async fn changed(&self) {
        loop {
            let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if Stamp::of(&self.path) != seen {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The revisions of the copies that lie beside a keyring.
pub fn kept_copies(keyring: &Path) -> Vec<u64> {
    numbered_beside(keyring, "")
}

/// Every number N for which `KEYRING.N` and then `end` lies beside a keyring.
fn numbered_beside(keyring: &Path, end: &str) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(folder_of(keyring)) else {
        return Vec::new();
    };
    let prefix = keyring
        .file_name()
        .map(|name| format!("{}.", name.to_string_lossy()));
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let suffix = name.to_str()?.strip_prefix(prefix.as_deref()?)?;
            let suffix = suffix.strip_suffix(end)?;
            // Only as it is written: `007` and `+7` would pass for the copy of revision 7.
            let revision: u64 = suffix.parse().ok()?;
            (revision.to_string() == suffix).then_some(revision)
        })
        .collect()
}

/// The copy of the old keyring may not be durable, but nothing was renamed over the keyring yet.
fn only_the_copy(error: StorageError) -> StorageError {
    match error {
        StorageError::DurabilityUnknown { path, source } => {
            io_error("syncing the folder of", &path)(source)
        }
        other => other,
    }
}

/// Refuses a keyring that others may change. It is sealed, so a group may read it (for backups).
fn check_file(path: &Path, metadata: &Metadata) -> Result<(), StorageError> {
    let folder = std::fs::metadata(folder_of(path)).map_err(io_error("looking at", path))?;
    let not_safe = |cause: String| {
        Err(StorageError::Unsafe {
            path: path.to_owned(),
            cause,
        })
    };
    let owners = [0, rustix::process::geteuid().as_raw(), folder.uid()];
    if metadata.mode() & 0o027 != 0 {
        let mode = metadata.mode() & 0o7777;
        return not_safe(format!(
            "its mode is {mode:04o}; run chmod 0600 (or 0640) on it"
        ));
    }
    if !owners.contains(&metadata.uid()) {
        return not_safe(format!(
            "it belongs to uid {}; give it to the user that runs Claviger",
            metadata.uid()
        ));
    }
    Ok(())
}

/// File systems whose rename, lock and fsync cannot be trusted, or that forget.
pub fn check_file_system(folder: &Path, durability: Durability) -> Result<(), StorageError> {
    let kind = rustix::fs::statfs(folder)
        .map_err(|e| io_error("looking at", folder)(e.into()))?
        .f_type;
    // The numbers of statfs(2); the field's type differs between targets.
    #[expect(clippy::cast_possible_truncation, reason = "the numbers have 32 bits")]
    #[expect(clippy::cast_sign_loss, reason = "the numbers have 32 bits")]
    let name = match kind as u32 {
        0x0000_6969 => "NFS",
        0x0000_517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9P",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x6573_5546 => "FUSE",
        0x0102_1994 | 0x8584_58f6 if durability == Durability::Disk => "memory",
        _ => return Ok(()),
    };
    Err(StorageError::Unsafe {
        path: folder.to_owned(),
        cause: format!("it lies on a {name} file system; a keyring needs a local disk"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(dir.path().join("keyring"), Durability::Memory);
        crate::testing::storage_contract(&storage).await;
    }
}
