//! `check` holds a node and an EncryptionConfiguration to what works, and changes nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output};

use claviger::encryption_config;
use tempfile::TempDir;

/// `(accepted, name, text)` of each case.
fn cases(all: &'static str) -> impl Iterator<Item = (bool, &'static str, &'static str)> {
    all.split("\n=== ").skip(1).filter_map(|case| {
        let (title, text) = case.split_once('\n')?;
        let (verdict, name) = title.split_once(": ")?;
        Some((verdict == "accepted", name, text))
    })
}

/// What kube-apiserver accepts as an empty name, and nobody means.
const STRICTER: &str = "resources: a resource that is null";

#[test]
fn an_encryption_configuration_is_read_as_kube_apiserver_reads_it() {
    let all = include_str!("check/kube-apiserver-1.37.2.txt");
    let mut wrong = Vec::new();
    for (accepted, name, text) in cases(all) {
        match encryption_config::parse(text) {
            Ok(_) if accepted => {}
            Err(faults) if (!accepted || name == STRICTER) && !faults.is_empty() => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert_eq!(cases(all).count(), 151);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_fault_repeats_no_key_of_the_file() {
    let text = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aescbc: {keys: [{name: k1, secret: aHVudGVyMg==}, {name: k2, secret: [aHVudGVyMg==]}]}
  - aesgcm: {keys: aHVudGVyMg==}
  - secretbox: {keys: [{name: k1, secret: 'aHVudGVyMg=#'}]}
";
    let faults = encryption_config::parse(text).unwrap_err();
    let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "line 6, column 40: has 7 bytes; [16, 24, 32] are possible",
            "line 6, column 74: expected text, found a list",
            "line 7, column 20: expected a list, found text",
            "line 8, column 43: must be base64",
        ]
    );
}

/// A node in a folder: a configuration, a socket's directory, a keyring and its root key.
struct Node {
    dir: TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for folder in ["run", "etc", "lib"] {
            fs::create_dir(node.path(folder)).unwrap();
            node.chmod(folder, 0o750);
        }
        node.write("etc/root.key", &[7; 32], 0o400);
        node.write("lib/keyring", b"sealed", 0o600);
        node.configure("");
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) {
        fs::write(self.path(name), bytes).unwrap();
        self.chmod(name, mode);
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// Writes the configuration, with more lines if wanted.
    fn configure(&self, more: &str) {
        let text = format!(
            "apiVersion: claviger.io/v1alpha1\nkind: ClavigerConfiguration\n\
             server: {{socket: {dir}/run/kms.sock}}\nstorage: {{file: {{path: {dir}/lib/keyring}}}}\n\
             roots: [{{name: local, keyFile: {{path: {dir}/etc/root.key}}}}]\n{more}\n",
            dir = self.dir.path().display()
        );
        self.write("etc/config.yaml", text.as_bytes(), 0o644);
    }

    fn check(&self, args: &[&str]) -> Output {
        claviger(
            &[
                &[
                    "--config",
                    self.path("etc/config.yaml").to_str().unwrap(),
                    "check",
                ],
                args,
            ]
            .concat(),
        )
    }

    /// The exit code, and the lines that are not ok.
    fn found(&self) -> (i32, Vec<String>) {
        let output = self.check(&["-o", "json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["kind"], "Check");
        let sections = report["sections"].as_array().unwrap();
        let items = sections
            .iter()
            .flat_map(|section| section["items"].as_array().unwrap());
        // The host of the tests is as it is, and so is the file system of its temporary files.
        let items = items.filter(|item| item["level"] != "ok").filter(|item| {
            let text = item["text"].as_str().unwrap();
            !["memory", "swap", "AES", "user ids", "open files", "kernel"]
                .iter()
                .any(|word| text.contains(word))
        });
        let lines = items.map(|item| {
            let text = item["text"]
                .as_str()
                .unwrap()
                .replace(self.dir.path().to_str().unwrap(), "");
            format!("{} {text}", item["level"].as_str().unwrap())
        });
        (output.status.code().unwrap(), lines.collect())
    }

    /// Everything that could have been changed.
    fn state(&self) -> BTreeMap<PathBuf, (u32, u64, i64, i64, i64)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let is = fs::symlink_metadata(&path).unwrap();
                let times = (
                    is.mode(),
                    is.ino(),
                    is.mtime(),
                    is.mtime_nsec(),
                    is.ctime_nsec(),
                );
                found.insert(path.clone(), times);
                if is.is_dir() {
                    folders.push(path);
                }
            }
        }
        found
    }
}

fn claviger(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_claviger"))
        .args(args)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// What stdout says, whatever the breaks of its lines.
fn words(output: &Output) -> String {
    stdout(output)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_good_node_has_nothing_bad_and_is_left_as_it_was() {
    let node = Node::new();
    let before = node.state();
    assert_eq!(node.found(), (0, vec![]));
    assert_eq!(node.state(), before);
}

#[test]
fn the_screen_keeps_to_80_columns_and_says_what_to_do() {
    let node = Node::new();
    node.chmod("etc/root.key", 0o444);
    let output = node.check(&["--color", "never"]);
    let screen = stdout(&output);
    assert_eq!(output.status.code(), Some(3), "{screen}");
    for line in screen.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let user = Command::new("id").arg("-un").output().unwrap();
    let expected = format!(
        "bad root local: key file {0}/etc/root.key: {1}, 0444: others may read it next: chmod 0400 \
         {0}/etc/root.key",
        node.dir.path().display(),
        stdout(&user).trim_end()
    );
    assert!(words(&output).contains(&expected), "{screen}");
    assert!(words(&output).contains(" bad: 1, warnings: "), "{screen}");
}

#[test]
fn each_thing_that_is_wrong_on_a_node_is_found() {
    type Break = fn(&Node);
    let cases: [(Break, i32, &str); 10] = [
        (
            |node| node.chmod("run", 0o777),
            3,
            "bad socket's directory /run: ",
        ),
        (
            |node| node.chmod("lib", 0o775),
            3,
            "bad keyring's directory /lib: ",
        ),
        (
            |node| node.chmod("lib/keyring", 0o644),
            3,
            "bad keyring /lib/keyring: ",
        ),
        (
            |node| node.chmod("etc/config.yaml", 0o666),
            3,
            "bad configuration /etc/config.yaml: ",
        ),
        (
            |node| node.write("run/kms.sock", b"", 0o600),
            3,
            "bad socket /run/kms.sock: something",
        ),
        (
            |node| fs::remove_file(node.path("etc/root.key")).unwrap(),
            3,
            "bad root local: key file /etc/root.key: is not there",
        ),
        (
            |node| fs::hard_link(node.path("etc/root.key"), node.path("second")).unwrap(),
            3,
            "bad root local: key file /etc/root.key: has other names",
        ),
        (
            |node| fs::remove_file(node.path("lib/keyring")).unwrap(),
            0,
            "warn keyring /lib/keyring: there is none yet",
        ),
        (
            |node| node.configure("metrics: {tls: {certFile: /no/crt, keyFile: /etc/passwd}}"),
            3,
            "bad certificate /no/crt: is not there",
        ),
        (
            |node| {
                let path = node.path("etc/config.yaml");
                let future = fs::File::options().append(true).open(path).unwrap();
                let hour = std::time::Duration::from_secs(3600);
                future
                    .set_modified(std::time::SystemTime::now() + hour)
                    .unwrap();
            },
            3,
            "bad clock: ",
        ),
    ];
    for (make_wrong, exit, start) in cases {
        let node = Node::new();
        make_wrong(&node);
        let (code, found) = node.found();
        assert_eq!(code, exit, "{start}: {found:?}");
        assert!(
            found.iter().any(|line| line.starts_with(start)),
            "{start}: {found:?}"
        );
    }
}

#[test]
fn a_wrong_configuration_is_exit_2_with_every_fault() {
    let node = Node::new();
    node.configure("log: {format: xml}\nmetrics: {listen: 1}");
    let output = node.check(&[]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""));
    for part in [
        "error: reading the configuration",
        "  line 6, column 15",
        "  line 7, column 19",
        "next:",
    ] {
        assert!(
            stderr(&output).contains(part),
            "{part}: {}",
            stderr(&output)
        );
    }
    assert_eq!(
        claviger(&["--config", "/no/such/file", "check"])
            .status
            .code(),
        Some(2)
    );
}

/// An EncryptionConfiguration of two blocks, each with its providers, on this socket.
fn encryption(node: &Node, name: &str, providers: &[&str]) -> PathBuf {
    let mut text =
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
                    - resources: [secrets]\n  providers:\n"
            .to_owned();
    for provider in providers {
        text += &match *provider {
            "kms" => format!(
                "  - kms: {{apiVersion: v2, name: claviger, endpoint: \"unix://{}\"}}\n",
                node.path("run/kms.sock").display()
            ),
            other => format!("  - {other}: {{}}\n"),
        };
    }
    node.write(name, text.as_bytes(), 0o600);
    node.path(name)
}

#[test]
fn a_phase_is_held_to_and_the_exit_code_is_the_answer() {
    let node = Node::new();
    let prepare = encryption(&node, "prepare.yaml", &["identity", "kms"]);
    let write = encryption(&node, "write.yaml", &["kms", "identity"]);
    let last = encryption(&node, "final.yaml", &["kms"]);
    for (file, fitting) in [
        (&prepare, ["prepare", "leave"]),
        (&write, ["write"; 2]),
        (&last, ["final"; 2]),
    ] {
        for phase in ["prepare", "write", "final", "leave"] {
            let args = [
                "--encryption-config",
                file.to_str().unwrap(),
                "--phase",
                phase,
            ];
            let exit = if fitting.contains(&phase) { 0 } else { 3 };
            assert_eq!(node.check(&args).status.code(), Some(exit), "{args:?}");
            // The same without a configuration of ours, which only compares the socket.
            let alone = claviger(&[&["--config", "/no/such/file", "check"][..], &args].concat());
            assert_eq!(alone.status.code(), Some(exit), "{args:?}");
            assert!(stderr(&alone).contains("the socket is not compared"));
        }
    }
}

#[test]
fn without_a_phase_it_says_which_one_the_file_is_in() {
    let node = Node::new();
    let file = encryption(&node, "encryption.yaml", &["kms", "identity"]);
    let named = node.check(&["--encryption-config", file.to_str().unwrap()]);
    assert_eq!(named.status.code(), Some(0));
    assert!(
        stdout(&named).contains(": phase write\n"),
        "{}",
        stdout(&named)
    );
    assert!(!stdout(&named).contains("HOST"));

    // The configuration may name the file; then the whole node is looked at.
    node.configure(&format!(
        "kubernetes: {{encryptionConfig: {}}}",
        file.display()
    ));
    let whole = node.check(&[]);
    assert!(stdout(&whole).contains(": phase write\n") && stdout(&whole).contains("HOST"));
    assert_eq!(node.check(&["--phase", "final"]).status.code(), Some(3));
}

#[test]
fn another_socket_than_ours_does_not_fit() {
    let node = Node::new();
    let file = encryption(&node, "encryption.yaml", &["kms", "identity"]);
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("run/kms.sock", "run/other.sock");
    fs::write(&file, text).unwrap();
    let output = node.check(&[
        "--encryption-config",
        file.to_str().unwrap(),
        "--phase",
        "write",
    ]);
    assert_eq!(output.status.code(), Some(3));
    let words = words(&output);
    assert!(
        words.contains("run/other.sock is not this configuration's socket"),
        "{words}"
    );
    assert!(words.contains("run/kms.sock is not among them"), "{words}");
}

#[test]
fn what_kube_apiserver_refuses_is_bad_at_its_line() {
    let node = Node::new();
    let file = encryption(&node, "encryption.yaml", &["kms", "vault"]);
    let output = node.check(&["--encryption-config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stdout(&output).contains("bad   line 7: column 5: unknown field `vault`"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_file_that_cannot_be_read_or_is_not_named_is_exit_2() {
    let node = Node::new();
    for args in [
        &["--encryption-config", "/no/such/file"][..],
        &["--phase", "write"],
    ] {
        let output = node.check(args);
        assert_eq!(
            (output.status.code(), stdout(&output)),
            (Some(2), ""),
            "{args:?}"
        );
        assert!(stderr(&output).contains("next:  "), "{}", stderr(&output));
    }
}
