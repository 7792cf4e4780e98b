//! What the commands promise: exit codes, errors in three parts, answers on stdout alone, and that no
//! key is ever made or lost by accident.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "common/components.rs"]
mod components;
#[path = "common/schema.rs"]
mod schema;
#[path = "commands/try_out.rs"]
mod try_out;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use claviger::client::{Client, Endpoint};
use claviger_proto::v2::EncryptRequest;
use tempfile::TempDir;

/// A node with a configuration and nothing else.
struct Node(TempDir);

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A socket's folder must belong to the plugin alone.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let config = format!(
            "apiVersion: claviger.io/v1alpha1\nkind: ClavigerConfiguration\n\
             server: {{socket: {0}/kms.sock}}\n\
             storage: {{file: {{path: {0}/keyring}}}}\n\
             roots: [{{name: local, keyFile: {{path: {0}/root.key}}}}]\n\
             metrics: {{listen: \"127.0.0.1:0\"}}\nlog: {{format: text}}\n",
            dir.path().display()
        );
        fs::write(dir.path().join("config.yaml"), config).unwrap();
        Self(dir)
    }

    /// A node with a keyring, whose recovery key is in `recovery.key`.
    fn initialized() -> Self {
        let node = Self::new();
        let recovery = node.path("recovery.key");
        node.answer(&["init", "--name", "test", "--recovery-out", &recovery]);
        node
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command
            .args(["--config", &self.path("config.yaml")])
            .args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The answer of a command that must succeed.
    fn answer(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The error of a command that must fail with this exit code: three parts, and nothing on
    /// stdout.
    fn refused(&self, exit: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{arguments:?}: {output:?}"
        );
        assert_eq!(output.stdout, b"", "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.starts_with("error: ") && error.contains("\nnext:  "),
            "{error}"
        );
        error
    }

    /// A command's answer, which is as its schema says.
    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let answer = self.run(&[arguments, &["-o", "json"]].concat());
        let answer = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(
            schema::faults(&answer),
            [""; 0],
            "{arguments:?}: {answer:#}"
        );
        answer
    }

    fn serve(&self) -> Serving {
        let child = self
            .command(&["serve"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let serving = Serving(child);
        let until = Instant::now() + Duration::from_secs(30);
        while self.run(&["status"]).status.code() != Some(0) {
            assert!(Instant::now() < until, "{:?}", self.run(&["status"]));
        }
        serving
    }
}

/// A plugin, killed at the end.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn init_makes_what_is_missing_and_never_twice() {
    let node = Node::initialized();
    let mode = |name| fs::metadata(node.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode("root.key"), mode("recovery.key"), mode("keyring")),
        (0o400, 0o400, 0o600)
    );
    let before = fs::read(node.path("keyring")).unwrap();
    let error = node.refused(4, &["init", "--no-recovery"]);
    assert!(error.contains("there is a keyring"), "{error}");
    assert_eq!(fs::read(node.path("keyring")).unwrap(), before);
}

#[test]
fn without_a_terminal_the_recovery_key_is_not_lost_by_accident() {
    let node = Node::new();
    let error = node.refused(2, &["init"]);
    assert!(error.contains("--recovery-out"), "{error}");
    assert!(!Path::new(&node.path("keyring")).exists());
    assert!(!Path::new(&node.path("root.key")).exists());
}

#[test]
fn on_a_terminal_the_recovery_key_is_shown_once_and_opens_its_slot() {
    let node = Node::new();
    let init = format!(
        "{} --config {} init",
        env!("CARGO_BIN_EXE_claviger"),
        node.path("config.yaml")
    );
    // script(1) gives a command a terminal.
    let shown = Command::new("script")
        .args(["--quiet", "--return", "--command", &init, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let shown = String::from_utf8(shown.stdout).unwrap();
    let groups: Vec<&str> = shown
        .split(|c: char| c.is_whitespace() || c == '-')
        .filter(|word| {
            word.len() == 5
                && word
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        })
        .collect();
    assert_eq!(groups.len(), 12, "{shown}");
    fs::write(node.path("typed"), groups.join(" ")).unwrap();
    let typed = fs::File::open(node.path("typed")).unwrap();
    let tested = node
        .command(&["slot", "test", "recovery"])
        .stdin(typed)
        .output()
        .unwrap();
    assert!(tested.status.success(), "{tested:?}");
    fs::write(
        node.path("typed"),
        groups.join(" ").replace(groups[3], "00000"),
    )
    .unwrap();
    let typed = fs::File::open(node.path("typed")).unwrap();
    let mistyped = node
        .command(&["slot", "test", "recovery"])
        .stdin(typed)
        .output()
        .unwrap();
    assert_eq!(mistyped.status.code(), Some(2), "{mistyped:?}");
}

#[test]
fn a_failed_init_leaves_no_recovery_key_behind() {
    let node = Node::new();
    fs::write(node.path("root.key"), "short").unwrap();
    fs::set_permissions(node.path("root.key"), PermissionsExt::from_mode(0o400)).unwrap();
    let error = node.refused(1, &["init", "--recovery-out", &node.path("recovery.key")]);
    assert!(error.contains("5 bytes"), "{error}");
    assert!(!Path::new(&node.path("keyring")).exists());
    assert!(!Path::new(&node.path("recovery.key")).exists());
}

#[test]
fn slots_are_listed_and_tested() {
    let node = Node::initialized();
    node.answer(&["slot", "test", "local"]);
    node.answer(&[
        "slot",
        "test",
        "recovery",
        "--recovery-key",
        &node.path("recovery.key"),
    ]);
    let slots = node.json(&["slot", "list"]);
    assert_eq!(slots["kind"], "SlotList");
    for (slot, name) in [(0, "local"), (1, "recovery")] {
        assert_eq!(slots["slots"][slot]["name"], name, "{slots}");
        assert!(slots["slots"][slot]["lastTested"].is_string(), "{slots}");
    }
    let error = node.refused(2, &["slot", "test", "nobody"]);
    assert!(error.contains("no slot nobody"), "{error}");
    // Another key of the right form does not open it, and that is a "no".
    fs::remove_file(node.path("root.key")).unwrap();
    fs::write(node.path("root.key"), [1; 32]).unwrap();
    fs::set_permissions(node.path("root.key"), PermissionsExt::from_mode(0o400)).unwrap();
    let error = node.refused(3, &["slot", "test", "local"]);
    assert!(error.contains("does not open"), "{error}");
}

#[test]
fn status_is_healthy_only_if_all_is_well() {
    let node = Node::initialized();
    let status = node.json(&["status"]);
    assert_eq!(status["healthy"], false, "nobody serves: {status}");
    assert_eq!(node.run(&["status"]).status.code(), Some(3));

    let _serving = node.serve();
    let status = node.json(&["status"]);
    assert_eq!(
        (&status["healthy"], &status["kind"]),
        (&true.into(), &"Status".into())
    );
    assert_eq!(status["plugin"]["answers"], status["keys"][0]["id"]);
    assert!(node.answer(&["status"]).contains("HEALTHY"));

    // The plugin serves on from memory, and status says what a restart would meet.
    let keyring = fs::read(node.path("keyring")).unwrap();
    fs::write(node.path("keyring"), &keyring[..keyring.len() / 2]).unwrap();
    let output = node.run(&["status"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("not two lines"),
        "{output:?}"
    );
    fs::write(node.path("keyring"), &keyring).unwrap();
    assert_eq!(node.run(&["status"]).status.code(), Some(0));
}

#[test]
fn every_json_answer_is_as_its_schema_says() {
    let node = Node::new();
    let kind = |arguments: &[&str]| {
        let answer = node.json(arguments);
        assert_eq!(answer["apiVersion"], "claviger.io/v1alpha1");
        answer["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind(&["check"]), "Check");
    assert_eq!(kind(&["status"]), "Status");
    let recovery = node.path("recovery.key");
    let init = ["init", "--name", "test", "--recovery-out", &recovery];
    assert_eq!(kind(&init), "Initialized");
    assert_eq!(kind(&["slot", "list"]), "SlotList");
    assert_eq!(kind(&["slot", "test", "local"]), "SlotTested");
    assert_eq!(kind(&["slot", "list"]), "SlotList");
    assert_eq!(kind(&["policy", "get"]), "Policy");
    assert_eq!(kind(&["policy", "set", "rotateEvery=90d"]), "Policy");
    assert_eq!(kind(&["member", "list"]), "MemberList");
    let backup = node.path("backup");
    assert_eq!(kind(&["backup", "--out", &backup]), "Backup");
    assert_eq!(kind(&["backup", "verify", &backup]), "BackupVerified");
    assert_eq!(kind(&["restore", &backup]), "Restored");
    let rekey = ["slot", "rekey", "--recovery-key", &recovery];
    assert_eq!(kind(&rekey), "SlotsChanged");
    let _serving = node.serve();
    assert_eq!(kind(&["status"]), "Status");
    assert_eq!(kind(&["member", "list"]), "MemberList");
    assert_eq!(kind(&["rotate", "--stage-only"]), "Rotation");
    assert_eq!(kind(&["rotate", "--abort"]), "Rotation");
    assert_eq!(kind(&["check"]), "Check");
    let encryption = node.path("encryption.yaml");
    fs::write(&encryption, node.answer(&["print", "encryption-config"])).unwrap();
    let check = [
        "check",
        "--encryption-config",
        &encryption,
        "--phase",
        "final",
    ];
    assert_eq!(kind(&check), "Check");
    let socket = node.path("kms.sock");
    assert_eq!(kind(&["probe", &socket]), "Probe");

    let mut repeat = node.command(&["probe", &socket, "--repeat", "-o", "json"]);
    let mut repeat = Serving(repeat.stdout(Stdio::piped()).spawn().unwrap());
    let said = serde_json::Deserializer::from_reader(repeat.0.stdout.take().unwrap());
    let mut said = said.into_iter::<serde_json::Value>().map(Result::unwrap);
    for kind in ["Probe", "ProbeChange"] {
        let answer = said.next().unwrap();
        assert_eq!(answer["kind"], kind);
        assert_eq!(schema::faults(&answer), [""; 0], "{answer:#}");
    }
}

#[test]
fn row_66_of_a_corrupt_keyring_the_newest_good_copy_is_named() {
    let node = Node::initialized();
    for days in ["rotateEvery=90d", "rotateEvery=91d", "rotateEvery=92d"] {
        node.answer(&["policy", "set", days]);
    }
    let problem = || {
        node.json(&["status"])["problems"][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    fs::write(node.path("keyring"), b"garbage").unwrap();
    let (keyring, away) = (node.path("keyring"), node.path("away"));
    let restore = |copy: &str| {
        let copy = node.path(copy);
        format!("; move {keyring} away, then claviger restore takes {copy}, or a newer backup")
    };
    assert!(problem().ends_with(&restore("keyring.3")), "{}", problem());
    // A copy that does not open is no good one.
    let copy = fs::read(node.path("keyring.3")).unwrap();
    fs::write(node.path("keyring.3"), &copy[..copy.len() / 2]).unwrap();
    assert!(problem().ends_with(&restore("keyring.2")), "{}", problem());
    for name in ["keyring.2", "keyring.1"] {
        fs::write(node.path(name), b"garbage").unwrap();
    }
    assert!(
        problem().contains("no copy beside it is good"),
        "{}",
        problem()
    );
    // What it says helps.
    fs::write(node.path("keyring.3"), &copy).unwrap();
    fs::rename(&keyring, away).unwrap();
    node.answer(&["restore", &node.path("keyring.3")]);
    let status = node.json(&["status"]);
    let problems = status["problems"].as_array().unwrap();
    assert!(
        !problems
            .iter()
            .any(|problem| problem.as_str().unwrap().contains("keyring")),
        "{status:#}"
    );
}

#[test]
fn a_missing_configuration_is_told_in_three_parts() {
    let node = Node::new();
    fs::remove_file(node.path("config.yaml")).unwrap();
    for command in [&["status"][..], &["serve"], &["init"], &["slot", "list"]] {
        let error = node.refused(2, command);
        assert!(error.contains("config.yaml"), "{error}");
    }
}

#[test]
fn every_fault_of_a_configuration_is_told_with_its_line() {
    let node = Node::new();
    fs::write(
        node.path("config.yaml"),
        "apiVersion: x\nkind: y\nroot: []\n",
    )
    .unwrap();
    let error = node.refused(2, &["serve"]);
    for part in ["line 1,", "line 2,", "line 3,", "`root`", "`storage`"] {
        assert!(error.contains(part), "{part} is missing: {error}");
    }
}

#[test]
fn completions_and_manual_come_from_the_command_tree() {
    let node = Node::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            node.answer(&["completions", shell]).contains("recovery"),
            "{shell}"
        );
    }
    assert!(node.answer(&["man"]).contains("claviger"));
    let pages = tempfile::tempdir().unwrap();
    node.answer(&["man", "--out", pages.path().to_str().unwrap()]);
    for page in ["claviger.1", "claviger-init.1", "claviger-slot-test.1"] {
        assert!(pages.path().join(page).exists(), "{page}");
    }
}

#[tokio::test]
async fn the_second_implementation_opens_what_the_plugin_sealed() {
    let Some(python) = components::component("python") else {
        return;
    };
    let node = Node::initialized();
    let _serving = node.serve();
    let client = Client::new(
        Endpoint::Path(node.path("kms.sock").into()),
        Duration::from_secs(10),
    );
    let seed: [u8; 32] = std::array::from_fn(|i| i as u8 ^ 0x5a);
    let request = EncryptRequest {
        plaintext: seed.to_vec(),
        uid: "test".to_owned(),
    };
    let sealed = client.encrypt(request).await.unwrap();
    fs::write(node.path("ciphertext"), &sealed.ciphertext).unwrap();
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/second_implementation/open_seed.py");
    for (flag, key) in [
        ("--root-key", "root.key"),
        ("--recovery-key", "recovery.key"),
    ] {
        let opened = Command::new(&python)
            .arg(&program)
            .args([flag, &node.path(key), "--keyring", &node.path("keyring")])
            .args([
                "--ciphertext",
                &node.path("ciphertext"),
                "--key-id",
                &sealed.key_id,
            ])
            .output()
            .unwrap();
        let expected = data_encoding::HEXLOWER.encode(&seed);
        assert_eq!(
            String::from_utf8_lossy(&opened.stdout).trim(),
            expected,
            "{opened:?}"
        );
    }
}
