//! What old revisions still hold, until etcd compacts them.
//!
//! Every value that etcd still has and that is not current at revision R was ended by exactly one
//! event after the last compaction C and up to R: a put of a newer value, or a deletion. So a watch
//! from C + 1 that asks for the value before each event sees each of them once, in one pass and
//! without remembering any.

use super::etcd::{Etcd, EtcdError, Event, Pin, Watched};
use super::keyspace::ScanError;
use super::tally::{Place, Tally};
use super::verify::Verifier;

/// How often it begins anew after a compaction.
const ATTEMPTS: u32 = 5;

/// Counts what ended up to the pinned revision and is not compacted. Returns also the oldest
/// revision that could be seen.
///
/// # Errors
/// Where etcd does not answer, or compacts faster than it can be read. A gap is never passed over.
pub(super) async fn read(
    etcd: &Etcd,
    pin: Pin,
    prefix: &str,
    verifier: Option<&Verifier>,
) -> Result<(Tally, i64), ScanError> {
    let (mut from, mut cut) = (1, false);
    // The first watch only learns where the history begins, unless nothing was compacted ever.
    for _ in 0..=ATTEMPTS {
        let mut tally = Tally::new(prefix).verifying(verifier);
        // A new etcd is at revision 1, which changed nothing.
        if from > pin.revision || pin.revision <= 1 {
            return Ok((tally, from));
        }
        match follow(etcd, pin, (from, cut), &mut tally).await? {
            Followed::ToTheEnd => return Ok((tally, from)),
            Followed::Compacted(revision) => from = revision + 1,
            Followed::Gap => {}
            Followed::TooLong => cut = true,
        }
    }
    Err(ScanError::Compacted)
}

enum Followed {
    ToTheEnd,
    /// The watch cannot begin so early.
    Compacted(i64),
    /// etcd has compacted a value in the middle of the watch.
    Gap,
    /// etcd has to cut its answers.
    TooLong,
}

async fn follow(
    etcd: &Etcd,
    pin: Pin,
    (from, cut): (i64, bool),
    tally: &mut Tally,
) -> Result<Followed, ScanError> {
    let mut watch = etcd.watch(from, true, cut).await?;
    loop {
        let watched = match watch.next().await {
            Err(EtcdError::TooLong) if !cut => return Ok(Followed::TooLong),
            watched => watched?,
        };
        let (events, whole) = match watched {
            Watched::Compacted(revision) => return Ok(Followed::Compacted(revision)),
            Watched::Events { events, whole } => (events, whole),
        };
        for event in &events {
            let revision = revision(event);
            if revision > pin.revision {
                return Ok(Followed::ToTheEnd);
            }
            match &event.prev_kv {
                Some(ended) => drop(tally.add(Place::History, &ended.key, &ended.value)),
                None if is_creation(event) => {}
                None => return Ok(Followed::Gap),
            }
        }
        // The pinned revision is the last change, so an event has it.
        if whole && events.last().map(revision) == Some(pin.revision) {
            return Ok(Followed::ToTheEnd);
        }
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Only the first value of a key has none before it.
fn is_creation(event: &Event) -> bool {
    event.kv.as_ref().is_some_and(|kv| kv.version == 1)
}
