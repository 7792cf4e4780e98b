//! A configuration is accepted whole, or refused with every fault and its place.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "config/editors.rs"]
mod editors;
#[path = "common/schema.rs"]
mod schema;

use std::net::SocketAddr;
use std::path::Path;

use claviger::config::{
    self, Config, KubernetesConfig, LogConfig, LogFormat, LogLevel, MAX_LEN, MetricsConfig,
    ReadError, RootConfig, RootKindConfig, ServerConfig, SocketAddress, StatusVersion,
    StorageConfig,
};
use proptest::prelude::*;

const SMALLEST: &str = "\
apiVersion: claviger.io/v1alpha1
kind: ClavigerConfiguration
storage: {file: {path: /var/lib/claviger/keyring}}
roots: [{name: local, keyFile: {path: /etc/claviger/root.key}}]
";

fn smallest() -> Config {
    Config {
        member: None,
        server: ServerConfig {
            socket: SocketAddress::Path("/run/claviger/kms.sock".into()),
            mode: 0o600,
            group: None,
            allow_uids: vec![0],
            status_version: StatusVersion::V2,
        },
        storage: StorageConfig::File {
            path: "/var/lib/claviger/keyring".into(),
        },
        roots: vec![RootConfig {
            name: "local".to_owned(),
            kind: RootKindConfig::KeyFile {
                path: "/etc/claviger/root.key".into(),
            },
        }],
        kubernetes: KubernetesConfig::default(),
        metrics: MetricsConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 9465)),
            tls: None,
        },
        log: LogConfig {
            format: LogFormat::Json,
            level: LogLevel::Info,
        },
    }
}

/// The faults of a text; none if it is a configuration.
fn faults(text: &str) -> Vec<String> {
    let faults = config::parse(text).err().unwrap_or_default();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn the_smallest_configuration_has_the_documented_defaults() {
    assert_eq!(config::parse(SMALLEST).unwrap(), smallest());
}

#[test]
fn the_commented_example_is_the_smallest_configuration() {
    let example = config::read(Path::new("deploy/config.yaml")).unwrap();
    assert_eq!(example, smallest());
}

/// The example with all that it comments out.
fn uncommented(example: &str) -> String {
    let lines = example.lines().map(|line| match commented_out(line) {
        Some(rest) => format!("{}{rest}", &line[..line.len() - line.trim_start().len()]),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The setting that a line of the example comments out; prose is none.
fn commented_out(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("# ")?;
    let first = rest.trim_start_matches([' ', '-']).split(' ').next()?;
    let is_setting = first.ends_with(':')
        && !["`", "credential", "$schema"]
            .iter()
            .any(|word| rest.contains(word));
    is_setting.then_some(rest)
}

#[test]
fn what_the_example_comments_out_is_accepted_too() {
    let example = std::fs::read_to_string("deploy/config.yaml").unwrap();
    let config = config::parse(&uncommented(&example)).unwrap();
    assert_eq!(config.member.as_deref(), Some("cp1"));
    assert_eq!(config.server.group.as_deref(), Some("claviger"));
    assert_eq!(
        config.roots[1].kind,
        RootKindConfig::Recovery {
            file: "/root/recovery.key".into()
        }
    );
    let etcd = config.kubernetes.etcd.unwrap();
    assert_eq!((etcd.endpoints.len(), etcd.client.is_some()), (1, true));
    assert!(config.metrics.tls.is_some());
}

#[test]
fn every_fault_of_a_file_is_reported_at_once_with_its_place() {
    let text = "\
apiVersion: claviger.io/v1
kind: Pod
membr: cp1
server:
  socket: run/kms.sock
  mode: 0600
  allowUIDs: [0, root, 65534]
storage:
  etcd: {endpoints: [https://127.0.0.1:2379]}
roots:
- name: local
  keyFile: {path: root.key, credential: root}
- name: local
  recovery: {file: /root/recovery.key}
- name: bao
  vault: {address: https://bao:8200}
  maxStaleness: 72h
- keyFile: {path: /a}
log: {format: xml, level: inf}
metrics: {listen: localhost, tls: {certFile: /a}}
server: {}
";
    assert_eq!(
        faults(text),
        [
            "line 1, column 13: must be `claviger.io/v1alpha1`",
            "line 2, column 7: must be `ClavigerConfiguration`",
            "line 3, column 1: unknown field `membr`; did you mean `member`?",
            "line 5, column 11: must be an absolute path; `run/kms.sock` is relative",
            "line 6, column 9: expected text, found a number; put it in quotes",
            "line 7, column 18: expected a whole number from 0 to 4294967295, found text",
            "line 7, column 24: this uid stands for users that are unknown here; allow a real one",
            "line 9, column 9: storage `etcd` is not in this version; use `file`",
            "line 12, column 19: must be an absolute path; `root.key` is relative",
            "line 12, column 41: `path` or `credential`, not both",
            "line 13, column 3: two roots have the name `local`; names match slots",
            "line 16, column 10: `vault` is not in this version",
            "line 17, column 17: `maxStaleness` is not in this version",
            "line 18, column 3: `name` is missing",
            "line 19, column 15: must be one of json, text",
            "line 19, column 27: must be one of error, warn, info, debug, trace; did you mean `info`?",
            "line 20, column 19: must be an IP address and a port, such as 127.0.0.1:9465",
            "line 20, column 35: `certFile` needs `keyFile` beside it",
            "line 21, column 1: `server` stands here twice",
        ]
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        faults("member: cp1\n"),
        [
            "line 1, column 1: `apiVersion` is missing",
            "line 1, column 1: `kind` is missing",
            "line 1, column 1: `roots` is missing",
            "line 1, column 1: `storage` is missing; the simplest is {file: {path: …}}",
        ]
    );
    assert_eq!(
        faults(""),
        ["line 1, column 1: expected fields, found nothing"]
    );
}

/// A line that breaks one rule, and how the fault begins.
const BROKEN: &[(&str, &str)] = &[
    (
        "server: {socket: /run/../kms.sock}",
        "must not climb with `..`",
    ),
    (
        "server: {socket: /@claviger}",
        "kube-apiserver would take `/@…`",
    ),
    (
        "server: {socket: /run/claviger/}",
        "must name a file, not a directory",
    ),
    ("server: {socket: \"@\"}", "must be 1 to 63 letters"),
    ("server: {socket: \"@a/b\"}", "must be 1 to 63 letters"),
    (
        "server: {socket: \"@a\", mode: \"0600\"}",
        "an abstract socket has no mode",
    ),
    (
        "server: {mode: \"0700\"}",
        "must be from \"0600\" to \"0666\"",
    ),
    (
        "server: {mode: \"0400\"}",
        "must be from \"0600\" to \"0666\"",
    ),
    ("server: {mode: \"+600\"}", "must be octal digits"),
    ("server: {mode: \"0888\"}", "must be octal digits"),
    ("server: {allowUIDs: []}", "nobody could connect"),
    (
        "server: {allowUIDs: [4294967295]}",
        "this uid stands for users",
    ),
    ("server: {allowUIDs: [-1]}", "out of range"),
    ("server: {statusVersion: v3}", "must be one of v2, v2beta1"),
    ("member: \"\"", "must be 1 to 63 letters"),
    ("member: .cp1", "must be 1 to 63 letters"),
    (
        "member: true",
        "expected text, found true or false; put it in quotes",
    ),
    ("metrics: {tls: {}}", "`certFile` and `keyFile` are missing"),
    (
        "kubernetes: {kubeconfig: ~/.kube/config}",
        "must be an absolute path",
    ),
    (
        "kubernetes: {kubeconfig: \"/a\\u0000b\"}",
        "a path has no control characters",
    ),
    ("kubernetes: {etcd: {}}", "`endpoints` is missing"),
    (
        "kubernetes: {etcd: {endpoints: []}}",
        "at least one end point",
    ),
    (
        "kubernetes: {etcd: {endpoints: [etcd:2379]}}",
        "must be https://HOST:PORT",
    ),
    (
        "kubernetes: {etcd: {endpoints: [http://u@h]}}",
        "must be https://HOST:PORT",
    ),
    (
        "kubernetes: {etcd: {endpoints: [http://h], prefix: x}}",
        "must begin with `/`",
    ),
    ("log: {level: \"\"}", "must be one of error, warn"),
];

#[test]
fn one_rule_after_another() {
    for (more, fault) in BROKEN {
        let faults = faults(&format!("{SMALLEST}{more}\n"));
        assert_eq!(faults.len(), 1, "{more}: {faults:?}");
        let (place, message) = faults[0].split_once(": ").unwrap();
        assert!(message.starts_with(fault), "{more}: {message}");
        assert!(place.starts_with("line 5, column "), "{more}: {place}");
    }
}

#[test]
fn a_socket_path_has_at_most_107_bytes_and_its_last_part_80() {
    let with = |path: &str| format!("{SMALLEST}server: {{socket: {path}}}\n");
    let longest = format!("/{}/{}", "d".repeat(25), "s".repeat(80));
    assert_eq!(
        faults(&with(&format!("/d/{}", "s".repeat(81)))),
        ["line 5, column 18: its last part is 81 bytes long; it has at most 80"]
    );
    let config = config::parse(&with(&longest)).unwrap();
    assert_eq!(
        config.server.socket,
        SocketAddress::Path(longest.clone().into())
    );
    assert_eq!(
        faults(&with(&format!("{longest}s"))),
        ["line 5, column 18: is 108 bytes long; a socket's path has at most 107"]
    );
}

#[test]
fn storage_and_roots_are_of_exactly_one_kind() {
    let with = |storage: &str, roots: &str| {
        faults(&format!(
            "apiVersion: claviger.io/v1alpha1\nkind: ClavigerConfiguration\n{storage}\n{roots}\n"
        ))
    };
    let storage = "storage: {file: {path: /k}}";
    let roots = "roots: [{name: a, keyFile: {path: /a}}]";
    for (storage, roots, fault) in [
        (
            "storage: {}",
            roots,
            "line 3, column 10: one kind of storage is needed: `file`",
        ),
        (
            "storage: {file: {path: /k}, etcd: {}}",
            roots,
            "line 3, column 35: storage `etcd` is not in this version; use `file`",
        ),
        (
            "storage: {file: {}}",
            roots,
            "line 3, column 17: `path` is missing",
        ),
        (
            "storage: {file: {path: /k, replica: yes}}",
            roots,
            "line 3, column 37: a replica comes with many nodes, which are not in this version",
        ),
        (
            storage,
            "roots: []",
            "line 4, column 8: at least one root is needed",
        ),
        (
            storage,
            "roots: [{name: a}]",
            "line 4, column 9: a root needs a kind: `keyFile` or `recovery`",
        ),
        (
            storage,
            "roots: [{name: a, keyFile: {path: /a}, recovery: {file: /b}}]",
            "line 4, column 50: a root is of one kind; this is a second one",
        ),
        (
            storage,
            "roots: [{name: a, keyFile: {}}]",
            "line 4, column 28: `path` or `credential` is needed",
        ),
        (
            storage,
            "roots: [{name: a, keyFile: {credential: ../a}}]",
            "line 4, column 41: must be 1 to 63 letters, digits, `.`, `_` or `-`, a letter or digit first",
        ),
        (
            storage,
            "roots: [{name: recovery, keyFile: {path: /a}}]",
            "line 4, column 9: `recovery` is the name of the recovery key's slot; choose another",
        ),
        (
            storage,
            "roots: [{name: a, yubikey: {}}]",
            "line 4, column 9: a root needs a kind: `keyFile` or `recovery`",
        ),
    ] {
        assert_eq!(with(storage, roots)[0], fault, "{storage} {roots}");
    }
}

#[test]
fn each_kind_of_a_later_version_says_so_at_its_line() {
    for kind in [
        "vault",
        "pkcs11",
        "awsKMS",
        "azureKeyVault",
        "gcpKMS",
        "passphrase",
    ] {
        let text = SMALLEST.replace(
            "roots: [",
            &format!("roots: [{{name: x, {kind}: {{a: 1}}}}, "),
        );
        assert_eq!(
            faults(&text),
            [format!(
                "line 4, column {}: `{kind}` is not in this version",
                21 + kind.len()
            )]
        );
    }
}

#[test]
fn what_works_besides() {
    let text = "\
apiVersion: claviger.io/v1alpha1
kind: ClavigerConfiguration
member: cp1.example
server: {socket: \"@claviger\", allowUIDs: [0, 1000], statusVersion: v2beta1}
storage: {file: {path: /k, replica: false}}
roots:
- {name: sealed, keyFile: {credential: root.key}}
- {name: recovery, recovery: {file: /root/recovery.key}}
metrics: {listen: \"[::]:0\", tls: {certFile: /c, keyFile: /k}}
log: {format: text, level: trace}
";
    let config = config::parse(text).unwrap();
    assert_eq!(config.member_name(), "cp1.example");
    assert_eq!(
        config.server.socket,
        SocketAddress::Abstract("claviger".to_owned())
    );
    assert_eq!(config.server.allow_uids, [0, 1000]);
    assert_eq!(config.server.status_version.as_str(), "v2beta1");
    assert_eq!(
        config.roots[0].kind,
        RootKindConfig::Credential {
            name: "root.key".to_owned()
        }
    );
    assert_eq!(config.metrics.listen.port(), 0);
    assert_eq!(
        (config.log.format, config.log.level),
        (LogFormat::Text, LogLevel::Trace)
    );
}

#[test]
fn the_default_member_is_the_host() {
    let name = config::parse(SMALLEST).unwrap().member_name();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(name, host.trim_end());
}

#[test]
fn files_that_are_too_long_or_not_text_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        match config::read(&path) {
            Err(ReadError::Faults(faults)) => faults[0].to_string(),
            other => panic!("{other:?}"),
        }
    };
    let padding = MAX_LEN - SMALLEST.len();
    std::fs::write(&path, format!("{SMALLEST}{}", "#".repeat(padding))).unwrap();
    assert_eq!(config::read(&path).unwrap(), smallest());
    let too_long = format!("{SMALLEST}{}", "#".repeat(padding + 1));
    assert_eq!(
        refused(too_long.as_bytes()),
        "line 1, column 1: the file is longer than 64 KiB"
    );
    assert_eq!(
        faults(&too_long)[0],
        "line 1, column 1: the file is longer than 64 KiB"
    );
    assert_eq!(
        refused(b"a: 1\nb: \xff\n"),
        "line 2, column 1: this line is not UTF-8 text"
    );
    assert!(matches!(
        config::read(&dir.path().join("none")),
        Err(ReadError::Io(_))
    ));
}

/// Text that looks like a configuration, so that faults are met deep inside one.
fn nearly_a_configuration() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("server:\n"),
        Just("  socket: "),
        Just("roots:\n"),
        Just("- name: "),
        Just("  keyFile: {path: "),
        Just("  recovery: {file: "),
        Just("storage: {file: {path: "),
        Just("kubernetes: {etcd: {endpoints: ["),
        Just("/a"),
        Just("}"),
        Just("]"),
        Just("\n"),
        Just("&a "),
        Just("*a"),
        Just("<<: "),
        Just("!!binary "),
        Just("? "),
        Just("\"\\0\""),
        Just("1e999"),
        Just("---\n"),
        Just("~"),
        Just("é\u{1b}"),
        Just(SMALLEST),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn assert_parsed_or_explained(text: &str) {
    if let Err(faults) = config::parse(text) {
        assert!(!faults.is_empty());
        assert!(faults.is_sorted());
        for fault in faults {
            assert!(fault.line >= 1 && fault.column >= 1 && !fault.message.is_empty());
            assert!(!fault.message.contains(char::is_control), "{fault:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        assert_parsed_or_explained(&text);
    }

    #[test]
    fn nothing_like_a_configuration_makes_it_panic(text in nearly_a_configuration()) {
        assert_parsed_or_explained(&text);
    }

    #[test]
    fn good_values_survive(
        member in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}",
        socket in "(/[a-zA-Z0-9 ._#:'-]{0,20}){0,3}/[a-z][a-z #:]{0,5}[a-z]",
        uids in prop::collection::vec(0u32..65_534, 1..5),
        mode in 0u32..=0o66,
    ) {
        prop_assume!(!socket.contains("/../"));
        let mode = 0o600 | (mode & 0o66);
        let text = format!(
            "{SMALLEST}member: {member:?}\nserver: {{socket: {socket:?}, allowUIDs: {uids:?}, mode: \"0{mode:o}\"}}\n"
        );
        let config = config::parse(&text).unwrap();
        prop_assert_eq!(config.member.as_ref(), Some(&member));
        prop_assert_eq!(config.server.socket, SocketAddress::Path(socket.into()));
        prop_assert_eq!(config.server.allow_uids, uids);
        prop_assert_eq!(config.server.mode, mode);
    }
}
