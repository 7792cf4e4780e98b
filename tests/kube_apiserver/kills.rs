//! `kill -9` of the command and of the plugin while a key changes under a cluster that writes.

use std::collections::BTreeMap;
use std::path::Path;

use claviger_keystore::document::Document;
use rustix::process::Signal;

use crate::cluster::Kind;
use crate::process::{Process, command};
use crate::stand::Stand;
use crate::web::wait_until;
use crate::writers::{Writers, Written};

/// When somebody is killed: at once, or when the command says that it came so far. One that goes on
/// where another stopped has nothing to stage.
const MOMENTS: [&[&str]; 6] = [
    &[""],
    &["1 stage", "2 converge", "3 activate"],
    &["3 activate"],
    &["2 converge", "3 activate"],
    &[""],
    &["3 activate"],
];

#[test]
fn a_rotation_that_is_killed_again_and_again_fails_no_write_and_loses_nothing() {
    let Some(mut stand) = Stand::start() else {
        return;
    };
    let writers = Writers::start(stand.apiserver.api());
    writers.go_on(20);
    for moment in MOMENTS {
        let mut rotation = rotate(stand.claviger.dir());
        comes_to(&rotation, moment);
        rotation.signal(Signal::KILL);
        rotation.end();
        writers.go_on(20);

        let rotation = rotate(stand.claviger.dir());
        comes_to(&rotation, moment);
        stand.claviger.stop(Signal::KILL);
        writers.go_on(10);
        stand.claviger.start_again();
        // Killed too, as it goes out of scope.
        comes_to(&rotation, &["3 activate"]);
        writers.go_on(20);
    }
    stand.claviger.answers("/readyz", 200);
    let newest = stand.claviger.key("primary").unwrap();
    let mut number = 0;
    wait_until("the apiserver writes under the newest key", || {
        let name = format!("newest-{number}");
        number += 1;
        let made = stand.apiserver.api().create(Kind::Secret, &name, &name);
        made.is(201);
        (stand.stored(Kind::Secret, &name).1.key_id == newest).then_some(())
    });
    writers.go_on(20);
    let written = writers.finish();
    let keys = no_key_id_goes_back(&stand, &written);
    assert!(keys > 1, "everything was written under one key");

    stand.apiserver.restart();
    written.check(stand.apiserver.api());
}

fn rotate(dir: &Path) -> Process {
    let mut rotate = command(env!("CARGO_BIN_EXE_claviger"));
    rotate.arg("--config").arg(dir.join("config.yaml"));
    rotate.arg("rotate");
    Process::start("claviger rotate", rotate)
}

fn comes_to(rotation: &Process, moment: &[&str]) {
    if moment != [""] {
        let come = |line: &str| moment.iter().any(|step| line.starts_with(step));
        rotation.line(moment[0], come);
    }
}

/// What each writer wrote, one after the other, lies under keys that are ever newer. Returns how many
/// keys these are.
fn no_key_id_goes_back(stand: &Stand, written: &Written) -> usize {
    let keyring = std::fs::read(stand.claviger.dir().join("keyring")).unwrap();
    let keyring = Document::parse(keyring).unwrap();
    let ids = keyring.header().keys.iter().map(|key| key.id.to_string());
    let ages: BTreeMap<String, usize> = ids.zip(0..).collect();
    let mut seen = std::collections::BTreeSet::new();
    for names in written.by_writer() {
        let mut last = 0;
        for name in names {
            let age = ages[&stand.stored(Kind::Secret, name).1.key_id];
            assert!(age >= last, "{name} lies under an older key than before");
            last = age;
            seen.insert(age);
        }
    }
    seen.len()
}
