//! `audit --verify` opens what kube-apiserver stored, finds what it could not open, and claims
//! nothing of what it did not try.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use claviger_proto::stored::EncryptedObject;
use prost::Message;
use serde_json::Value;

use crate::cluster::{Apiserver, Etcd, Kind};
use crate::components::component;
use crate::etcds::{Audited, audit};
use crate::process::folder;
use crate::serve::{self, Claviger};

/// What no output may have in it.
const VALUE: &str = "what-is-in-a-secret";

/// A cluster in which a key was rotated: three Secrets, of which one was rewritten since.
struct Rotated {
    claviger: Claviger,
    apiserver: Apiserver,
    etcd: Etcd,
    dir: tempfile::TempDir,
}

impl Rotated {
    fn start() -> Option<Self> {
        component("kube-apiserver")?;
        let dir = folder();
        let etcd = Etcd::start(dir.path())?;
        let claviger = Claviger::serve(&dir.path().join("claviger")).ready();
        let print = ["print", "encryption-config", "--resources", "secrets"];
        let encryption = serve::answer(claviger.dir(), &print);
        let mut apiserver = Apiserver::start(&dir.path().join("apiserver"), &etcd, &encryption)?;
        apiserver.ready();
        for name in ["one", "two", "three"] {
            apiserver.api().create(Kind::Secret, name, VALUE).is(201);
        }
        serve::answer(claviger.dir(), &["rotate"]);
        apiserver.restart();
        apiserver.api().rewrite(Kind::Secret, "one");
        Some(Self {
            claviger,
            apiserver,
            etcd,
            dir,
        })
    }

    /// Verifies, of the etcd unless files are named.
    fn verify(&self, arguments: &[&str]) -> Audited {
        let all = [&["audit", "--verify", "-o", "json"], arguments].concat();
        let output = serve::run(self.claviger.dir(), &all);
        shows_nothing(&output);
        Audited::of(&output)
    }

    fn snapshot(&self) -> Option<String> {
        let path = self.dir.path().join("snapshot.db");
        let saved = Command::new(component("etcdctl")?)
            .args(["--endpoints", &self.etcd.url(), "snapshot", "save"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(saved.status.success(), "{saved:?}");
        Some(path.into_os_string().into_string().unwrap())
    }
}

fn shows_nothing(output: &Output) {
    for said in [&output.stdout, &output.stderr] {
        let said = String::from_utf8_lossy(said);
        assert!(!said.contains(VALUE), "{said}");
    }
}

/// Current, history, snapshots, failed.
fn opened(audited: &Audited) -> [u64; 4] {
    let verified = &audited.answer["verified"];
    ["current", "history", "snapshotValues", "failed"].map(|field| {
        let number = verified[field].as_u64();
        number.unwrap_or_else(|| panic!("no {field} in {:#}", audited.answer))
    })
}

fn exceptions(audited: &Audited) -> Vec<(String, String)> {
    let first = audited.answer["exceptions"]["first"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let exceptions = first.iter();
    exceptions
        .map(|exception| (text(&exception["object"]), text(&exception["reason"])))
        .collect()
}

#[test]
fn what_kube_apiserver_stored_opens_in_etcd_in_its_history_and_in_a_snapshot() {
    let Some(cluster) = Rotated::start() else {
        return;
    };
    let url = cluster.etcd.url();
    let audited = cluster.verify(&["--endpoints", &url]);
    assert_eq!(opened(&audited), [3, 1, 0, 0], "{:#}", audited.answer);
    assert_eq!(audited.answer["verified"]["others"], 0);
    assert!(audited.answer["verified"]["plaintext"].as_u64() > Some(10));
    let claims = audited.answer["claims"].to_string();
    let claim = "all 4 values under keys of Claviger's open with this keyring";
    assert!(claims.contains(claim), "{claims}");
    assert!(
        claims.contains("not verified: 0 values of other"),
        "{claims}"
    );

    let Some(snapshot) = cluster.snapshot() else {
        return;
    };
    let audited = cluster.verify(&["--snapshot", &snapshot]);
    assert_eq!(opened(&audited), [0, 0, 3, 0], "{:#}", audited.answer);
    let claims = audited.answer["claims"].to_string();
    let claim = "in the newest revisions of this snapshot, all 3 values";
    assert!(claims.contains(claim), "{claims}");
    let audited = cluster.verify(&["--snapshot", &snapshot, "--all-revisions"]);
    assert_eq!(opened(&audited), [0, 0, 4, 0], "{:#}", audited.answer);
    let both = ["--endpoints", &url, "--snapshot", &snapshot];
    assert_eq!(opened(&cluster.verify(&both)), [3, 1, 3, 0]);

    let status = serve::answer(cluster.claviger.dir(), &["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    // The retired key is in history and in the snapshot too, the primary key in one object.
    let protects = |key: usize| {
        let fields = ["objects", "history", "snapshots"];
        fields.map(|field| status["keys"][key][field].as_u64())
    };
    assert_eq!(protects(0), [Some(2), Some(1), Some(1)], "{status:#}");
    assert_eq!(protects(1), [Some(1), Some(0), Some(1)], "{status:#}");
    assert!(
        status["keys"][0]["snapshotsUntil"].is_string(),
        "{status:#}"
    );
    assert_eq!(status["plaintext"]["objects"], 0);
    assert_eq!(status["snapshots"]["files"], 1);

    // Who does not ask is told nothing of it.
    let plain = serve::run(
        cluster.claviger.dir(),
        &["audit", "-o", "json", "--endpoints", &url],
    );
    assert_eq!(Audited::of(&plain).answer["verified"], Value::Null);
}

#[test]
fn what_was_changed_moved_or_wrapped_by_another_key_is_an_exception() {
    let Some(cluster) = Rotated::start() else {
        return;
    };
    let Rotated {
        apiserver, etcd, ..
    } = &cluster;
    let url = etcd.url();
    let [one, two] = ["one", "two"].map(|name| etcd.value(&Kind::Secret.etcd_key(name)));
    apiserver.ready();

    put_faulty(etcd, &one, &two);

    let audited = cluster.verify(&["--endpoints", &url]);
    assert_eq!(opened(&audited), [3, 1, 0, 5], "{:#}", audited.answer);
    assert_eq!(audited.answer["verified"]["others"], 2);
    assert_eq!(audited.code, 3);
    assert_eq!(audited.answer["claims"].as_array().unwrap().len(), 0);
    let expected = [
        ("annotated", "has annotations"),
        ("changed", "its data does not authenticate"),
        ("moved", "its data does not authenticate"),
        ("stranger", "the keyring has no key k1-0001"),
        ("swapped", "its seed does not open"),
    ];
    let found = exceptions(&audited);
    assert_eq!(audited.answer["exceptions"]["count"], 5);
    for ((object, reason), (name, why)) in found.iter().zip(expected) {
        assert_eq!(*object, format!("secrets/default/{name}"), "{found:?}");
        assert!(reason.contains(why), "{object}: {reason}");
    }

    // They name a key, which is counted whether they open or not.
    let without = serve::run(
        cluster.claviger.dir(),
        &["audit", "-o", "json", "--endpoints", &url],
    );
    let without = Audited::of(&without);
    assert_eq!(without.answer["rows"], audited.answer["rows"]);
    assert_eq!(without.answer["exceptions"]["count"], 0);

    let screen = ["audit", "--verify", "--endpoints", &url];
    let screen = serve::run(cluster.claviger.dir(), &screen);
    shows_nothing(&screen);
    let screen = String::from_utf8(screen.stdout).unwrap();
    for line in [
        "EXCEPTION secrets/default/moved: its data does not authenticate",
        "4 of 9 values under keys of Claviger's open",
    ] {
        assert!(screen.contains(line), "{line:?} is not in\n{screen}");
    }
}

/// Five values that do not open, and two that nobody tries. `one` and `two` are under two keys.
fn put_faulty(etcd: &Etcd, one: &[u8], two: &[u8]) {
    let key = |name: &str| Kind::Secret.etcd_key(name);
    let mut changed = one.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    etcd.put(&key("changed"), &changed);
    etcd.put(&key("moved"), two);
    etcd.put(
        &key("stranger"),
        &with(one, |object| {
            object.key_id = "k1-000102030405060708090a0b0c0d0e0f".to_owned();
        }),
    );
    etcd.put(
        &key("swapped"),
        &with(one, |object| {
            object.key_id = decoded(two).key_id;
        }),
    );
    etcd.put(
        &key("annotated"),
        &with(one, |object| {
            let annotation = ("a.example".to_owned(), b"b".to_vec());
            object.annotations.extend([annotation]);
        }),
    );
    etcd.put(
        &key("other"),
        &with(one, |object| {
            object.key_id = "a-key-of-another-plugin".to_owned();
        }),
    );
    // Another cluster's: its keyring is not at hand.
    etcd.put("/elsewhere/secrets/default/one", one);
}

fn decoded(value: &[u8]) -> EncryptedObject {
    let mut colons = value.iter().enumerate().filter(|(_, byte)| **byte == b':');
    let (end, _) = colons.nth(4).unwrap();
    EncryptedObject::decode(&value[end + 1..]).unwrap()
}

/// The same value with another envelope.
fn with(value: &[u8], change: impl FnOnce(&mut EncryptedObject)) -> Vec<u8> {
    let mut object = decoded(value);
    let header = value.len() - object.encoded_len();
    change(&mut object);
    [&value[..header], &object.encode_to_vec()].concat()
}

#[test]
fn without_a_keyring_that_opens_nothing_is_verified() {
    let dir = folder();
    let says = |output: &Output, code: i32, text: &str| {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(output.stdout.is_empty());
        assert!(said.contains(text), "{said}");
    };
    let no_config = audit(&["--verify", "--endpoints", "http://127.0.0.1:1"]);
    says(
        &no_config,
        2,
        "there is no configuration, and so no keyring",
    );
    let both = audit(&["--verify", "--since", "file"]);
    says(&both, 2, "--since");

    let claviger = Claviger::serve(dir.path()).ready();
    hide(dir.path());
    let verify = ["audit", "--verify", "--endpoints", "http://127.0.0.1:1"];
    let output = serve::run(claviger.dir(), &verify);
    says(&output, 5, "opening the keyring to verify objects");
}

fn hide(dir: &Path) {
    fs::rename(dir.join("root.key"), dir.join("elsewhere.key")).unwrap();
}

#[test]
fn what_is_opened_is_in_no_core() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: only root may raise the limit of cores");
        return;
    }
    let dir = folder();
    let claviger = Claviger::serve(dir.path()).ready();
    for arguments in [&[][..], &["--verify"]] {
        assert_eq!(core_limit(&claviger, arguments), "0", "{arguments:?}");
    }
}

/// The largest core of an audit that waits for etcd, with its keyring open.
fn core_limit(claviger: &Claviger, arguments: &[&str]) -> String {
    // Nobody answers there.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut audit = Command::new("prlimit")
        .args(["--core=unlimited", env!("CARGO_BIN_EXE_claviger")])
        .arg("--config")
        .arg(claviger.dir().join("config.yaml"))
        .args(["audit", "--endpoints", &url])
        .args(arguments)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while silent.accept().is_err() {
        assert_eq!(audit.try_wait().unwrap(), None, "it does not wait");
        thread::sleep(Duration::from_millis(5));
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", audit.id())).unwrap();
    audit.kill().unwrap();
    audit.wait().unwrap();
    let mut lines = limits.lines();
    let core = lines.find(|line| line.starts_with("Max core file size"));
    core.unwrap().split_whitespace().nth(4).unwrap().to_owned()
}
