//! The way through a tree, from its last key to its first.

use std::mem;

use super::page::{Element, Header, Kind, Page, Target};
use super::pages::{Ahead, Pages, Used};
use super::{BoltError, Bucket};

/// The most levels of branch pages. Every one of them at least doubles the pages below it.
const DEPTH: usize = 32;

/// One entry of a bucket.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value; for a bucket, where that is.
    pub value: &'a [u8],
    /// Whether it is a bucket.
    pub bucket: bool,
    /// The page that it was found on; 0 in an inline bucket.
    pub page: u64,
}

/// Walks over a bucket's entries. It keeps one page of each level.
#[derive(Debug)]
pub struct Cursor<'a> {
    pages: &'a Pages,
    used: Used,
    ahead: Ahead,
    /// From the root down to the leaf's parent.
    branches: Vec<Level>,
    leaf: Level,
    /// Buffers of pages that are done.
    spare: Vec<Level>,
    /// No key of the next page may lie below this one.
    lowest: Vec<u8>,
    /// Every key that is still to come lies below this one.
    end: Option<Vec<u8>>,
}

/// A page on the way, and how many of its elements are still to come.
#[derive(Debug, Default)]
struct Level {
    id: u64,
    page: Page,
    left: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(pages: &'a Pages, bucket: &Bucket) -> Result<Self, BoltError> {
        let mut cursor = Self {
            pages,
            used: pages.unused(),
            ahead: Ahead::default(),
            branches: Vec::new(),
            leaf: Level::default(),
            spare: Vec::new(),
            lowest: Vec::new(),
            end: None,
        };
        match bucket {
            Bucket::Tree(root) => cursor.enter(*root)?,
            Bucket::Inline(bytes) => {
                let page = Page::inline(bytes.clone());
                let page = page.and_then(|page| page.check(&[], None).map(|()| page));
                let page = page.map_err(|fault| BoltError::Damaged { page: 0, fault })?;
                let left = page.header().count;
                cursor.leaf = Level { id: 0, page, left };
            }
        }
        Ok(cursor)
    }

    /// The next entry towards the first key; `None` once all were seen.
    ///
    /// # Errors
    /// A page cannot be read. What was returned until then is true, but it is not all; and what would
    /// be returned after an error has a gap.
    pub fn previous(&mut self) -> Result<Option<Entry<'_>>, BoltError> {
        while self.leaf.left == 0 {
            if !self.advance()? {
                return Ok(None);
            }
        }
        self.leaf.left -= 1;
        let page = self.leaf.id;
        let element = self.leaf.page.element(self.leaf.left);
        let Element { key, target } =
            element.map_err(|fault| BoltError::Damaged { page, fault })?;
        let (value, bucket) = match target {
            Target::Value(value) => (value, false),
            Target::Bucket(value) => (value, true),
            Target::Page(_) => {
                let fault = "it is no leaf";
                return Err(BoltError::Damaged { page, fault });
            }
        };
        Ok(Some(Entry {
            key,
            value,
            bucket,
            page,
        }))
    }

    /// One step: leaves a branch that is done, or enters its next child. False where nothing is left.
    fn advance(&mut self) -> Result<bool, BoltError> {
        let Some(branch) = self.branches.last_mut() else {
            return Ok(false);
        };
        let page = branch.id;
        let damaged = |fault| BoltError::Damaged { page, fault };
        if branch.left < branch.page.header().count {
            let done = branch.page.element(branch.left).map_err(damaged)?;
            let end = self.end.get_or_insert_default();
            end.clear();
            end.extend_from_slice(done.key);
        }
        if branch.left == 0 {
            self.spare.extend(self.branches.pop());
            return Ok(true);
        }
        branch.left -= 1;
        let Element { key, target } = branch.page.element(branch.left).map_err(damaged)?;
        let Target::Page(child) = target else {
            return Err(damaged("it is no branch"));
        };
        self.lowest.clear();
        self.lowest.extend_from_slice(key);
        if self.ahead.page(child, self.pages.page_size()).is_none() {
            let run = branch.run_before(child, self.pages.most_ahead());
            self.pages.read_ahead(run..=child, &mut self.ahead)?;
        }
        self.enter(child)?;
        Ok(true)
    }

    /// Reads a page and checks it against its place in the tree.
    fn enter(&mut self, id: u64) -> Result<(), BoltError> {
        let damaged = |fault| BoltError::Damaged { page: id, fault };
        if self.branches.len() > DEPTH {
            return Err(damaged("it lies too deep in the tree"));
        }
        let mut level = self.spare.pop().unwrap_or_default();
        self.pages
            .read(id, &self.ahead, &mut self.used, &mut level.page)?;
        let Header { kind, count, .. } = level.page.header();
        (level.id, level.left) = (id, count);
        // Only a bucket without entries has an empty page.
        if count == 0 && (kind == Kind::Branch || !self.branches.is_empty()) {
            return Err(damaged("it is empty"));
        }
        let checked = level.page.check(&self.lowest, self.end.as_deref());
        checked.map_err(damaged)?;
        match kind {
            Kind::Branch => self.branches.push(level),
            Kind::Leaf => self.spare.push(mem::replace(&mut self.leaf, level)),
        }
        Ok(())
    }
}

impl Level {
    /// The first page of those that come next and lie one before the other, up to this child.
    fn run_before(&self, child: u64, most: u64) -> u64 {
        let before = (1..most).zip((0..self.left).rev());
        let run = before.take_while(|(distance, index)| {
            let wanted = child.checked_sub(*distance).map(Target::Page);
            let element = self.page.element(*index).ok();
            wanted.is_some() && element.map(|element| element.target) == wanted
        });
        child - run.count() as u64
    }
}
