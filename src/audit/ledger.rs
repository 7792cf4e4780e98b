//! Every object that an audit saw, in a file: what `--list` and `migrate` go through, and what
//! `--since` compares the next audit with. So nothing of it has to be in memory.
//!
//! ```text
//! claviger audit 1\n
//! {"cluster":…,"term":…,"revision":…,"prefix":…}\n
//! 1 protection                              the next row's
//! 2 shared suffix mod create version row    an object; `shared` bytes of its key are the last one's
//! 0 SHA-256 of all before
//! ```
//!
//! Numbers are varints, and texts have their length before them. Row 0 is a plain value outside of
//! Kubernetes' prefix; values that could not be counted are absent, so that they are read again.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::encoding::encode_varint;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::etcd::{KeyValue, Pin};
use super::object::Protection;

const MAGIC: &str = "claviger audit 1\n";
const END: u8 = 0;
const ROW: u8 = 1;
const OBJECT: u8 = 2;
const HASH_LEN: u64 = 32;
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

/// A ledger that is being written.
#[derive(Debug)]
pub(super) struct LedgerWriter {
    out: BufWriter<File>,
    hash: Sha256,
    temporary: Option<Temporary>,
    rows: u32,
    last: Vec<u8>,
    record: Vec<u8>,
}

/// A file that is removed unless it got its name.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    to: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After its rename it is not there.
        let _ = fs::remove_file(&self.path);
    }
}

impl LedgerWriter {
    /// Begins one. Without a path it has no name and goes when it is closed.
    pub(super) fn create(to: Option<&Path>, head: &Head) -> io::Result<Self> {
        let temporary = match to {
            Some(to) => beside(to)?,
            None => std::env::temp_dir().join("claviger-audit"),
        };
        let (file, path) = create_new(&temporary)?;
        let temporary = Temporary {
            path,
            to: to.map(Path::to_owned).unwrap_or_default(),
        };
        let mut writer = Self {
            out: BufWriter::new(file),
            hash: Sha256::new(),
            // Dropped at once, the file loses its name and stays open.
            temporary: to.map(|_| temporary),
            rows: 0,
            last: Vec::new(),
            record: Vec::new(),
        };
        writer.record.extend_from_slice(MAGIC.as_bytes());
        serde_json::to_writer(&mut writer.record, head)?;
        writer.record.push(b'\n');
        writer.flush_record()?;
        Ok(writer)
    }

    /// How many rows it knows; all before an object's own must be there before it.
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Adds the next row.
    pub(super) fn row(&mut self, protection: &Protection) -> io::Result<()> {
        self.record.push(ROW);
        let (tag, names) = match protection {
            Protection::Plaintext => (0, ["", ""]),
            Protection::KmsV2 { provider, key_id } => (1, [provider.as_str(), key_id]),
            Protection::Other { scheme, name } => (2, [scheme.as_str(), name]),
        };
        self.record.push(tag);
        for name in names {
            put_text(&mut self.record, name.as_bytes());
        }
        self.rows += 1;
        self.flush_record()
    }

    /// Adds an object; keys ascend.
    pub(super) fn object(
        &mut self,
        key: &[u8],
        state: KeyState,
        row: Option<u32>,
    ) -> io::Result<()> {
        let same = self
            .last
            .iter()
            .zip(key)
            .take_while(|(a, b)| a == b)
            .count();
        self.record.push(OBJECT);
        encode_varint(same as u64, &mut self.record);
        put_text(&mut self.record, &key[same..]);
        for number in [state.modified, state.created, state.version] {
            encode_varint(u64::try_from(number).unwrap_or_default(), &mut self.record);
        }
        let row = row.map_or(0, |row| u64::from(row) + 1);
        encode_varint(row, &mut self.record);
        self.last.truncate(same);
        self.last.extend_from_slice(&key[same..]);
        self.flush_record()
    }

    /// Ends it. It gets its name only by [`Ledger::keep`].
    pub(super) fn finish(mut self, head: Head) -> io::Result<Ledger> {
        self.record.push(END);
        self.flush_record()?;
        let hash = self.hash.finalize();
        self.out.write_all(&hash)?;
        let file = self
            .out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok(Ledger {
            file,
            head,
            temporary: self.temporary,
        })
    }

    fn flush_record(&mut self) -> io::Result<()> {
        self.hash.update(&self.record);
        self.out.write_all(&self.record)?;
        self.record.clear();
        Ok(())
    }
}

/// A whole ledger.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    head: Head,
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
        let head = read_head(&mut BufReader::new(&file))?;
        Ok(Some(Self {
            file,
            head,
            temporary: None,
        }))
    }

    /// What it is about.
    pub fn head(&self) -> &Head {
        &self.head
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
        let mut reader = BufReader::new(file);
        read_head(&mut reader)?;
        Ok(Entries {
            reader,
            protections: Vec::new(),
            last: Vec::new(),
            ended: false,
        })
    }
}

/// The objects of a ledger. One at a time: two iterators over one ledger share its place.
#[derive(Debug)]
pub struct Entries {
    reader: BufReader<File>,
    protections: Vec<Protection>,
    last: Vec<u8>,
    ended: bool,
}

impl Entries {
    fn read(&mut self) -> io::Result<Option<Entry>> {
        loop {
            match byte(&mut self.reader)? {
                END => return Ok(None),
                ROW => {
                    let protection = self.read_row()?;
                    self.protections.push(protection);
                }
                OBJECT => return self.read_object().map(Some),
                _ => return Err(foreign()),
            }
        }
    }

    fn read_row(&mut self) -> io::Result<Protection> {
        let tag = byte(&mut self.reader)?;
        let mut name = || {
            let bytes = get_text(&mut self.reader)?;
            String::from_utf8(bytes).map_err(|_| foreign())
        };
        let (first, second) = (name()?, name()?);
        match tag {
            0 => Ok(Protection::Plaintext),
            1 => Ok(Protection::KmsV2 {
                provider: first,
                key_id: second,
            }),
            2 => Ok(Protection::Other {
                scheme: first,
                name: second,
            }),
            _ => Err(foreign()),
        }
    }

    fn read_object(&mut self) -> io::Result<Entry> {
        let same = usize::try_from(varint(&mut self.reader)?).map_err(|_| foreign())?;
        if same > self.last.len() {
            return Err(foreign());
        }
        let suffix = get_text(&mut self.reader)?;
        self.last.truncate(same);
        self.last.extend_from_slice(&suffix);
        let mut number = || {
            let number = varint(&mut self.reader)?;
            i64::try_from(number).map_err(|_| foreign())
        };
        let state = KeyState {
            modified: number()?,
            created: number()?,
            version: number()?,
        };
        let row = match varint(&mut self.reader)?.checked_sub(1) {
            None => None,
            Some(row) => Some(u32::try_from(row).map_err(|_| foreign())?),
        };
        let protection = match row {
            None => None,
            Some(row) => Some(self.protections.get(row as usize).ok_or_else(foreign)?),
        };
        Ok(Entry {
            key: self.last.clone(),
            state,
            row,
            protection: protection.cloned(),
        })
    }
}

impl Iterator for Entries {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
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

fn read_head(reader: &mut impl BufRead) -> io::Result<Head> {
    let mut line = String::new();
    let mut reader = reader.take(MAX_TEXT);
    reader.read_line(&mut line)?;
    if line != MAGIC {
        return Err(foreign());
    }
    line.clear();
    reader.read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|_| foreign())
}

fn foreign() -> io::Error {
    let message = "it is no whole file of an earlier audit";
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn byte(reader: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn varint(reader: &mut impl Read) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(reader)?;
        number |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok(number);
        }
    }
    Err(foreign())
}

fn get_text(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let len = varint(reader)?;
    if len > MAX_TEXT {
        return Err(foreign());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| foreign())?];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn put_text(record: &mut Vec<u8>, text: &[u8]) {
    encode_varint(text.len() as u64, record);
    record.extend_from_slice(text);
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    Ok(path.with_file_name(hidden))
}

/// A new file for us alone, with a number after its name.
fn create_new(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut attempt = 0_u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.{attempt}", std::process::id()));
        let numbered = PathBuf::from(name);
        match options.open(&numbered) {
            Ok(file) => return Ok((file, numbered)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => attempt += 1,
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(modified: i64) -> KeyState {
        KeyState {
            modified,
            created: 1,
            version: 2,
        }
    }

    fn write(path: &Path) -> Head {
        let head = Head {
            cluster: 1,
            term: 2,
            revision: 9,
            prefix: "/registry".to_owned(),
        };
        let mut writer = LedgerWriter::create(Some(path), &head).unwrap();
        writer.row(&Protection::Plaintext).unwrap();
        writer.object(b"/a", state(3), None).unwrap();
        writer.object(b"/registry/x/1", state(4), Some(0)).unwrap();
        writer.object(b"/registry/x/2", state(5), Some(0)).unwrap();
        writer.finish(head.clone()).unwrap().keep().unwrap();
        head
    }

    #[test]
    fn what_was_written_is_read_and_a_cut_or_changed_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        assert!(Ledger::open(&path).unwrap().is_none());
        let head = write(&path);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let ledger = Ledger::open(&path).unwrap().unwrap();
        assert_eq!(*ledger.head(), head);
        let entries: Vec<Entry> = ledger.entries().unwrap().map(Result::unwrap).collect();
        let keys: Vec<&[u8]> = entries.iter().map(|entry| &entry.key[..]).collect();
        assert_eq!(keys, [&b"/a"[..], b"/registry/x/1", b"/registry/x/2"]);
        assert_eq!((entries[0].row, entries[2].row), (None, Some(0)));
        assert_eq!(entries[2].protection, Some(Protection::Plaintext));
        assert_eq!(entries[2].state, state(5));

        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            fs::write(&path, &whole[..at]).unwrap();
            assert!(Ledger::open(&path).is_err(), "cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert!(Ledger::open(&path).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn an_etcd_that_went_back_is_another_one() {
        let head = |cluster, term, revision| Head {
            cluster,
            term,
            revision,
            prefix: "/registry".to_owned(),
        };
        let earlier = head(1, 2, 9);
        assert!(earlier.leads_to(&head(1, 2, 9)) && earlier.leads_to(&head(1, 3, 10)));
        for later in [head(2, 2, 9), head(1, 1, 9), head(1, 2, 8)] {
            assert!(!earlier.leads_to(&later), "{later:?}");
        }
    }
}
