//! What happens next to the keys: policy, members, now → next action. Pure: whoever asks it commits
//! what it answers, and asks again; so every step may be interrupted, and taken by anybody.
//!
//! ```text
//! stage ──▶ every member acknowledges ──▶ activate
//! ```
//!
//! [`guards`] says what may follow: migrate, disable, destroy.

pub mod guards;
pub mod progress;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::error::MemberError;
use crate::header::{DocumentHash, FORMAT, Header};
use crate::key::{KeyId, KeyState};
use crate::member::{Found, Member, MemberName, MemberRecord};

/// A due date acts only after it has been due for so long by CLOCK_BOOTTIME: a wall clock that was
/// wrong for a moment rotates nothing.
pub const DUE_FOR: Duration = Duration::from_secs(3600);

/// What is known when a decision is made.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The keyring that is committed.
    pub header: &'a Header,
    /// The hash of its document.
    pub hash: DocumentHash,
    /// Everybody's record, as the storage had it at `now`.
    pub members: &'a [Member],
    /// The member in whose place the caller acts: the running plugin itself, or a command that
    /// holds its lock. It has loaded what it commits, so its record is not waited for.
    pub ourselves: Option<&'a MemberName>,
    /// The wall clock when the members' records were read.
    pub now: Timestamp,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The policy's `rotateEvery`, which has been due for so long by CLOCK_BOOTTIME (zero if it is
    /// not due). It also ends what a restore began.
    Timer {
        /// How long.
        due_for: Duration,
    },
    /// A whole rotation, away from the key that was primary when the command began.
    Rotate {
        /// That key.
        from: Option<KeyId>,
    },
    /// Only a staged key.
    StageOnly,
    /// Only the activation of the staged key.
    Activate,
    /// The staged key is given up.
    Abort,
    /// A whole rotation away from a key that somebody else may hold. Whoever held it may hold what
    /// was staged beside it too, so that one is given up first.
    Compromised {
        /// The key; only a primary one is rotated away from.
        id: KeyId,
        /// The key that was staged when the command began.
        distrusted: Option<KeyId>,
    },
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing, and why.
    Nothing(Idle),
    /// Commit a fresh key as staged.
    Stage,
    /// Commit that this key is primary.
    Activate(KeyId),
    /// Commit that this staged key is given up.
    Abort(KeyId),
    /// Wait for these to acknowledge the keyring, or to be removed by name. Never empty.
    Wait(Vec<Awaited>),
}

/// Why nothing is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// The policy rotates nothing.
    Off,
    /// The policy's date has not come.
    NotDue {
        /// The date.
        at: Timestamp,
    },
    /// The date has come, but not for long enough to be believed.
    DueTooShortly {
        /// How much longer it must stay due.
        left: Duration,
    },
    /// It is done: this key is primary already.
    Done(KeyId),
    /// This key is staged already.
    AlreadyStaged(KeyId),
    /// No key is staged.
    NothingStaged,
    /// Every replica has this staged key; with replicas only `rotate --activate` goes on.
    ActivateByHand(KeyId),
    /// This key is staged, but no member is there that could use it.
    NoMember(KeyId),
    /// The key is not primary, so that rotating would change nothing; or there is none such.
    NotPrimary {
        /// The key.
        id: KeyId,
        /// Its state, if there is such a key.
        state: Option<KeyState>,
    },
}

/// A member that something waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// Its name.
    pub name: String,
    /// What it lacks.
    pub lacks: Lack,
}

/// What a member lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// The policy names it as a replica, but it never wrote a record.
    NoRecord,
    /// Its record says nothing.
    Unreadable(MemberError),
    /// Its record is too old to say how it is.
    Unknown {
        /// When it was written.
        written: Timestamp,
    },
    /// It has not loaded this keyring.
    Behind {
        /// The revision that it has.
        acknowledged: u64,
    },
    /// It does not understand this document format.
    Format,
    /// It does not write under the primary alone.
    NotPublished,
    /// Not every apiserver connection has moved on to the primary.
    NotConverged {
        /// Its connections that called Status.
        open: u32,
        /// Those of them that have converged.
        converged: u32,
    },
    /// Something may still be written under the key through it.
    NotQuiet,
    /// Its apiserver was not seen to restart since the key was disabled.
    NotRestarted,
    /// It was removed by name, but may have gone on in the dark until then.
    RemovedRecently {
        /// Until when it counts as not quiet.
        until: Timestamp,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecord => f.write_str("has never been seen"),
            Self::Unreadable(why) => write!(f, "has a record that {why}"),
            Self::Unknown { written } => write!(f, "was last seen at {written}"),
            Self::Behind { acknowledged } => write!(f, "has revision {acknowledged}"),
            Self::Format => f.write_str("does not understand the keyring's format"),
            Self::NotPublished => f.write_str("has not published the primary key yet"),
            Self::NotConverged { open: 0, .. } => f.write_str(
                "has no apiserver connected, and waits five minutes in case one comes back",
            ),
            Self::NotConverged { open, converged } => {
                write!(f, "has {converged} of {open} connections converged")
            }
            Self::NotQuiet => f.write_str("may still write under the key"),
            Self::NotRestarted => f.write_str("has an apiserver that did not restart since"),
            Self::RemovedRecently { until } => {
                write!(f, "was removed, and counts as quiet from {until}")
            }
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.lacks)
    }
}

/// The next action.
pub fn decide(situation: &Situation<'_>, request: Request) -> Action {
    let header = situation.header;
    let (primary, staged) = (header.primary(), header.staged());
    match (request, staged) {
        (Request::Timer { due_for }, _) => by_timer(situation, due_for),
        (Request::Rotate { from }, _) if primary != from => match primary {
            Some(primary) => Action::Nothing(Idle::Done(primary)),
            None => rotate(situation),
        },
        (Request::Rotate { .. }, _) => rotate(situation),
        (Request::StageOnly, Some(staged)) => Action::Nothing(Idle::AlreadyStaged(staged)),
        (Request::StageOnly, None) => Action::Stage,
        (Request::Activate, Some(staged)) => activate(situation, staged),
        (Request::Abort, Some(staged)) => Action::Abort(staged),
        (Request::Activate | Request::Abort, None) => Action::Nothing(Idle::NothingStaged),
        (Request::Compromised { id, .. }, _) if primary != Some(id) => {
            let state = header.key(&id).map(|key| key.state);
            Action::Nothing(Idle::NotPrimary { id, state })
        }
        (Request::Compromised { distrusted, .. }, Some(staged)) if distrusted == Some(staged) => {
            Action::Abort(staged)
        }
        (Request::Compromised { .. }, _) => rotate(situation),
    }
}

/// When the policy's rotation is due, if ever: that long after the primary key was activated.
pub fn due_at(header: &Header) -> Option<Timestamp> {
    let every = i64::try_from(header.policy.rotate_every).ok()?;
    let primary = header.key(&header.primary()?)?;
    let activated = primary.activated.unwrap_or(primary.created);
    match every {
        0 => None,
        every => activated.checked_add(SignedDuration::from_secs(every)).ok(),
    }
}

fn by_timer(situation: &Situation<'_>, due_for: Duration) -> Action {
    let header = situation.header;
    match (header.primary(), due_at(header)) {
        // Whoever gave a staged key up after a restore has to say what next.
        (None, _) if header.staged().is_none() => Action::Nothing(Idle::NothingStaged),
        (None, _) => rotate(situation),
        (Some(_), None) => Action::Nothing(Idle::Off),
        (Some(_), Some(at)) if situation.now < at => Action::Nothing(Idle::NotDue { at }),
        (Some(_), Some(_)) => match DUE_FOR.checked_sub(due_for) {
            Some(left) if !left.is_zero() => Action::Nothing(Idle::DueTooShortly { left }),
            _ => rotate(situation),
        },
    }
}

/// One step of a rotation that nobody asked to stop half-way.
fn rotate(situation: &Situation<'_>) -> Action {
    let Some(staged) = situation.header.staged() else {
        return Action::Stage;
    };
    match activate(situation, staged) {
        // Whoever copies the keyring by hand decides when everybody has it.
        Action::Activate(id) if !situation.header.policy.replicas.is_empty() => {
            Action::Nothing(Idle::ActivateByHand(id))
        }
        action => action,
    }
}

fn activate(situation: &Situation<'_>, staged: KeyId) -> Action {
    let awaited = situation.awaited(|_| None);
    if !awaited.is_empty() {
        Action::Wait(awaited)
    } else if situation.somebody() {
        Action::Activate(staged)
    } else {
        Action::Nothing(Idle::NoMember(staged))
    }
}

impl Situation<'_> {
    /// Whether any member is there at all.
    fn somebody(&self) -> bool {
        self.ourselves.is_some() || self.members.iter().any(|member| !member.is_removed())
    }

    /// Every member that has not acknowledged the keyring, or of which `also` says that it lacks
    /// something. We are not waited for, except by what `also` says of our own record.
    fn awaited(&self, also: impl Fn(&MemberRecord) -> Option<Lack>) -> Vec<Awaited> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        names.extend(self.header.policy.replicas.iter().map(String::as_str));
        let here = self.members.iter().filter(|member| !member.is_removed());
        names.extend(here.map(|member| member.name.as_str()));
        names
            .into_iter()
            .filter_map(|name| {
                let lacks = self.lack(name, &also)?;
                let name = name.to_owned();
                Some(Awaited { name, lacks })
            })
            .collect()
    }

    fn lack(&self, name: &str, also: impl Fn(&MemberRecord) -> Option<Lack>) -> Option<Lack> {
        let member = self
            .members
            .iter()
            .find(|member| member.name.as_str() == name);
        let record = match member.map(|member| &member.found) {
            _ if self.is_us(name) => return None,
            // A replica that was removed is still named by the policy, which is a name to wait for.
            None | Some(Found::Removed(_)) => return Some(Lack::NoRecord),
            Some(Found::Unreadable(why)) => return Some(Lack::Unreadable(why.clone())),
            Some(Found::Record(record)) => record,
        };
        if !record.is_fresh(self.now) {
            let written = record.written;
            return Some(Lack::Unknown { written });
        }
        let acknowledged = record.acknowledged;
        if (acknowledged.revision, acknowledged.sha256) != (self.header.revision, self.hash) {
            let acknowledged = acknowledged.revision;
            return Some(Lack::Behind { acknowledged });
        }
        match record.formats.contains(&FORMAT) {
            true => also(record),
            false => Some(Lack::Format),
        }
    }

    fn is_us(&self, name: &str) -> bool {
        self.ourselves.is_some_and(|ours| ours.as_str() == name)
    }
}
