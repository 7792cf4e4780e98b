//! Every object that an audit saw, in a file: what `--list` and `migrate` go through, and what
//! `--since` compares the next audit with. So nothing of it has to be in memory.
//!
//! ```text
//! claviger audit 2\n
//! {"cluster":…,"term":…,"revision":…,"prefix":…}\n
//! 1 protection                              the next row's
//! 2 shared suffix mod create version row    an object; `shared` bytes of its key are the last one's
//! 0 mark                                    of the pinned revision; zeros for none
//! SHA-256 of all before
//! ```
//!
//! Numbers are varints, and texts have their length before them. Row 0 is a plain value outside of
//! Kubernetes' prefix; values that could not be counted are absent, so that they are read again.

mod reader;
mod writer;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::changes::Mark;
use super::etcd::{KeyValue, Pin};
use super::object::Protection;
pub use reader::Entries;
pub(super) use reader::Seen;
pub(super) use writer::LedgerWriter;
use writer::Temporary;

const MAGIC: &str = "claviger audit 2\n";
const END: u8 = 0;
const ROW: u8 = 1;
const OBJECT: u8 = 2;
const HASH_LEN: u64 = 32;
/// How much is read and written at once.
const BUFFER: usize = 64 * 1024;
/// Longer keys and names are none of Kubernetes'.
const MAX_TEXT: u64 = 64 * 1024;

/// What an audit looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The etcd cluster's id.
    pub cluster: u64,
    /// Its election count, which goes back only by a restore.
    pub term: u64,
    /// The pinned revision.
    pub revision: i64,
    /// The prefix of Kubernetes' keys.
    pub prefix: String,
}

impl Head {
    pub(super) fn new(pin: Pin, prefix: &str) -> Self {
        Self {
            cluster: pin.cluster,
            term: pin.term,
            revision: pin.revision,
            prefix: prefix.to_owned(),
        }
    }

    /// Whether a later audit may rely on what this one saw: the same etcd, gone on since.
    pub(super) fn leads_to(&self, later: &Self) -> bool {
        self.cluster == later.cluster
            && self.term <= later.term
            && self.revision <= later.revision
            && self.prefix == later.prefix
    }
}

/// One object of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key in etcd; [`Name::parse`](super::object::Name::parse) reads it.
    pub key: Vec<u8>,
    /// Which of the key's states it is: last change, making, number of changes.
    pub state: KeyState,
    /// Its row in the tally; `None` for what is no object.
    pub row: Option<u32>,
    /// What protects it, as the row says.
    pub protection: Option<Protection>,
}

/// Which of its states a key is in. A key that was changed differs in at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyState {
    /// The revision of the last change: the API's resourceVersion.
    pub modified: i64,
    /// The revision that made it.
    pub created: i64,
    /// How often it was changed.
    pub version: i64,
}

impl KeyState {
    pub(super) fn of(kv: &KeyValue) -> Self {
        Self {
            modified: kv.mod_revision,
            created: kv.create_revision,
            version: kv.version,
        }
    }
}

/// A whole ledger.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    head: Head,
    mark: Option<Mark>,
    temporary: Option<Temporary>,
}

impl Ledger {
    /// Opens what an earlier audit kept. `None` where there is no such file.
    ///
    /// # Errors
    /// Where it cannot be read, is cut off, or is none of ours.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        verify(&mut file)?;
        let head = reader::head(&mut BufReader::new(&file))?;
        let mark = reader::mark(&file)?;
        Ok(Some(Self {
            file,
            head,
            mark,
            temporary: None,
        }))
    }

    /// What it is about.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What etcd's history had at its revision, if anything was put there.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Gives it the name that it was made for, durably.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        if let Some(temporary) = &self.temporary {
            self.file.sync_all()?;
            fs::rename(&temporary.path, &temporary.to)?;
        }
        Ok(())
    }

    /// Its objects, by their keys, read as they are asked for.
    pub fn entries(&self) -> io::Result<Entries> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Entries::new(BufReader::with_capacity(BUFFER, file))
    }
}

/// Holds a file against the hash at its end.
fn verify(file: &mut File) -> io::Result<()> {
    let len = file.metadata()?.len();
    let body = len.checked_sub(HASH_LEN).ok_or_else(foreign)?;
    let mut hash = Sha256::new();
    let mut reader = BufReader::new(&mut *file).take(body);
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        hash.update(buffer);
        let read = buffer.len();
        reader.consume(read);
    }
    let mut expected = Vec::new();
    reader.into_inner().read_to_end(&mut expected)?;
    if hash.finalize()[..] != expected {
        return Err(foreign());
    }
    file.rewind()
}

fn foreign() -> io::Error {
    let message = "it is no whole file of an earlier audit";
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests;
