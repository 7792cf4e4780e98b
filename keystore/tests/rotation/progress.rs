//! How far a rotation is, as people and metrics are told.

use claviger_keystore::key::KeyState;
use claviger_keystore::rotation::Lack;
use claviger_keystore::rotation::progress::{Progress, Step, progress};
use jiff::Timestamp;

use crate::scene::{Scene, since};

/// What is under way, where the last audit found so many objects under each old key.
fn seen(scene: &Scene, objects: Option<u64>) -> Option<Progress> {
    progress(&scene.situation(), |_| objects)
}

fn step(scene: &Scene, objects: Option<u64>) -> Option<Step> {
    seen(scene, objects).map(|progress| progress.step)
}

/// Two members; the last key is in this state, and everybody has moved on from it.
fn moved_on(state: KeyState) -> Scene {
    let mut scene = Scene::new(&["cp1", "cp2"]).with_key(state);
    let primary = scene.primary();
    scene.everybody(|record| {
        record.published = Some(primary);
        record.converged = Some(since(primary));
    });
    scene
}

#[test]
fn a_staged_key_waits_for_those_who_have_not_loaded_it() {
    let mut scene = Scene::new(&["cp1", "cp2"]).with_key(KeyState::Staged);
    assert_eq!(step(&scene, None), Some(Step::Activate));
    scene.change("cp2", |record| record.acknowledged.revision = 6);
    let waits = seen(&scene, None).unwrap();
    assert_eq!(waits.step, Step::Converge);
    assert_eq!(waits.since, Timestamp::UNIX_EPOCH);
    assert_eq!(waits.awaited.len(), 1);
    assert_eq!(waits.awaited[0].name, "cp2");
    assert_eq!(waits.awaited[0].lacks, Lack::Behind { acknowledged: 6 });
}

#[test]
fn an_old_key_is_published_away_from_migrated_proven_and_destroyed() {
    let mut scene = moved_on(KeyState::Retired);
    let (primary, old) = (scene.primary(), scene.last());
    scene.change("cp1", |record| record.published = Some(old));
    let waits = seen(&scene, Some(0)).unwrap();
    assert_eq!(waits.step, Step::Publish);
    assert_eq!(waits.awaited[0].name, "cp1");
    scene.change("cp1", |record| record.published = Some(primary));
    assert_eq!(step(&scene, Some(5)), Some(Step::Migrate));
    // Nobody looked.
    assert_eq!(step(&scene, None), Some(Step::Migrate));
    assert_eq!(step(&scene, Some(0)), Some(Step::Prove));
    assert_eq!(
        step(&moved_on(KeyState::Disabled), None),
        Some(Step::Destroy)
    );
    // A key that is still in use is more than one that waits.
    let both = moved_on(KeyState::Disabled).with_key(KeyState::Retired);
    assert_eq!(step(&both, None), Some(Step::Migrate));
}

#[test]
fn without_a_key_on_its_way_nothing_is_under_way() {
    assert_eq!(seen(&Scene::new(&["cp1"]), None), None);
    assert_eq!(seen(&moved_on(KeyState::Destroyed), None), None);
}

#[test]
fn steps_are_counted_as_the_design_counts_them() {
    let steps = [
        Step::Converge,
        Step::Activate,
        Step::Publish,
        Step::Migrate,
        Step::Prove,
        Step::Destroy,
    ];
    let shown: Vec<_> = steps.iter().map(ToString::to_string).collect();
    let expected = [
        "2/7 converge",
        "3/7 activate",
        "4/7 publish",
        "5/7 migrate",
        "6/7 prove",
        "7/7 destroy",
    ];
    assert_eq!(shown, expected);
}
