//! The whole life of a key under a cluster that writes: rotated away from, moved, proven unused and
//! destroyed. It takes as long as a key takes to fall quiet, which is more than five minutes.

use std::thread;
use std::time::{Duration, Instant};

use claviger_keystore::member::MemberRecord;

use crate::cluster::Kind;
use crate::rotation::{record, rotate_and_wait};
use crate::serve::{answer, run};
use crate::stand::Stand;
use crate::writers::Writers;

/// An old key is quiet 5 min 10 s after the rotation.
const QUIET: Duration = Duration::from_secs(15 * 60);

#[test]
fn a_key_is_rotated_away_from_moved_proven_unused_and_destroyed() {
    let Some(mut stand) = Stand::start() else {
        return;
    };
    create(&stand, "old", 20);
    let at_once = ["policy", "set", "snapshotRetention=off", "disabledFor=off"];
    answer(stand.claviger.dir(), &at_once);
    let old = stand.claviger.key("primary").unwrap();
    let writers = Writers::start(stand.apiserver.api());
    refuses(&stand, &["key", "disable", &old], "primary");
    refuses(&stand, &["key", "destroy", &old], "primary");

    rotate_and_wait(&stand);
    refuses(&stand, &["key", "disable", &old], "objects need it");
    refuses(&stand, &["key", "destroy", &old], "key disable");
    succeeds(&stand, &["migrate"]);
    refuses(&stand, &["key", "disable", &old], "old versions");
    stand.etcd.compact();
    refuses(
        &stand,
        &["key", "disable", &old],
        "may still write under the key",
    );
    let written = writers.finish();
    written.check(stand.apiserver.api());

    until(&stand, |record| {
        record.quiet.iter().any(|quiet| quiet.id.to_string() == old)
    });
    stand.etcd.compact();
    succeeds(&stand, &["audit", "--key", &old]);
    let disabled = succeeds(&stand, &["key", "disable", &old]);
    assert!(disabled.contains("disabled"), "{disabled}");
    refuses(&stand, &["key", "destroy", &old], "did not restart");
    create(&stand, "new", 20);

    stand.apiserver.restart();
    until(&stand, |record| {
        record
            .restarted
            .iter()
            .any(|seen| seen.id.to_string() == old)
    });
    let (code, said) = ends(&stand, &["key", "destroy", &old, "--force-id", "k1-0"]);
    assert_eq!(code, Some(2), "{said}");
    let destroyed = succeeds(&stand, &["key", "destroy", &old]);
    assert!(
        destroyed.contains("older copies of the keyring still open"),
        "{destroyed}"
    );

    stand.apiserver.restart();
    written.check(stand.apiserver.api());
    for name in ["old-0", "old-19", "new-0", "new-19"] {
        let read = stand.apiserver.api().get(Kind::Secret, name).is(200);
        assert_eq!(Kind::Secret.value(&read.body), name);
    }
    assert_eq!(stand.claviger.key("destroyed").as_ref(), Some(&old));
}

fn create(stand: &Stand, prefix: &str, count: usize) {
    for number in 0..count {
        let name = format!("{prefix}-{number}");
        let made = stand.apiserver.api().create(Kind::Secret, &name, &name);
        made.is(201);
    }
}

/// How a command ends that looks at the cluster.
fn ends(stand: &Stand, command: &[&str]) -> (Option<i32>, String) {
    let (etcd, kubeconfig) = (stand.etcd.url(), stand.kubeconfig());
    let mut arguments = [command, &["--endpoints", &etcd]].concat();
    if command == ["migrate"] {
        arguments.extend(["--kubeconfig", kubeconfig.to_str().unwrap()]);
    }
    let output = run(stand.claviger.dir(), &arguments);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// The guard of this command refuses, and says this among its reasons.
#[track_caller]
fn refuses(stand: &Stand, command: &[&str], why: &str) {
    let (code, said) = ends(stand, command);
    assert_eq!(code, Some(4), "{command:?}: {said}");
    assert!(said.contains(why), "{command:?}: {said}");
}

#[track_caller]
fn succeeds(stand: &Stand, command: &[&str]) -> String {
    let (code, said) = ends(stand, command);
    assert_eq!(code, Some(0), "{command:?}: {said}");
    said
}

/// Waits until the member says so of itself.
fn until(stand: &Stand, so: impl Fn(&MemberRecord) -> bool) {
    let begun = Instant::now();
    while !so(&record(stand.claviger.dir())) {
        assert!(
            begun.elapsed() < QUIET,
            "{:?}",
            record(stand.claviger.dir())
        );
        thread::sleep(Duration::from_millis(500));
    }
}
