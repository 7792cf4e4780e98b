//! What lies in etcd, and what is said about it.

use claviger_proto::stored::EncryptedDekSourceType;
use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cluster::Kind;
use crate::serve;
use crate::stand::Stand;

/// Format byte, nonce, seed and tag of one wrapped seed.
const WRAPPED_SEED_LEN: usize = 1 + 24 + 32 + 16;

#[test]
fn secrets_lie_in_etcd_wrapped_by_our_key_and_nothing_of_them_can_be_read() {
    let Some(stand) = Stand::shared() else { return };
    let primary = stand.claviger.key("primary").unwrap();
    let long = "a long value with a password in it; ".repeat(8_000);
    for (name, value) in [
        ("stored-empty", ""),
        ("stored-short", "hunter2hunter2"),
        ("stored-long", &long),
    ] {
        stand
            .apiserver
            .api()
            .create(Kind::Secret, name, value)
            .is(201);

        let (provider, object) = stand.stored(Kind::Secret, name);
        assert_eq!(provider, "claviger");
        assert_eq!(object.key_id, primary);
        assert_eq!(object.encrypted_dek_source.len(), WRAPPED_SEED_LEN);
        let seed = EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed;
        assert_eq!(object.encrypted_dek_source_type(), seed);
        assert!(object.annotations.is_empty());
        let raw = stand.etcd.value(&Kind::Secret.etcd_key(name));
        assert!(!shows(&raw, name, value), "{name} can be read in etcd");

        let answer = stand.apiserver.api().get(Kind::Secret, name).is(200);
        assert_eq!(Kind::Secret.value(&answer.body), value);
    }
}

#[test]
fn what_is_not_encrypted_can_be_read_in_etcd() {
    // Or else the test above would look for the wrong thing.
    let Some(stand) = Stand::shared() else { return };
    stand
        .apiserver
        .api()
        .create(Kind::ConfigMap, "stored-plain", "hunter2hunter2")
        .is(201);
    let raw = stand.etcd.value(&Kind::ConfigMap.etcd_key("stored-plain"));
    assert!(shows(&raw, "stored-plain", "hunter2hunter2"));
}

/// Whether bytes show the name or the value of an object.
fn shows(raw: &[u8], name: &str, value: &str) -> bool {
    let start = &value[..value.len().min(60)];
    [name, start, &BASE64.encode(start.as_bytes())]
        .iter()
        .filter(|text| !text.is_empty())
        .any(|text| {
            raw.windows(text.len())
                .any(|window| window == text.as_bytes())
        })
}

#[test]
fn the_apiservers_key_id_hash_is_the_one_that_our_metric_predicts() {
    let Some(stand) = Stand::shared() else { return };
    stand
        .apiserver
        .api()
        .create(Kind::Secret, "stored-hash", "value")
        .is(201);
    let ours = stand.claviger.metrics();
    let ours = ours.values("claviger_key_info", &[("state", "primary")], "key_id_hash");
    let hash = HEXLOWER.encode(&Sha256::digest(stand.claviger.key("primary").unwrap()));
    assert_eq!(ours, [format!("sha256:{hash}")]);

    let metrics = stand.apiserver.metrics();
    let total = "apiserver_envelope_encryption_key_id_hash_total";
    let written = [
        ("transformation_type", "to_storage"),
        ("provider_name", "claviger"),
    ];
    assert_eq!(metrics.values(total, &written, "key_id_hash"), ours);
    let status = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds";
    assert_eq!(
        metrics.values(status, &[("provider_name", "claviger")], "key_id_hash"),
        ours
    );
}

#[test]
fn probe_and_status_find_nothing_wrong_beside_a_running_apiserver() {
    let Some(stand) = Stand::shared() else { return };
    let dir = stand.claviger.dir();
    let socket = dir.join("kms.sock");
    serve::answer(dir, &["probe", socket.to_str().unwrap()]);
    let status: Value =
        serde_json::from_str(&serve::answer(dir, &["status", "-o", "json"])).unwrap();
    let primary = stand.claviger.key("primary");
    assert_eq!(
        status["plugin"]["answers"].as_str(),
        primary.as_deref(),
        "{status:#}"
    );
    // The apiserver goes on with the connection that it had.
    stand
        .apiserver
        .api()
        .create(Kind::Secret, "stored-after-probe", "value")
        .is(201);
}
