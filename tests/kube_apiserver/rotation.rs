//! The key changes under a running cluster.

use std::path::Path;
use std::thread;

use claviger_keystore::member::MemberRecord;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::cluster::Kind;
use crate::serve::answer;
use crate::stand::Stand;
use crate::web::wait_until;
use crate::writers::Writers;

#[test]
fn a_rotation_fails_no_write_and_what_the_old_key_wrapped_stays_readable() {
    let Some(mut stand) = Stand::start() else {
        return;
    };
    stand
        .apiserver
        .api()
        .create(Kind::Secret, "old", "of the old key")
        .is(201);
    let old = stand.claviger.key("primary").unwrap();
    let writers = Writers::start(stand.apiserver.api());

    answer(stand.claviger.dir(), &["rotate", "--stage-only"]);
    let new = wait_until("the plugin has the staged key", || {
        stand.claviger.key("staged")
    });
    writers.go_on(40);
    assert_eq!(stand.claviger.key("primary").as_ref(), Some(&old));

    // A command that asks the plugin is no apiserver that went away with the old key.
    answer(stand.claviger.dir(), &["status"]);
    rotate_and_wait(&stand);
    writers.go_on(40);
    let record = record(stand.claviger.dir());
    let converged = record.converged.map(|converged| converged.id.to_string());
    assert_eq!(converged.as_ref(), Some(&new));
    assert!(record.connections.converged > 0, "{:?}", record.connections);
    let metrics = stand.apiserver.metrics();
    let total = "apiserver_envelope_encryption_key_id_hash_total";
    let to_storage = [
        ("transformation_type", "to_storage"),
        ("key_id_hash", &hash(&new)),
    ];
    assert!(
        metrics.sum(total, &to_storage) > 0.0,
        "it writes with the new key"
    );
    let written = writers.finish();
    assert_eq!(stand.claviger.key("primary").as_ref(), Some(&new));
    assert_eq!(stand.claviger.key("retired").as_ref(), Some(&old));

    stand.apiserver.restart();
    written.check(stand.apiserver.api());
    assert_eq!(stand.stored(Kind::Secret, "old").1.key_id, old);
    let read = stand.apiserver.api().get(Kind::Secret, "old").is(200);
    assert_eq!(Kind::Secret.value(&read.body), "of the old key");
    stand.apiserver.api().rewrite(Kind::Secret, "old");
    assert_eq!(stand.stored(Kind::Secret, "old").1.key_id, new);
}

/// Rotates, and waits until every apiserver has moved on.
pub(crate) fn rotate_and_wait(stand: &Stand) {
    thread::scope(|scope| {
        let rotated = scope.spawn(|| answer(stand.claviger.dir(), &["rotate", "--wait"]));
        wait_until("every apiserver has moved on", || {
            // Asked whether it is ready, an apiserver asks Status sooner than by itself.
            stand.apiserver.answers("/readyz", 200);
            rotated.is_finished().then_some(())
        });
        let rotated = rotated.join().unwrap();
        assert!(rotated.contains("is primary"), "{rotated}");
    });
}

/// A key id in kube-apiserver's metrics.
fn hash(key_id: &str) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(key_id)))
}

/// What the one member says of itself, without its MAC.
pub(crate) fn record(dir: &Path) -> MemberRecord {
    let mut files = std::fs::read_dir(dir.join("members")).unwrap();
    let text = std::fs::read_to_string(files.next().unwrap().unwrap().path()).unwrap();
    let (record, _mac) = text.rsplit_once(",\"mac\":").unwrap();
    serde_json::from_str(&format!("{record}}}")).unwrap()
}
