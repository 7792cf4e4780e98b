//! The plugin may go and come back at any time.

use std::thread;

use rustix::process::Signal;

use crate::cluster::Kind;
use crate::stand::Stand;
use crate::writers::Writers;

#[test]
fn a_plugin_that_is_stopped_or_killed_and_comes_back_fails_no_write_and_no_read() {
    let signals = [
        Signal::TERM,
        Signal::KILL,
        Signal::KILL,
        Signal::TERM,
        Signal::KILL,
        Signal::TERM,
    ];
    let Some(mut stand) = Stand::start_with(&["--resources", "secrets,configmaps"]) else {
        return;
    };
    for round in 0..signals.len() {
        stand.create_cold(&format!("during-{round}"));
        stand.create_cold(&format!("after-{round}"));
    }
    let writers = Writers::start(stand.apiserver.api());
    writers.go_on(40);

    for (round, signal) in signals.into_iter().enumerate() {
        let ended = stand.claviger.stop(signal);
        assert_eq!(ended.success(), signal == Signal::TERM, "{ended}");
        // For these the seed in the apiserver's memory is enough.
        writers.go_on(40);
        // For this one it is not: the call waits for the plugin.
        let api = stand.apiserver.api().clone();
        let reader = thread::spawn(move || api.get(Kind::ConfigMap, &format!("during-{round}")));
        writers.go_on(10);
        assert!(!reader.is_finished(), "it was read without the plugin");
        stand.claviger.start_again();
        reader.join().unwrap().is(200);
        stand
            .apiserver
            .api()
            .get(Kind::ConfigMap, &format!("after-{round}"))
            .is(200);
        assert_eq!(stand.claviger.served("Decrypt"), 2.0);
        writers.go_on(10);
    }

    stand.apiserver.answers("/readyz", 200);
    let written = writers.finish();
    let decrypted = stand.claviger.served("Decrypt");
    stand.apiserver.restart();
    written.check(stand.apiserver.api());
    assert!(stand.claviger.served("Decrypt") > decrypted);
}
