//! Real clusters with any provider: our counts are those of a decoder that shares no line with us.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::cluster::{Apiserver, Etcd, Kind};
use crate::components::component;
use crate::etcds::{Audited, audit, compact, file, gateway};
use crate::process::{Process, command, folder};
use crate::serve::{self, Claviger};

/// Current and history by resource and protection.
type Counts = BTreeMap<String, (u64, u64)>;

/// What the independent decoder counts, once the cluster stands still: an apiserver writes now and
/// then on its own, so that both have to have seen the same revision.
fn same_counts(etcd: &Etcd, arguments: &[&str]) -> (Audited, Counts) {
    let decoder = component("go-decoder").unwrap();
    for _ in 0..50 {
        let url = etcd.url();
        let theirs = Command::new(&decoder)
            .args(["-etcd", &url])
            .output()
            .unwrap();
        assert!(theirs.status.success(), "{theirs:?}");
        let theirs: Value = serde_json::from_slice(&theirs.stdout).unwrap();
        let ours = Audited::of(&audit(
            &[&["--endpoints", &url, "-o", "json"], arguments].concat(),
        ));
        if ours.answer["etcd"]["revision"] == theirs["revision"] {
            let counts = encrypted(&theirs);
            assert_eq!(rows(&ours), counts, "{:#}", ours.answer);
            return (ours, counts);
        }
    }
    panic!("the cluster never stands still");
}

/// The decoder's counts of what is encrypted, and of Secrets in the clear.
fn encrypted(theirs: &Value) -> Counts {
    let counts = theirs["counts"].as_object().unwrap().iter();
    let counts = counts.map(|(label, pair)| {
        let pair = (pair[0].as_u64().unwrap(), pair[1].as_u64().unwrap());
        (label.clone(), pair)
    });
    counts
        .filter(|(label, pair)| {
            (label == "secrets plaintext" || !label.ends_with(" plaintext")) && *pair != (0, 0)
        })
        .collect()
}

/// Ours, labelled as the decoder labels them.
fn rows(ours: &Audited) -> Counts {
    let rows = ours.answer["rows"].as_array().unwrap().iter();
    let counts = rows.map(|row| {
        let protection = &row["protection"];
        let text = |field: &str| protection[field].as_str().unwrap_or_default();
        let by = match text("kind") {
            "plaintext" => "plaintext".to_owned(),
            "kms:v2" => format!("{}/{}", text("provider"), text("key")),
            kind => format!("{}:{}", kind.trim_end_matches(":v1"), text("key")),
        };
        let label = format!("{} {by}", row["resource"].as_str().unwrap());
        let number = |field: &str| row[field].as_u64().unwrap();
        (label, (number("current"), number("history")))
    });
    counts.filter(|(_, pair)| *pair != (0, 0)).collect()
}

const AESCBC: &str =
    "{aescbc: {keys: [{name: key1, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}}";

fn configuration(providers: &[&str]) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers: [{}]\n",
        providers.join(", ")
    )
}

#[test]
fn plaintext_aescbc_and_a_foreign_plugin_are_counted_as_an_independent_decoder_counts_them() {
    let (Some(plugin), Some(_)) = (component("go-plugin"), component("go-decoder")) else {
        return;
    };
    let dir = folder();
    let socket = dir.path().join("go.sock");
    let mut go_plugin = command(plugin);
    go_plugin.arg("-listen").arg(&socket);
    let _plugin = Process::start("go-plugin", go_plugin);
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let kms = format!(
        "{{kms: {{apiVersion: v2, name: foreign, endpoint: \"unix://{}\"}}}}",
        socket.display()
    );
    let steps = [
        configuration(&["{identity: {}}"]),
        configuration(&[AESCBC, "{identity: {}}"]),
        configuration(&[&kms, AESCBC, "{identity: {}}"]),
    ];
    let Some(mut apiserver) = Apiserver::start(&dir.path().join("apiserver"), &etcd, &steps[0])
    else {
        return;
    };
    apiserver.ready();
    for (at, step) in steps.iter().enumerate() {
        apiserver.set_encryption(step);
        if at > 0 {
            apiserver.restart();
        }
        for n in 0..4 {
            let name = format!("step{at}-{n}");
            apiserver.api().create(Kind::Secret, &name, "value").is(201);
        }
    }
    let api = apiserver.api();
    api.update(Kind::Secret, "step0-0", "another").is(200);
    api.update(Kind::Secret, "step1-0", "another").is(200);
    api.delete(Kind::Secret, "step1-1").is(200);

    let encryption = file(dir.path(), "encryption.yaml", &steps[2]);
    let with_configuration = ["--encryption-config", encryption.as_str()];
    let (ours, _) = same_counts(&etcd, &with_configuration);
    assert_eq!(ours.counts("plaintext", ""), (3, 1));
    assert_eq!(ours.counts("aescbc:v1", "key1"), (2, 2));
    assert_eq!(ours.counts("kms:v2", "go-plugin-1"), (6, 0));
    assert_eq!(ours.answer["staleObjects"], 5);
    assert_eq!(ours.code, 3);

    for name in ["step0-1", "step0-2", "step0-3", "step1-2", "step1-3"] {
        api.rewrite(Kind::Secret, name);
    }
    // What is left is in history alone, and that is a "no" too.
    let (ours, _) = same_counts(&etcd, &with_configuration);
    assert_eq!(ours.answer["staleObjects"], 0);
    assert_eq!(ours.code, 3, "{:#}", ours.answer);
    compact(&gateway(&etcd));
    let (ours, _) = same_counts(&etcd, &with_configuration);
    assert_eq!(ours.counts("plaintext", ""), (0, 0));
    assert_eq!(ours.counts("kms:v2", "go-plugin-1").0, 11);
    assert_eq!(ours.answer["staleObjects"], 0);
    assert_eq!(ours.code, 0, "{:#}", ours.answer);
    let (asked, _) = same_counts(&etcd, &["--key", "aescbc:key1"]);
    assert_eq!(asked.code, 0, "{:#}", asked.answer);
}

#[test]
fn a_rotated_key_is_shown_as_what_still_needs_it_until_nothing_does() {
    let (Some(_), Some(_)) = (component("kube-apiserver"), component("go-decoder")) else {
        return;
    };
    let dir = folder();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let claviger = Claviger::serve(&dir.path().join("claviger")).ready();
    let print = ["print", "encryption-config", "--resources", "secrets"];
    let encryption = serve::answer(claviger.dir(), &print);
    let Some(mut apiserver) = Apiserver::start(&dir.path().join("apiserver"), &etcd, &encryption)
    else {
        return;
    };
    apiserver.ready();
    for name in ["one", "two", "three"] {
        apiserver.api().create(Kind::Secret, name, name).is(201);
    }
    let old = claviger.key("primary").unwrap();
    serve::answer(claviger.dir(), &["rotate"]);
    let new = claviger.key("primary").unwrap();
    assert_ne!(old, new);
    apiserver.restart();
    apiserver.api().rewrite(Kind::Secret, "one");

    let (ours, _) = same_counts(&etcd, &[]);
    assert_eq!(ours.counts("kms:v2", &old), (2, 1));
    assert_eq!(ours.counts("kms:v2", &new), (1, 0));

    // With the keyring's header it is known which of the two is to go.
    let encryption = file(dir.path(), "encryption.yaml", &encryption);
    let url = etcd.url();
    let here = [
        "audit",
        "--endpoints",
        &url,
        "--encryption-config",
        &encryption,
    ];
    let output = serve::run(claviger.dir(), &here);
    let screen = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{screen}");
    let (short, next) = (&old[3..11], &new[3..11]);
    status_shows(&claviger, short, next);
    for text in [
        format!("secrets   {short} retired "),
        format!("secrets   {next} primary "),
        format!("{short}: disable NO (2 objects, history of 1), destroy NO"),
        format!("claviger migrate --key {short}"),
    ] {
        assert!(screen.contains(&text), "{text:?} is not in\n{screen}");
    }

    for name in ["two", "three"] {
        apiserver.api().rewrite(Kind::Secret, name);
    }
    compact(&gateway(&etcd));
    let asked = serve::run(claviger.dir(), &[&here[..], &["--key", short]].concat());
    let screen = String::from_utf8(asked.stdout).unwrap();
    assert_eq!(asked.status.code(), Some(0), "{screen}");
    assert!(
        screen.contains(&format!("no object names {old}; not shown")),
        "{screen}"
    );
    let notes = std::fs::read_to_string(claviger.dir().join("notes.json")).unwrap();
    let notes: Value = serde_json::from_str(&notes).unwrap();
    assert_eq!(notes["audit"]["stale"], 0, "{notes:#}");
    assert_eq!(notes["audit"]["etcd"], url, "{notes:#}");
}

/// What the audit before noted: two objects and one old value under the retired key, one under the
/// primary key.
fn status_shows(claviger: &Claviger, retired: &str, primary: &str) {
    let status = serve::answer(claviger.dir(), &["status"]);
    let today = status
        .lines()
        .find(|line| line.starts_with(retired))
        .unwrap();
    let created = today.split_whitespace().nth(2).unwrap();
    for text in [
        "KEY        STATE      CREATED     OBJECTS   HISTORY  SNAPSHOTS".to_owned(),
        format!("{retired}   retired    {created}        2         1  -\n"),
        format!("{primary}   primary    {created}        1         0  -\n"),
        "plaintext                               0         0  -\n".to_owned(),
        "2 stale objects\n".to_owned(),
    ] {
        assert!(status.contains(&text), "{text:?} is not in\n{status}");
    }
}
