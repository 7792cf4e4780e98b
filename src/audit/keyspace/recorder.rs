//! What a scan counts and remembers, on a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::audit::changes::{Changes, Marker};
use crate::audit::etcd::KeyValue;
use crate::audit::fetch::Item;
use crate::audit::ledger::{Entries, KeyState, LedgerWriter, Seen};
use crate::audit::tally::{Place, Tally};

/// The observer is told after so many objects at the earliest.
const STEP: u64 = 4096;

/// The thread that counts.
pub(super) struct Recorder {
    pub(super) tally: Tally,
    pub(super) ledger: Option<LedgerWriter>,
    /// How many keys were counted.
    pub(super) seen: Arc<AtomicU64>,
    /// How many values were read.
    pub(super) fetched: u64,
    /// The pinned revision, and the mark of what was put there.
    pub(super) revision: i64,
    pub(super) marker: Marker,
}

impl Recorder {
    /// Counts what comes.
    pub(super) fn record_all(mut self, mut pages: mpsc::Receiver<Vec<Item>>) -> io::Result<Self> {
        while let Some(page) = pages.blocking_recv() {
            let keys = page.len() as u64;
            for item in page {
                match item {
                    Item::Read(kv) => self.read(&kv)?,
                    Item::Known(known) => {
                        let exceptions = self.tally.exception_count();
                        let protection = known.protection.as_ref();
                        let row = self.tally.add_known(&known.key, protection);
                        self.remember(exceptions, &known.key, known.state, row)?;
                    }
                }
            }
            self.seen.fetch_add(keys, Ordering::Relaxed);
        }
        Ok(self)
    }

    /// Counts what an earlier audit saw, but for what has changed since. Keys ascend in both.
    pub(super) fn merge(mut self, mut earlier: Entries, changes: Changes) -> io::Result<Self> {
        let mut changes = changes.into_iter().peekable();
        // Of each row of the earlier audit, which one it is in this one.
        let mut rows = Vec::new();
        let mut seen = 0;
        while let Some(entry) = earlier.advance()? {
            while let Some((_, new)) = changes.next_if(|(key, _)| key[..] < *entry.key) {
                seen += self.read_if_there(new.as_ref())?;
            }
            match changes.next_if(|(key, _)| key[..] == *entry.key) {
                Some((_, now)) => seen += self.read_if_there(now.as_ref())?,
                None => {
                    self.know(entry, &mut rows)?;
                    seen += 1;
                }
            }
            if seen >= STEP {
                self.seen
                    .fetch_add(std::mem::take(&mut seen), Ordering::Relaxed);
            }
        }
        for (_, new) in changes {
            seen += self.read_if_there(new.as_ref())?;
        }
        self.seen.fetch_add(seen, Ordering::Relaxed);
        Ok(self)
    }

    fn read_if_there(&mut self, kv: Option<&KeyValue>) -> io::Result<u64> {
        match kv {
            Some(kv) => self.read(kv).map(|()| 1),
            None => Ok(0),
        }
    }

    fn read(&mut self, kv: &KeyValue) -> io::Result<()> {
        self.fetched += 1;
        if kv.mod_revision == self.revision {
            self.marker.add(kv);
        }
        let exceptions = self.tally.exception_count();
        let row = self.tally.add(Place::Current, &kv.key, &kv.value);
        self.remember(exceptions, &kv.key, KeyState::of(kv), row)
    }

    fn know(&mut self, entry: Seen<'_>, rows: &mut Vec<Option<u32>>) -> io::Result<()> {
        let exceptions = self.tally.exception_count();
        let theirs = entry.row.map(|row| row as usize);
        // A row is one resource under one protection, in the earlier audit as in this one.
        let known = theirs.and_then(|row| *rows.get(row)?);
        let row = match known {
            Some(row) => {
                self.tally.add_again(row, entry.key);
                Some(row)
            }
            None => self.tally.add_known(entry.key, entry.protection),
        };
        if let (Some(theirs), None) = (theirs, known) {
            rows.resize(rows.len().max(theirs + 1), None);
            if let Some(place) = rows.get_mut(theirs) {
                *place = row;
            }
        }
        self.remember(exceptions, entry.key, entry.state, row)
    }

    /// Puts an object into the ledger, unless it was an exception: those are read again next time.
    fn remember(
        &mut self,
        exceptions: u64,
        key: &[u8],
        state: KeyState,
        row: Option<u32>,
    ) -> io::Result<()> {
        let counted = exceptions == self.tally.exception_count();
        let Some(ledger) = self.ledger.as_mut().filter(|_| counted) else {
            return Ok(());
        };
        for new in self.tally.rows().iter().skip(ledger.rows() as usize) {
            ledger.row(&new.protection)?;
        }
        ledger.object(key, state, row)
    }
}
