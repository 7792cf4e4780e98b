//! The EncryptionConfiguration changes under a running apiserver.

use crate::cluster::Kind;
use crate::stand::{Stand, encryption_config};
use crate::web::wait_until;
use crate::writers::Writers;

#[test]
fn a_reloaded_encryption_configuration_opens_a_second_connection_and_fails_no_write() {
    let Some(stand) = Stand::start() else { return };
    let api = stand.apiserver.api();
    api.create(Kind::Secret, "before", "of the first connection")
        .is(201);
    api.create(Kind::ConfigMap, "before", "not encrypted yet")
        .is(201);
    let writers = Writers::start(api);
    assert_eq!(connections(&stand), 1.0);

    let config = encryption_config(stand.claviger.dir(), &["--resources", "secrets,configmaps"]);
    stand.apiserver.set_encryption(&config);
    // The old connection stays until the new one serves, and a few seconds more.
    for count in [2.0, 1.0] {
        wait_until("connections come and go", || {
            (connections(&stand) == count).then_some(())
        });
    }
    let reloads = "apiserver_encryption_config_controller_automatic_reloads_total";
    let metrics = stand.apiserver.metrics();
    assert_eq!(metrics.sum(reloads, &[("status", "success")]), 1.0);
    assert_eq!(
        stand.claviger.served("Encrypt"),
        2.0,
        "one seed for each connection"
    );

    api.create(Kind::ConfigMap, "after", "encrypted").is(201);
    stand.stored(Kind::ConfigMap, "after");
    for (kind, value) in [
        (Kind::Secret, "of the first connection"),
        (Kind::ConfigMap, "not encrypted yet"),
    ] {
        assert_eq!(kind.value(&api.get(kind, "before").is(200).body), value);
    }
    assert!(
        stand.claviger.served("Decrypt") > 0.0,
        "the new connection began with a cold cache"
    );
    writers.go_on(40);
    writers.finish();
}

fn connections(stand: &Stand) -> f64 {
    stand.claviger.metrics().sum("claviger_connections", &[])
}
