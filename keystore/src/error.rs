//! What can go wrong with keys at rest, each cause by its own name.
//!
//! Messages say what was wrong and, where it is always the same, what helps. Who asked adds what
//! was being done. No message ever holds key bytes.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::key_id::{KeyId, KeyState};
use crate::limits::{MAX_DOCUMENT_LEN, MAX_KEYS, MAX_MEMBER_LEN};

/// Any failure of this crate outside the request path (which has [`crate::snapshot::Refusal`]).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No memory for a secret.
    #[error("no memory for a secret")]
    OutOfMemory,
    /// The operating system's random generator failed.
    #[error("the operating system's random generator failed")]
    Random,
    /// A recovery key that is not 12 groups of five, or whose checksum is wrong.
    #[error("{0}")]
    RecoveryKey(RecoveryKeyError),
    /// The document's bytes are not one.
    #[error("the keyring document {0}")]
    Document(#[from] DocumentError),
    /// A change of the keyring that is not legal.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A document that does not follow from the one that was seen before.
    #[error(transparent)]
    NotSuccessor(#[from] NotSuccessor),
    /// Keyrings that do not merge.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// One root.
    #[error("root {name}: {source}")]
    Root {
        /// The root's name in the configuration.
        name: String,
        /// What it said.
        source: RootError,
    },
    /// A change of a keyring that is not open, or only to decrypt.
    #[error("the keyring cannot be changed now: {0}")]
    ReadOnly(
        /// What every request that is refused meanwhile is told.
        std::sync::Arc<str>,
    ),
    /// A slot whose root is not there, when all slots have to be wrapped anew.
    #[error("slot {slot} cannot be wrapped anew: {}; bring its root or drop the slot", .tried.join("; "))]
    SlotStays {
        /// The slot's kind and name.
        slot: String,
        /// One sentence for each root that was tried.
        tried: Vec<String>,
    },
    /// No configured root opened any slot.
    #[error("no slot opens: {}", .0.join("; "))]
    NoSlotOpens(
        /// One sentence for each slot or root that was tried.
        Vec<String>,
    ),
    /// A member's name or record.
    #[error("the record of member {name} {source}")]
    Member {
        /// The member.
        name: String,
        /// What was wrong with it.
        source: MemberError,
    },
    /// The mark beside the member.
    #[error("the mark {path}: {cause}", path = path.display())]
    Mark {
        /// Where it lies.
        path: PathBuf,
        /// What was wrong with it.
        cause: String,
    },
}

/// Why a recovery key's text was not read.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum RecoveryKeyError {
    /// Not 60 symbols of Crockford's base32.
    #[error("a recovery key is 12 groups of five letters and digits")]
    Malformed,
    /// A symbol was mistyped.
    #[error("the recovery key's checksum does not match: a letter or digit was mistyped")]
    Checksum,
}

/// Why bytes are no member's record, or a text is no member's name.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
#[non_exhaustive]
pub enum MemberError {
    /// A name that could be mistaken for something else in a path.
    #[error(
        "has no good name: 1 to 128 letters, digits, dots, dashes or underscores, \
         a letter or digit first"
    )]
    Name,
    /// Longer than any record may be.
    #[error("has more than {max} bytes", max = MAX_MEMBER_LEN)]
    TooLong,
    /// It does not end as every record does.
    #[error("does not end with a MAC")]
    NoMac,
    /// Written under another keyring key, or changed since.
    #[error("was changed, or was written under another keyring key")]
    Mac,
    /// Not the JSON that it should be.
    #[error("cannot be read: {0}")]
    Malformed(String),
    /// Another member's record, copied here.
    #[error("is that of {0}")]
    OtherName(String),
}

/// Why bytes are no keyring document.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
#[non_exhaustive]
pub enum DocumentError {
    /// Longer than any document may be.
    #[error("has {0} bytes; at most {max} are read", max = MAX_DOCUMENT_LEN)]
    TooLarge(usize),
    /// Not two lines of text.
    #[error("is not two lines of text, a JSON header and a base64 body; it may be torn or empty")]
    NotTwoLines,
    /// The header is not the JSON that it should be.
    #[error("has a header that cannot be read: {0}")]
    Header(String),
    /// The header is JSON, but not byte for byte what Claviger writes.
    #[error("has a header that is not in its canonical form")]
    NotCanonical,
    /// Written by a newer Claviger.
    #[error("has format {0}; this Claviger reads format 1, a newer one is needed")]
    NewerFormat(u64),
    /// The body is not padded base64 of the right length.
    #[error("has a body that is not base64 of {0} keys")]
    Body(usize),
    /// The tag did not verify: another key, or changed bytes.
    #[error(
        "does not open with this keyring key: it was changed, or it belongs to another keyring"
    )]
    Authentication,
    /// The keyring key that a slot gave is not the one that the header names.
    #[error("is sealed with another keyring key than the one that was unwrapped")]
    OtherKeyringKey,
    /// A KEK whose id is not the one that the header gives it.
    #[error("holds bytes for {0} that belong to another key id")]
    ForeignKek(KeyId),
    /// Two entries for one id.
    #[error("lists {0} twice")]
    DuplicateKey(KeyId),
    /// Two entries for one slot id.
    #[error("lists slot {0} twice")]
    DuplicateSlot(String),
    /// More than one primary.
    #[error("has more than one primary key")]
    TwoPrimaries,
    /// Too many KEKs.
    #[error("has {0} keys; at most {max} are kept", max = MAX_KEYS)]
    TooManyKeys(usize),
    /// A field whose value cannot be.
    #[error("has an impossible value: {0}")]
    Value(&'static str),
}

/// Why a change of the keyring is not legal.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
#[non_exhaustive]
pub enum ChangeError {
    /// There is no such key.
    #[error("the keyring has no key {0}")]
    UnknownKey(KeyId),
    /// Not an edge of the states' graph.
    #[error("{id} is {from}, and a {from} key cannot become {to}")]
    Illegal {
        /// The key.
        id: KeyId,
        /// Its state.
        from: KeyState,
        /// The state asked for.
        to: KeyState,
    },
    /// A rotation is under way.
    #[error("{0} is staged already: a rotation is under way")]
    AlreadyStaged(KeyId),
    /// No room for another key.
    #[error("the keyring has {max} keys already", max = MAX_KEYS)]
    Full,
    /// The revision counter is at its end.
    #[error("the revision cannot grow any more")]
    RevisionExhausted,
    /// There is no such slot.
    #[error("the keyring has no slot {0}")]
    UnknownSlot(String),
    /// The last slot cannot go.
    #[error("a keyring needs at least one slot")]
    NoSlot,
}

/// Why keyrings are not merged.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
#[non_exhaustive]
pub enum MergeError {
    /// Two clusters' keyrings.
    #[error("the keyrings belong to different clusters ({one} and {other})")]
    OtherCluster {
        /// The one's cluster id, in hex.
        one: String,
        /// The other's.
        other: String,
    },
    /// Other bytes under one id: one of them was made up.
    #[error("the keyrings hold different bytes for {0}")]
    OtherBytes(KeyId),
    /// Keys that are known, but whose bytes are in none of the keyrings.
    #[error(
        "no keyring here holds the bytes of {}: what they protect would be lost; find another copy, \
         or type the loss out",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Lost(Vec<KeyId>),
}

/// Why a document is not a successor of the one that this member has seen.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
#[non_exhaustive]
pub enum NotSuccessor {
    /// An older document was put back.
    #[error(
        "the keyring has revision {found}, but revision {seen} was seen here before: \
         an older copy was put back"
    )]
    Older {
        /// The revision that was seen.
        seen: u64,
        /// The revision that was found.
        found: u64,
    },
    /// Two documents of one revision, or one that does not name its predecessor.
    #[error("the keyring forked: revision {0} is not the one that was seen here before")]
    Forked(u64),
    /// Another cluster's keyring.
    #[error("the keyring belongs to another cluster ({found}, not {seen})")]
    OtherCluster {
        /// The cluster id that was seen, in hex.
        seen: String,
        /// The cluster id that was found, in hex.
        found: String,
    },
    /// Another keyring key, and no chain of proofs leads to it.
    #[error(
        "the keyring is sealed with another keyring key than the one that was seen here before"
    )]
    OtherKeyringKey,
    /// A key that was there is gone.
    #[error("the keyring lost {0}, which was seen here before")]
    KeyLost(KeyId),
    /// A key that moved against its life.
    #[error("{id} was {seen} and cannot become {found}")]
    Backwards {
        /// The key.
        id: KeyId,
        /// The state that was seen.
        seen: KeyState,
        /// The state that was found.
        found: KeyState,
    },
}

/// What a storage could not do. After any of these the storage is as it was, except where the
/// variant says otherwise.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// There is no keyring. It is never made anew by anyone but `init`.
    #[error("there is no keyring at {0}")]
    Missing(String),
    /// There is a keyring already. None is ever overwritten.
    #[error("there is a keyring at {0} already")]
    Exists(String),
    /// Somebody else committed first.
    #[error("the keyring changed meanwhile: somebody else committed first")]
    Conflict,
    /// The file, or the folder it lies in, is not safe to use.
    #[error("{path}: {cause}", path = path.display())]
    Unsafe {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what helps.
        cause: String,
    },
    /// The operating system refused.
    #[error("{doing} {path}: {source}", path = path.display())]
    Io {
        /// The step, as a participle: "writing".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The bytes that were read back are not those that were written.
    #[error("{0} reads back other bytes than were written to it")]
    ReadBack(PathBuf),
    /// The new document may or may not survive a power loss.
    #[error("{path} is written, but whether it is durable is unknown: {source}", path = path.display())]
    DurabilityUnknown {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
}

/// What a root said, by the class that decides what happens next.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
#[non_exhaustive]
pub enum RootError {
    /// No answer, a time-out, throttling, an I/O error: it may work in a minute.
    #[error("{0}")]
    Outage(String),
    /// It answered that we may not.
    #[error("{0}")]
    Denied(String),
    /// Its own key is disabled, pending deletion or absent.
    #[error("{0}")]
    KeyState(String),
    /// It answered, but what it was given was not wrapped by it for this slot.
    #[error("{0}")]
    NotMine(String),
    /// Its configuration or its files are wrong; nothing heals until somebody changes them.
    #[error("{0}")]
    Unusable(String),
}
