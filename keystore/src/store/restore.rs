//! Restoring: what lies in the storage, a backup and what was seen become one keyring, which
//! everybody may follow. It never replaces, and is the one way to accept what a member refused.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Keystore, Open, open_with, seal_checked};
use crate::document::{Document, KeyringKey};
use crate::error::{Error, NotSuccessor, StorageError};
use crate::header::{Header, KeyringKeyId};
use crate::key::{KeyId, KeyState};
use crate::keyring::Keyring;
use crate::mark::Mark;
use crate::member::{self, MemberName};
use crate::merge::{self, Merge, Side};
use crate::root::Root;

/// What is restored, and what the operator accepts.
#[derive(Clone, Copy)]
pub struct Restore<'a> {
    /// The backup; or the very document that a member refused.
    pub from: &'a Document,
    /// Roots besides the configured ones: the recovery key.
    pub roots: &'a [&'a dyn Root],
    /// The keys that an audit found in use.
    pub needed: &'a [KeyId],
    /// The keys whose loss the operator typed out.
    pub accept_loss: &'a [KeyId],
    /// The keyring key that the operator typed out, where no proof leads to it.
    pub accept_keyring_key: Option<KeyringKeyId>,
}

/// What a restore made: a keyring without a primary key. Status and Encrypt are refused until the
/// fresh key, which is staged, is activated.
#[derive(Debug)]
pub struct Restored {
    /// The new document's revision.
    pub revision: u64,
    /// The members that were marked as removed: activation waits for those that come back.
    pub removed: Vec<MemberName>,
    /// Those that were not, and why: to be removed by name, or waited for.
    pub not_removed: Vec<(MemberName, Error)>,
}

/// What was there before.
struct Found<'a> {
    seen: Option<&'a Mark>,
    present: Option<Document>,
    held: Option<&'a KeyringKey>,
}

/// A document that was opened.
struct Opened {
    keyring: Keyring,
    key: KeyringKey,
    document: Document,
}

impl Opened {
    fn side(&self) -> Side<'_> {
        Side {
            keyring: &self.keyring,
            hash: self.document.hash(),
        }
    }

    fn key_id(&self) -> KeyringKeyId {
        self.document.header().keyring_key_id
    }
}

impl Keystore {
    /// Merges a document into what lies in the storage, or puts it there where nothing lies, and
    /// commits the result.
    ///
    /// # Errors
    /// [`crate::error::MergeError`] where the two do not merge; [`NotSuccessor::OtherKeyringKey`]
    /// where no proof leads from one keyring key to the other; a [`DocumentError`] where what lies
    /// in the storage is no document: it has to be moved away first. Nothing has changed then.
    ///
    /// [`DocumentError`]: crate::error::DocumentError
    pub async fn restore(&self, restore: Restore<'_>, now: Timestamp) -> Result<Restored, Error> {
        let mut slot = self.open.lock().await;
        let seen = self.last_seen(slot.as_ref(), now).await?;
        let present = match self.storage.load().await {
            Ok(bytes) => Some(Document::parse(bytes)?),
            Err(StorageError::Missing(_)) => None,
            Err(e) => return Err(e.into()),
        };
        let expected = present.as_ref().map(Document::hash);
        let held = slot.as_ref().map(|open| &open.key);
        let found = Found {
            seen: seen.as_ref(),
            present,
            held,
        };
        let (merged, key) = self.merged(&restore, found, now).await?;
        let document = seal_checked(&merged, &key)?;
        if let Some(seen) = &seen {
            seen.accepts_proven(&document)?;
        }
        let view = self.view_of(&merged, None)?;
        self.storage.commit(&document, expected).await?;
        let mut open = Open {
            keyring: Arc::new(merged.clone()),
            key,
            hash: document.hash(),
            mark: seen,
        };
        self.accept(&mut open, merged, view, &document, now).await;
        let restored = self.remove_all(&open, now).await;
        *slot = Some(open);
        Ok(restored)
    }

    /// The merged keyring, and the keyring key that it goes on under.
    async fn merged(
        &self,
        restore: &Restore<'_>,
        found: Found<'_>,
        now: Timestamp,
    ) -> Result<(Keyring, KeyringKey), Error> {
        let backup = self.open_with_any(restore.from, found.held, restore.roots);
        let backup = backup.await?;
        let mut known = self.known(found.seen).await?;
        let previous = found
            .present
            .as_ref()
            .map_or(restore.from.hash(), Document::hash);
        // Its very self, where a member refused it.
        let other = found
            .present
            .filter(|present| present.hash() != restore.from.hash());
        let present = match other {
            None => None,
            Some(document) => {
                // What does not open lends nothing but its ids, which must be somewhere.
                known.extend(states(document.header()));
                let opened = self.open_with_any(&document, found.held, restore.roots);
                opened.await.ok()
            }
        };
        let (base, other) = self.choose(backup, present, restore).await?;
        if let Some(seen) = found.seen {
            self.may_follow(seen, &base, other.as_ref(), restore)
                .await?;
        }
        let others: Vec<Side<'_>> = other.iter().map(Opened::side).collect();
        let merge = Merge {
            base: base.side(),
            others: &others,
            seen: &known,
            needed: restore.needed,
            accept_loss: restore.accept_loss,
            seen_revision: found.seen.map_or(0, |mark| mark.revision),
            seen_hash: found.seen.map(|mark| mark.hash),
            previous,
        };
        Ok((merge::merge(&merge, now)?, base.key))
    }

    /// The newest that this node knows of: what its mark says, or what is open here.
    async fn last_seen(&self, open: Option<&Open>, now: Timestamp) -> Result<Option<Mark>, Error> {
        let marked = match &self.mark {
            Some(file) => file.load().await?,
            None => None,
        };
        let opened = open.map(|open| Mark::of(open.keyring.header(), open.hash, None, now));
        Ok(marked
            .into_iter()
            .chain(opened)
            .max_by_key(|mark| mark.revision))
    }

    /// Which side's keyring key and slots stay: those of the storage, unless the backup is the newer
    /// one by the proofs, or by the operator's word.
    async fn choose(
        &self,
        backup: Opened,
        present: Option<Opened>,
        restore: &Restore<'_>,
    ) -> Result<(Opened, Option<Opened>), Error> {
        let Some(present) = present else {
            return Ok((backup, None));
        };
        let (old, new) = (backup.key_id(), present.key_id());
        let accepted = restore.accept_keyring_key;
        if accepted == Some(old) && old != new {
            return Ok((backup, Some(present)));
        }
        let forward = accepted == Some(new)
            || self
                .leads_to(&old, Some(&backup.key), &present.document)
                .await?;
        if forward {
            return Ok((present, Some(backup)));
        }
        match self
            .leads_to(&new, Some(&present.key), &backup.document)
            .await?
        {
            true => Ok((backup, Some(present))),
            false => Err(NotSuccessor::OtherKeyringKey.into()),
        }
    }

    /// Whether this node may go on under this keyring key.
    async fn may_follow(
        &self,
        seen: &Mark,
        base: &Opened,
        other: Option<&Opened>,
        restore: &Restore<'_>,
    ) -> Result<(), Error> {
        let accepted = restore.accept_keyring_key == Some(base.key_id());
        let held = other.map(|other| &other.key);
        let proven = accepted
            || self
                .leads_to(&seen.keyring_key_id, held, &base.document)
                .await?;
        match proven {
            true => Ok(()),
            false => Err(NotSuccessor::OtherKeyringKey.into()),
        }
    }

    /// What was seen here: by the mark, and in the headers of the documents that are kept.
    async fn known(&self, seen: Option<&Mark>) -> Result<Vec<(KeyId, KeyState)>, Error> {
        let mut known: Vec<_> = seen.map(|mark| mark.keys.clone()).unwrap_or_default();
        for (_, bytes) in self.storage.kept().await? {
            if let Ok(kept) = Document::parse(bytes) {
                known.extend(states(kept.header()));
            }
        }
        Ok(known)
    }

    async fn open_with_any(
        &self,
        document: &Document,
        held: Option<&KeyringKey>,
        roots: &[&dyn Root],
    ) -> Result<Opened, Error> {
        let header = document.header();
        let key = match held {
            Some(held) if held.id()? == header.keyring_key_id => held.copy()?,
            _ => self.unwrap_with(header, roots).await?,
        };
        Ok(Opened {
            keyring: document.open(&key)?,
            key,
            document: document.clone(),
        })
    }

    async fn unwrap_with(&self, header: &Header, roots: &[&dyn Root]) -> Result<KeyringKey, Error> {
        let configured = match self.unwrap(header).await {
            Ok(key) => return Ok(key),
            Err(e) => e,
        };
        for root in roots {
            if let Ok(key) = open_with(*root, header).await {
                return Ok(key);
            }
        }
        Err(configured)
    }

    /// Marks every member's record as removed; the members that run write theirs again.
    async fn remove_all(&self, open: &Open, now: Timestamp) -> Restored {
        let header = open.keyring.header();
        let mut restored = Restored {
            revision: header.revision,
            removed: Vec::new(),
            not_removed: Vec::new(),
        };
        // It is committed: from here on nothing may look as if it were not.
        let members = match self.storage.members().await {
            Ok(members) => members,
            Err(e) => {
                tracing::error!(error = %e, "the members are not marked as removed");
                return restored;
            }
        };
        for (name, _) in members {
            let put = async {
                let bytes = member::encode_removal(&name, now, &header.cluster_id, &open.key)?;
                Ok::<_, Error>(self.storage.put_member(&name, &bytes).await?)
            };
            match put.await {
                Ok(()) => restored.removed.push(name),
                Err(e) => restored.not_removed.push((name, e)),
            }
        }
        restored
    }
}

fn states(header: &Header) -> impl Iterator<Item = (KeyId, KeyState)> + '_ {
    header.keys.iter().map(|key| (key.id, key.state))
}
