//! Imports go one way, as ARCHITECTURE.md draws it; what a layer must not know, it does not name.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The program's modules, from what everything uses to what uses everything. A module may import
/// those on earlier lines, and none of its own line.
const PROGRAM: &[&[&str]] = &[
    &["schema"],
    &["footprint", "hygiene", "client", "config", "observer"],
    &[
        "encryption_config",
        "metrics",
        "notes",
        "probe",
        "publication",
        "telemetry",
    ],
    &["audit", "convergence", "metrics_server"],
    &["migrate", "service"],
    &["keeper", "member_lock", "server"],
    &["rotator"],
    &["app"],
    &["cli"],
];

/// The keystore's modules, in the same order.
const KEYSTORE: &[&[&str]] = &[
    &["key_id", "limits"],
    &["error"],
    &["secret"],
    &["key", "xaes"],
    &["envelope", "header"],
    &["keyring"],
    &["document", "durable", "merge"],
    &["mark", "member", "proof"],
    &["successor"],
    &["root", "rotation", "storage"],
    &["snapshot"],
    &["kube_object", "store"],
    &["testing"],
    &["vectors"],
];

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module of the crate's first level that a file belongs to.
fn module(src: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(src).unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The file without its unit tests, which may use anything.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap()
}

/// Every `crate::name` of the text, and every name of `crate::{…}`.
fn imports(text: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect()
    };
    let mut found = BTreeSet::new();
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split('}').next().unwrap();
                found.extend(group.split(',').map(|name| word(name.trim())));
            }
            None => {
                found.insert(word(rest));
            }
        }
    }
    found.remove("");
    found
}

fn check(src: &Path, layers: &[&[&str]]) -> usize {
    let layer = |name: &str| layers.iter().position(|layer| layer.contains(&name));
    let mut files = Vec::new();
    rust_files(src, &mut files);
    let mut seen = 0;
    for file in files {
        let module = module(src, &file);
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let ours = layer(&module).unwrap_or_else(|| panic!("{module} has no layer in this test"));
        for import in imports(without_tests(&fs::read_to_string(&file).unwrap())) {
            let Some(theirs) = layer(&import) else {
                continue;
            };
            seen += 1;
            let allowed = import == module || theirs < ours;
            assert!(
                allowed,
                "{} imports {import}: that is against the direction",
                file.display()
            );
        }
    }
    seen
}

#[test]
fn the_program_imports_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert!(check(&src, PROGRAM) > 20, "the test sees hardly any import");
}

#[test]
fn the_keystore_imports_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("keystore/src");
    assert!(
        check(&src, KEYSTORE) > 20,
        "the test sees hardly any import"
    );
}

/// The names under `[dependencies]` of a member's Cargo.toml.
fn dependencies(member: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(member)
        .join("Cargo.toml");
    let text = fs::read_to_string(path).unwrap();
    let section = text.split("\n[dependencies]\n").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let lines = section
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.split(['.', ' ', '=']).next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_keystore_knows_no_grpc_no_commands_no_metrics() {
    let found = dependencies("keystore");
    assert!(
        found.contains("aes-gcm"),
        "the test does not see the dependencies"
    );
    for stranger in [
        "tonic",
        "prost",
        "hyper",
        "clap",
        "prometheus",
        "claviger-proto",
    ] {
        assert!(
            !found.contains(stranger),
            "the keystore depends on {stranger}"
        );
    }
}

#[test]
fn the_contract_knows_nothing_of_keys() {
    let found = dependencies("proto");
    assert!(
        found.contains("prost"),
        "the test does not see the dependencies"
    );
    assert!(!found.contains("claviger-keystore"));
}

#[test]
fn only_the_keystore_names_ciphers() {
    let found = dependencies(".");
    for cipher in ["aes", "aes-gcm", "hkdf"] {
        assert!(!found.contains(cipher), "the program depends on {cipher}");
    }
}

#[test]
fn imports_are_found_where_they_stand() {
    let text = "use crate::a_b::C;\nuse crate::{d, e::F};\n// crate::not\nlet x = crate::g::h();";
    let expected = ["a_b", "d", "e", "g"].map(str::to_owned);
    assert_eq!(imports(text), BTreeSet::from(expected));
}
