//! Orders of providers, and what is warned about.

use super::super::{EncryptionConfiguration, parse};
use super::*;

const OURS: &str = "kms: {apiVersion: v2, name: ours, endpoint: \"unix:///run/claviger/kms.sock\"}";
const OTHER: &str = "kms: {apiVersion: v2, name: other, endpoint: \"unix:///run/other.sock\"}";
const V1: &str = "kms: {name: ours, endpoint: \"unix:///run/claviger/kms.sock\"}";
const IDENTITY: &str = "identity: {}";
const AES: &str = "aescbc: {keys: [{name: k, secret: AAECAwQFBgcICQoLDA0ODw==}]}";

fn configuration(blocks: &[(&str, &[&str])]) -> EncryptionConfiguration {
    let mut text =
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
            .to_owned();
    for (resources, providers) in blocks {
        text += &format!("- resources: [{resources}]\n  providers:\n");
        for provider in *providers {
            text += &format!("  - {provider}\n");
        }
    }
    parse(&text).unwrap_or_else(|faults| panic!("{faults:?} in\n{text}"))
}

fn socket() -> SocketAddress {
    SocketAddress::Path("/run/claviger/kms.sock".into())
}

/// What is not as it should be, with our socket known.
fn found(blocks: &[(&str, &[&str])], phase: Option<Phase>) -> Vec<(Level, u64, String)> {
    judge(&configuration(blocks), phase, Some(&socket()))
        .into_iter()
        .filter(|finding| finding.level != Level::Ok)
        .map(|finding| (finding.level, finding.line, finding.text))
        .collect()
}

#[test]
fn each_order_of_providers_fits_its_phases_and_no_other() {
    use Phase::{Final, Leave, Prepare, Write};
    let orders: [(&[&str], &[Phase]); 9] = [
        (&[IDENTITY, OURS], &[Prepare, Leave]),
        (&[AES, OURS], &[Prepare, Leave]),
        (&[AES, OURS, IDENTITY], &[Prepare, Leave]),
        (&[AES, IDENTITY, OURS], &[Prepare, Leave]),
        (&[OTHER, OURS], &[Prepare, Leave]),
        (&[OURS, IDENTITY], &[Write]),
        (&[OURS, AES, IDENTITY], &[Write]),
        (&[OURS], &[Final]),
        (&[OTHER], &[]),
    ];
    for (providers, fitting) in orders {
        for phase in [Prepare, Write, Final, Leave] {
            let bad = found(&[("secrets", providers)], Some(phase))
                .iter()
                .any(|(level, ..)| *level == Level::Bad);
            assert_eq!(!bad, fitting.contains(&phase), "{providers:?} in {phase:?}");
        }
    }
}

#[test]
fn without_a_phase_each_block_says_which_one_it_is_in() {
    let configuration = configuration(&[
        ("secrets", &[OURS, IDENTITY]),
        ("events", &[IDENTITY]),
        ("configmaps", &[AES, &OURS.replace("ours", "more")]),
    ]);
    let texts: Vec<String> = judge(&configuration, None, Some(&socket()))
        .into_iter()
        .map(|finding| format!("{}: {}", finding.line, finding.text))
        .collect();
    assert_eq!(
        texts,
        [
            "4: secrets: kms ours writes, identity also reads: phase write",
            "6: kms ours: /run/claviger/kms.sock is this configuration's socket",
            "8: events: left in the clear",
            "11: configmaps: aescbc writes, kms more also reads: phase prepare or leave",
            "11: 2 blocks use this plugin: each opens its own connection and has its own seed",
            "14: kms more: /run/claviger/kms.sock is this configuration's socket",
        ]
    );
}

#[test]
fn without_a_socket_the_usual_name_or_the_first_plugin_is_meant() {
    let usual = OURS.replace("ours", "claviger");
    let bad = |providers: &[&str], phase| {
        let findings = judge(&configuration(&[("secrets", providers)]), Some(phase), None);
        findings.iter().any(|finding| finding.level == Level::Bad)
    };
    assert!(!bad(&[OTHER, &usual], Phase::Prepare));
    assert!(bad(&[OTHER, &usual], Phase::Write));
    assert!(!bad(&[OTHER, OURS], Phase::Write));
    assert!(bad(&[V1, IDENTITY], Phase::Write));
}

#[test]
fn a_file_without_our_plugin_fits_no_phase() {
    for phase in [Phase::Prepare, Phase::Write, Phase::Final, Phase::Leave] {
        let found = found(&[("secrets", &[IDENTITY])], Some(phase));
        assert!(
            found.iter().any(|(level, ..)| *level == Level::Bad),
            "{found:?}"
        );
    }
}

#[test]
fn what_is_accepted_and_regretted_is_warned_about() {
    let quick = OURS.replace("name", "timeout: 999ms, name");
    let slow = OURS.replace("name", "timeout: 1s, name");
    let host = OURS.replace("unix:///run", "unix://run");
    let leases = "leases.coordination.k8s.io";
    type Case<'a> = (&'a [(&'a str, &'a [&'a str])], &'a [(Level, u64, &'a str)]);
    let cases: [Case<'_>; 10] = [
        (&[("secrets", &[&slow])], &[]),
        (
            &[("secrets", &[&quick])],
            &[(Level::Warn, 6, "kms ours: 999ms may be too short")],
        ),
        (
            &[("secrets", &[IDENTITY]), ("configmaps", &[OURS])],
            &[(Level::Warn, 6, "secrets are left in the clear")],
        ),
        (
            &[("configmaps", &[OURS])],
            &[(Level::Warn, 1, "secrets stand in no block")],
        ),
        (
            &[(leases, &[OURS]), ("\"*.\"", &[&OURS.replace("ours", "b")])],
            &[
                (Level::Warn, 6, "kms ours also encrypts Leases"),
                (Level::Warn, 7, "2 blocks use this plugin"),
            ],
        ),
        (
            &[("\"*.*\"", &[OURS])],
            &[(Level::Warn, 6, "kms ours also encrypts Leases")],
        ),
        (&[(leases, &[IDENTITY]), ("\"*.*\"", &[OURS])], &[]),
        (
            &[("secrets", &[OURS]), ("secrets", &[IDENTITY])],
            &[(Level::Warn, 7, "secrets stands on line 4 already")],
        ),
        (
            &[("secrets", &[V1])],
            &[(Level::Bad, 6, "kms ours: without apiVersion: v2")],
        ),
        (
            &[("secrets", &[&host])],
            &[
                (
                    Level::Warn,
                    4,
                    "secrets: kms ours alone; a kms provider on /run/claviger",
                ),
                (
                    Level::Bad,
                    6,
                    "kms ours: kube-apiserver would dial `/claviger/kms.sock`",
                ),
            ],
        ),
    ];
    for (blocks, expected) in cases {
        let found = found(blocks, None);
        assert_eq!(found.len(), expected.len(), "{blocks:?}: {found:?}");
        for ((level, line, text), (wanted, at, start)) in found.iter().zip(expected) {
            assert_eq!((level, line), (wanted, at), "{blocks:?}: {text}");
            assert!(text.starts_with(start), "{text}");
        }
    }
}

#[test]
fn var_run_is_run_and_abstract_names_are_compared() {
    let reaches = |endpoint: &str, socket: &SocketAddress| {
        let provider = OURS.replace("unix:///run/claviger/kms.sock", endpoint);
        let configuration = configuration(&[("secrets", &[&provider])]);
        configuration.blocks[0].providers[0]
            .kms()
            .unwrap()
            .reaches(socket)
    };
    assert!(reaches("unix:///var/run/claviger/kms.sock", &socket()));
    assert!(!reaches("unix:///run/claviger/kms.sock2", &socket()));
    let name = SocketAddress::Abstract("claviger".to_owned());
    assert!(reaches("unix:///@claviger", &name));
    assert!(!reaches("unix:///claviger", &name) && !reaches("unix:///@other", &name));
}
