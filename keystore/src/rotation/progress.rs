//! How far a rotation is: for people, who want to know what it waits for, and for the alert that it
//! is stuck. No guard reads it.

use std::fmt;

use jiff::Timestamp;

use super::guards::{self, Reason};
use super::{Awaited, Situation};
use crate::key::{KeyId, KeyInfo, KeyState};

/// What a rotation does now. It begins with *stage*, which is a commit and takes no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Every member loads the staged key.
    Converge,
    /// Every member has it: one commit makes it primary.
    Activate,
    /// Every member answers it, and every apiserver moves on.
    Publish,
    /// Objects are rewritten.
    Migrate,
    /// An audit has to show that nothing needs the old key, which is then disabled.
    Prove,
    /// The old key is disabled, and waits for its destruction.
    Destroy,
}

impl Step {
    /// So many steps there are.
    pub const COUNT: u8 = 7;

    /// Which of them it is, from 1.
    pub fn number(self) -> u8 {
        match self {
            Self::Converge => 2,
            Self::Activate => 3,
            Self::Publish => 4,
            Self::Migrate => 5,
            Self::Prove => 6,
            Self::Destroy => 7,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Converge => "converge",
            Self::Activate => "activate",
            Self::Publish => "publish",
            Self::Migrate => "migrate",
            Self::Prove => "prove",
            Self::Destroy => "destroy",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.number(), Self::COUNT, self.as_str())
    }
}

/// A rotation that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub step: Step,
    /// When its new key was staged.
    pub since: Timestamp,
    /// The members that it waits for.
    pub awaited: Vec<Awaited>,
}

/// How far a rotation is; `None` where no key is on its way in or out. `objects` says how many
/// objects a key protected when that was last looked at, if it was.
pub fn progress(
    situation: &Situation<'_>,
    objects: impl Fn(&KeyInfo) -> Option<u64>,
) -> Option<Progress> {
    let header = situation.header;
    let under_way = |step, new: KeyId, awaited| {
        let since = header.key(&new)?.created;
        Some(Progress {
            step,
            since,
            awaited,
        })
    };
    if let Some(staged) = header.staged() {
        let awaited = situation.awaited(|_| None);
        let step = match awaited.is_empty() {
            true => Step::Activate,
            false => Step::Converge,
        };
        return under_way(step, staged, awaited);
    }
    let primary = header.primary()?;
    let old = |state| header.keys.iter().filter(move |key| key.state == state);
    if old(KeyState::Retired).next().is_none() {
        old(KeyState::Disabled).next()?;
        return under_way(Step::Destroy, primary, Vec::new());
    }
    let awaited = lagging(situation);
    let step = match old(KeyState::Retired).all(|key| objects(key) == Some(0)) {
        _ if !awaited.is_empty() => Step::Publish,
        true => Step::Prove,
        false => Step::Migrate,
    };
    under_way(step, primary, awaited)
}

/// Who does not answer the primary key alone yet, or has apiservers that have not moved on.
fn lagging(situation: &Situation<'_>) -> Vec<Awaited> {
    let reasons = guards::may_migrate(situation).err().unwrap_or_default();
    let members = reasons.into_iter().filter_map(|reason| match reason {
        Reason::Member(awaited) => Some(awaited),
        _ => None,
    });
    members.collect()
}
