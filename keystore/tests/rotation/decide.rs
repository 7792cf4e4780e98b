//! `rotate`, by hand and by the timer.

use std::time::Duration;

use claviger_keystore::error::MemberError;
use claviger_keystore::header::Hex;
use claviger_keystore::key::KeyState;
use claviger_keystore::member::Found;
use claviger_keystore::rotation::{Action, Awaited, DUE_FOR, Idle, Lack, Request, decide};
use jiff::{SignedDuration, Timestamp};

use crate::scene::{NOW, Scene};

fn act(scene: &Scene, request: Request) -> Action {
    decide(&scene.situation(), request)
}

fn rotate(scene: &Scene) -> Action {
    let from = scene.header.primary();
    act(scene, Request::Rotate { from })
}

fn timer(scene: &Scene, due_for: Duration) -> Action {
    act(scene, Request::Timer { due_for })
}

fn waits_for(action: Action) -> Vec<(String, Lack)> {
    match action {
        Action::Wait(awaited) => awaited
            .into_iter()
            .map(|Awaited { name, lacks }| (name, lacks))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rotation_stages_and_activates_once_all_have_it() {
    let scene = Scene::new(&["cp1"]);
    assert_eq!(rotate(&scene), Action::Stage);
    let mut scene = scene.with_key(KeyState::Staged);
    let staged = scene.last();
    assert_eq!(rotate(&scene), Action::Activate(staged));
    scene.change("cp1", |record| record.acknowledged.revision = 6);
    let behind = Lack::Behind { acknowledged: 6 };
    assert_eq!(waits_for(rotate(&scene)), [("cp1".to_owned(), behind)]);
    // Who acts for that member has loaded it.
    assert_eq!(rotate(&scene.acting_for("cp1")), Action::Activate(staged));
}

#[test]
fn a_rotation_that_somebody_else_ended_is_not_done_twice() {
    let scene = Scene::new(&["cp1"]).with_key(KeyState::Retired);
    let from = Some(scene.last());
    let done = Action::Nothing(Idle::Done(scene.primary()));
    assert_eq!(act(&scene, Request::Rotate { from }), done);
}

#[test]
fn nobody_is_skipped() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e", "f", "g"])
        .with_key(KeyState::Staged)
        .with_replicas(&["h"]);
    let old = NOW - SignedDuration::from_secs(181);
    scene.change("b", |record| record.written = old);
    scene.change("c", |record| record.acknowledged.sha256 = Hex([9; 32]));
    scene.change("d", |record| record.formats = vec![2]);
    scene.put("e", Found::Unreadable(MemberError::Mac));
    scene.put("f", Found::Removed(NOW));
    scene.change("g", |record| record.acknowledged.revision = 8);
    let expected = [
        ("b", Lack::Unknown { written: old }),
        ("c", Lack::Behind { acknowledged: 7 }),
        ("d", Lack::Format),
        ("e", Lack::Unreadable(MemberError::Mac)),
        ("g", Lack::Behind { acknowledged: 8 }),
        ("h", Lack::NoRecord),
    ]
    .map(|(name, lack)| (name.to_owned(), lack));
    assert_eq!(waits_for(rotate(&scene)), expected);
    assert_eq!(waits_for(act(&scene, Request::Activate)), expected);
    // To remove a replica's record is not enough: the policy names it.
    scene.put("h", Found::Removed(NOW));
    assert_eq!(waits_for(rotate(&scene)), expected);
}

#[test]
fn somebody_must_be_there() {
    let mut scene = Scene::new(&[]).with_key(KeyState::Staged);
    let nobody = Action::Nothing(Idle::NoMember(scene.last()));
    assert_eq!(rotate(&scene), nobody);
    scene.put("cp1", Found::Removed(NOW));
    assert_eq!(rotate(&scene), nobody);
    let staged = scene.last();
    assert_eq!(rotate(&scene.acting_for("cp1")), Action::Activate(staged));
}

#[test]
fn with_replicas_only_activate_activates() {
    let scene = Scene::new(&["cp1", "cp2"]).with_replicas(&["cp2"]);
    assert_eq!(rotate(&scene), Action::Stage);
    let mut scene = scene.with_key(KeyState::Staged);
    scene.header.policy.rotate_every = 1;
    let by_hand = Action::Nothing(Idle::ActivateByHand(scene.last()));
    assert_eq!(rotate(&scene), by_hand);
    assert_eq!(timer(&scene, DUE_FOR), by_hand);
    let id = scene.primary();
    let compromised = Request::Compromised {
        id,
        distrusted: None,
    };
    assert_eq!(act(&scene, compromised), by_hand);
    let activate = Action::Activate(scene.last());
    assert_eq!(act(&scene, Request::Activate), activate);
}

#[test]
fn stage_only_activate_and_abort_do_one_thing() {
    let none = Scene::new(&["cp1"]);
    assert_eq!(act(&none, Request::StageOnly), Action::Stage);
    for request in [Request::Activate, Request::Abort] {
        assert_eq!(act(&none, request), Action::Nothing(Idle::NothingStaged));
    }
    let staged = none.with_key(KeyState::Staged);
    let id = staged.last();
    let already = Action::Nothing(Idle::AlreadyStaged(id));
    assert_eq!(act(&staged, Request::StageOnly), already);
    assert_eq!(act(&staged, Request::Activate), Action::Activate(id));
    assert_eq!(act(&staged, Request::Abort), Action::Abort(id));
}

#[test]
fn a_compromised_key_is_rotated_away_from_if_it_is_primary() {
    let scene = Scene::new(&["cp1"]).with_key(KeyState::Retired);
    let compromised =
        |scene: &Scene, id, distrusted| act(scene, Request::Compromised { id, distrusted });
    for (id, state) in [
        (scene.last(), Some(KeyState::Retired)),
        ("k1-ffffffffffffffffffffffffffffffff".parse().unwrap(), None),
    ] {
        let not = Action::Nothing(Idle::NotPrimary { id, state });
        assert_eq!(compromised(&scene, id, None), not);
    }
    let primary = scene.primary();
    assert_eq!(compromised(&scene, primary, None), Action::Stage);
    // What was staged beside it may be known too.
    let scene = scene.with_key(KeyState::Staged);
    let staged = scene.last();
    assert_eq!(
        compromised(&scene, primary, Some(staged)),
        Action::Abort(staged)
    );
    assert_eq!(compromised(&scene, primary, None), Action::Activate(staged));
}

#[test]
fn a_compromised_key_too_waits_for_everybody() {
    let mut scene = Scene::new(&["cp1"]).with_key(KeyState::Staged);
    scene.change("cp1", |record| record.acknowledged.revision = 6);
    let request = Request::Compromised {
        id: scene.primary(),
        distrusted: None,
    };
    assert_eq!(waits_for(act(&scene, request)).len(), 1);
}

#[test]
fn the_timer_keeps_to_the_policy() {
    let mut scene = Scene::new(&["cp1"]);
    assert_eq!(timer(&scene, DUE_FOR), Action::Nothing(Idle::Off));
    let age = NOW
        .duration_since(Timestamp::UNIX_EPOCH)
        .as_secs()
        .unsigned_abs();
    scene.header.policy.rotate_every = age + 1;
    let at = NOW + SignedDuration::from_secs(1);
    assert_eq!(timer(&scene, DUE_FOR), Action::Nothing(Idle::NotDue { at }));
    scene.header.policy.rotate_every = age;
    assert_eq!(timer(&scene, DUE_FOR), Action::Stage);
    // A clock that jumps for a moment rotates nothing.
    let left = Duration::from_secs(1);
    let shortly = timer(&scene, DUE_FOR - left);
    assert_eq!(shortly, Action::Nothing(Idle::DueTooShortly { left }));
    // A rotation that was interrupted goes on.
    let staged = scene.clone().with_key(KeyState::Staged);
    assert_eq!(timer(&staged, DUE_FOR), Action::Activate(staged.last()));
    for never in [u64::MAX, i64::MAX as u64] {
        scene.header.policy.rotate_every = never;
        assert_eq!(timer(&scene, DUE_FOR), Action::Nothing(Idle::Off));
    }
}

#[test]
fn the_timer_leaves_alone_what_was_staged_by_hand() {
    let mut scene = Scene::new(&["cp1"]).with_key(KeyState::Staged);
    assert_eq!(timer(&scene, DUE_FOR), Action::Nothing(Idle::Off));
    scene.header.policy.rotate_every = 365 * 86_400;
    let action = timer(&scene, DUE_FOR);
    assert!(
        matches!(action, Action::Nothing(Idle::NotDue { .. })),
        "{action:?}"
    );
}

#[test]
fn after_a_restore_the_timer_ends_it_once_everybody_is_back() {
    let mut scene = Scene::new(&["cp1"]);
    scene.header.keys[0].state = KeyState::Retired;
    assert_eq!(
        timer(&scene, Duration::ZERO),
        Action::Nothing(Idle::NothingStaged)
    );
    let mut scene = scene.with_key(KeyState::Staged);
    let activate = Action::Activate(scene.last());
    assert_eq!(timer(&scene, Duration::ZERO), activate);
    assert_eq!(rotate(&scene), activate);
    scene.put("cp1", Found::Removed(NOW));
    let nobody = Action::Nothing(Idle::NoMember(scene.last()));
    assert_eq!(timer(&scene, Duration::ZERO), nobody);
}
