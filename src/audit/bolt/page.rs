//! One branch or leaf page: a header, an array of elements, and the keys and values they point to.
//!
//! ```text
//! id u64 · flags u16 · count u16 · overflow u32 · element × count · key value key value …
//! branch element: position u32 · key length u32 · page u64
//! leaf element:   flags u32 · position u32 · key length u32 · value length u32
//! ```
//!
//! Little endian. A position counts from the element itself. Keys and values lie in the order of the
//! elements and without gaps, since bbolt writes every page anew: so a wrong count shows.

use std::ops::Range;

/// A page's header.
const HEADER: usize = 16;
/// An element, in both kinds of pages.
const ELEMENT: usize = 16;

const BRANCH_FLAG: u16 = 1;
const LEAF_FLAG: u16 = 2;
/// A leaf element's flag: its value is a bucket.
const BUCKET_FLAG: u32 = 1;

/// The two kinds of pages that a tree is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Branch,
    Leaf,
}

/// What a page says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) count: usize,
    pub(super) overflow: u32,
}

/// A page, overflow included. Its buffer is used for one page after another.
#[derive(Debug, Default)]
pub(super) struct Page {
    bytes: Vec<u8>,
    header: Option<Header>,
}

/// What an element of a page points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) key: &'a [u8],
    pub(super) target: Target<'a>,
}

/// What lies under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Page(u64),
    Value(&'a [u8]),
    Bucket(&'a [u8]),
}

impl Page {
    /// A leaf page that lies inside of an entry.
    pub(super) fn inline(bytes: Vec<u8>) -> Result<Self, &'static str> {
        let mut page = Self {
            bytes,
            header: None,
        };
        match page.read_header()? {
            Header {
                kind: Kind::Leaf,
                overflow: 0,
                ..
            } => Ok(page),
            _ => Err("a bucket inside of an entry is no leaf page"),
        }
    }

    /// The buffer, to be filled. What was known about it no longer holds.
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Reads the header anew.
    pub(super) fn read_header(&mut self) -> Result<Header, &'static str> {
        let short = "it ends inside of its header";
        let kind = match u16_at(&self.bytes, 8).ok_or(short)? {
            BRANCH_FLAG => Kind::Branch,
            LEAF_FLAG => Kind::Leaf,
            _ => return Err("it is neither a branch nor a leaf"),
        };
        let header = Header {
            kind,
            count: usize::from(u16_at(&self.bytes, 10).ok_or(short)?),
            overflow: u32_at(&self.bytes, 12).ok_or(short)?,
        };
        self.header = Some(header);
        Ok(header)
    }

    /// The header that was read last.
    pub(super) fn header(&self) -> Header {
        self.header.unwrap_or(Header {
            kind: Kind::Leaf,
            count: 0,
            overflow: 0,
        })
    }

    /// Checks every element: where it lies, and that keys ascend, from `lowest` on and below `end`.
    pub(super) fn check(&self, lowest: &[u8], end: Option<&[u8]>) -> Result<(), &'static str> {
        let Header { count, .. } = self.header();
        let mut next = HEADER + count * ELEMENT;
        let mut before: Option<&[u8]> = None;
        for index in 0..count {
            let (key, value) = self.place(index)?;
            if key.start != next {
                return Err("its entries do not lie one after another");
            }
            next = value.end;
            let key = self.bytes.get(key).ok_or(OUTSIDE)?;
            if key.is_empty() {
                return Err("it has a key without a byte");
            }
            match before {
                None if key < lowest => return Err("it has a key below its place in the tree"),
                Some(before) if key <= before => return Err("its keys do not ascend"),
                _ => before = Some(key),
            }
        }
        match (before, end) {
            (Some(last), Some(end)) if last >= end => {
                Err("it has a key above its place in the tree")
            }
            _ => Ok(()),
        }
    }

    /// One element.
    pub(super) fn element(&self, index: usize) -> Result<Element<'_>, &'static str> {
        let (key, value) = self.place(index)?;
        let key = self.bytes.get(key).ok_or(OUTSIDE)?;
        let at = HEADER + index * ELEMENT;
        let target = match self.header().kind {
            Kind::Branch => Target::Page(u64_at(&self.bytes, at + 8).ok_or(OUTSIDE)?),
            Kind::Leaf => {
                let value = self.bytes.get(value).ok_or(OUTSIDE)?;
                match u32_at(&self.bytes, at).ok_or(OUTSIDE)? {
                    0 => Target::Value(value),
                    BUCKET_FLAG => Target::Bucket(value),
                    _ => return Err("it has an entry of an unknown kind"),
                }
            }
        };
        Ok(Element { key, target })
    }

    /// Where an element's key and value lie. That of a branch has no value.
    fn place(&self, index: usize) -> Result<(Range<usize>, Range<usize>), &'static str> {
        let at = HEADER + index * ELEMENT;
        let word = |offset| u32_at(&self.bytes, at + offset).map(|word| word as usize);
        let (position, key, value) = match self.header().kind {
            Kind::Branch => (word(0), word(4), Some(0)),
            Kind::Leaf => (word(4), word(8), word(12)),
        };
        let (position, key, value) = (
            position.ok_or(OUTSIDE)?,
            key.ok_or(OUTSIDE)?,
            value.ok_or(OUTSIDE)?,
        );
        // Five numbers below 2^32 stay below 2^64.
        let start = at + position;
        let middle = start + key;
        let end = middle + value;
        if end > self.bytes.len() {
            return Err(OUTSIDE);
        }
        Ok((start..middle, middle..end))
    }
}

const OUTSIDE: &str = "it has an entry outside of itself";

/// The number at a position, or `None` past the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
