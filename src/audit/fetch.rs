//! Reading every key of etcd page by page, or every key that changed.

use std::iter::Peekable;

use prost::bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::etcd::{Etcd, EtcdError, KeyStream, KeyValue, Page, Pin};
use super::keyspace::ScanError;
use super::ledger::{Entries, KeyState};
use super::object::Protection;

/// How long a page should be.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// How many keys a page has at most. etcd counts what is left for every page, so few are better.
const MAX_KEYS: usize = 10_000;
/// How many keys the first page has, when nothing is known of their size.
const FIRST_KEYS: usize = 500;
/// How many changed values are read at once.
const CHANGED_AT_ONCE: usize = 128;

/// One key for the thread that counts.
pub(super) enum Item {
    /// One that was read.
    Read(KeyValue),
    /// One that an earlier audit read.
    Known(Known),
}

/// A key that is as an earlier audit saw it.
pub(super) struct Known {
    pub(super) key: Bytes,
    pub(super) state: KeyState,
    /// What protects it; none for what is no object.
    pub(super) protection: Option<Protection>,
}

/// Reads every key with its value.
pub(super) async fn all(
    etcd: &Etcd,
    pin: Pin,
    items: &mpsc::Sender<Vec<Item>>,
) -> Result<(), ScanError> {
    let mut pages = Pages::new(etcd, pin, false).await?;
    while let Some(kvs) = pages.next().await? {
        send(items, kvs.into_iter().map(Item::Read).collect()).await?;
    }
    Ok(())
}

/// Lists every key, which etcd does from its index, and reads the values of those that are not as
/// they were.
pub(super) async fn changed(
    etcd: &Etcd,
    pin: Pin,
    earlier: Entries,
    items: &mpsc::Sender<Vec<Item>>,
) -> Result<(), ScanError> {
    let mut earlier = Earlier {
        entries: earlier.peekable(),
    };
    let mut pages = Pages::new(etcd, pin, true).await?;
    while let Some(kvs) = pages.next().await? {
        let mut batch = Batch::default();
        for kv in kvs {
            match earlier.same(&kv)? {
                Some(known) => batch.items.push(Item::Known(known)),
                None => {
                    batch.changed.push(kv.key.clone());
                    batch.items.push(Item::Read(kv));
                }
            }
            if batch.changed.len() == CHANGED_AT_ONCE {
                send(items, std::mem::take(&mut batch).read(etcd, pin).await?).await?;
            }
        }
        send(items, batch.read(etcd, pin).await?).await?;
    }
    Ok(())
}

async fn send(items: &mpsc::Sender<Vec<Item>>, page: Vec<Item>) -> Result<(), ScanError> {
    // Where nobody receives, the counting thread ended with an error of its own, which is reported.
    items.send(page).await.map_err(|_| ScanError::Ended)
}

/// Keys of which some have no value yet.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    changed: Vec<Bytes>,
}

impl Batch {
    async fn read(mut self, etcd: &Etcd, pin: Pin) -> Result<Vec<Item>, EtcdError> {
        let mut values = etcd.values(&self.changed, pin.revision).await?.into_iter();
        for item in &mut self.items {
            if let Item::Read(kv) = item {
                match values.next() {
                    Some(value) if value.key == kv.key => *kv = value,
                    _ => {
                        let message = "other keys are read than were listed".to_owned();
                        return Err(EtcdError::Contradiction(message));
                    }
                }
            }
        }
        Ok(self.items)
    }
}

/// An earlier audit's objects, merged with keys in the same order.
struct Earlier {
    entries: Peekable<Entries>,
}

impl Earlier {
    /// The object under this key, if it has not changed since.
    fn same(&mut self, kv: &KeyValue) -> Result<Option<Known>, ScanError> {
        loop {
            let entry = match self.entries.peek() {
                None => return Ok(None),
                Some(Ok(entry)) if entry.key[..] > kv.key[..] => return Ok(None),
                Some(_) => self.entries.next().transpose()?,
            };
            if let Some(entry) = entry.filter(|entry| entry.key[..] == kv.key[..]) {
                let same = entry.state == KeyState::of(kv);
                return Ok(same.then_some(Known {
                    key: kv.key.clone(),
                    state: entry.state,
                    protection: entry.protection,
                }));
            }
        }
    }
}

/// All pages of one revision: as etcd 3.7 sends them in one stream, else asked for one by one.
struct Pages<'a> {
    etcd: &'a Etcd,
    revision: i64,
    keys_only: bool,
    keys: usize,
    stream: Option<KeyStream>,
    start: Option<Bytes>,
}

impl<'a> Pages<'a> {
    async fn new(etcd: &'a Etcd, pin: Pin, keys_only: bool) -> Result<Self, EtcdError> {
        let stream = match etcd.stream(pin.revision, keys_only).await {
            Err(EtcdError::Unknown) => None,
            stream => Some(stream?),
        };
        Ok(Self {
            etcd,
            revision: pin.revision,
            keys_only,
            keys: if keys_only { MAX_KEYS } else { FIRST_KEYS },
            stream,
            start: Some(Bytes::new()),
        })
    }

    /// The next keys; none after the last.
    async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, EtcdError> {
        if let Some(stream) = &mut self.stream {
            match stream.next().await {
                // Objects that are much larger than those before them: in small pages, then.
                Err(EtcdError::TooLong | EtcdError::Unknown) => self.stream = None,
                kvs => {
                    let kvs = kvs?;
                    if let Some(last) = kvs.as_ref().and_then(|kvs| kvs.last()) {
                        self.start = Some(after(&last.key));
                    }
                    return Ok(kvs);
                }
            }
        }
        let Some(start) = self.start.take() else {
            return Ok(None);
        };
        let page = self.page(&start).await?;
        self.start = match page.kvs.last() {
            Some(last) if page.more => Some(after(&last.key)),
            None if page.more => {
                let message = "a page is empty and is not the last".to_owned();
                return Err(EtcdError::Contradiction(message));
            }
            _ => None,
        };
        self.learn(&page.kvs);
        Ok(Some(page.kvs))
    }

    async fn page(&mut self, start: &Bytes) -> Result<Page, EtcdError> {
        loop {
            let page = self
                .etcd
                .page(start.clone(), self.keys, self.revision, self.keys_only);
            match page.await {
                Err(EtcdError::TooLong) if self.keys > 1 => self.keys = (self.keys / 8).max(1),
                page => return page,
            }
        }
    }

    /// How many keys of this size fit into a page.
    fn learn(&mut self, kvs: &[KeyValue]) {
        let len = |kv: &KeyValue| kv.key.len() + kv.value.len();
        let bytes: usize = kvs.iter().map(len).sum();
        let fit = PAGE_BYTES * kvs.len() / bytes.max(1);
        // The next objects may be of another kind, so it grows in steps.
        self.keys = fit.clamp(1, MAX_KEYS).min(4 * self.keys);
    }
}

/// The first key that can follow this one.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.extend_from_slice(&[0]);
    next.freeze()
}
