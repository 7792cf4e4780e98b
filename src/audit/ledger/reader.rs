//! Reading a ledger's objects one by one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use super::{END, Entry, HASH_LEN, Head, KeyState, MAGIC, MAX_TEXT, OBJECT, ROW, foreign};
use crate::audit::changes::Mark;
use crate::audit::object::Protection;

/// The objects of a ledger. One at a time: two iterators over one ledger share its place.
#[derive(Debug)]
pub struct Entries {
    reader: BufReader<File>,
    protections: Vec<Protection>,
    last: Vec<u8>,
    ended: bool,
}

/// An [`Entry`] that borrows what it names.
#[derive(Debug, Clone, Copy)]
pub(in crate::audit) struct Seen<'a> {
    pub(in crate::audit) key: &'a [u8],
    pub(in crate::audit) state: KeyState,
    pub(in crate::audit) row: Option<u32>,
    pub(in crate::audit) protection: Option<&'a Protection>,
}

impl Seen<'_> {
    fn to_entry(self) -> Entry {
        Entry {
            key: self.key.to_vec(),
            state: self.state,
            row: self.row,
            protection: self.protection.cloned(),
        }
    }
}

impl Entries {
    /// From a ledger's beginning.
    pub(super) fn new(mut reader: BufReader<File>) -> io::Result<Self> {
        head(&mut reader)?;
        Ok(Self {
            reader,
            protections: Vec::new(),
            last: Vec::new(),
            ended: false,
        })
    }

    /// The next object, of which nothing is copied.
    pub(in crate::audit) fn advance(&mut self) -> io::Result<Option<Seen<'_>>> {
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

    fn read_object(&mut self) -> io::Result<Seen<'_>> {
        let same = usize::try_from(varint(&mut self.reader)?).map_err(|_| foreign())?;
        if same > self.last.len() {
            return Err(foreign());
        }
        self.last.truncate(same);
        read_text(&mut self.reader, &mut self.last)?;
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
        Ok(Seen {
            key: &self.last,
            state,
            row,
            protection,
        })
    }
}

impl Iterator for Entries {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance().map(|seen| seen.map(Seen::to_entry));
        let next = next.transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// What a ledger is about.
pub(super) fn head(reader: &mut impl BufRead) -> io::Result<Head> {
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

/// The mark in front of the hash at the end of a whole file.
pub(super) fn mark(file: &File) -> io::Result<Option<Mark>> {
    let mut mark = Mark::default();
    let behind = HASH_LEN + mark.len() as u64;
    let at = file.metadata()?.len().checked_sub(behind);
    file.read_exact_at(&mut mark, at.ok_or_else(foreign)?)?;
    Ok((mark != Mark::default()).then_some(mark))
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
    let mut bytes = Vec::new();
    read_text(reader, &mut bytes)?;
    Ok(bytes)
}

/// Reads a text behind what the buffer holds.
fn read_text(reader: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    let len = varint(reader)?;
    if len > MAX_TEXT {
        return Err(foreign());
    }
    let before = buffer.len();
    buffer.resize(before + usize::try_from(len).map_err(|_| foreign())?, 0);
    reader.read_exact(&mut buffer[before..])
}
