//! The keystore: a storage, the roots that open it, and the snapshot that requests read.
//!
//! Every change goes the same way: build the next keyring, commit its document, write the mark,
//! swap the snapshot. A failure on the way leaves what was there.

mod destroy;
mod members;
mod rekey;
mod restore;
mod rotate;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;

pub use self::destroy::Dropped;
pub use self::members::new_instance;
pub use self::restore::{Restore, Restored};
use crate::document::{Document, KeyringKey};
use crate::error::{DocumentError, Error, NotSuccessor, StorageError};
use crate::header::{DocumentHash, Header};
use crate::keyring::Keyring;
use crate::mark::{Mark, MarkFile};
use crate::root::{self, Root};
use crate::snapshot::{Snapshot, View};
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
    /// restarts: that is for those who only read. A command that commits takes the mark of the
    /// member on its node.
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

    /// What is open, and the hash of its document.
    pub async fn opened(&self) -> Option<(Arc<Keyring>, DocumentHash)> {
        let open = self.open.lock().await;
        open.as_ref().map(|open| (open.keyring.clone(), open.hash))
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
        let next = change(&open.keyring)?;
        self.commit_next(open, next, None, now).await
    }

    /// Commits the successor of what is open, sealed under `new_key` or else under the one that it
    /// has. Nothing can fail once it is committed.
    async fn commit_next(
        &self,
        open: &mut Open,
        next: Keyring,
        new_key: Option<KeyringKey>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let revision = open.keyring.header().revision;
        let next = next.following(revision, open.hash)?;
        let document = seal_checked(&next, new_key.as_ref().unwrap_or(&open.key))?;
        if let Some(mark) = &open.mark {
            // Whoever has the key of the one that is open may give it a new one.
            mark.accepts_proven(&document)?;
        }
        let view = self.view_of(&next, None)?;
        self.storage.commit(&document, Some(open.hash)).await?;
        if let Some(key) = new_key {
            open.key = key;
        }
        self.accept(open, next, view, &document, now).await;
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
        match self.judge(document, None).await {
            Ok(seen) => {
                open.mark = seen;
                let view = self.view_of(&keyring, None)?;
                self.accept(&mut open, keyring, view, document, now).await;
            }
            Err(e) => self.show(self.view_of(&keyring, Some(decrypt_only_reason(e)?))?),
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
        let (keyring, new_key) = self.open_following(open, document).await?;
        let verdict = self.judge(document, Some(&open.key)).await;
        let why = match verdict {
            Ok(seen) => {
                open.mark = seen;
                self.take(open, keyring, new_key, document, now).await?;
                return Ok(Synced::Opened);
            }
            Err(e) => decrypt_only_reason(e)?,
        };
        let seen = Mark::of(open.keyring.header(), open.hash, None, now);
        if seen.accepts_proven(document)? == Standing::Same
            && self.decrypt_only() == Some(why.clone())
        {
            return Ok(Synced::Unchanged);
        }
        self.show(self.view_of(&keyring, Some(why))?);
        if let Some(key) = new_key {
            open.key = key;
        }
        open.hash = document.hash();
        open.keyring = Arc::new(keyring);
        Ok(Synced::Opened)
    }

    /// What the mark remembers, if it lets this document be used.
    async fn judge(
        &self,
        document: &Document,
        held: Option<&KeyringKey>,
    ) -> Result<Option<Mark>, Error> {
        let seen = match &self.mark {
            Some(file) => file.load().await?,
            None => None,
        };
        if let Some(mark) = &seen {
            self.check_successor(mark, document, held).await?;
        }
        Ok(seen)
    }

    /// Whether this opened document may follow what the mark has seen.
    async fn check_successor(
        &self,
        mark: &Mark,
        document: &Document,
        held: Option<&KeyringKey>,
    ) -> Result<(), Error> {
        match mark.accepts(document) {
            Err(NotSuccessor::OtherKeyringKey)
                if self.leads_to(&mark.keyring_key_id, held, document).await? =>
            {
                mark.accepts_proven(document)?;
            }
            verdict => drop(verdict?),
        }
        Ok(())
    }

    /// Why Status and Encrypt are refused, while only they are.
    fn decrypt_only(&self) -> Option<Arc<str>> {
        match &**self.view.load() {
            View::Open(snapshot) => snapshot.decrypt_only.clone(),
            View::Closed(_) => None,
        }
    }

    /// Opens a document that came while another was open.
    async fn follow(
        &self,
        open: &mut Open,
        document: &Document,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (keyring, new_key) = self.open_following(open, document).await?;
        let seen = Mark::of(open.keyring.header(), open.hash, None, now);
        let mark = open.mark.as_ref().unwrap_or(&seen);
        if let Err(e) = self.check_successor(mark, document, Some(&open.key)).await
            && !self.was_accepted_here(document).await
        {
            return Err(e);
        }
        self.take(open, keyring, new_key, document, now).await
    }

    /// Opens what follows: by the pinned keyring key, so that no root is asked; or by a new one, which
    /// is believed only after the chain of proofs was walked.
    async fn open_following(
        &self,
        open: &Open,
        document: &Document,
    ) -> Result<(Keyring, Option<KeyringKey>), Error> {
        let pinned = open.keyring.header().keyring_key_id;
        if document.header().keyring_key_id == pinned {
            return Ok((document.open(&open.key)?, None));
        }
        let proven = self.leads_to(&pinned, Some(&open.key), document).await?;
        if !proven && !self.was_accepted_here(document).await {
            return Err(NotSuccessor::OtherKeyringKey.into());
        }
        let key = self.unwrap(document.header()).await?;
        Ok((document.open(&key)?, Some(key)))
    }

    /// Whether a command on this node took this very document: it left it in the mark.
    async fn was_accepted_here(&self, document: &Document) -> bool {
        let Some(file) = &self.mark else { return false };
        matches!(file.load().await, Ok(Some(mark)) if mark.hash == document.hash())
    }

    /// From now on this keyring is used.
    async fn take(
        &self,
        open: &mut Open,
        keyring: Keyring,
        new_key: Option<KeyringKey>,
        document: &Document,
        now: Timestamp,
    ) -> Result<(), Error> {
        let view = self.view_of(&keyring, None)?;
        if let Some(key) = new_key {
            open.key = key;
        }
        self.accept(open, keyring, view, document, now).await;
        Ok(())
    }

    /// What was committed or accepted becomes what is used; the mark remembers it.
    async fn accept(
        &self,
        open: &mut Open,
        keyring: Keyring,
        view: View,
        document: &Document,
        now: Timestamp,
    ) {
        let mark = Mark::of(document.header(), document.hash(), open.mark.as_ref(), now);
        if let Some(file) = &self.mark
            && let Err(e) = file.store(mark.clone()).await
        {
            // Serving goes on: a full disk must not stop a control plane. A restart knows less.
            tracing::error!(error = %e, "the mark was not written; a restart could not tell an older keyring");
        }
        self.show(view);
        open.mark = Some(mark);
        open.hash = document.hash();
        open.keyring = Arc::new(keyring);
    }

    fn show(&self, view: View) {
        self.view.store(Arc::new(view));
    }

    /// What requests will see. Made before anything is committed: what cannot be used is not
    /// committed.
    fn view_of(&self, keyring: &Keyring, decrypt_only: Option<Arc<str>>) -> Result<View, Error> {
        let self_check_failed = self.self_check_failed.clone();
        let snapshot = Snapshot::new(keyring, decrypt_only, self_check_failed)?;
        Ok(View::Open(Arc::new(snapshot)))
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
            "on a new cluster run claviger init, otherwise claviger restore with the newest copy or backup"
        }
        Error::NoSlotOpens(_) => "bring a root back; claviger slot test shows which slots open",
        Error::Document(DocumentError::NewerFormat(_)) => "install that one on this node too",
        Error::Document(_) => {
            "move it away, then run claviger restore with the newest good keyring.<revision> or backup"
        }
        Error::NotSuccessor(NotSuccessor::OtherKeyringKey) => {
            "put the keyring back that this node had; if its keyring key was changed on purpose, \
             run claviger restore with --accept-keyring-key"
        }
        Error::NotSuccessor(_) => "put the keyring back that this node had",
        _ => "mend that; the keyring is read again every second",
    };
    format!("{error}; {help}")
}
