//! An apiserver that has just started has no seed in memory: only what Decrypt answers counts.

use crate::cluster::Kind;
use crate::stand::Stand;

#[test]
fn an_apiserver_that_was_restarted_asks_decrypt_and_reads_everything() {
    let Some(mut stand) = Stand::start() else {
        return;
    };
    let names: Vec<_> = (0..20).map(|number| format!("cold-{number}")).collect();
    for name in &names {
        stand
            .apiserver
            .api()
            .create(Kind::Secret, name, name)
            .is(201);
    }
    assert_eq!(
        stand.claviger.served("Decrypt"),
        0.0,
        "its own seed needs no Decrypt"
    );

    stand.apiserver.restart();
    for name in &names {
        let answer = stand.apiserver.api().get(Kind::Secret, name).is(200);
        assert_eq!(Kind::Secret.value(&answer.body), *name);
    }
    assert!(stand.claviger.served("Decrypt") > 0.0);
    assert_eq!(
        stand.claviger.served("Encrypt"),
        2.0,
        "one seed for each start"
    );
    assert_eq!(
        stand.claviger.metrics().sum("claviger_refusals_total", &[]),
        0.0
    );
}
