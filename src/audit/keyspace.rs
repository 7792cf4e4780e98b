//! The scan of a live etcd: every key at one pinned revision, and what its history still holds.
//!
//! ```text
//! etcd ──page n+1──▶ fetch ──page n──▶ a thread that reads headers and counts
//! ```
//!
//! At most three pages are in memory. Everything is read at one revision; where etcd compacts it in
//! the middle, the scan begins anew. Since an earlier audit, nothing is fetched but what etcd's history
//! has since, if it reaches back so far; else every key is listed, and what changed is fetched.

mod recorder;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::changes::{self, Marker};
use super::etcd::{Etcd, EtcdError, Pin};
use super::fetch;
use super::history;
use super::ledger::{Head, Ledger, LedgerWriter};
use super::tally::Tally;
use super::verify::Verifier;
use recorder::Recorder;

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

/// How often an observer is told how many values were read.
const TICK: Duration = Duration::from_millis(100);

/// Who is told how a scan goes. A closure is told the notes alone.
pub trait Observer: Sync {
    /// What a person may want to know.
    fn note(&self, text: &str);

    /// So many keys are going to be read; once more where the scan begins anew.
    fn begin(&self, _keys: u64) {}

    /// So many of them were read until now.
    fn seen(&self, _keys: u64) {}

    /// All were read, and what history holds comes next.
    fn history(&self) {}
}

impl<F: Fn(&str) + Sync> Observer for F {
    fn note(&self, text: &str) {
        self(text);
    }
}

/// What is to be read and kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The prefix of Kubernetes' keys, without a final slash.
    pub prefix: &'a str,
    /// The file of an earlier audit: what did not change since is not read again, and the file is
    /// replaced when all is done.
    pub since: Option<&'a Path>,
    /// Whether every object is to be remembered, in a file: see [`Live::ledger`].
    pub remember: bool,
    /// Opens every object that is read, if it is to be opened.
    pub verifier: Option<&'a Verifier>,
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

/// Reads everything. The observer is told how it goes meanwhile.
///
/// # Errors
/// Whatever keeps it from being complete: there is no partial result.
pub async fn scan(
    etcd: &Etcd,
    options: Options<'_>,
    observer: &dyn Observer,
) -> Result<Live, ScanError> {
    for _ in 0..ATTEMPTS {
        let pin = etcd.pin().await?;
        match scan_at(etcd, pin, options, observer).await {
            Err(ScanError::Etcd(EtcdError::Compacted)) => {
                observer.note("etcd compacted the revision that was being read: beginning anew");
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
    observer: &dyn Observer,
) -> Result<Live, ScanError> {
    let scan = Scan {
        etcd,
        pin,
        options,
        observer,
        head: Head::new(pin, options.prefix),
        seen: Arc::default(),
    };
    let earlier = earlier(&scan.head, options.since, observer)?;
    let counting = async {
        let counted = scan.count(earlier.as_ref()).await?;
        observer.history();
        Ok(counted)
    };
    let history = history::read(etcd, pin, options.prefix, options.verifier);
    let ((keys, recorder), (history, history_from)) = tokio::try_join!(counting, history)?;
    let mut tally = recorder.tally;
    tally.add_history(&history);
    // What was put at a revision is not read again where nothing has happened since.
    let same = earlier.filter(|earlier| earlier.head().revision == pin.revision);
    let mark = same.map_or_else(|| recorder.marker.finish(), |same| same.mark());
    let finish = |ledger: LedgerWriter| ledger.finish(scan.head, mark);
    let mut ledger = recorder.ledger.map(finish).transpose()?;
    if let Some(ledger) = &mut ledger {
        ledger.keep()?;
    }
    Ok(Live {
        pin: Pin { keys, ..pin },
        tally,
        history_from,
        fetched: recorder.fetched,
        ledger,
    })
}

/// One scan at one revision.
struct Scan<'a> {
    etcd: &'a Etcd,
    pin: Pin,
    options: Options<'a>,
    observer: &'a dyn Observer,
    head: Head,
    /// How many keys were counted.
    seen: Arc<AtomicU64>,
}

impl Scan<'_> {
    /// Counts every key: from the earlier audit and etcd's history since, where those tell all, else
    /// from what etcd lists. Returns also how many there are.
    async fn count(&self, earlier: Option<&Ledger>) -> Result<(u64, Recorder), ScanError> {
        let keys = async { Ok(self.etcd.count(self.pin.revision).await?) };
        let (keys, merged) = tokio::try_join!(keys, self.merge(earlier))?;
        let seen = || self.seen.load(Ordering::Relaxed);
        self.observer.begin(keys);
        // What an earlier audit could not read is in no file, so then it is fewer.
        if let Some(recorder) = merged.filter(|_| seen() == keys) {
            return Ok((keys, recorder));
        }
        let recorder = observed(self.list(earlier), &self.seen, self.observer).await?;
        let seen = seen();
        if seen != keys {
            let message = format!("{keys} keys were counted and {seen} listed");
            return Err(EtcdError::Contradiction(message).into());
        }
        Ok((keys, recorder))
    }

    async fn merge(&self, earlier: Option<&Ledger>) -> Result<Option<Recorder>, ScanError> {
        let Some(earlier) = earlier else {
            return Ok(None);
        };
        let Some(changes) = changes::since(self.etcd, self.pin, earlier).await? else {
            return Ok(None);
        };
        let (recorder, entries) = (self.recorder()?, earlier.entries()?);
        let merging = tokio::task::spawn_blocking(|| recorder.merge(entries, changes));
        Ok(Some(merging.await.map_err(io::Error::other)??))
    }

    async fn list(&self, earlier: Option<&Ledger>) -> Result<Recorder, ScanError> {
        let recorder = self.recorder()?;
        let (items, received) = mpsc::channel(1);
        let counting = tokio::task::spawn_blocking(move || recorder.record_all(received));
        let fetched = match earlier {
            Some(earlier) => fetch::changed(self.etcd, self.pin, earlier.entries()?, &items).await,
            None => fetch::all(self.etcd, self.pin, &items).await,
        };
        drop(items);
        let recorder = counting.await.map_err(io::Error::other)??;
        fetched?;
        Ok(recorder)
    }

    fn recorder(&self) -> io::Result<Recorder> {
        let ledger = match (self.options.since, self.options.remember) {
            (None, false) => None,
            (to, _) => Some(LedgerWriter::create(to, &self.head)?),
        };
        self.seen.store(0, Ordering::Relaxed);
        Ok(Recorder {
            tally: Tally::new(self.options.prefix).verifying(self.options.verifier),
            ledger,
            seen: self.seen.clone(),
            fetched: 0,
            revision: self.pin.revision,
            marker: Marker::default(),
        })
    }
}

/// Tells the observer how many keys were counted, for as long as they are fetched.
async fn observed<T>(
    fetching: impl Future<Output = T>,
    seen: &AtomicU64,
    observer: &dyn Observer,
) -> T {
    let mut fetching = std::pin::pin!(fetching);
    loop {
        tokio::select! {
            fetched = &mut fetching => return fetched,
            () = tokio::time::sleep(TICK) => observer.seen(seen.load(Ordering::Relaxed)),
        }
    }
}

/// The earlier audit's ledger, if this audit may rely on it.
fn earlier(
    head: &Head,
    since: Option<&Path>,
    observer: &dyn Observer,
) -> io::Result<Option<Ledger>> {
    let Some(path) = since else { return Ok(None) };
    let shown = path.display();
    match Ledger::open(path) {
        Ok(Some(ledger)) if ledger.head().leads_to(head) => Ok(Some(ledger)),
        Ok(Some(_)) => {
            observer.note(&format!(
                "{shown} is of another etcd, or of one before a restore: reading everything"
            ));
            Ok(None)
        }
        Ok(None) => {
            observer.note(&format!("{shown} is not there yet: reading everything"));
            Ok(None)
        }
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            observer.note(&format!("{shown}: {e}: reading everything"));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
