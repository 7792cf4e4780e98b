//! The pages of a file, read one by one.

use std::fs::File;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;

use super::BoltError;
use super::page::{Kind, Page, u64_at};

/// Pages 0 and 1 are meta pages.
const FIRST: u64 = 2;

/// The longest leaf page, overflow included. A page holds at most three values that are larger than
/// itself, and etcd accepts none above its `--max-request-bytes`: 1.5 MiB, unless somebody raised it.
const LONGEST_LEAF: u64 = 256 << 20;

/// The longest branch page. bbolt splits them at one page; only long keys could make one longer.
const LONGEST_BRANCH: u64 = 1 << 20;

/// How much is read ahead at most.
const AHEAD: u64 = 128 << 10;

/// Reads pages of one file.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    page_size: u64,
    count: u64,
}

impl Pages {
    pub(super) fn new(file: File, page_size: u32, count: u64) -> Self {
        let page_size = u64::from(page_size);
        Self {
            file,
            page_size,
            count,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.page_size * self.count
    }

    pub(super) fn page_size(&self) -> u64 {
        self.page_size
    }

    /// Nothing has been used yet.
    pub(super) fn unused(&self) -> Used {
        Used(vec![0; self.count.div_ceil(64) as usize])
    }

    /// The most pages that are worth reading at once.
    pub(super) fn most_ahead(&self) -> u64 {
        (AHEAD / self.page_size).max(1)
    }

    /// Reads pages that will be asked for next, one by one: what a transaction wrote lies together, and
    /// a system call for each page takes as long as all the rest.
    pub(super) fn read_ahead(
        &self,
        ids: RangeInclusive<u64>,
        ahead: &mut Ahead,
    ) -> Result<(), BoltError> {
        let (first, last) = ids.into_inner();
        ahead.bytes.clear();
        // What lies outside is an error once it is asked for.
        if first >= FIRST && last < self.count {
            ahead.first = first;
            self.fill(first, &mut ahead.bytes, (last - first + 1) * self.page_size)?;
        }
        Ok(())
    }

    /// Reads a page with all that it runs on over, and takes it as used.
    pub(super) fn read(
        &self,
        id: u64,
        ahead: &Ahead,
        used: &mut Used,
        page: &mut Page,
    ) -> Result<(), BoltError> {
        let damaged = |fault| BoltError::Damaged { page: id, fault };
        if !(FIRST..self.count).contains(&id) {
            return Err(damaged("it lies outside of the database"));
        }
        let bytes = page.bytes_mut();
        match ahead.page(id, self.page_size) {
            Some(read) => {
                bytes.clear();
                bytes.extend_from_slice(read);
            }
            None => self.fill(id, bytes, self.page_size)?,
        }
        if u64_at(bytes, 0) != Some(id) {
            return Err(damaged("it calls itself another page"));
        }
        let header = page.read_header().map_err(damaged)?;
        let pages = 1 + u64::from(header.overflow);
        if pages > self.count - id {
            return Err(damaged("it runs on past the end of the database"));
        }
        let longest = match header.kind {
            Kind::Branch => LONGEST_BRANCH,
            Kind::Leaf => LONGEST_LEAF,
        };
        let length = pages * self.page_size;
        if length > longest.max(self.page_size) {
            return Err(damaged("it is longer than etcd could have made it"));
        }
        if !used.take(id, pages) {
            return Err(damaged("two places of the database use it"));
        }
        if pages > 1 {
            self.fill(id, page.bytes_mut(), length)?;
        }
        Ok(())
    }

    /// Reads from a page's beginning on, over what the buffer holds already.
    fn fill(&self, id: u64, buffer: &mut Vec<u8>, length: u64) -> Result<(), BoltError> {
        let offset = id * self.page_size;
        // Reading a long page's beginning twice is simpler, and long pages are few.
        buffer.resize(length as usize, 0);
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|source| BoltError::Read { offset, source })
    }
}

/// Pages that were read before they were asked for.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    first: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    /// A page, where it is among them.
    pub(super) fn page(&self, id: u64, page_size: u64) -> Option<&[u8]> {
        let start = id.checked_sub(self.first)?.checked_mul(page_size)?;
        let end = start.checked_add(page_size)?;
        self.bytes
            .get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}

/// Which pages were used, one bit each: 32 KiB for each GiB of pages of 4 KiB.
#[derive(Debug)]
pub(super) struct Used(Vec<u64>);

impl Used {
    /// Takes a run of pages. False where one of them was taken before.
    fn take(&mut self, id: u64, pages: u64) -> bool {
        (id..id + pages).all(|id| {
            let Some(word) = self.0.get_mut((id / 64) as usize) else {
                return false;
            };
            let bit = 1 << (id % 64);
            let unused = *word & bit == 0;
            *word |= bit;
            unused
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_once() {
        let mut used = Used(vec![0; 2]);
        assert!(used.take(60, 10));
        for id in 60..70 {
            assert!(!used.take(id, 1), "{id}");
        }
        assert!(used.take(59, 1));
        assert!(used.take(70, 58));
        assert!(!used.take(128, 1), "outside");
    }
}
