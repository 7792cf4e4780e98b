//! What lies in etcd is counted exactly, and what cannot be read is no count.

use std::fs;

use claviger_proto::stored::{EncryptedDekSourceType, EncryptedObject};
use prost::Message;

use crate::etcds::{Store, audit, file};

fn envelope(key_id: &str) -> Vec<u8> {
    let object = EncryptedObject {
        encrypted_data: vec![7; 300],
        key_id: key_id.to_owned(),
        encrypted_dek_source: vec![8; 73],
        annotations: Default::default(),
        encrypted_dek_source_type: EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed as i32,
    };
    [b"k8s:enc:kms:v2:other:", &object.encode_to_vec()[..]].concat()
}

#[test]
fn history_is_what_etcd_still_has_and_goes_when_it_compacts() {
    let Some(store) = Store::start() else { return };
    let one = "/registry/secrets/a/one";
    store.put(one, &envelope("A"));
    store.put(one, &envelope("A"));
    store.put(one, &envelope("B"));
    store.put("/registry/secrets/a/two", &envelope("A"));
    store.delete("/registry/secrets/a/two");
    let audited = store.audit(&["--key", "A"]);
    assert_eq!(audited.counts("kms:v2", "A"), (0, 3));
    assert_eq!(audited.counts("kms:v2", "B"), (1, 0));
    assert_eq!(audited.code, 3, "{:#}", audited.answer);
    assert_eq!(audited.answer["claims"].as_array().unwrap().len(), 0);

    let revision = store.compact();
    // Only what ends from now on is history.
    store.put(one, &envelope("C"));
    let audited = store.audit(&["--key", "A"]);
    assert_eq!(audited.counts("kms:v2", "A"), (0, 0));
    assert_eq!(audited.counts("kms:v2", "B"), (0, 1));
    assert_eq!(audited.counts("kms:v2", "C"), (1, 0));
    assert_eq!(audited.answer["etcd"]["historyFrom"], revision + 1);
    assert_eq!(audited.code, 0, "{:#}", audited.answer);
    let claim = audited.answer["claims"][0].as_str().unwrap();
    assert!(
        claim.contains(&format!("at etcd revision {}", revision + 1)),
        "{claim}"
    );
    assert!(claim.contains("not shown"), "{claim}");
}

#[test]
fn everything_compacted_is_no_history_at_all() {
    let Some(store) = Store::start() else { return };
    store.put("/registry/secrets/a/one", &envelope("A"));
    store.put("/registry/secrets/a/one", &envelope("B"));
    store.compact();
    let audited = store.audit(&[]);
    assert_eq!(audited.counts("kms:v2", "A"), (0, 0));
    assert_eq!(audited.counts("kms:v2", "B"), (1, 0));
    assert_eq!(audited.code, 0, "{:#}", audited.answer);
}

#[test]
fn what_cannot_be_read_is_an_exception_and_nothing_is_claimed_over_it() {
    let Some(store) = Store::start() else { return };
    let whole = envelope("A");
    let spoilt: [(&str, &[u8]); 4] = [
        ("cut", &whole[..whole.len() - 5]),
        ("empty", b"k8s:enc:kms:v2:other:"),
        ("header", b"k8s:enc:kms"),
        ("no-key-id", &envelope("")),
    ];
    for (name, value) in spoilt {
        store.put(&format!("/registry/secrets/a/{name}"), value);
    }
    store.put("/registry/secrets/a/whole", &whole);
    let audited = store.audit(&["--key", "nothing-names-me"]);
    assert_eq!(audited.counts("kms:v2", "A"), (1, 0));
    assert_eq!(audited.answer["exceptions"]["count"], 4);
    assert_eq!(
        audited.answer["exceptions"]["first"][0]["object"],
        "secrets/a/cut"
    );
    assert_eq!(audited.answer["claims"].as_array().unwrap().len(), 0);
    assert_eq!(audited.code, 3);

    // What was broken is no secret of history either.
    for (name, _) in spoilt {
        store.put(&format!("/registry/secrets/a/{name}"), &whole);
    }
    let audited = store.audit(&[]);
    assert_eq!(audited.counts("kms:v2", "A"), (5, 0));
    assert_eq!(audited.answer["exceptions"]["count"], 4);
    assert_eq!(audited.answer["exceptions"]["first"][0]["history"], true);
    assert_eq!(audited.code, 3);
}

#[test]
fn keys_of_others_count_only_where_they_are_encrypted() {
    let Some(store) = Store::start() else { return };
    store.put("/claviger/prod/keyring", b"{\"format\":1}\nAAAA");
    store.put("/other/registry/secrets/a/b", &envelope("A"));
    store.put("/registry/secrets/a/b", &envelope("B"));
    let audited = store.audit(&[]);
    assert_eq!(audited.counts("plaintext", ""), (0, 0));
    assert_eq!(audited.counts("kms:v2", "A"), (1, 0));
    let rows = audited.answer["rows"].as_array().unwrap();
    assert_eq!(rows[0]["resource"], "(outside /registry)");

    let other = store.audit(&["--prefix", "/other/registry", "--key", "A"]);
    assert_eq!(other.answer["rows"][1]["resource"], "secrets");
    assert_eq!(other.code, 3);
}

#[test]
fn since_reads_what_changed_and_counts_the_same() {
    let Some(store) = Store::start() else { return };
    for n in 0..1500 {
        let key = if n % 3 == 0 { "A" } else { "B" };
        store.put(&format!("/registry/secrets/a/{n}"), &envelope(key));
    }
    let ledger = store.path("ledger");
    let ledger = ledger.to_str().unwrap();
    let first = store.audit(&["--since", ledger]);
    assert_eq!(first.answer["etcd"]["valuesRead"], 1500);
    assert_eq!(first.counts("kms:v2", "A").0, 500);
    assert!(first.said.contains("reading everything"), "{}", first.said);

    for n in 0..300 {
        store.put(&format!("/registry/secrets/a/{n}"), &envelope("C"));
    }
    store.delete("/registry/secrets/a/300");
    store.put("/registry/secrets/a/new", &envelope("A"));
    let second = store.audit(&["--since", ledger]);
    assert_eq!(second.answer["etcd"]["valuesRead"], 301);
    let full = store.audit(&[]);
    for key in ["A", "B", "C"] {
        assert_eq!(
            second.counts("kms:v2", key),
            full.counts("kms:v2", key),
            "{key}"
        );
    }
    assert_eq!(second.counts("kms:v2", "C").0, 300);

    // A file that is not whole is not believed.
    let mut bytes = fs::read(ledger).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(ledger, bytes).unwrap();
    let third = store.audit(&["--since", ledger]);
    assert!(third.said.contains("no whole file"), "{}", third.said);
    assert_eq!(third.answer["etcd"]["valuesRead"], 1500);
    assert_eq!(third.counts("kms:v2", "C").0, 300);
}

#[test]
fn another_etcd_is_not_compared_with_an_earlier_one() {
    let (Some(one), Some(other)) = (Store::start(), Store::start()) else {
        return;
    };
    for store in [&one, &other] {
        // The same cluster id would be an accident of how the tests start them.
        store.put("/registry/secrets/a/b", &envelope("A"));
        store.put("/registry/secrets/a/c", &envelope("A"));
    }
    other.delete("/registry/secrets/a/c");
    let ledger = one.path("ledger");
    let ledger = ledger.to_str().unwrap();
    other.audit(&["--since", ledger]);
    let audited = one.audit(&["--since", ledger]);
    assert!(
        audited.said.contains("reading everything"),
        "{}",
        audited.said
    );
    assert_eq!(audited.counts("kms:v2", "A").0, 2);
}

#[test]
fn a_list_names_every_object_and_the_textfile_every_count() {
    let Some(store) = Store::start() else { return };
    for n in 0..5 {
        store.put(&format!("/registry/secrets/a/{n}"), &envelope("A"));
    }
    store.put("/registry/configmaps/a/x", &envelope("A"));
    store.put("/registry/configmaps/a/plain", b"k8s\0");
    store.put("/registry/pods/a/plain", b"k8s\0");
    let textfile = store.path("claviger.prom");
    let listed = store.audit(&[
        "--key",
        "A",
        "--list",
        "--textfile",
        textfile.to_str().unwrap(),
    ]);
    let names = |listed: &serde_json::Value| -> Vec<String> {
        let objects = listed["objects"].as_array().unwrap();
        let names = objects
            .iter()
            .map(|object| object["object"].as_str().unwrap().to_owned());
        names.collect()
    };
    let expected = [
        "configmaps/a/x",
        "secrets/a/0",
        "secrets/a/1",
        "secrets/a/2",
        "secrets/a/3",
        "secrets/a/4",
    ];
    assert_eq!(names(&listed.answer), expected);
    // Beside an encrypted object of its resource, one in the clear is stale; elsewhere it is not.
    assert_eq!(
        names(&store.audit(&["--list"]).answer),
        ["configmaps/a/plain"]
    );

    let page = fs::read_to_string(&textfile).unwrap();
    let documented = include_str!("../../deploy/METRICS.md");
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<_> = types
        .filter_map(|line| line.strip_suffix(" gauge"))
        .collect();
    assert_eq!(names.len(), 4, "{page}");
    for name in names {
        assert!(
            documented.contains(&format!("- `{name}`, gauge: ")),
            "{name}"
        );
    }
    let line = "claviger_audit_objects{resource=\"secrets\",protection=\"kms:v2\",provider=\"other\",\
                key_id=\"A\",state=\"\",place=\"current\"} 5\n";
    assert!(page.contains(line), "{page}");
    assert!(
        page.contains("\nclaviger_audit_stale_objects 1\n"),
        "{page}"
    );
    assert!(
        page.contains("\nclaviger_audit_last_success_timestamp_seconds "),
        "{page}"
    );
    assert_eq!(
        fs::read_dir(textfile.parent().unwrap()).unwrap().count(),
        2,
        "etcd and the file"
    );
}

#[test]
fn values_larger_than_a_page_are_read_too() {
    let Some(store) = Store::start() else { return };
    let large = [&b"k8s:enc:aescbc:v1:large:"[..], &[7; 1_400_000]].concat();
    for n in 0..520 {
        store.put(&format!("/registry/secrets/a/{n:04}"), &envelope("A"));
    }
    // The page that follows small objects is asked for by the hundred.
    for n in 0..20 {
        store.put(&format!("/registry/secrets/b/{n:04}"), &large);
    }
    let audited = store.audit(&[]);
    assert_eq!(audited.counts("kms:v2", "A").0, 520);
    assert_eq!(audited.counts("aescbc:v1", "large").0, 20);
}

#[test]
fn the_screen_says_what_was_read_and_what_to_do() {
    let Some(store) = Store::start() else { return };
    store.put("/registry/secrets/a/b", &envelope("A"));
    store.put("/registry/secrets/a/c", b"k8s\0");
    let url = store.etcd.url();
    let output = audit(&["--endpoints", &url]);
    let screen = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3));
    for text in [
        "revision 3, whole keyspace, 2 keys; history from revision 1",
        "secrets   other/A",
        "plaintext: needed (1 object)\n  secrets/a/c\n",
        "Next:  claviger migrate",
    ] {
        assert!(screen.contains(text), "{text:?} is not in\n{screen}");
    }
    let config = file(
        store.path(".").as_path(),
        "encryption.yaml",
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
         resources:\n- resources: [configmaps]\n  providers: [{identity: {}}]\n",
    );
    let output = audit(&["--endpoints", &url, "--encryption-config", &config]);
    let screen = String::from_utf8(output.stdout).unwrap();
    assert!(
        screen.contains("1 object in the clear of resources that are not to be encrypted"),
        "{screen}"
    );
    assert!(screen.contains("other/A: needed (1 object)"), "{screen}");
}
