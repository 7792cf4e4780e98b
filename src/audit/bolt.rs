//! bbolt files, read in place and never written.
//!
//! ```text
//! page 0, 1   meta: magic, version, page size, root, number of pages, transaction, FNV-1a checksum
//! page 2 …    branch: (key, page) …   leaf: (key, value | bucket) …   and pages that are free
//! ```
//!
//! A bucket is a tree of such pages, or one leaf page inside of its entry (*inline*). A page that is
//! too small for its entries runs on over the pages that follow it (*overflow*). Only the meta pages
//! have checksums. So everything else that bbolt's writer keeps to is checked instead: what a page
//! calls itself, where its entries lie, the order of keys in a page and between pages, and that no
//! page is used twice. A file that breaks one of these is refused at that page: it may have lost
//! entries, and nobody could say which. Two things cannot be seen so: a value that is another one, and
//! a bucket whose entry names another page of its own tree as the root.
//!
//! No more of a file is in memory than one page of each level of the tree, and one bit for each page.
//! Why not a crate: of the two there are, one maps the file into memory and casts it (`bbolt-rs`),
//! the other one reads all of it into memory and checks nothing (`bolt-lite`).
//!
//! Source: `internal/common` of go.etcd.io/bbolt 1.5; the format has not changed since boltdb 1.0.

mod cursor;
#[cfg(test)]
pub(crate) mod fixture;
mod meta;
mod page;
mod pages;
#[cfg(test)]
mod properties;

use std::fs::File;
use std::io;

pub use cursor::{Cursor, Entry};
use meta::Meta;
use pages::Pages;

/// Why a file cannot be read as a bbolt database.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    /// The file cannot be read at all.
    #[error("at byte {offset}: {source}")]
    Read {
        /// Where in the file.
        offset: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("it is not a bbolt database: {0}")]
    Foreign(&'static str),
    /// Its end is missing.
    #[error("it is cut short: {has} bytes of {needs}")]
    Truncated {
        /// How long it is.
        has: u64,
        /// How long its meta page says that it is.
        needs: u64,
    },
    /// A page cannot be right. What else it held, and what it led to, is unknown.
    #[error("page {page} is damaged: {fault}")]
    Damaged {
        /// The page's number.
        page: u64,
        /// What about it is wrong.
        fault: &'static str,
    },
}

/// A bbolt file, as of the newest transaction in it.
#[derive(Debug)]
pub struct Database {
    pages: Pages,
    root: u64,
}

/// Where the entries of a bucket are.
#[derive(Debug)]
pub enum Bucket {
    /// In a tree of pages.
    Tree(u64),
    /// In one leaf page that lies inside of the bucket's own entry.
    Inline(Vec<u8>),
}

impl Database {
    /// Reads the meta pages.
    ///
    /// `length` is how many bytes of the file are the database's.
    ///
    /// # Errors
    /// The file is something else or cut short, or one of its two meta pages is damaged. bbolt itself
    /// would then go on with the other one; but if the newer one is lost, so may be the newest changes.
    pub fn open(file: File, length: u64) -> Result<Self, BoltError> {
        let meta = Meta::read(&file, length)?;
        let root = meta.root;
        let pages = Pages::new(file, meta.page_size, meta.pages);
        Ok(Self { pages, root })
    }

    /// The number of bytes that the newest transaction's pages cover; the file may be longer.
    pub fn size(&self) -> u64 {
        self.pages.size()
    }

    /// The bytes of a page.
    pub fn page_size(&self) -> u64 {
        self.pages.page_size()
    }

    /// The bucket of this name, outside of all others.
    ///
    /// # Errors
    /// A page on the way cannot be read.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, BoltError> {
        let mut found = None;
        let mut cursor = Cursor::new(&self.pages, &Bucket::Tree(self.root))?;
        while let Some(entry) = cursor.previous()? {
            if entry.bucket && entry.key == name {
                found = Some(Bucket::parse(entry.page, entry.value)?);
            }
        }
        Ok(found)
    }

    /// Walks over a bucket, from its last key to its first.
    ///
    /// # Errors
    /// The bucket's first page cannot be read.
    pub fn walk_back(&self, bucket: &Bucket) -> Result<Cursor<'_>, BoltError> {
        Cursor::new(&self.pages, bucket)
    }
}

impl Bucket {
    /// From the value of a bucket's entry: the number of its page, a sequence that we do not need,
    /// and the page itself where that number is 0.
    fn parse(page: u64, value: &[u8]) -> Result<Self, BoltError> {
        const HEADER: usize = 16;
        let fault = "a bucket's entry is too short";
        let root = page::u64_at(value, 0).ok_or(BoltError::Damaged { page, fault })?;
        let inline = value
            .get(HEADER..)
            .ok_or(BoltError::Damaged { page, fault })?;
        Ok(match root {
            0 => Self::Inline(inline.to_vec()),
            root => Self::Tree(root),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{Fixture, PAGE};
    use super::*;

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn entries(database: &Database, bucket: &Bucket) -> Result<Pairs, BoltError> {
        let mut found = Vec::new();
        let mut cursor = database.walk_back(bucket)?;
        while let Some(entry) = cursor.previous()? {
            found.push((entry.key.to_vec(), entry.value.to_vec()));
        }
        Ok(found)
    }

    #[test]
    fn a_bucket_is_walked_from_its_last_key_to_its_first() {
        for count in [0, 1, 2, 50, 5_000_u32] {
            let mut fixture = Fixture::new();
            let keys = (0..count).map(|n| (n.to_be_bytes().to_vec(), n.to_string().into_bytes()));
            let keys: Vec<_> = keys.collect();
            fixture.tree(b"numbers", &keys);
            fixture.inline(b"small", &[(b"a".to_vec(), b"1".to_vec())]);
            let database = fixture.open().unwrap();
            let bucket = database.bucket(b"numbers").unwrap().unwrap();
            let mut backwards = keys;
            backwards.reverse();
            assert_eq!(
                entries(&database, &bucket).unwrap(),
                backwards,
                "{count} keys"
            );
            assert!(database.bucket(b"number").unwrap().is_none());
        }
    }

    #[test]
    fn an_inline_bucket_is_a_page_in_its_entry() {
        let mut fixture = Fixture::new();
        let keys: Vec<_> = [b"a", b"b", b"c"]
            .map(|k| (k.to_vec(), b"v".to_vec()))
            .into();
        fixture.inline(b"small", &keys);
        let database = fixture.open().unwrap();
        let bucket = database.bucket(b"small").unwrap().unwrap();
        assert!(matches!(bucket, Bucket::Inline(_)));
        let found = entries(&database, &bucket).unwrap();
        assert_eq!(found.iter().map(|(k, _)| k[0]).collect::<Vec<_>>(), *b"cba");
    }

    #[test]
    fn large_values_run_over_several_pages() {
        let mut fixture = Fixture::new();
        let keys: Vec<_> = (0..40_u8)
            .map(|n| (vec![n], vec![n; PAGE * usize::from(n) / 3]))
            .collect();
        fixture.tree(b"large", &keys);
        let database = fixture.open().unwrap();
        let bucket = database.bucket(b"large").unwrap().unwrap();
        let found = entries(&database, &bucket).unwrap();
        assert_eq!(found.len(), 40);
        assert!(found.iter().rev().eq(keys.iter()));
    }

    #[test]
    fn a_bucket_entry_that_is_too_short_is_damage() {
        for length in 0..16 {
            let error = Bucket::parse(7, &vec![1; length]).unwrap_err();
            assert_eq!(
                error.to_string(),
                "page 7 is damaged: a bucket's entry is too short"
            );
        }
    }
}
