//! etcd's snapshot files, read in place and without an etcd.
//!
//! ```text
//! etcdctl snapshot save      bbolt database · SHA-256 of it
//! a copy of member/snap/db   bbolt database
//!
//! bucket key    revision (main · '_' · sub · 't' where it deletes) → mvccpb.KeyValue
//! bucket meta   consistent_index, scheduledCompactRev, finishedCompactRev
//! ```
//!
//! etcd's keys are in no order there, its revisions are: so a snapshot is read from the newest
//! revision to the oldest, and what comes first under a key is that key's current value. To know
//! what came before, 12 bytes of a keyed hash are kept for each key that was changed or deleted since
//! the last compaction, and nothing for all others: they have one revision. A cluster that is
//! compacted every five minutes, as kube-apiserver does, needs next to nothing; an etcd that was never
//! compacted some 30 MiB, and 55 MiB for a moment, for a million keys that were all changed.
//!
//! What a restored etcd would not serve is no object: bytes in free pages, for one.

mod hash;
mod key_value;
mod latest;
mod needs;
mod revision;

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};

use super::bolt::{BoltError, Bucket, Database};
use super::tally::{Place, Tally};
use super::verify::Verifier;
use key_value::KeyValue;
use latest::Latest;
pub use needs::Needs;
use revision::Revision;

/// Why a snapshot cannot be read, or cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be opened or read.
    #[error("{0}")]
    Open(#[from] io::Error),
    /// It is a folder, a socket, a device.
    #[error("it is no regular file")]
    NoFile,
    /// Something else, cut short, or damaged.
    #[error(transparent)]
    Bolt(#[from] BoltError),
    /// Bytes follow the last whole page that are no hash.
    #[error(
        "its {0} bytes are neither whole pages nor whole pages and a SHA-256: it is cut short, or was \
         still being written"
    )]
    Length(u64),
    /// It is not what etcd had hashed.
    #[error("its SHA-256 does not match: it has changed, or is cut short, since it was taken")]
    Hash,
    /// bbolt is used by others too.
    #[error("it is a bbolt database without the bucket '{0}': not etcd's")]
    NotEtcd(&'static str),
    /// An entry that etcd could not have written.
    #[error("page {page}, revision {revision}: {fault}")]
    Entry {
        /// The page that it is on; 0 inside of another entry.
        page: u64,
        /// Its revision, or its key in escaped form where that is none.
        revision: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// It was written to while it was read.
    #[error("it changed while it was read")]
    Changed,
}

/// Which revisions are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revisions {
    /// The newest one of each key that is not deleted: what a restored etcd answers.
    Latest,
    /// Older ones too: a restored etcd answers those that were not compacted.
    All,
}

/// What a snapshot says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// When the file was last written: when the snapshot was taken, unless somebody copied it since
    /// without keeping the time.
    pub modified: Timestamp,
    /// Whether etcd's SHA-256 is at its end, so that a single changed byte shows. A copy of `member/snap/db` has
    /// none, and values in it have no checksum.
    pub hashed: bool,
    /// etcd's revision as of the snapshot.
    pub revision: i64,
    /// Up to where history is compacted; 0 where it never was.
    pub compacted: i64,
    /// Up to where a compaction was under way, which a restored etcd resumes. History between
    /// `compacted` and here has gaps; the newest revisions have none.
    pub compacting: Option<i64>,
    /// The index of the last raft entry in it.
    pub consistent_index: u64,
}

/// One revision of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Its key in etcd.
    pub key: &'a [u8],
    /// The value, as kube-apiserver stored it.
    pub value: &'a [u8],
    /// The revision that wrote it.
    pub mod_revision: i64,
    /// The revision that made the key.
    pub create_revision: i64,
    /// Whether no newer one follows.
    pub latest: bool,
}

/// A snapshot file.
#[derive(Debug)]
pub struct Snapshot {
    file: File,
    /// When it was opened.
    metadata: Metadata,
    database: Database,
    keys: Bucket,
    about: About,
}

impl Snapshot {
    /// Opens it and reads what it says about itself, but not its objects and not its hash.
    ///
    /// # Errors
    /// It is no snapshot, or the pages that were read are damaged.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        // A pipe in its place would be waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?;
        let file = File::from(file);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(SnapshotError::NoFile);
        }
        let hashed = hash::is_appended(metadata.len());
        let length = hash::covered(metadata.len());
        let database = Database::open(file.try_clone()?, length)?;
        if !length.is_multiple_of(database.page_size()) {
            return Err(SnapshotError::Length(metadata.len()));
        }
        let bucket = |name: &'static str| {
            let bucket = database.bucket(name.as_bytes())?;
            bucket.ok_or(SnapshotError::NotEtcd(name))
        };
        let (keys, meta) = (bucket("key")?, bucket("meta")?);
        let about = About {
            modified: modified(&metadata)?,
            hashed,
            ..about(&database, &keys, &meta)?
        };
        Ok(Self {
            file,
            metadata,
            database,
            keys,
            about,
        })
    }

    /// What it says about itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Reads every object, from the newest revision to the oldest, and checks the hash meanwhile.
    /// What `each` was given counts only once this returns without an error.
    ///
    /// # Errors
    /// The file is not what etcd wrote: its hash, a page, an entry.
    pub fn read(
        &self,
        revisions: Revisions,
        each: impl FnMut(Stored<'_>),
    ) -> Result<(), SnapshotError> {
        let walked = thread::scope(|scope| {
            let hash = scope.spawn(|| match self.about.hashed {
                true => hash::check(&self.file, self.metadata.len()),
                false => Ok(()),
            });
            let walked = self.walk(revisions, each);
            // A wrong hash is the reason for whatever else is wrong.
            match hash.join() {
                Ok(hash) => hash.and(walked),
                Err(_) => Err(SnapshotError::Hash),
            }
        });
        let now = self.file.metadata()?;
        let stamp = |m: &Metadata| (m.len(), m.mtime(), m.mtime_nsec());
        match walked {
            _ if stamp(&now) != stamp(&self.metadata) => Err(SnapshotError::Changed),
            walked => walked,
        }
    }

    /// Counts every object; `prefix` is that of Kubernetes' keys.
    ///
    /// # Errors
    /// As [`Self::read`]. Then there is no tally: half of one would pass for the whole.
    pub fn tally(&self, revisions: Revisions, prefix: &str) -> Result<Tally, SnapshotError> {
        self.tally_verifying(revisions, prefix, None)
    }

    /// The same, and looks behind the headers if there is something to open them with.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn tally_verifying(
        &self,
        revisions: Revisions,
        prefix: &str,
        verifier: Option<&Verifier>,
    ) -> Result<Tally, SnapshotError> {
        let mut tally = Tally::new(prefix).verifying(verifier);
        self.read(revisions, |stored| {
            let place = match stored.latest {
                true => Place::Current,
                false => Place::History,
            };
            tally.add(place, stored.key, stored.value);
        })?;
        Ok(tally)
    }

    fn walk(
        &self,
        revisions: Revisions,
        mut each: impl FnMut(Stored<'_>),
    ) -> Result<(), SnapshotError> {
        let mut latest = Latest::new(self.about.compacted);
        let mut cursor = self.database.walk_back(&self.keys)?;
        while let Some(entry) = cursor.previous()? {
            let damaged = |fault| entry_error(entry.page, entry.key, fault);
            if entry.bucket {
                return Err(damaged("it is a bucket"));
            }
            let revision = Revision::parse(entry.key).map_err(damaged)?;
            let stored = KeyValue::parse(entry.value).map_err(damaged)?;
            if revision.deletes {
                latest.delete(stored.key);
                continue;
            }
            if stored.mod_revision != revision.main {
                return Err(damaged("its value is of another revision"));
            }
            let latest = latest.put(stored.key, revision.main, stored.version);
            if latest || revisions == Revisions::All {
                each(Stored {
                    key: stored.key,
                    value: stored.value,
                    mod_revision: stored.mod_revision,
                    create_revision: stored.create_revision,
                    latest,
                });
            }
        }
        Ok(())
    }
}

/// What the buckets say; the caller knows the rest.
fn about(database: &Database, keys: &Bucket, meta: &Bucket) -> Result<About, SnapshotError> {
    let (mut scheduled, mut finished, mut consistent_index) = (0, 0, 0);
    let mut cursor = database.walk_back(meta)?;
    while let Some(entry) = cursor.previous()? {
        let damaged = |fault| entry_error(entry.page, entry.key, fault);
        let revision = || {
            Revision::parse(entry.value)
                .map(|r| r.main)
                .map_err(damaged)
        };
        match entry.key {
            b"scheduledCompactRev" => scheduled = revision()?,
            b"finishedCompactRev" => finished = revision()?,
            b"consistent_index" => {
                let index = entry
                    .value
                    .try_into()
                    .map_err(|_| damaged("it is no number"));
                consistent_index = u64::from_be_bytes(index?);
            }
            _ => {}
        }
    }
    let mut last = 0;
    if let Some(entry) = database.walk_back(keys)?.previous()? {
        let revision = Revision::parse(entry.key);
        last = revision
            .map_err(|fault| entry_error(entry.page, entry.key, fault))?
            .main;
    }
    Ok(About {
        modified: Timestamp::UNIX_EPOCH,
        hashed: false,
        // As etcd itself does when it starts: the newest may have been deleted and compacted. It
        // begins at 1.
        revision: last.max(scheduled).max(finished).max(1),
        compacted: finished,
        compacting: (scheduled > finished).then_some(scheduled),
        consistent_index,
    })
}

fn entry_error(page: u64, key: &[u8], fault: &'static str) -> SnapshotError {
    let revision = match Revision::parse(key) {
        Ok(revision) => revision.main.to_string(),
        Err(_) => format!("'{}'", key[..key.len().min(32)].escape_ascii()),
    };
    SnapshotError::Entry {
        page,
        revision,
        fault,
    }
}

fn modified(metadata: &Metadata) -> Result<Timestamp, SnapshotError> {
    Timestamp::try_from(metadata.modified()?).map_err(|e| SnapshotError::Open(io::Error::other(e)))
}

#[cfg(test)]
mod tests;
