//! Who watches an audit is told how many objects there are, how many were read, and when history
//! comes; who does not look at a terminal is told nothing.

use std::sync::Mutex;

use claviger::audit::etcd;
use claviger::audit::keyspace::{Observer, Options, scan};
use claviger::config::EtcdConfig;

use crate::etcds::{Store, audit};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Begin(u64),
    Seen(u64),
    History,
}

#[derive(Default)]
struct Watching(Mutex<Vec<Told>>);

impl Watching {
    fn is_told(&self, told: Told) {
        self.0.lock().unwrap().push(told);
    }
}

impl Observer for Watching {
    fn note(&self, text: &str) {
        panic!("nothing is amiss, and yet: {text}");
    }

    fn begin(&self, keys: u64) {
        self.is_told(Told::Begin(keys));
    }

    fn seen(&self, keys: u64) {
        self.is_told(Told::Seen(keys));
    }

    fn history(&self) {
        self.is_told(Told::History);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_is_told_of_all_that_is_read() {
    let Some(store) = Store::start() else { return };
    for n in 0..7 {
        store.put(
            &format!("/registry/secrets/a/{n}"),
            b"k8s:enc:aescbc:v1:key1:x",
        );
    }
    let config = EtcdConfig {
        endpoints: vec![store.etcd.url()],
        ca_file: None,
        client: None,
        prefix: "/registry".to_owned(),
    };
    let etcd = etcd::Etcd::connect(&config).await.unwrap();
    let options = Options {
        prefix: "/registry",
        ..Options::default()
    };
    let watching = Watching::default();
    scan(&etcd, options, &watching).await.unwrap();
    let told = watching.0.into_inner().unwrap();
    // In between it is told as often as time passes.
    assert_eq!(told.first(), Some(&Told::Begin(7)), "{told:?}");
    assert_eq!(told.last(), Some(&Told::History), "{told:?}");
    let seen = |told: &Told| matches!(told, Told::Seen(keys) if *keys <= 7);
    assert!(told[1..told.len() - 1].iter().all(seen), "{told:?}");

    let output = audit(&["--endpoints", &store.etcd.url()]);
    assert_eq!(output.stderr, b"", "{output:?}");
}
