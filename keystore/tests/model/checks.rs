//! The checks: the real guards hold in every reachable state; without any one of them the model
//! finds the harm.

use stateright::{Checker, HasDiscoveries, Model};

use crate::world::{Fault, Small};

const ONE: Small = Small {
    members: 1,
    replicas: false,
    keys: 3,
    revisions: 7,
    crashes: 1,
    restores: 1,
    fault: None,
};

const TWO: Small = Small {
    members: 2,
    replicas: true,
    keys: 2,
    revisions: 5,
    crashes: 1,
    restores: 0,
    fault: None,
};

fn states(model: Small) -> usize {
    let checker = model.checker().threads(2).spawn_bfs().join();
    let count = checker.unique_state_count();
    checker.assert_properties();
    count
}

#[test]
fn one_member_in_every_reachable_state() {
    let count = states(ONE);
    assert!(count > 10_000, "{count} states are too few");
}

#[test]
fn a_writer_and_a_replica_in_every_reachable_state() {
    let count = states(TWO);
    assert!(count > 10_000, "{count} states are too few");
}

/// Whether a model without this guard shows the harm that the guard is there for.
fn finds(fault: Fault, small: &Small, property: &'static str) {
    let model = Small {
        fault: Some(fault),
        ..small.clone()
    };
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = model.checker().threads(2).finish_when(found);
    let checker = checker.spawn_bfs().join();
    assert!(
        checker.discovery(property).is_some(),
        "{fault:?} harms nobody"
    );
}

#[test]
fn every_guard_is_needed() {
    let opens = "what was returned opens";
    let forbidden = "nothing forbidden happened";
    finds(Fault::NoQuiet, &ONE, opens);
    finds(Fault::NoAudit, &ONE, opens);
    finds(Fault::LossOnRestore, &ONE, opens);
    finds(Fault::NoMark, &ONE, forbidden);
    finds(Fault::PrimaryAfterMerge, &ONE, forbidden);
    finds(Fault::NoPersistence, &ONE, forbidden);
    finds(Fault::NoAcknowledgement, &TWO, forbidden);
}
