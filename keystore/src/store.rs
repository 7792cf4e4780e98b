//! The keystore: a storage, the roots that open it, and the snapshot that requests read.
//!
//! Every change goes the same way: build the next keyring, commit its document, write the mark,
//! swap the snapshot. A failure on the way leaves what was there.

mod members;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;

pub use self::members::new_instance;
use crate::document::{Document, KeyringKey};
use crate::envelope::SeedKey;
use crate::error::{DocumentError, Error, NotSuccessor, StorageError};
use crate::header::{DocumentHash, Header};
use crate::key::{KeyInfo, KeyState};
use crate::keyring::Keyring;
use crate::mark::{Mark, MarkFile};
use crate::root::{self, Root};
use crate::snapshot::{Snapshot, SnapshotKey, View};
use crate::storage::Storage;
use crate::successor::Standing;

/// Requests that name unknown keys cause at most one read of the storage in this time.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The keys of one cluster, on one node.
pub struct Keystore {
    storage: Box<dyn Storage>,
    roots: Vec<Box<dyn Root>>,
    mark: Option<MarkFile>,
    view: ArcSwap<View>,
    open: Mutex<Option<Open>>,
    /// When the storage was last read for an unknown key, and whether that worked.
    refreshed: Mutex<Option<(Instant, bool)>>,
    /// Set for good once a sealed seed did not open again.
    self_check_failed: Arc<AtomicBool>,
}

/// What stands behind the current snapshot.
struct Open {
    keyring: Arc<Keyring>,
    key: KeyringKey,
    hash: DocumentHash,
    mark: Option<Mark>,
}

/// What a look at the storage brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// The document is the one that was open already.
    Unchanged,
    /// Another document is open now.
    Opened,
}

/// What one root did for the keyring.
#[derive(Debug)]
pub struct RootReport {
    /// The root's name in the configuration.
    pub name: String,
    /// Whether it unwrapped its slot.
    pub result: Result<(), Error>,
}

impl Keystore {
    /// A keystore that is not open yet. Without a mark nothing that was seen is remembered across
    /// restarts: that is for commands, not for members.
    pub fn new(
        storage: Box<dyn Storage>,
        roots: Vec<Box<dyn Root>>,
        mark: Option<MarkFile>,
    ) -> Self {
        Self {
            storage,
            roots,
            mark,
            view: ArcSwap::from_pointee(View::Closed("the keyring is not open yet".into())),
            open: Mutex::new(None),
            refreshed: Mutex::new(None),
            self_check_failed: Arc::default(),
        }
    }

    /// What a request sees: one atomic load.
    pub fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// The keyring that is open, if one is.
    pub async fn keyring(&self) -> Option<Arc<Keyring>> {
        self.open
            .lock()
            .await
            .as_ref()
            .map(|open| open.keyring.clone())
    }

    /// Reads the storage and opens what is new there. While nothing is open, a failure is what
    /// every request is told; later, the last good keyring stays.
    pub async fn sync(&self, now: Timestamp) -> Result<Synced, Error> {
        let mut open = self.open.lock().await;
        let synced = self.sync_locked(&mut open, now).await;
        if let (Err(e), None) = (&synced, &*open) {
            self.view
                .store(Arc::new(View::Closed(closed_reason(e).into())));
        }
        synced
    }

    /// Reads the storage afresh because a request named an unknown key, and says whether that worked.
    /// Calls that come while one is under way, or right after it, share its result.
    pub async fn refresh(&self, now: Timestamp) -> bool {
        let mut last = self.refreshed.lock().await;
        if let Some((at, read)) = *last
            && at.elapsed() < REFRESH_INTERVAL
        {
            return read;
        }
        let synced = self.sync(now).await;
        if let Err(e) = &synced {
            tracing::warn!(error = %e, "reading the keyring afresh for an unknown key id failed");
        }
        // Only now: those who waited for a slow read share it, and one that was given up is none.
        *last = Some((Instant::now(), synced.is_ok()));
        synced.is_ok()
    }

    /// Waits until a look at the storage may bring something new.
    pub async fn changed(&self) {
        if self.decrypt_only().is_some() {
            // The mark too may change, and nobody watches it.
            tokio::time::sleep(REFRESH_INTERVAL).await;
        } else {
            self.storage.changed().await;
        }
    }

    /// Commits a change of the open keyring, and then uses it.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] where no keyring is open, or only to decrypt; [`Error::NotSuccessor`]
    /// where no member could follow the change; [`StorageError::Conflict`] where somebody else was
    /// first. Nothing has changed then, nor after any other error but
    /// [`StorageError::DurabilityUnknown`]; what that one is about is not used.
    pub async fn commit(
        &self,
        now: Timestamp,
        change: impl FnOnce(&Keyring) -> Result<Keyring, Error>,
    ) -> Result<(), Error> {
        let mut slot = self.open.lock().await;
        let open = self.changeable(&mut slot)?;
        let revision = open.keyring.header().revision;
        let next = change(&open.keyring)?.following(revision, open.hash)?;
        let document = seal_checked(&next, &open.key)?;
        if let Some(mark) = &open.mark {
            mark.accepts(&document)?;
        }
        self.storage.commit(&document, Some(open.hash)).await?;
        self.accept(open, next, &document, now).await;
        Ok(())
    }

    /// What a change may start from. An older keyring than one that was seen is not: its successor
    /// would be a fork.
    fn changeable<'a>(&self, slot: &'a mut Option<Open>) -> Result<&'a mut Open, Error> {
        match (&**self.view.load(), slot) {
            (View::Open(snapshot), Some(open)) => match &snapshot.decrypt_only {
                None => Ok(open),
                Some(why) => Err(Error::ReadOnly(why.clone())),
            },
            (View::Closed(why), _) => Err(Error::ReadOnly(why.clone())),
            (View::Open(_), None) => Err(StorageError::Missing(self.storage.place()).into()),
        }
    }

    /// Unwraps each root's slot again, in the background: whether the keyring could be opened now.
    pub async fn check_roots(&self) -> Vec<RootReport> {
        let Some(keyring) = self.keyring().await else {
            return Vec::new();
        };
        let mut reports = Vec::with_capacity(self.roots.len());
        for root in &self.roots {
            let result = open_with(root.as_ref(), keyring.header()).await.map(drop);
            reports.push(RootReport {
                name: root.name().to_owned(),
                result,
            });
        }
        reports
    }

    async fn sync_locked(&self, slot: &mut Option<Open>, now: Timestamp) -> Result<Synced, Error> {
        let document = Document::parse(self.storage.load().await?)?;
        match slot {
            None => *slot = Some(self.open_first(&document, now).await?),
            Some(open) if self.decrypt_only().is_some() => {
                return self.judge_again(open, &document, now).await;
            }
            Some(open) if open.hash == document.hash() => return Ok(Synced::Unchanged),
            Some(open) => self.follow(open, &document, now).await?,
        }
        Ok(Synced::Opened)
    }

    /// Opens the first document after the start. An older one than the mark's is used to decrypt
    /// only: what it lacks may be in use. So is any other while the mark cannot be read, for nobody
    /// can tell whether it is an old one.
    async fn open_first(&self, document: &Document, now: Timestamp) -> Result<Open, Error> {
        let key = self.unwrap(document.header()).await?;
        let keyring = document.open(&key)?;
        let mut open = Open {
            keyring: Arc::new(keyring.clone()),
            key,
            hash: document.hash(),
            mark: None,
        };
        match self.judge(document).await {
            Ok(seen) => {
                open.mark = seen;
                self.accept(&mut open, keyring, document, now).await;
            }
            Err(e) => self.swap(&keyring, Some(decrypt_only_reason(e)?))?,
        }
        Ok(open)
    }

    /// Looks whether what only decrypts may do more by now: the newest document is back, or the
    /// mark was mended.
    async fn judge_again(
        &self,
        open: &mut Open,
        document: &Document,
        now: Timestamp,
    ) -> Result<Synced, Error> {
        let keyring = open_pinned(document, &open.key)?;
        match self.judge(document).await {
            Ok(seen) => {
                open.mark = seen;
                self.accept(open, keyring, document, now).await;
                Ok(Synced::Opened)
            }
            Err(e) => {
                let why = decrypt_only_reason(e)?;
                let seen = Mark::of(open.keyring.header(), open.hash, None, now);
                if seen.accepts(document)? == Standing::Same
                    && self.decrypt_only() == Some(why.clone())
                {
                    return Ok(Synced::Unchanged);
                }
                self.swap(&keyring, Some(why))?;
                open.hash = document.hash();
                open.keyring = Arc::new(keyring);
                Ok(Synced::Opened)
            }
        }
    }

    /// What the mark remembers, if it lets this document be used.
    async fn judge(&self, document: &Document) -> Result<Option<Mark>, Error> {
        let seen = match &self.mark {
            Some(file) => file.load().await?,
            None => None,
        };
        if let Some(mark) = &seen {
            mark.accepts(document)?;
        }
        Ok(seen)
    }

    /// Why Status and Encrypt are refused, while only they are.
    fn decrypt_only(&self) -> Option<Arc<str>> {
        match &**self.view.load() {
            View::Open(snapshot) => snapshot.decrypt_only.clone(),
            View::Closed(_) => None,
        }
    }

    /// Opens a document that came while another was open: by the pinned keyring key, so no root is
    /// asked.
    async fn follow(
        &self,
        open: &mut Open,
        document: &Document,
        now: Timestamp,
    ) -> Result<(), Error> {
        let keyring = open_pinned(document, &open.key)?;
        let seen = Mark::of(open.keyring.header(), open.hash, None, now);
        let mark = open.mark.as_ref().unwrap_or(&seen);
        mark.accepts(document)?;
        self.accept(open, keyring, document, now).await;
        Ok(())
    }

    /// What was committed or accepted becomes what is used; the mark remembers it.
    async fn accept(&self, open: &mut Open, keyring: Keyring, document: &Document, now: Timestamp) {
        let mark = Mark::of(document.header(), document.hash(), open.mark.as_ref(), now);
        if let Some(file) = &self.mark
            && let Err(e) = file.store(mark.clone()).await
        {
            // Serving goes on: a full disk must not stop a control plane. A restart knows less.
            tracing::error!(error = %e, "the mark was not written; a restart could not tell an older keyring");
        }
        if let Err(e) = self.swap(&keyring, None) {
            tracing::error!(error = %e, "the new keyring is not used");
            return;
        }
        open.mark = Some(mark);
        open.hash = document.hash();
        open.keyring = Arc::new(keyring);
    }

    fn swap(&self, keyring: &Keyring, decrypt_only: Option<Arc<str>>) -> Result<(), Error> {
        let header = keyring.header();
        let mut keys = BTreeMap::new();
        for info in &header.keys {
            let seed_key = match (info.state, keyring.kek(&info.id)) {
                (KeyState::Staged | KeyState::Primary | KeyState::Retired, Some(kek)) => {
                    Some(SeedKey::new(kek, &info.id, &header.cluster_id.0)?)
                }
                _ => None,
            };
            keys.insert(
                info.id,
                SnapshotKey {
                    state: info.state,
                    since: since(info),
                    seed_key,
                },
            );
        }
        let snapshot = Snapshot {
            revision: header.revision,
            primary: keyring.primary(),
            keys,
            decrypt_only,
            self_check_failed: self.self_check_failed.clone(),
        };
        self.view.store(Arc::new(View::Open(Arc::new(snapshot))));
        Ok(())
    }

    /// The keyring key, from the first root in the configuration's order that opens a slot.
    async fn unwrap(&self, header: &Header) -> Result<KeyringKey, Error> {
        let mut tried = Vec::new();
        for root in &self.roots {
            match open_with(root.as_ref(), header).await {
                Ok(key) => return Ok(key),
                Err(e) => tried.push(e.to_string()),
            }
        }
        Err(Error::NoSlotOpens(tried))
    }
}

/// Makes a cluster's first keyring, with one slot for each root, and commits it.
///
/// # Errors
/// [`StorageError::Exists`] where there is one.
pub async fn init(
    storage: &dyn Storage,
    roots: &[&dyn Root],
    cluster_name: &str,
    now: Timestamp,
) -> Result<Document, Error> {
    match storage.load().await {
        Err(StorageError::Missing(_)) => {}
        Ok(_) => return Err(StorageError::Exists(storage.place()).into()),
        Err(e) => return Err(e.into()),
    }
    let key = KeyringKey::generate()?;
    let keyring = Keyring::create(cluster_name, key.id()?, now)?;
    let mut slots = Vec::with_capacity(roots.len());
    for root in roots {
        slots.push(root::make_slot(*root, &key, &keyring.header().cluster_id, now).await?);
    }
    let document = seal_checked(&keyring.with_slots(slots)?, &key)?;
    storage.commit(&document, None).await.map_err(|e| match e {
        StorageError::Conflict => StorageError::Exists(storage.place()),
        other => other,
    })?;
    Ok(document)
}

/// The keyring key from this root's slot.
pub async fn open_with(root: &dyn Root, header: &Header) -> Result<KeyringKey, Error> {
    let mut last = None;
    for slot in header.slots.iter().filter(|slot| root::matches(root, slot)) {
        match root::open_slot(root, slot, &header.cluster_id, &header.keyring_key_id).await {
            Ok(key) => return Ok(key),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| {
        Error::NoSlotOpens(vec![format!(
            "the keyring has no {} slot {}",
            root.kind(),
            root.name()
        )])
    }))
}

/// Seals a keyring, and opens the result again before anybody relies on it.
fn seal_checked(keyring: &Keyring, key: &KeyringKey) -> Result<Document, Error> {
    let document = Document::parse(Document::seal(keyring, key)?.as_bytes().to_vec())?;
    document.open(key)?;
    Ok(document)
}

/// When a key entered its state.
fn since(info: &KeyInfo) -> Option<Timestamp> {
    match info.state {
        KeyState::Staged => Some(info.created),
        KeyState::Primary => info.activated,
        KeyState::Retired => info.retired,
        KeyState::Disabled => info.disabled,
        KeyState::Destroyed => info.destroyed,
    }
}

/// Opens a document by the keyring key of the one that is open.
fn open_pinned(document: &Document, key: &KeyringKey) -> Result<Keyring, Error> {
    document.open(key).map_err(|e| match e {
        Error::Document(DocumentError::OtherKeyringKey) => NotSuccessor::OtherKeyringKey.into(),
        other => other,
    })
}

/// What Status and Encrypt are told while only Decrypt is served: the cause, and what helps. Any
/// other judgement of a document leaves it closed.
fn decrypt_only_reason(judgement: Error) -> Result<Arc<str>, Error> {
    let help = match &judgement {
        Error::NotSuccessor(NotSuccessor::Older { .. }) => "put the newest keyring back",
        Error::Mark { .. } => "if this keyring is the newest, remove the mark",
        _ => return Err(judgement),
    };
    Ok(format!("{judgement}; {help}").into())
}

/// What every request is told while nothing is open: the cause, and what helps.
fn closed_reason(error: &Error) -> String {
    let help = match error {
        Error::Storage(StorageError::Missing(_)) => {
            "on a new cluster run claviger init, otherwise put a copy of the keyring back"
        }
        Error::NoSlotOpens(_) => "bring a root back; claviger slot test shows which slots open",
        Error::Document(DocumentError::NewerFormat(_)) => "install that one on this node too",
        Error::Document(_) => "put the newest good keyring.<revision> or a backup back",
        Error::NotSuccessor(_) => "put the keyring back that this node had",
        _ => "mend that; the keyring is read again every second",
    };
    format!("{error}; {help}")
}
