//! What `print` prints can be pasted as it is.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use claviger::config::SocketAddress;
use claviger::encryption_config::{self, Level, Phase, judge};
use proptest::prelude::*;
use tempfile::TempDir;

fn claviger(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_claviger"))
        .args(args)
        .output()
        .unwrap()
}

/// What is printed for the configuration at a path; the defaults where none is there.
fn printed(config: &str, args: &[&str]) -> String {
    let output = claviger(&[&["--config", config, "print"], args].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The error for a configuration.
fn refused(config: &str, args: &[&str]) -> String {
    let output = claviger(&[&["--config", config, "print"], args].concat());
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(2), &b""[..])
    );
    String::from_utf8(output.stderr).unwrap()
}

/// No configuration lies here on a machine that runs tests.
const DEFAULTS: &str = "/etc/claviger/config.yaml";

/// A configuration with these lines below the storage.
fn configuration(more: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let head = "apiVersion: claviger.io/v1alpha1\nkind: ClavigerConfiguration\n";
    fs::write(&path, format!("{head}{more}\n")).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

const STORAGE: &str = "storage: {file: {path: /var/lib/claviger/keyring}}\n";
const ROOTS: &str = "roots: [{name: local, keyFile: {path: /etc/claviger/root.key}}]\n";

/// The files below `deploy/` are what is printed with the documented defaults.
#[test]
fn the_files_to_deploy_are_printed_ones() {
    for (file, args) in [
        ("deploy/static-pod.yaml", &["static-pod"][..]),
        ("deploy/systemd/claviger.service", &["systemd"]),
        ("deploy/systemd/claviger.socket", &["systemd", "--socket"]),
    ] {
        let expected = fs::read_to_string(file).unwrap_or_default();
        assert_eq!(
            printed(DEFAULTS, args),
            expected,
            "claviger print {} >{file}",
            args.join(" ")
        );
    }
}

#[test]
fn nothing_printed_is_wider_than_a_screen() {
    for args in [
        &["encryption-config"][..],
        &["encryption-config", "--phase", "prepare"],
        &["encryption-config", "--phase", "final"],
        &["encryption-config", "--phase", "leave"],
        &["static-pod"],
        &["systemd"],
        &["systemd", "--socket"],
    ] {
        for line in printed(DEFAULTS, args).lines() {
            assert!(line.chars().count() <= 80, "{args:?}: {line}");
        }
    }
}

#[test]
fn an_encryption_configuration_passes_the_check_of_its_phase() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("encryption.yaml");
    let file = file.to_str().unwrap();
    for phase in ["prepare", "write", "final", "leave"] {
        fs::write(
            file,
            printed(DEFAULTS, &["encryption-config", "--phase", phase]),
        )
        .unwrap();
        let args = [
            "--config",
            "deploy/config.yaml",
            "check",
            "--encryption-config",
            file,
        ];
        let output = claviger(&[&args[..], &["--phase", phase]].concat());
        let screen = String::from_utf8_lossy(&output.stdout);
        assert!(screen.ends_with("all is well\n"), "{phase}: {screen}");
    }
    let written = printed(DEFAULTS, &["encryption-config"]);
    assert_eq!(
        written,
        printed(DEFAULTS, &["encryption-config", "--phase", "write"])
    );
}

#[test]
fn an_encryption_configuration_is_filled_in() {
    let more = "server: {socket: \"/run/k s/50%?#.sock\"}\n";
    let (_dir, path) = configuration(&format!("{more}{STORAGE}{ROOTS}"));
    let args = [
        "encryption-config",
        "--name",
        "yes",
        "--resources",
        "secrets,*.apps,pandas.example.org",
    ];
    let text = printed(&path, &args);
    let read = encryption_config::parse(&text).unwrap();
    let names: Vec<String> = read.blocks[0]
        .resources
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["secrets", "*.apps", "pandas.example.org"]);
    let kms = read.blocks[0].providers[0].kms().unwrap();
    assert_eq!(
        (kms.name.as_str(), kms.endpoint.address.to_str()),
        ("yes", Some("/run/k s/50%?#.sock"))
    );

    let (_dir, path) = configuration(&format!(
        "server: {{socket: \"@claviger\"}}\n{STORAGE}{ROOTS}"
    ));
    let text = printed(&path, &["encryption-config"]);
    assert!(
        text.contains("endpoint: unix:///@claviger\n") || text.contains("\"unix:///@claviger\"\n")
    );
}

#[test]
fn what_kube_apiserver_would_refuse_is_not_printed() {
    for args in [
        &["encryption-config", "--name", "a:b"][..],
        &["encryption-config", "--name", ""],
        &["encryption-config", "--name", "\u{7f}"],
        &["encryption-config", "--resources", "Secrets"],
        &["encryption-config", "--resources", "*.*,secrets"],
        &["encryption-config", "--resources", "secrets,secrets"],
    ] {
        assert!(
            refused(DEFAULTS, args).contains("error: writing an EncryptionConfiguration"),
            "{args:?}"
        );
    }
}

#[test]
fn what_is_missing_comes_from_the_defaults_and_stderr_says_so() {
    let output = claviger(&["--config", "/no/such/file", "print", "encryption-config"]);
    let note = "note: there is no /no/such/file: the documented defaults are used\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), note);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("note:"));
    let (_dir, path) = configuration("storage: {}\n");
    assert!(refused(&path, &["systemd"]).contains("line 3, column 10"));
}

#[test]
fn a_static_pod_mounts_what_the_configuration_names_and_no_more() {
    let (dir, path) = configuration(
        "server: {socket: /srv/kms/kms.sock, group: \"970\"}\n\
         storage: {file: {path: /var/lib/claviger/keyring}}\n\
         roots:\n- {name: a, keyFile: {path: /media/key/root.key}}\n\
         - {name: b, keyFile: {path: /media/other/root.key}}\n\
         - {name: recovery, recovery: {file: /root/recovery.key}}\n\
         metrics: {tls: {certFile: /etc/tls/a.crt, keyFile: /etc/tls/a.key}}\n",
    );
    let text = printed(
        &path,
        &[
            "static-pod",
            "--image",
            "registry.example/claviger:1",
            "--uid",
            "970",
        ],
    );
    let pod: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(
        (pod["apiVersion"].as_str(), pod["kind"].as_str()),
        (Some("v1"), Some("Pod"))
    );
    let spec = &pod["spec"];
    let container = &spec["containers"][0];
    assert_eq!(container["image"], "registry.example/claviger:1");
    assert_eq!(
        container["args"],
        serde_json::json!(["serve", "--config", path])
    );
    assert_eq!(spec["securityContext"]["runAsUser"], 970);
    assert_eq!(
        spec["securityContext"]["supplementalGroups"],
        serde_json::json!([970])
    );
    let mounts: Vec<(String, bool)> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| {
            let writable = mount["readOnly"].as_bool() != Some(true);
            (mount["mountPath"].as_str().unwrap().to_owned(), writable)
        })
        .collect();
    let expected = [
        (dir.path().to_str().unwrap(), false),
        ("/srv/kms", true),
        ("/var/lib/claviger", true),
        ("/media/key", false),
        ("/media/other", false),
        ("/etc/tls", false),
    ];
    assert_eq!(
        mounts,
        expected.map(|(path, writable)| (path.to_owned(), writable))
    );
    let names = |list: &serde_json::Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|v| v["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut volumes = names(&spec["volumes"]);
    assert_eq!(volumes, names(&container["volumeMounts"]));
    volumes.sort();
    volumes.dedup();
    assert_eq!(volumes.len(), expected.len());
}

#[test]
fn a_static_pod_mounts_a_shared_directory_once_and_writable() {
    let (dir, path) = configuration("");
    let dir = dir.path().to_str().unwrap();
    let text = format!(
        "apiVersion: claviger.io/v1alpha1\nkind: ClavigerConfiguration\n\
         server: {{socket: \"@claviger\"}}\nstorage: {{file: {{path: {dir}/keyring}}}}\n\
         roots: [{{name: a, keyFile: {{path: {dir}/root.key}}}}]\n"
    );
    fs::write(&path, text).unwrap();
    let pod: serde_json::Value = serde_saphyr::from_str(&printed(&path, &["static-pod"])).unwrap();
    let mounts = &pod["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(
        *mounts,
        serde_json::json!([{"name": "config", "mountPath": dir}])
    );
}

#[test]
fn a_static_pod_that_could_not_work_is_not_printed() {
    let (_dir, path) = configuration(&format!(
        "{STORAGE}roots: [{{name: a, keyFile: {{credential: key}}}}]"
    ));
    assert!(refused(&path, &["static-pod"]).contains("a pod gets none"));
    let (_dir, path) = configuration(&format!("server: {{group: claviger}}\n{STORAGE}{ROOTS}"));
    assert!(refused(&path, &["static-pod"]).contains("getent group claviger"));
}

#[test]
fn a_service_is_opened_only_as_far_as_the_configuration_asks() {
    let narrow = printed(DEFAULTS, &["systemd"]);
    let has = |unit: &str, line: &str| unit.lines().any(|found| found == line);
    for line in [
        "PrivateUsers=yes",
        "ProtectHome=yes",
        "IPAddressDeny=any",
        "StateDirectory=claviger",
    ] {
        assert!(has(&narrow, line), "{line} in\n{narrow}");
    }
    assert!(!narrow.contains("@chown") && !narrow.contains("ReadWritePaths"));
    let (_dir, path) = configuration(
        "server: {socket: /srv/kms/kms.sock, group: kms, allowUIDs: [0, 1000]}\n\
         storage: {file: {path: /home/k/keyring}}\n\
         roots: [{name: a, keyFile: {credential: root.key}}]\n\
         metrics: {listen: \"0.0.0.0:9465\"}\n",
    );
    let wide = printed(&path, &["systemd"]);
    for line in [
        "SupplementaryGroups=kms",
        "SystemCallFilter=@chown",
        "ProtectHome=read-only",
        "ReadWritePaths=/srv/kms",
        "ReadWritePaths=/home/k",
        "LoadCredentialEncrypted=root.key:/etc/credstore.encrypted/root.key",
        "SocketBindAllow=tcp:9465",
    ] {
        assert!(has(&wide, line), "{line} in\n{wide}");
    }
    for gone in [
        "PrivateUsers",
        "IPAddressDeny",
        "RuntimeDirectory",
        "StateDirectory",
        "{{",
    ] {
        assert!(!wide.contains(gone), "{gone} in\n{wide}");
    }
    let (_dir, grouped) = configuration(&format!("server: {{group: kms}}\n{STORAGE}{ROOTS}"));
    let unit = printed(&grouped, &["systemd"]);
    // The socket's group is unknown in a user namespace of its own.
    assert!(!unit.contains("PrivateUsers") && has(&unit, "RuntimeDirectoryMode=0755"));
    let socket = printed(&path, &["systemd", "--socket"]);
    assert!(has(&socket, "ListenStream=/srv/kms/kms.sock") && has(&socket, "SocketGroup=kms"));
}

/// systemd's own verdicts. Says loudly that it was not asked where it is not installed.
#[test]
fn systemd_accepts_the_units_and_finds_them_safe() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        println!("NOT TESTED: systemd-analyze is not installed");
        return;
    };
    assert!(version.status.success());
    let dir = tempfile::tempdir().unwrap();
    let service = dir.path().join("claviger.service");
    let socket = dir.path().join("claviger.socket");
    // It looks whether the program is there.
    let unit =
        printed(DEFAULTS, &["systemd"]).replace("/usr/local/bin/claviger serve", "/bin/true serve");
    fs::write(&service, unit).unwrap();
    fs::write(&socket, printed(DEFAULTS, &["systemd", "--socket"])).unwrap();
    let accepted = |args: &[&str], paths: &[&Path]| {
        let output = Command::new("systemd-analyze")
            .args(args)
            .args(paths)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let said = accepted(&["verify"], &[&service, &socket]);
    // It is content with directives that it does not know, but for a line about each.
    assert!(!said.contains("claviger."), "{said}");
    // The threshold counts in tenths: an exposure of at most 1.0, of 10.
    accepted(
        &["security", "--offline=true", "--threshold=10", "--no-pager"],
        &[&service],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_socket_that_a_configuration_accepts_is_reached_by_what_is_printed(
        socket in "(/[a-zA-Z0-9 ._#:'%?&*!-]{1,9}){0,3}/[a-z][a-z #:%?é]{0,5}[a-z]",
        phase in prop_oneof![Just("prepare"), Just("write"), Just("final"), Just("leave")],
    ) {
        prop_assume!(!socket.contains("/.."));
        let server = format!("server: {{socket: {socket:?}}}\n");
        let (_dir, path) = configuration(&format!("{server}{STORAGE}{ROOTS}"));
        let text = printed(&path, &["encryption-config", "--phase", phase]);
        let read = encryption_config::parse(&text).unwrap();
        let phase = match phase {
            "prepare" => Phase::Prepare,
            "write" => Phase::Write,
            "final" => Phase::Final,
            _ => Phase::Leave,
        };
        let address = SocketAddress::Path(socket.into());
        for finding in judge(&read, Some(phase), Some(&address)) {
            prop_assert_eq!(finding.level, Level::Ok, "{}", finding.text);
        }
    }
}
