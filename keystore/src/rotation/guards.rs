//! What must be true before a key is migrated away from, disabled or destroyed. Each guard gives
//! every reason, not only the first, so that an operator sees the whole way.
//!
//! The order that makes the claim true: the members' records are read, *then* the audit pins its
//! revision. An id that was quiet everywhere before the pin cannot be written after it.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{Awaited, Lack, Situation};
use crate::key::{KeyId, KeyState};
use crate::member::{Found, MemberRecord};

/// A member that could not read its storage for 24 h writes no more; five minutes later nothing of
/// it is in flight.
pub const REMOVED_IS_QUIET_AFTER: SignedDuration = SignedDuration::from_secs(24 * 3600 + 300);

/// What an audit found of one key: at this etcd revision, over the whole keyspace and the snapshots
/// that were shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAudit {
    /// The etcd revision that was pinned.
    pub revision: u64,
    /// The wall clock when it was pinned.
    pub when: Timestamp,
    /// Objects whose latest version names the key.
    pub current: u64,
    /// Older versions that etcd has not compacted.
    pub history: u64,
    /// The snapshots, of those that were shown, in which an object names the key.
    pub snapshots: Vec<String>,
    /// Snapshots that are known to be, but were not shown.
    pub unshown: u64,
}

/// One reason why something may not be done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// There is no such key.
    UnknownKey(KeyId),
    /// The key is in a state from which this does not lead on.
    State {
        /// The key.
        id: KeyId,
        /// Its state.
        state: KeyState,
    },
    /// There is no primary key to migrate to.
    NoPrimary,
    /// No member is known, so nothing is known of apiservers.
    NoMember,
    /// A member lacks something.
    Member(Awaited),
    /// No audit was run.
    NotAudited,
    /// The audit was pinned before the members' records were read.
    AuditTooEarly,
    /// Objects name the key.
    Current(u64),
    /// Older versions of objects name the key, until etcd compacts them.
    History(u64),
    /// These snapshots name the key.
    Snapshots(Vec<String>),
    /// So many snapshots were not shown.
    Unshown(u64),
    /// Snapshots from before the disabling are kept until then.
    Retention {
        /// When the last of them is gone.
        until: Timestamp,
    },
    /// The key must stay disabled for longer, counted from the apiservers' restarts.
    DisabledFor {
        /// Until then.
        until: Timestamp,
    },
}

impl Reason {
    /// Whether an operator who types the whole id may set it aside: the two waits, and snapshots
    /// that were not shown. Never what is known to need the key.
    pub fn is_waivable(&self) -> bool {
        matches!(
            self,
            Self::Unshown(_)
                | Self::Retention { .. }
                | Self::DisabledFor { .. }
                | Self::Member(Awaited {
                    lacks: Lack::NotRestarted,
                    ..
                })
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey(id) => write!(f, "the keyring has no key {id}"),
            Self::State { id, state } => write!(f, "{id} is {state}"),
            Self::NoPrimary => f.write_str("the keyring has no primary key"),
            Self::NoMember => f.write_str("no member has a record"),
            Self::Member(awaited) => awaited.fmt(f),
            Self::NotAudited => f.write_str("nothing was audited"),
            Self::AuditTooEarly => f.write_str("the audit began before the members were read"),
            Self::Current(1) => f.write_str("1 object needs it"),
            Self::Current(count) => write!(f, "{count} objects need it"),
            Self::History(count) => write!(f, "history needs it ({count} old versions)"),
            Self::Snapshots(names) => write!(f, "snapshots need it: {}", names.join(", ")),
            Self::Unshown(count) => write!(f, "{count} snapshots were not shown"),
            Self::Retention { until } => write!(f, "older snapshots are kept until {until}"),
            Self::DisabledFor { until } => write!(f, "it must stay disabled until {until}"),
        }
    }
}

/// Whether objects may be rewritten: only once every member has converged, for an apiserver that
/// lags behind re-encrypts backwards.
pub fn may_migrate(situation: &Situation<'_>) -> Result<(), Vec<Reason>> {
    let mut reasons = Vec::new();
    let Some(primary) = situation.header.primary() else {
        return Err(vec![Reason::NoPrimary]);
    };
    members(situation, &mut reasons, |record| {
        let on_primary = record.converged.is_some_and(|since| since.id == primary);
        let connections = record.connections;
        if record.published != Some(primary) {
            Some(Lack::NotPublished)
        } else if !on_primary {
            Some(Lack::NotConverged {
                open: connections.open,
                converged: connections.converged,
            })
        } else {
            None
        }
    });
    verdict(reasons)
}

/// Whether the retired key `id` may be disabled: nothing names it, and nobody can write under it.
pub fn may_disable(
    situation: &Situation<'_>,
    id: &KeyId,
    audit: Option<&KeyAudit>,
) -> Result<(), Vec<Reason>> {
    let mut reasons = Vec::new();
    state(situation, id, KeyState::Retired, &mut reasons);
    unneeded(situation, audit, &mut reasons);
    quiet(situation, id, &mut reasons, |_| None);
    verdict(reasons)
}

/// Whether the disabled key `id` may be destroyed. `force` is that the operator typed the whole id.
pub fn may_destroy(
    situation: &Situation<'_>,
    id: &KeyId,
    audit: Option<&KeyAudit>,
    force: bool,
) -> Result<(), Vec<Reason>> {
    let mut reasons = Vec::new();
    state(situation, id, KeyState::Disabled, &mut reasons);
    unneeded(situation, audit, &mut reasons);
    if let Some(audit) = audit {
        if !audit.snapshots.is_empty() {
            reasons.push(Reason::Snapshots(audit.snapshots.clone()));
        }
        if audit.unshown > 0 {
            reasons.push(Reason::Unshown(audit.unshown));
        }
    }
    quiet(situation, id, &mut reasons, |record| {
        let restarted = record.restarted_since(id);
        restarted.is_none().then_some(Lack::NotRestarted)
    });
    waits(situation, id, &mut reasons);
    reasons.retain(|reason| !force || !reason.is_waivable());
    verdict(reasons)
}

fn verdict(reasons: Vec<Reason>) -> Result<(), Vec<Reason>> {
    match reasons.is_empty() {
        true => Ok(()),
        false => Err(reasons),
    }
}

fn state(situation: &Situation<'_>, id: &KeyId, needed: KeyState, reasons: &mut Vec<Reason>) {
    match situation.header.key(id) {
        None => reasons.push(Reason::UnknownKey(*id)),
        Some(key) if key.state == needed => {}
        Some(key) => reasons.push(Reason::State {
            id: *id,
            state: key.state,
        }),
    }
}

/// What an audit says of etcd itself.
fn unneeded(situation: &Situation<'_>, audit: Option<&KeyAudit>, reasons: &mut Vec<Reason>) {
    let Some(audit) = audit else {
        return reasons.push(Reason::NotAudited);
    };
    // Both are by the clock of this machine.
    if audit.when < situation.now {
        reasons.push(Reason::AuditTooEarly);
    }
    if audit.current > 0 {
        reasons.push(Reason::Current(audit.current));
    }
    if audit.history > 0 {
        reasons.push(Reason::History(audit.history));
    }
}

/// What the members lack. A command that holds a member's lock stands for it when a keyring is
/// acknowledged, but knows nothing of its apiserver: so here everybody's record counts.
fn members(
    situation: &Situation<'_>,
    reasons: &mut Vec<Reason>,
    also: impl Fn(&MemberRecord) -> Option<Lack>,
) {
    let everybody = Situation {
        ourselves: None,
        ..*situation
    };
    if !everybody.somebody() {
        reasons.push(Reason::NoMember);
    }
    // Nobody else waits for one that serves, but has not written its first record yet.
    let ours = situation.ourselves.filter(|ours| {
        let known = situation.members.iter().any(|member| member.name == **ours);
        !known
            && !situation
                .header
                .policy
                .replicas
                .iter()
                .any(|name| name == ours.as_str())
    });
    reasons.extend(ours.map(|ours| {
        Reason::Member(Awaited {
            name: ours.to_string(),
            lacks: Lack::NoRecord,
        })
    }));
    reasons.extend(everybody.awaited(also).into_iter().map(Reason::Member));
}

fn quiet(
    situation: &Situation<'_>,
    id: &KeyId,
    reasons: &mut Vec<Reason>,
    also: impl Fn(&MemberRecord) -> Option<Lack>,
) {
    members(situation, reasons, |record| match record.quiet_since(id) {
        Some(_) => also(record),
        None => Some(Lack::NotQuiet),
    });
    for member in situation.members {
        let Found::Removed(removed) = member.found else {
            continue;
        };
        let until = later(removed, REMOVED_IS_QUIET_AFTER);
        if situation.now < until {
            reasons.push(Reason::Member(Awaited {
                name: member.name.to_string(),
                lacks: Lack::RemovedRecently { until },
            }));
        }
    }
}

/// Destroy is allowed from max(disabled + `snapshotRetention`, all apiservers restarted +
/// `disabledFor`).
fn waits(situation: &Situation<'_>, id: &KeyId, reasons: &mut Vec<Reason>) {
    let Some(disabled) = situation.header.key(id).and_then(|key| key.disabled) else {
        return;
    };
    let policy = &situation.header.policy;
    let until = later(disabled, seconds(policy.snapshot_retention));
    if policy.snapshot_retention > 0 && situation.now < until {
        reasons.push(Reason::Retention { until });
    }
    let restarts = situation
        .members
        .iter()
        .filter_map(|member| match &member.found {
            Found::Record(record) => record.restarted_since(id),
            _ => None,
        });
    // Without any restart the members lack one, which is said already; the least wait is known.
    let from = restarts.max().unwrap_or(disabled).max(disabled);
    let until = later(from, seconds(policy.disabled_for));
    if situation.now < until {
        reasons.push(Reason::DisabledFor { until });
    }
}

fn seconds(count: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(count).unwrap_or(i64::MAX))
}

/// A wait that no calendar can express never ends.
fn later(from: Timestamp, by: SignedDuration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}
