//! A rotation that is under way: how far it is, for how long, and what comes next.

use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::rotation::Situation;
use claviger_keystore::rotation::progress::{Progress, Step, progress};
use jiff::Timestamp;
use serde::Serialize;

use super::member::ago;
use crate::notes::Notes;

/// How far a rotation is.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct Rotating {
    /// The step that it is at, counted from 1.
    step: u32,
    /// How many there are.
    steps: u32,
    /// The step's name: converge, activate, publish, migrate, prove or destroy.
    name: &'static str,
    /// When its new key was made.
    since: Timestamp,
    /// The members that it waits for, and what they lack.
    waits_for: Vec<String>,
    #[serde(skip)]
    next: String,
}

impl Rotating {
    /// The rotation that is under way, if there is one.
    pub(super) fn of(situation: &Situation<'_>, notes: &Notes) -> Option<Self> {
        let progress = progress(situation, |key| {
            notes.protected(key).map(|values| values.current)
        })?;
        let Progress {
            step,
            since,
            awaited,
        } = &progress;
        Some(Self {
            step: step.number().into(),
            steps: Step::COUNT.into(),
            name: step.as_str(),
            since: *since,
            waits_for: awaited.iter().map(ToString::to_string).collect(),
            next: next(situation, &progress),
        })
    }

    /// What comes next.
    pub(super) fn next(&self) -> &str {
        &self.next
    }

    /// `ROTATING: 5/7 migrate, 12m elapsed`
    pub(super) fn headline(&self, now: Timestamp) -> String {
        let Self {
            step,
            steps,
            name,
            since,
            ..
        } = self;
        let elapsed = ago(*since, now);
        format!("ROTATING: {step}/{steps} {name}, {elapsed} elapsed")
    }
}

/// The command that goes on, or for whom to wait.
fn next(situation: &Situation<'_>, progress: &Progress) -> String {
    let waits: Vec<_> = progress.awaited.iter().map(ToString::to_string).collect();
    let waits = waits.join("; ");
    let old = |state| -> Option<KeyId> {
        let mut keys = situation.header.keys.iter();
        keys.find(|key| key.state == state).map(|key| key.id)
    };
    let id = old(KeyState::Retired).or_else(|| old(KeyState::Disabled));
    let id = id.map_or_else(String::new, |id| id.short());
    match progress.step {
        Step::Converge => format!("claviger rotate goes on once this is over: {waits}"),
        Step::Activate => "claviger rotate goes on with the staged key".to_owned(),
        Step::Publish => format!("wait until this is over: {waits}"),
        Step::Migrate => format!("claviger migrate --key {id} moves what the key protects"),
        Step::Prove => format!("claviger key disable {id}, once etcd has compacted its history"),
        Step::Destroy => format!("claviger key destroy {id}; it says until when to wait"),
    }
}

#[cfg(test)]
mod tests {
    use claviger_keystore::header::{Header, KeyringKeyId};
    use claviger_keystore::keyring::Keyring;
    use claviger_keystore::member::{Found, Member};
    use claviger_keystore::testing::{NOW, member_record};

    use super::*;

    /// A keyring whose older key is in this state, and a member that has not looked at it.
    fn seen(state: KeyState) -> Option<Rotating> {
        let keyring = Keyring::create("", KeyringKeyId::ZERO, NOW).unwrap();
        let mut header: Header = keyring.header().clone();
        let mut old = header.keys[0].clone();
        old.id = format!("k1-{:032x}", 7).parse().unwrap();
        old.state = state;
        header.keys.push(old);
        let members = [Member {
            name: "cp1".parse().unwrap(),
            found: Found::Record(Box::new(member_record("cp1", NOW))),
        }];
        let situation = Situation {
            header: &header,
            hash: claviger_keystore::header::Hex([3; 32]),
            members: &members,
            ourselves: None,
            now: NOW,
        };
        Rotating::of(&situation, &Notes::default())
    }

    #[test]
    fn it_says_where_it_is_and_for_whom_it_waits() {
        let rotating = seen(KeyState::Staged).unwrap();
        let later = Timestamp::from_second(720).unwrap();
        assert_eq!(
            rotating.headline(later),
            "ROTATING: 2/7 converge, 12m elapsed"
        );
        assert_eq!(rotating.waits_for.len(), 1);
        assert!(rotating.next().contains(&rotating.waits_for[0]));
        assert!(rotating.waits_for[0].starts_with("cp1 has revision"));
    }

    #[test]
    fn what_comes_next_names_the_old_key() {
        let rotating = seen(KeyState::Disabled).unwrap();
        assert!(rotating.next().starts_with("claviger key destroy 00000000"));
        assert!(seen(KeyState::Destroyed).is_none());
    }
}
