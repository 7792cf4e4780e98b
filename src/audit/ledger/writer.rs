//! Writing a ledger, into a file beside the one that it is to replace.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::encoding::encode_varint;
use sha2::{Digest, Sha256};

use super::{BUFFER, END, Head, KeyState, Ledger, MAGIC, OBJECT, ROW};
use crate::audit::changes::Mark;
use crate::audit::object::Protection;

/// A ledger that is being written.
#[derive(Debug)]
pub(in crate::audit) struct LedgerWriter {
    out: BufWriter<File>,
    hash: Sha256,
    temporary: Option<Temporary>,
    rows: u32,
    last: Vec<u8>,
    record: Vec<u8>,
}

/// A file that is removed unless it got its name.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) path: PathBuf,
    pub(super) to: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After its rename it is not there.
        let _ = fs::remove_file(&self.path);
    }
}

impl LedgerWriter {
    /// Begins one. Without a path it has no name and goes when it is closed.
    pub(in crate::audit) fn create(to: Option<&Path>, head: &Head) -> io::Result<Self> {
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
            out: BufWriter::with_capacity(BUFFER, file),
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
    pub(in crate::audit) fn rows(&self) -> u32 {
        self.rows
    }

    /// Adds the next row.
    pub(in crate::audit) fn row(&mut self, protection: &Protection) -> io::Result<()> {
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
    pub(in crate::audit) fn object(
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
    pub(in crate::audit) fn finish(mut self, head: Head, mark: Option<Mark>) -> io::Result<Ledger> {
        self.record.push(END);
        self.record.extend_from_slice(&mark.unwrap_or_default());
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
            mark,
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
