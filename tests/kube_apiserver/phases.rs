//! The way in and the way out, as `claviger print` writes the phases.

use crate::cluster::Kind;
use crate::stand::{SECRETS, Stand, encryption_config};

#[test]
fn a_cluster_goes_the_way_in_and_out_again_and_can_read_everything_in_each_phase() {
    let Some(mut stand) = Stand::start_with(&in_phase("prepare")) else {
        return;
    };
    let names = ["prepare", "write", "final", "leave"];
    for (done, phase) in names.into_iter().enumerate() {
        if done > 0 {
            let config = encryption_config(stand.claviger.dir(), &in_phase(phase));
            stand.apiserver.set_encryption(&config);
            stand.apiserver.restart();
        }
        let api = stand.apiserver.api();
        api.create(Kind::Secret, phase, phase).is(201);
        let encrypted = matches!(phase, "write" | "final");
        assert_eq!(
            stand.is_encrypted(Kind::Secret, phase),
            encrypted,
            "{phase}"
        );
        for name in &names[..=done] {
            let read = api.get(Kind::Secret, name).is(200);
            assert_eq!(Kind::Secret.value(&read.body), **name, "in phase {phase}");
        }
        // As a migration does, before the next phase.
        for name in &names[..=done] {
            api.rewrite(Kind::Secret, name);
            assert_eq!(
                stand.is_encrypted(Kind::Secret, name),
                encrypted,
                "{name} in {phase}"
            );
        }
    }
}

fn in_phase(phase: &str) -> Vec<&str> {
    [&SECRETS[..], &["--phase", phase]].concat()
}
