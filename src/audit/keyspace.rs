//! The scan of a live etcd: every key at one pinned revision, and what its history still holds.
//!
//! ```text
//! etcd ──page n+1──▶ fetch ──page n──▶ a thread that reads headers and counts
//! ```
//!
//! At most three pages are in memory. Everything is read at one revision; where etcd compacts it in
//! the middle, the scan begins anew.

use std::io;
use std::path::Path;

use prost::bytes::Bytes;
use tokio::sync::mpsc;

use super::etcd::{Etcd, EtcdError, Pin};
use super::fetch::{self, Item};
use super::history;
use super::ledger::{Head, KeyState, Ledger, LedgerWriter};
use super::tally::{Place, Tally};

/// How often a scan begins anew before it gives up. kube-apiserver compacts every 5 minutes.
const ATTEMPTS: u32 = 5;

/// Why an audit of etcd has no result.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// etcd does not answer as it should.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// It was compacted again and again while it was read.
    #[error("etcd compacted what was being read, {ATTEMPTS} times over")]
    Compacted,
    /// The thread that counts ended early; its own error stands in front of this one.
    #[error("counting ended early")]
    Ended,
    /// The file of an earlier audit, or a temporary one.
    #[error("{0}")]
    File(#[from] io::Error),
}

/// What is to be read and kept.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The prefix of Kubernetes' keys, without a final slash.
    pub prefix: &'a str,
    /// The file of an earlier audit: what did not change since is not read again, and the file is
    /// replaced when all is done.
    pub since: Option<&'a Path>,
    /// Whether every object is to be remembered, in a file: see [`Live::ledger`].
    pub remember: bool,
}

/// The result of a scan.
#[derive(Debug)]
pub struct Live {
    /// At which revision.
    pub pin: Pin,
    /// The counts, current and history.
    pub tally: Tally,
    /// The oldest revision that etcd could still show.
    pub history_from: i64,
    /// How many values were read; fewer than there are keys where `since` served.
    pub fetched: u64,
    /// Every current object with its row in the tally, if `remember` or `since` asked for it. To go
    /// through the objects of some rows:
    ///
    /// ```ignore
    /// for entry in ledger.entries()? {
    ///     let entry = entry?;
    ///     let Some(row) = entry.row.and_then(|row| live.tally.rows().get(row as usize)) else { continue };
    ///     if is_stale(row) { /* Name::parse(&entry.key, prefix), entry.state.modified */ }
    /// }
    /// ```
    pub ledger: Option<Ledger>,
}

/// Reads everything. `note` is told what a person may want to know meanwhile.
///
/// # Errors
/// Whatever keeps it from being complete: there is no partial result.
pub async fn scan(
    etcd: &Etcd,
    options: Options<'_>,
    note: &(dyn Fn(&str) + Sync),
) -> Result<Live, ScanError> {
    for _ in 0..ATTEMPTS {
        let pin = etcd.pin().await?;
        match scan_at(etcd, pin, options, note).await {
            Err(ScanError::Etcd(EtcdError::Compacted)) => {
                note("etcd compacted the revision that was being read: beginning anew");
            }
            result => return result,
        }
    }
    Err(ScanError::Compacted)
}

async fn scan_at(
    etcd: &Etcd,
    pin: Pin,
    options: Options<'_>,
    note: &(dyn Fn(&str) + Sync),
) -> Result<Live, ScanError> {
    let head = Head::new(pin, options.prefix);
    let ledger = match (options.since, options.remember) {
        (None, false) => None,
        (to, _) => Some(LedgerWriter::create(to, &head)?),
    };
    let recorder = Recorder {
        tally: Tally::new(options.prefix),
        ledger,
        seen: 0,
    };
    let earlier = earlier(&head, options.since, note)?;
    let (items, received) = mpsc::channel(1);
    let counting = tokio::task::spawn_blocking(move || recorder.record_all(received));
    let fetched = match &earlier {
        Some(earlier) => fetch::changed(etcd, pin, earlier.entries()?, &items).await,
        None => fetch::all(etcd, pin, &items).await,
    };
    drop(items);
    let recorder = counting.await.map_err(io::Error::other)??;
    let fetched = fetched?;
    if recorder.seen != pin.keys {
        let message = format!(
            "{} keys were counted and {} listed",
            pin.keys, recorder.seen
        );
        return Err(EtcdError::Contradiction(message).into());
    }
    let mut tally = recorder.tally;
    let (history, history_from) = history::read(etcd, pin, options.prefix).await?;
    tally.add_history(&history);
    let finish = |ledger: LedgerWriter| ledger.finish(head);
    let mut ledger = recorder.ledger.map(finish).transpose()?;
    if let Some(ledger) = &mut ledger {
        ledger.keep()?;
    }
    Ok(Live {
        pin,
        tally,
        history_from,
        fetched,
        ledger,
    })
}

/// The earlier audit's ledger, if this audit may rely on it.
fn earlier(
    head: &Head,
    since: Option<&Path>,
    note: &(dyn Fn(&str) + Sync),
) -> io::Result<Option<Ledger>> {
    let Some(path) = since else { return Ok(None) };
    let shown = path.display();
    match Ledger::open(path) {
        Ok(Some(ledger)) if ledger.head().leads_to(head) => Ok(Some(ledger)),
        Ok(Some(_)) => {
            note(&format!(
                "{shown} is of another etcd, or of one before a restore: reading everything"
            ));
            Ok(None)
        }
        Ok(None) => {
            note(&format!("{shown} is not there yet: reading everything"));
            Ok(None)
        }
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            note(&format!("{shown}: {e}: reading everything"));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// The thread that counts.
struct Recorder {
    tally: Tally,
    ledger: Option<LedgerWriter>,
    seen: u64,
}

impl Recorder {
    fn record_all(mut self, mut pages: mpsc::Receiver<Vec<Item>>) -> io::Result<Self> {
        while let Some(page) = pages.blocking_recv() {
            for item in page {
                self.seen += 1;
                self.record(item)?;
            }
        }
        Ok(self)
    }

    fn record(&mut self, item: Item) -> io::Result<()> {
        let exceptions = self.tally.exception_count();
        let (key, state, row): (Bytes, KeyState, _) = match item {
            Item::Read(kv) => {
                let row = self.tally.add(Place::Current, &kv.key, &kv.value);
                (kv.key.clone(), KeyState::of(&kv), row)
            }
            Item::Known(kv) => {
                let row = self.tally.add_known(&kv.key, kv.protection.as_ref());
                (kv.key, kv.state, row)
            }
        };
        // Exceptions are read again next time.
        let counted = exceptions == self.tally.exception_count();
        let Some(ledger) = self.ledger.as_mut().filter(|_| counted) else {
            return Ok(());
        };
        for new in self.tally.rows().iter().skip(ledger.rows() as usize) {
            ledger.row(&new.protection)?;
        }
        ledger.object(&key, state, row)
    }
}
