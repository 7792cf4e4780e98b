//! `claviger audit --snapshot`, on files of a real etcd.

use std::fs;
use std::path::Path;
use std::process::Command;

use claviger_proto::stored::{EncryptedDekSourceType, EncryptedObject};
use prost::Message;
use serde_json::Value;

use crate::etcd::Etcd;
use crate::process::folder;

const OLD: &str = "k1-00000000000000000000000000000001";
const NEW: &str = "k1-00000000000000000000000000000002";

fn envelope(key_id: &str) -> Vec<u8> {
    let object = EncryptedObject {
        encrypted_data: vec![7; 300],
        key_id: key_id.to_owned(),
        encrypted_dek_source: vec![8; 73],
        annotations: Default::default(),
        encrypted_dek_source_type: EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed as i32,
    };
    [b"k8s:enc:kms:v2:claviger:", &object.encode_to_vec()[..]].concat()
}

/// The exit code, stdout and stderr. No etcd can be found, so the files alone are read.
fn audit(files: &[&Path], arguments: &[&str]) -> (i32, String, String) {
    let mut claviger = Command::new(env!("CARGO_BIN_EXE_claviger"));
    for variable in ["ENDPOINTS", "CACERT", "CERT", "KEY"] {
        claviger.env_remove(format!("ETCDCTL_{variable}"));
    }
    let output = claviger
        .args(["audit", "--prefix", "/test"])
        .args(arguments)
        .arg("--snapshot")
        .args(files)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

#[test]
fn snapshots_are_counted_and_say_which_of_them_need_a_key() {
    let dir = folder();
    let Some(etcd) = Etcd::start(dir.path(), &[]) else {
        return;
    };
    let keys = || (0..20).map(|n| format!("/test/secrets/a/{n}"));
    let [before, after, copy] = ["before.db", "after.db", "copy.db"].map(|n| dir.path().join(n));
    etcd.put(keys().map(|key| (key, envelope(OLD))));
    etcd.save(&before);
    etcd.put(keys().map(|key| (key, envelope(NEW))));
    etcd.save(&after);

    let both = [before.as_path(), &after];
    let json = |files: &[&Path], arguments: &[&str]| {
        let arguments = [&["-o", "json", "--key", OLD], arguments].concat();
        let (code, answer, said) = audit(files, &arguments);
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {said}"));
        (code, answer)
    };
    let (code, answer) = json(&both, &[]);
    assert_eq!(code, 3, "{answer}");
    assert_eq!(answer["keys"][0]["snapshots"], 1, "{answer}");
    assert_eq!(answer["snapshots"][0]["hashed"], true, "{answer}");
    let values = |answer: &Value| -> u64 {
        let rows = answer["rows"].as_array().unwrap().iter();
        let old = rows.filter(|row| row["protection"]["key"] == OLD);
        old.map(|row| row["snapshotValues"].as_u64().unwrap()).sum()
    };
    assert_eq!(values(&answer), 20);
    // The second one has it only in older revisions.
    let (code, answer) = json(&[&after], &[]);
    assert_eq!((code, values(&answer)), (0, 0), "{answer}");
    let (code, answer) = json(&both, &["--all-revisions"]);
    assert_eq!((code, values(&answer)), (3, 40), "{answer}");
    assert_eq!(answer["keys"][0]["snapshots"], 2, "{answer}");

    // No hash: counted, and said.
    let good = fs::read(&before).unwrap();
    fs::write(&copy, &good[..good.len() - 32]).unwrap();
    let (code, screen, _) = audit(&[&copy], &["--key", OLD]);
    assert_eq!(code, 3, "{screen}");
    assert!(screen.contains("without a checksum"), "{screen}");
}

#[test]
fn nothing_is_said_over_a_file_that_cannot_be_read() {
    let dir = folder();
    let Some(etcd) = Etcd::start(dir.path(), &[]) else {
        return;
    };
    etcd.put((0..200).map(|n| (format!("/test/secrets/a/{n}"), envelope(NEW))));
    let [good, bad] = ["good.db", "bad.db"].map(|name| dir.path().join(name));
    etcd.save(&good);
    let bytes = fs::read(&good).unwrap();
    let (code, _, said) = audit(&[&good], &["--key", OLD]);
    assert_eq!(code, 0, "{said}");

    let mut changed = bytes.clone();
    changed[bytes.len() / 2] ^= 1;
    for (damaged, cause) in [
        (&changed[..], "SHA-256 does not match"),
        (&bytes[..bytes.len() / 2], "cut short"),
        (
            &b"\x1f\x8b\x08\0 and so on".repeat(100)[..],
            "compressed with gzip",
        ),
        (b"", "it is empty"),
    ] {
        fs::write(&bad, damaged).unwrap();
        let (code, screen, said) = audit(&[&good, &bad], &["--key", OLD]);
        assert_eq!((code, screen.as_str()), (1, ""), "{cause}: {said}");
        assert!(said.contains("bad.db") && said.contains(cause), "{said}");
    }
    let none = dir.path().join("none.db");
    let (code, _, said) = audit(&[&good, &none], &[]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn without_an_etcd_plaintext_is_judged_by_what_the_snapshot_has() {
    let dir = folder();
    let Some(etcd) = Etcd::start(dir.path(), &[]) else {
        return;
    };
    let plain = |kind: &str| (format!("/test/{kind}/a/plain"), b"k8s\0".to_vec());
    let encrypted = ("/test/configmaps/a/b".to_owned(), envelope(NEW));
    etcd.put([plain("configmaps"), plain("pods"), encrypted]);
    let file = dir.path().join("snapshot.db");
    etcd.save(&file);
    let (code, answer, said) = audit(&[&file], &["-o", "json", "--key", "plaintext"]);
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(answer["keys"][0]["snapshots"], 1, "{answer}");
    assert_eq!(answer["claims"].as_array().map(Vec::len), Some(0));
    assert_eq!(code, 3, "{answer}");
    let (code, screen, _) = audit(&[&file], &[]);
    assert_eq!(code, 3, "{screen}");
    assert!(
        screen.contains("plaintext: needed (a snapshot)"),
        "{screen}"
    );
    assert!(
        screen.contains("Next:  keep what the snapshots need"),
        "{screen}"
    );
}
