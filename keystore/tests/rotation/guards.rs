//! What must be true before a key is migrated away from, disabled, destroyed.

use claviger_keystore::error::MemberError;
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::member::{Connections, Found};
use claviger_keystore::rotation::guards::{
    KeyAudit, REMOVED_IS_QUIET_AFTER, Reason, may_destroy, may_disable, may_migrate,
};
use claviger_keystore::rotation::{Awaited, Lack};
use jiff::{SignedDuration, Timestamp};

use crate::scene::{NOW, Scene, days, since};

const CLEAN: KeyAudit = KeyAudit {
    revision: 9,
    when: NOW,
    current: 0,
    history: 0,
    snapshots: Vec::new(),
    unshown: 0,
};

fn lacks(name: &str, lacks: Lack) -> Reason {
    Reason::Member(Awaited {
        name: name.to_owned(),
        lacks,
    })
}

/// Two members that have converged on the primary; the last key is quiet.
fn quiet(state: KeyState) -> (Scene, KeyId) {
    let mut scene = Scene::new(&["cp1", "cp2"]).with_key(state);
    let (primary, id) = (scene.primary(), scene.last());
    scene.everybody(|record| {
        record.published = Some(primary);
        record.converged = Some(since(primary));
        record.quiet = vec![since(id)];
    });
    (scene, id)
}

/// The same, disabled and restarted long enough ago.
fn destroyable() -> (Scene, KeyId) {
    let (mut scene, id) = quiet(KeyState::Disabled);
    scene.header.keys[1].disabled = Some(NOW - days(30));
    scene.everybody(|record| {
        record.restarted = vec![since(id)];
        record.restarted[0].since = NOW - days(7);
    });
    (scene, id)
}

fn disable(scene: &Scene, id: &KeyId, audit: &KeyAudit) -> Vec<Reason> {
    let verdict = may_disable(&scene.situation(), id, Some(audit));
    verdict.err().unwrap_or_default()
}

fn destroy(scene: &Scene, id: &KeyId, audit: &KeyAudit) -> Vec<Reason> {
    let verdict = may_destroy(&scene.situation(), id, Some(audit), false);
    verdict.err().unwrap_or_default()
}

fn forced(scene: &Scene, id: &KeyId, audit: &KeyAudit) -> Vec<Reason> {
    let verdict = may_destroy(&scene.situation(), id, Some(audit), true);
    verdict.err().unwrap_or_default()
}

#[test]
fn migrating_waits_until_every_member_has_converged() {
    let (mut scene, id) = quiet(KeyState::Retired);
    assert_eq!(may_migrate(&scene.situation()), Ok(()));
    scene.change("cp1", |record| {
        // On the old key: that is not it.
        record.converged = Some(since(id));
        record.connections = Connections {
            open: 3,
            converged: 2,
        };
    });
    scene.change("cp2", |record| record.published = Some(id));
    let not_converged = Lack::NotConverged {
        open: 3,
        converged: 2,
    };
    let expected = vec![
        lacks("cp1", not_converged),
        lacks("cp2", Lack::NotPublished),
    ];
    assert_eq!(may_migrate(&scene.situation()), Err(expected));
}

#[test]
fn migrating_needs_a_primary_and_a_member() {
    let (mut scene, _) = quiet(KeyState::Retired);
    // A command that holds the member's lock knows nothing of its apiserver.
    scene.members.clear();
    assert_eq!(may_migrate(&scene.situation()), Err(vec![Reason::NoMember]));
    let scene = scene.acting_for("cp1");
    let nobody = vec![Reason::NoMember, lacks("cp1", Lack::NoRecord)];
    assert_eq!(may_migrate(&scene.situation()), Err(nobody));
    // Others' records do not stand for the missing one.
    let (mut scene, _) = quiet(KeyState::Retired);
    scene.members.remove(0);
    assert_eq!(may_migrate(&scene.situation()), Ok(()));
    let scene = scene.acting_for("cp1");
    let ours = vec![lacks("cp1", Lack::NoRecord)];
    assert_eq!(may_migrate(&scene.situation()), Err(ours));
    let (mut scene, _) = quiet(KeyState::Retired);
    scene.header.keys[0].state = KeyState::Retired;
    assert_eq!(
        may_migrate(&scene.situation()),
        Err(vec![Reason::NoPrimary])
    );
}

#[test]
fn only_a_retired_key_that_nothing_needs_is_disabled() {
    let (scene, id) = quiet(KeyState::Retired);
    assert_eq!(disable(&scene, &id, &CLEAN), []);
    let needed = KeyAudit {
        current: 2,
        history: 3,
        // Snapshots stop nobody from disabling: it can be taken back.
        snapshots: vec!["monday.db".to_owned()],
        unshown: 4,
        ..CLEAN
    };
    let expected = [Reason::Current(2), Reason::History(3)];
    assert_eq!(disable(&scene, &id, &needed), expected);
    let none = may_disable(&scene.situation(), &id, None);
    assert_eq!(none, Err(vec![Reason::NotAudited]));
    // The records must be older than the pin, or something may have been written between.
    let early = KeyAudit {
        when: NOW - SignedDuration::from_secs(1),
        ..CLEAN
    };
    assert_eq!(disable(&scene, &id, &early), [Reason::AuditTooEarly]);
}

#[test]
fn states_that_do_not_lead_on_are_named() {
    for state in KeyState::ALL {
        let (scene, id) = quiet(state);
        let wrong = [Reason::State { id, state }];
        match state {
            KeyState::Retired => assert_eq!(disable(&scene, &id, &CLEAN), []),
            // The primary itself: the scene has two of them then, and the first counts.
            _ => assert_eq!(disable(&scene, &id, &CLEAN), wrong),
        }
        let (mut scene, id) = destroyable();
        scene.header.keys[1].state = state;
        match state {
            KeyState::Disabled => assert_eq!(destroy(&scene, &id, &CLEAN), []),
            _ => assert_eq!(
                destroy(&scene, &id, &CLEAN),
                wrong.map(|_| Reason::State { id, state })
            ),
        }
    }
    let (scene, _) = quiet(KeyState::Retired);
    let unknown: KeyId = "k1-ffffffffffffffffffffffffffffffff".parse().unwrap();
    assert!(disable(&scene, &unknown, &CLEAN).contains(&Reason::UnknownKey(unknown)));
}

#[test]
fn the_id_must_be_quiet_on_every_member() {
    let (mut scene, id) = quiet(KeyState::Retired);
    let other = scene.primary();
    scene.change("cp1", |record| record.quiet = vec![since(other)]);
    assert_eq!(disable(&scene, &id, &CLEAN), [lacks("cp1", Lack::NotQuiet)]);
    scene.put("cp2", Found::Unreadable(MemberError::Mac));
    let expected = [
        lacks("cp1", Lack::NotQuiet),
        lacks("cp2", Lack::Unreadable(MemberError::Mac)),
    ];
    assert_eq!(disable(&scene, &id, &CLEAN), expected);
    let written = NOW - SignedDuration::from_mins(4);
    scene.change("cp1", |record| record.written = written);
    let unknown = lacks("cp1", Lack::Unknown { written });
    assert!(disable(&scene, &id, &CLEAN).contains(&unknown));
}

#[test]
fn one_that_was_removed_counts_as_quiet_a_day_later() {
    let (mut scene, id) = quiet(KeyState::Retired);
    for (ago, quiet) in [(0, false), (86_699, false), (86_700, true)] {
        let removed = NOW - SignedDuration::from_secs(ago);
        scene.put("cp2", Found::Removed(removed));
        let until = removed + REMOVED_IS_QUIET_AFTER;
        let expected = lacks("cp2", Lack::RemovedRecently { until });
        let reasons = disable(&scene, &id, &CLEAN);
        assert_eq!(reasons.contains(&expected), !quiet, "{ago}");
        assert_eq!(reasons.is_empty(), quiet, "{ago}");
    }
}

#[test]
fn destroying_waits_for_snapshots_and_restarts() {
    let (scene, id) = destroyable();
    assert_eq!(destroy(&scene, &id, &CLEAN), []);
    // Row by row, one second too early.
    let second = SignedDuration::from_secs(1);
    let mut early = scene.clone();
    early.header.keys[1].disabled = Some(NOW - days(30) + second);
    let until = NOW + second;
    assert_eq!(destroy(&early, &id, &CLEAN), [Reason::Retention { until }]);
    let mut early = scene.clone();
    early.change("cp2", |record| {
        record.restarted[0].since = NOW - days(7) + second
    });
    assert_eq!(
        destroy(&early, &id, &CLEAN),
        [Reason::DisabledFor { until }]
    );
    let mut never = scene.clone();
    never.change("cp1", |record| record.restarted.clear());
    let expected = [lacks("cp1", Lack::NotRestarted)];
    assert_eq!(destroy(&never, &id, &CLEAN), expected);
    // Both waits may be off; that everybody restarted is still needed.
    never.header.policy.snapshot_retention = 0;
    never.header.policy.disabled_for = 0;
    never.header.keys[1].disabled = Some(NOW);
    assert_eq!(destroy(&never, &id, &CLEAN), expected);
    // A wait beyond the calendar never ends.
    never.header.policy.snapshot_retention = u64::MAX;
    let until = Timestamp::MAX;
    assert!(destroy(&never, &id, &CLEAN).contains(&Reason::Retention { until }));
}

#[test]
fn the_whole_id_waives_only_the_waits_and_unshown_snapshots() {
    let (mut scene, id) = destroyable();
    scene.header.keys[1].disabled = Some(NOW);
    scene.change("cp1", |record| record.restarted.clear());
    let unshown = KeyAudit {
        unshown: 2,
        ..CLEAN
    };
    let reasons = destroy(&scene, &id, &unshown);
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert_eq!(forced(&scene, &id, &unshown), []);

    let needed = KeyAudit {
        current: 1,
        history: 1,
        snapshots: vec!["monday.db".to_owned()],
        ..unshown
    };
    let expected = [
        Reason::Current(1),
        Reason::History(1),
        Reason::Snapshots(vec!["monday.db".to_owned()]),
    ];
    assert_eq!(forced(&scene, &id, &needed), expected);
    scene.change("cp1", |record| record.quiet.clear());
    scene.put("cp2", Found::Removed(NOW));
    let reasons = forced(&scene, &id, &CLEAN);
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    let none = may_destroy(&scene.situation(), &id, None, true).unwrap_err();
    assert!(none.contains(&Reason::NotAudited));
}

#[test]
fn every_reason_is_a_sentence() {
    let (mut scene, id) = quiet(KeyState::Retired);
    scene.change("cp1", |record| record.quiet.clear());
    let needed = KeyAudit {
        current: 2,
        history: 3,
        ..CLEAN
    };
    let text: Vec<String> = disable(&scene, &id, &needed)
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = [
        "2 objects need it",
        "history needs it (3 old versions)",
        "cp1 may still write under the key",
    ];
    assert_eq!(text, expected);
}
