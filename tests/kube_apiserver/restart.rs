//! The plugin may go and come back at any time.

use std::thread;

use rustix::process::Signal;

use crate::cluster::Kind;
use crate::stand::Stand;
use crate::writers::Writers;

#[test]
fn a_plugin_that_is_stopped_or_killed_and_comes_back_fails_no_write_and_no_read() {
    let Some(mut stand) = Stand::start() else {
        return;
    };
    let signals = [
        Signal::TERM,
        Signal::KILL,
        Signal::KILL,
        Signal::TERM,
        Signal::KILL,
        Signal::TERM,
    ];
    for round in 0..signals.len() {
        stand.create_cold_secret(&format!("during-{round}"), "read while it is away");
        stand.create_cold_secret(&format!("after-{round}"), "read when it is back");
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
        let reader = thread::spawn(move || api.get(Kind::Secret, &format!("during-{round}")));
        writers.go_on(10);
        stand.claviger.start_again();
        let read = reader.join().unwrap().is(200);
        assert_eq!(Kind::Secret.value(&read.body), "read while it is away");
        stand
            .apiserver
            .api()
            .get(Kind::Secret, &format!("after-{round}"))
            .is(200);
        writers.go_on(10);
    }

    stand.apiserver.answers("/readyz", 200);
    let written = writers.finish();
    let decrypted = stand.claviger.served("Decrypt");
    stand.apiserver.restart();
    written.check(stand.apiserver.api());
    assert!(stand.claviger.served("Decrypt") > decrypted);
}
