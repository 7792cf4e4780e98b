//! Reading a ledger's objects one by one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use super::{END, Entry, Head, KeyState, MAGIC, MAX_TEXT, OBJECT, ROW, foreign};
use crate::audit::object::Protection;

/// The objects of a ledger. One at a time: two iterators over one ledger share its place.
#[derive(Debug)]
pub struct Entries {
    reader: BufReader<File>,
    protections: Vec<Protection>,
    last: Vec<u8>,
    ended: bool,
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
