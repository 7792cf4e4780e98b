//! The key changes under a running cluster.

use claviger::app;
use claviger::config;
use claviger_keystore::Keystore;
use claviger_keystore::error::Error;
use claviger_keystore::keyring::Keyring;
use claviger_keystore::storage::file::Durability;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::path::Path;
use tokio::runtime::Runtime;

use crate::cluster::Kind;
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
    let node = Node::open(stand.claviger.dir());

    node.commit(|keyring| keyring.stage(Timestamp::now()));
    let new = wait_until("the plugin has the staged key", || {
        stand.claviger.key("staged")
    });
    writers.go_on(40);
    assert_eq!(stand.claviger.key("primary").as_ref(), Some(&old));

    let id = new.parse().unwrap();
    node.commit(|keyring| Ok(keyring.activate(&id, Timestamp::now())?));
    wait_until("the apiserver has a seed that the new key wraps", || {
        // Asked whether it is ready, an apiserver asks Status sooner than by itself.
        stand.apiserver.answers("/readyz", 200);
        (stand.claviger.served("Encrypt") == 2.0).then_some(())
    });
    writers.go_on(40);
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

/// A key id in kube-apiserver's metrics.
fn hash(key_id: &str) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(key_id)))
}

/// Somebody who changes the keyring of a node beside the running plugin.
struct Node {
    runtime: Runtime,
    keystore: Keystore,
}

impl Node {
    fn open(dir: &Path) -> Self {
        let config = config::read(&dir.join("config.yaml")).unwrap();
        let storage = app::storage(&config, Durability::Memory);
        let keystore = Keystore::new(Box::new(storage), app::roots(&config), None);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(keystore.sync(Timestamp::now())).unwrap();
        Self { runtime, keystore }
    }

    fn commit(&self, change: impl FnOnce(&Keyring) -> Result<Keyring, Error>) {
        self.runtime
            .block_on(self.keystore.commit(Timestamp::now(), change))
            .unwrap();
    }
}
