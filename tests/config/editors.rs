//! The JSON schema that editors use refuses nothing that is a configuration, and most of what is
//! none.

use super::*;
use crate::schema;

/// What the schema says of a text.
fn schema_faults(text: &str) -> Vec<String> {
    let mut document: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    // It is found by the kind, whatever the text says.
    let kind = document["kind"].take();
    document["kind"] = "ClavigerConfiguration".into();
    let mut faults = schema::faults(&document);
    if kind != "ClavigerConfiguration" {
        faults.push(format!("kind: {kind}"));
    }
    faults
}

/// As cli.md has it, less what is not in this version.
const LARGE: &str = r#"
apiVersion: claviger.io/v1alpha1
kind: ClavigerConfiguration
member: cp1
server:
  socket: /run/claviger/kms.sock
  mode: "0600"
  group: claviger
  allowUIDs: [0]
  statusVersion: v2beta1
storage:
  file: {path: /var/lib/claviger/keyring, replica: false}
roots:
- name: local
  keyFile: {path: /etc/claviger/root.key}
- name: sealed
  keyFile: {credential: root.key}
- name: paper
  recovery: {file: /root/recovery.key}
kubernetes:
  apiserverManifest: /etc/kubernetes/manifests/kube-apiserver.yaml
  kubeconfig: /etc/kubernetes/admin.conf
  encryptionConfig: /etc/kubernetes/encryption.yaml
  etcd: {endpoints: [https://127.0.0.1:2379], caFile: /ca, certFile: /c, keyFile: /k, prefix: /registry}
metrics: {listen: 127.0.0.1:9465, tls: {certFile: /c, keyFile: /k}}
log: {format: json, level: info}
"#;

#[test]
fn every_example_is_as_the_schema_says() {
    let example = std::fs::read_to_string("deploy/config.yaml").unwrap();
    let uncommented = uncommented(&example);
    let empty = format!("{SMALLEST}server:\nmetrics: {{tls:}}\nlog: ~\nkubernetes:\n");
    for text in [SMALLEST, LARGE, &example, &uncommented, &empty] {
        assert_eq!(faults(text), [""; 0], "{text}");
        assert_eq!(schema_faults(text), [""; 0], "{text}");
    }
}

#[test]
fn the_example_names_the_schema_beside_it() {
    let example = std::fs::read_to_string("deploy/config.yaml").unwrap();
    let named = example
        .lines()
        .find_map(|line| line.strip_prefix("# yaml-language-server: $schema="))
        .unwrap();
    assert!(named.ends_with("claviger-configuration.json"), "{named}");
    assert!(Path::new("deploy").join(named).exists(), "{named}");
}

/// What is put in the place of a line of `LARGE`, which both refuse.
const REFUSED: &[(&str, &str)] = &[
    ("apiVersion: claviger.io/v1alpha1", "apiVersion: v1"),
    ("apiVersion: claviger.io/v1alpha1", ""),
    ("kind: ClavigerConfiguration", "kind: Pod"),
    ("member: cp1", "membre: cp1"),
    ("member: cp1", "member: 1"),
    ("  socket: /run/claviger/kms.sock", "  sockets: /a"),
    ("  allowUIDs: [0]", "  allowUIDs: []"),
    ("  allowUIDs: [0]", "  allowUIDs: [-1]"),
    ("  allowUIDs: [0]", "  allowUIDs: [root]"),
    ("  allowUIDs: [0]", "  allowUIDs: 0"),
    ("  statusVersion: v2beta1", "  statusVersion: v1"),
    ("storage:", "stores:"),
    ("replica: false", "replica: true"),
    ("replica: false", "copy: false"),
    (
        "  file: {path: /var/lib/claviger/keyring, replica: false}",
        "  etcd: {}",
    ),
    ("- name: sealed", "- title: sealed"),
    ("credential: root.key", "credential: root.key, path: /a"),
    ("credential: root.key", "mode: \"0400\""),
    ("recovery: {file: /root/recovery.key}", "recovery: {}"),
    (
        "recovery: {file: /root/recovery.key}",
        "vault: {address: https://bao}",
    ),
    ("recovery: {file: /root/recovery.key}", "maxStaleness: 72h"),
    (
        "  kubeconfig: /etc/kubernetes/admin.conf",
        "  kubeConfig: /a",
    ),
    ("endpoints: [https://127.0.0.1:2379]", "endpoints: []"),
    ("endpoints: [https://127.0.0.1:2379], ", ""),
    ("prefix: /registry", "prefixes: /registry"),
    ("tls: {certFile: /c, keyFile: /k}", "tls: {certFile: /c}"),
    ("listen: 127.0.0.1:9465", "listens: 127.0.0.1:9465"),
    ("format: json", "format: xml"),
    ("level: info", "level: notice"),
];

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    for (line, instead) in REFUSED {
        assert!(LARGE.contains(line), "{line}");
        let text = LARGE.replacen(line, instead, 1);
        assert_ne!(faults(&text), [""; 0], "{text}");
        assert_ne!(schema_faults(&text), [""; 0], "{text}");
    }
}

/// The words of a schema's `enum`, null aside.
fn words(pointer: &str) -> String {
    let text = std::fs::read_to_string("deploy/schema/claviger-configuration.json").unwrap();
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = schema.pointer(&format!("/$defs/{pointer}/enum")).unwrap();
    let words = list
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|word| word.as_str());
    words.collect::<Vec<_>>().join(", ")
}

#[test]
fn the_schema_knows_the_words_that_the_rules_know() {
    for (field, pointer) in [
        (
            "server: {statusVersion: X}",
            "RawServer/properties/statusVersion",
        ),
        ("log: {format: X}", "RawLog/properties/format"),
        ("log: {level: X}", "RawLog/properties/level"),
    ] {
        let faults = faults(&format!("{SMALLEST}{field}\n"));
        let known = faults[0].split_once("must be one of ").unwrap().1;
        assert_eq!(known, words(pointer), "{field}");
    }
}

/// Every schema inside this one that names fields.
fn closed(schema: &serde_json::Value) -> usize {
    let below = match schema {
        serde_json::Value::Object(fields) => fields.values().map(closed).sum(),
        serde_json::Value::Array(items) => items.iter().map(closed).sum(),
        _ => 0,
    };
    match schema
        .get("properties")
        .filter(|_| schema.get("type").is_some())
    {
        Some(_) => {
            assert_eq!(schema["additionalProperties"], false, "{schema:#}");
            below + 1
        }
        None => below,
    }
}

#[test]
fn the_schema_refuses_unknown_fields_everywhere() {
    let text = std::fs::read_to_string("deploy/schema/claviger-configuration.json").unwrap();
    assert!(closed(&serde_json::from_str(&text).unwrap()) > 8);
}
