//! What changed since an earlier audit, where etcd's history still reaches back to it.
//!
//! Nothing in etcd tells a cluster that went on from one that was restored from an old snapshot and
//! went on from there: revisions are counted on, and the cluster's id is the same. So an audit keeps
//! a mark of what was put at its pinned revision, values and all, and the next one looks whether
//! etcd's history still has the same there. Where it has, the events since are all that happened.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::bytes::Bytes;
use sha2::{Digest, Sha256};

use super::etcd::{Etcd, EtcdError, Event, KeyValue, Pin, Watched};
use super::ledger::Ledger;

/// The SHA-256 of what was put at a revision.
pub(super) type Mark = [u8; 32];

/// How much memory changes may take, in bytes. What is more is faster listed.
const MOST: usize = 16 * 1024 * 1024;
/// What a change takes besides its key and value.
const EACH: usize = 200;
/// How long nothing may come. Where the events that are waited for are not there, nothing does.
const PATIENCE: Duration = Duration::from_secs(3);
/// `mvccpb.Event.EventType.DELETE`
const DELETED: i32 = 1;

/// Under every key that changed, what is there now; none where it was deleted.
pub(super) type Changes = BTreeMap<Bytes, Option<KeyValue>>;

/// What changed up to the pinned revision. None where etcd's history does not tell: it is compacted,
/// another one, or too long.
///
/// # Errors
/// Where etcd does not answer as it should.
pub(super) async fn since(
    etcd: &Etcd,
    pin: Pin,
    earlier: &Ledger,
) -> Result<Option<Changes>, EtcdError> {
    let (Some(mark), from) = (earlier.mark(), earlier.head().revision) else {
        return Ok(None);
    };
    let mut watch = etcd.watch(from, false, false).await?;
    let (mut then, mut changes, mut size) = (Changes::new(), Changes::new(), 0);
    loop {
        let Ok(watched) = tokio::time::timeout(PATIENCE, watch.next()).await else {
            return Ok(None);
        };
        let (events, whole) = match watched {
            Ok(Watched::Events { events, whole }) => (events, whole),
            Ok(Watched::Compacted(_)) | Err(EtcdError::TooLong) => return Ok(None),
            Err(e) => return Err(e),
        };
        let last = events.last().map_or(0, revision);
        for event in events {
            let at = revision(&event);
            if at <= pin.revision {
                size += put(if at == from { &mut then } else { &mut changes }, event);
            }
        }
        if size > MOST {
            return Ok(None);
        }
        if last > pin.revision || whole && last == pin.revision {
            break;
        }
    }
    let mut marker = Marker::default();
    then.values().flatten().for_each(|kv| marker.add(kv));
    Ok((marker.finish() == Some(mark)).then_some(changes))
}

/// Keeps what is there after an event. Returns how much memory that takes.
fn put(changes: &mut Changes, event: Event) -> usize {
    let Some(kv) = event.kv else { return 0 };
    // A slice of the answer would keep all of it in memory.
    let key = Bytes::copy_from_slice(&kv.key);
    let value = Bytes::copy_from_slice(&kv.value);
    let size = EACH + 2 * key.len() + value.len();
    let now = (event.kind != DELETED).then(|| KeyValue {
        key: key.clone(),
        value,
        ..kv
    });
    changes.insert(key, now);
    size
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Makes a mark of what was put at one revision, given in the order of its keys.
#[derive(Debug, Default)]
pub(super) struct Marker(Option<Sha256>);

impl Marker {
    /// Adds what lies under a key since that revision.
    pub(super) fn add(&mut self, kv: &KeyValue) {
        let hash = self.0.get_or_insert_with(Sha256::new);
        for text in [&kv.key, &kv.value] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        for number in [kv.mod_revision, kv.create_revision, kv.version] {
            hash.update(number.to_be_bytes());
        }
    }

    /// The mark; none where nothing was put.
    pub(super) fn finish(self) -> Option<Mark> {
        self.0.map(|hash| hash.finalize().into())
    }
}
