//! Writes bbolt files for tests, as bbolt's own writer lays them out.

use std::fs::File;
use std::io::Write;

use super::meta;
use super::{BoltError, Database};

/// The bytes of a page in fixtures: the smallest there is, so that trees grow high.
pub(crate) const PAGE: usize = 1 << 10;

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// A file in the making.
#[derive(Default)]
pub(crate) struct Fixture {
    /// From page 2 on.
    pages: Vec<u8>,
    /// Entries of the root: name, and the value of a bucket's entry.
    buckets: Vec<Pair>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a bucket whose entries lie in pages. The keys must ascend.
    pub(crate) fn tree(&mut self, name: &[u8], entries: &[Pair]) {
        let root = self.write_tree(entries, 0);
        let mut value = root.to_le_bytes().to_vec();
        value.extend([0; 8]);
        self.buckets.push((name.to_vec(), value));
    }

    /// Adds a bucket that lies in its entry.
    pub(crate) fn inline(&mut self, name: &[u8], entries: &[Pair]) {
        let mut value = vec![0; 16];
        value.extend(leaf(0, entries, 0));
        self.buckets.push((name.to_vec(), value));
    }

    /// The file's bytes.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.buckets.sort();
        let buckets = std::mem::take(&mut self.buckets);
        let root = self.write_tree(&buckets, 1);
        let count = self.next_page();
        let mut bytes = Vec::new();
        for page in [0, 1] {
            bytes.extend(meta::write(page, PAGE as u32, root, count, 9 - page));
            bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        }
        bytes.extend(self.pages);
        bytes
    }

    /// The file, opened.
    pub(crate) fn open(self) -> Result<Database, BoltError> {
        open(&self.bytes())
    }

    fn next_page(&self) -> u64 {
        (self.pages.len() / PAGE + 2) as u64
    }

    fn write_tree(&mut self, entries: &[Pair], flags: u32) -> u64 {
        let mut level = Vec::new();
        for chunk in split(entries) {
            let page = self.add(|id| leaf(id, chunk, flags));
            level.push((chunk.first().map_or(Vec::new(), |e| e.0.clone()), page));
        }
        while level.len() > 1 {
            let mut above = Vec::new();
            for chunk in level.chunks(20) {
                let page = self.add(|id| branch(id, chunk));
                above.push((chunk[0].0.clone(), page));
            }
            level = above;
        }
        level[0].1
    }

    fn add(&mut self, page: impl Fn(u64) -> Vec<u8>) -> u64 {
        let id = self.next_page();
        let mut page = page(id);
        page.resize(page.len().next_multiple_of(PAGE), 0);
        self.pages.extend(page);
        id
    }
}

/// Opens bytes as a file.
pub(crate) fn open(bytes: &[u8]) -> Result<Database, BoltError> {
    Database::open(file(bytes), bytes.len() as u64)
}

/// A file without a name.
pub(crate) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// As bbolt does it: two entries at least on a page, even if it overflows.
fn split(entries: &[Pair]) -> Vec<&[Pair]> {
    let mut chunks = Vec::new();
    let (mut start, mut used) = (0, 16);
    for (at, (key, value)) in entries.iter().enumerate() {
        let size = 16 + key.len() + value.len();
        if at - start >= 2 && used + size > PAGE {
            chunks.push(&entries[start..at]);
            (start, used) = (at, 16);
        }
        used += size;
    }
    chunks.push(&entries[start..]);
    chunks
}

fn leaf(id: u64, entries: &[Pair], flags: u32) -> Vec<u8> {
    let sizes = entries.iter().map(|(k, v)| (k.len(), v.len()));
    let elements = sizes.scan(16 * entries.len(), |position, (key, value)| {
        let mut element = Vec::new();
        for word in [flags, *position as u32, key as u32, value as u32] {
            element.extend(word.to_le_bytes());
        }
        *position = *position + key + value - 16;
        Some(element)
    });
    let elements = elements.flatten().collect();
    let data = entries.iter().flat_map(|(k, v)| [&k[..], v].concat());
    page(id, 2, entries.len(), elements, data)
}

fn branch(id: u64, children: &[(Vec<u8>, u64)]) -> Vec<u8> {
    let elements = children
        .iter()
        .scan(16 * children.len(), |position, (key, page)| {
            let mut element = Vec::new();
            for word in [*position as u32, key.len() as u32] {
                element.extend(word.to_le_bytes());
            }
            element.extend(page.to_le_bytes());
            *position = *position + key.len() - 16;
            Some(element)
        });
    let elements = elements.flatten().collect();
    let data = children.iter().flat_map(|(k, _)| k.clone());
    page(id, 1, children.len(), elements, data)
}

fn page(
    id: u64,
    flags: u16,
    count: usize,
    elements: Vec<u8>,
    data: impl Iterator<Item = u8>,
) -> Vec<u8> {
    let data: Vec<u8> = data.collect();
    let length = 16 + elements.len() + data.len();
    let overflow = length.div_ceil(PAGE) - 1;
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend((count as u16).to_le_bytes());
    bytes.extend((overflow as u32).to_le_bytes());
    bytes.extend(elements);
    bytes.extend(data);
    bytes
}
