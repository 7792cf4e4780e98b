//! Somebody may hold the primary key: away from it, and from what was staged beside it.

use std::thread;

use claviger_keystore::document::Document;
use claviger_keystore::header::Header;
use claviger_keystore::key::KeyState;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::Kind;
use crate::serve::{answer, run};
use crate::stand::Stand;
use crate::web::wait_until;
use crate::writers::Writers;

#[test]
fn a_compromised_key_is_left_at_once_with_what_was_staged_beside_it() {
    let Some(stand) = Stand::start() else {
        return;
    };
    let made = stand
        .apiserver
        .api()
        .create(Kind::Secret, "old", "of the old key");
    made.is(201);
    let old = stand.claviger.key("primary").unwrap();
    let writers = Writers::start(stand.apiserver.api());
    answer(stand.claviger.dir(), &["rotate", "--stage-only"]);
    let beside = keyring(&stand).staged().unwrap().to_string();
    // Nothing is written under this one, so that there is nothing to rotate away from.
    let before = keyring(&stand);
    refuses(
        &stand,
        &["rotate", "--compromised", &beside],
        "is staged: nothing is written under it",
    );
    assert_eq!(keyring(&stand), before);

    waits_for_the_plugin(&stand, &old);
    let said = leaves(&stand, &old);
    assert!(said.contains("was never used"), "{said}");
    writers.go_on(40);
    let keyring_now = keyring(&stand);
    let new = keyring_now.primary().unwrap().to_string();
    assert_ne!(new, beside);
    for (key, state) in [(&old, KeyState::Retired), (&beside, KeyState::Destroyed)] {
        let id = key.parse().unwrap();
        assert_eq!(
            keyring_now.key(&id).map(|key| key.state),
            Some(state),
            "{key}"
        );
    }
    says(&stand, &old, &new);

    let next = format!("claviger migrate --key {}", &old[..11][3..]);
    refuses(&stand, &["rotate", "--compromised", &old], &next);
    let etcd = stand.etcd.url();
    let disable = ["key", "disable", &old, "--endpoints", &etcd];
    refuses(&stand, &disable, "need it");
    assert_eq!(keyring(&stand), keyring_now);

    let kubeconfig = stand.kubeconfig();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let migrate = [
        "migrate",
        "--key",
        &old,
        "--kubeconfig",
        kubeconfig,
        "--endpoints",
        &etcd,
    ];
    let moved = run(stand.claviger.dir(), &migrate);
    assert_eq!(moved.status.code(), Some(0), "{moved:?}");
    assert_eq!(stand.stored(Kind::Secret, "old").1.key_id, new);
    let read = stand.apiserver.api().get(Kind::Secret, "old").is(200);
    assert_eq!(Kind::Secret.value(&read.body), "of the old key");
    writers.finish();
}

fn keyring(stand: &Stand) -> Header {
    let keyring = std::fs::read(stand.claviger.dir().join("keyring")).unwrap();
    Document::parse(keyring).unwrap().header().clone()
}

/// In a hurry too, nobody writes with a key that the member has not loaded.
fn waits_for_the_plugin(stand: &Stand, old: &str) {
    let plugin = plugin(stand);
    kill_process(plugin, Signal::STOP).unwrap();
    let rotate = ["rotate", "--compromised", old, "--timeout", "1s"];
    let waits = run(stand.claviger.dir(), &rotate);
    kill_process(plugin, Signal::CONT).unwrap();
    assert_eq!(waits.status.code(), Some(6), "{waits:?}");
    assert_eq!(
        keyring(stand).primary().map(|id| id.to_string()).as_deref(),
        Some(old)
    );
}

fn plugin(stand: &Stand) -> Pid {
    let home = stand.claviger.dir().to_str().unwrap();
    let serves = |id: &i32| {
        let arguments = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        arguments.contains("\0serve\0") && arguments.contains(home)
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Pid::from_raw(ids.find(serves).unwrap()).unwrap()
}

/// Rotates away, and waits until every apiserver has moved on. Returns all that was said.
fn leaves(stand: &Stand, old: &str) -> String {
    thread::scope(|scope| {
        let command = ["rotate", "--compromised", old, "--wait"];
        let rotated = scope.spawn(move || run(stand.claviger.dir(), &command));
        wait_until("every apiserver has moved on", || {
            stand.apiserver.answers("/readyz", 200);
            rotated.is_finished().then_some(())
        });
        let rotated = rotated.join().unwrap();
        assert_eq!(rotated.status.code(), Some(0), "{rotated:?}");
        String::from_utf8([rotated.stdout, rotated.stderr].concat()).unwrap()
    })
}

/// `status` shows what happened, and what is next.
fn says(stand: &Stand, old: &str, new: &str) {
    let status = answer(stand.claviger.dir(), &["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    let keys = status["keys"].as_array();
    let keys = keys.unwrap_or_else(|| panic!("{status:#}"));
    let state = |id: &str| {
        let key = keys.iter().find(|key| key["id"] == id);
        key.map(|key| key["state"].as_str().unwrap())
    };
    assert_eq!(state(old), Some("retired"), "{status:#}");
    assert_eq!(state(new), Some("primary"), "{status:#}");
    let next = status["next"].as_str().unwrap_or_default();
    assert!(next.contains(&old[3..11]), "{status:#}");
}

#[track_caller]
fn refuses(stand: &Stand, command: &[&str], why: &str) {
    let output = run(stand.claviger.dir(), command);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains(why), "{said}");
}
