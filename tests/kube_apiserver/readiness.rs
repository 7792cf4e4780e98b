//! Both `/readyz` tell the truth.

use std::fs;

use rustix::process::Signal;

use crate::cluster::{Apiserver, Etcd, Kind};
use crate::process::folder;
use crate::serve::Claviger;
use crate::stand::{SECRETS, encryption_config};

/// Where kube-apiserver says how its KMS plugins are.
const KMS: &str = "/readyz/kms-providers";

#[test]
fn without_a_root_nobody_is_ready_and_when_it_is_back_all_heal_by_themselves() {
    let dir = folder();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let mut claviger = Claviger::serve(&dir.path().join("claviger")).ready();
    claviger.stop(Signal::TERM);
    let (root, away) = (claviger.dir().join("root.key"), dir.path().join("root.key"));
    fs::rename(&root, &away).unwrap();

    // The plugin is up, and says why it cannot serve.
    claviger.start_again();
    claviger.says("/readyz", 503, "root.key");
    assert_eq!(claviger.answers("/livez", 200), "ok\n");

    // The apiserver is up, and hands the reason on.
    let config = encryption_config(claviger.dir(), &SECRETS);
    let Some(apiserver) = Apiserver::start(&dir.path().join("apiserver"), &etcd, &config) else {
        return;
    };
    let api = apiserver.api();
    let not_ready = apiserver.says(KMS, 500, "root.key");
    assert!(not_ready.contains("keyring is not open"), "{not_ready}");
    apiserver.answers("/api/v1/namespaces/default", 200);
    api.create(Kind::Secret, "early", "value").is(500);

    fs::rename(&away, &root).unwrap();
    assert_eq!(claviger.answers("/readyz", 200), "ok\n");
    apiserver.ready();
    api.create(Kind::Secret, "late", "value").is(201);
    api.get(Kind::Secret, "late").is(200);

    // A plugin that goes away is noticed by whoever asks, and for minutes by no client.
    claviger.stop(Signal::KILL);
    apiserver.answers(KMS, 500);
    api.create(Kind::Secret, "meanwhile", "value").is(201);
    claviger.start_again();
    apiserver.answers(KMS, 200);
}
