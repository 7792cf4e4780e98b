//! What the command says where it cannot do its work, or not all of it. Objects lie in a real etcd;
//! kube-apiserver's double answers what a real one cannot be told to.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::cluster::Etcd;
use crate::double::{Double, Reply, tell};
use crate::process::{Process, command, folder};
use crate::stand::{Migrated, migrate};

/// An etcd with plain Secrets in it, and a node without a keyring.
struct Node {
    etcd: Etcd,
    dir: TempDir,
}

impl Node {
    fn start() -> Option<Self> {
        let dir = folder();
        let etcd = Etcd::start(dir.path())?;
        for name in ["a", "b", "c"] {
            etcd.put(&format!("/registry/secrets/test/{name}"), b"k8s\0 plain");
        }
        let config = json!({
            "apiVersion": "claviger.io/v1alpha1", "kind": "ClavigerConfiguration",
            "storage": {"file": {"path": dir.path().join("keyring")}},
            "roots": [{"name": "local", "keyFile": {"path": dir.path().join("root.key")}}],
        });
        fs::write(dir.path().join("config.yaml"), config.to_string()).unwrap();
        Some(Self { etcd, dir })
    }

    /// A kubeconfig of somebody at this port.
    fn kubeconfig(&self, port: u16, user: &Value) -> PathBuf {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("http://127.0.0.1:{port}"),
            }}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        self.write(&config.to_string())
    }

    fn write(&self, kubeconfig: &str) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        fs::write(&path, kubeconfig).unwrap();
        path
    }

    /// Everything plain is to be moved.
    async fn migrate(&self, kubeconfig: &Path) -> Migrated {
        let (dir, url) = (self.dir.path().to_owned(), self.etcd.url());
        let kubeconfig = kubeconfig.to_owned();
        let run = move || {
            let plaintext = ["--key", "plaintext", "--assume-converged"];
            migrate(&dir, &url, &kubeconfig, &plaintext)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }
}

/// Ends before this test does.
const LONG_AGO: i32 = 2020;

/// A client certificate that expired, as a kubeconfig has it.
fn expired() -> Value {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["admin".to_owned()]).unwrap();
    params.not_before = date_time_ymd(LONG_AGO - 1, 1, 1);
    params.not_after = date_time_ymd(LONG_AGO, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    json!({
        "client-certificate-data": BASE64.encode(certificate.pem().as_bytes()),
        "client-key-data": BASE64.encode(key.serialize_pem().as_bytes()),
    })
}

#[tokio::test]
async fn a_kubeconfig_that_is_of_no_use_is_a_fault_of_usage() {
    let Some(node) = Node::start() else {
        return;
    };
    let secret = "c2VjcmV0LXRva2VuLW9mLXRoZS10ZXN0";
    let text = format!("users:\n- name: x\n  user:\n    token: {secret}\n   bad: [\n");
    for (text, says) in [
        (&*text, "kubeconfig (--kubeconfig)"),
        ("[1, 2]", "no kubeconfig"),
        ("{}", "it has no current-context"),
        (
            "current-context: x",
            "current-context `x` is not among its contexts",
        ),
    ] {
        let failed = node.migrate(&node.write(text)).await.exits(2);
        assert!(!failed.stderr.contains(secret), "{failed:?}");
        failed.says(&[
            "reading the kubeconfig",
            says,
            "name another one with --kubeconfig",
        ]);
    }
    let absent = node.migrate(Path::new("/nowhere/kubeconfig")).await;
    absent
        .exits(2)
        .says(&["/nowhere/kubeconfig", "No such file"]);
}

#[tokio::test]
async fn an_apiserver_that_is_away_is_said_to_be_so() {
    let Some(node) = Node::start() else {
        return;
    };
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let kubeconfig = node.kubeconfig(port, &json!({"token": "t"}));
    let away = node.migrate(&kubeconfig).await.exits(5);
    away.says(&["what it serves", "Connection refused", "check the server"]);
}

#[tokio::test]
async fn credentials_that_expired_are_said_to_have_expired() {
    let Some(node) = Node::start() else {
        return;
    };
    let double = Double::start(|_, _| Reply::Refuse(401, "Unauthorized")).await;
    let by_token = node.kubeconfig(double.port, &json!({"token": "t"}));
    let failed = node.migrate(&by_token).await.exits(2);
    failed.says(&["401 Unauthorized", "certificate or token"]);
    let by_certificate = node.kubeconfig(double.port, &expired());
    let failed = node.migrate(&by_certificate).await.exits(2);
    let when = format!("certificate expired on {LONG_AGO}-01-01T00:00:00Z");
    failed.says(&["401 Unauthorized", &when, "kubeadm certs renew"]);
}

#[tokio::test]
async fn what_failed_is_listed_and_the_audit_decides() {
    let Some(node) = Node::start() else {
        return;
    };
    // It says 200 of two objects, but writes nothing: the audit is not deceived.
    let double = Double::start(|path, _| match path.ends_with("/b") {
        true => Reply::Refuse(422, "data: Invalid value"),
        false => Reply::Ok,
    })
    .await;
    let kubeconfig = node.kubeconfig(double.port, &json!({"token": "t"}));
    let partly = node.migrate(&kubeconfig).await.exits(6);
    assert_eq!(partly.counts(), (2, 1, Some(3)), "{partly:?}");
    let wanted = json!([{"object": "secrets/test/b", "reason": "422 data: Invalid value"}]);
    assert_eq!(partly.answer["failures"], wanted);
    assert_eq!(partly.answer["rows"][0]["protectedBy"], "plaintext");
    assert_eq!(double.calls().len(), 3);
}

#[tokio::test]
async fn an_interruption_waits_for_what_is_under_way_and_says_how_to_go_on() {
    let Some(node) = Node::start() else {
        return;
    };
    let told = Arc::<Notify>::default();
    let when = told.clone();
    let double = Double::start(move |_, _| Reply::When(when.clone())).await;
    let kubeconfig = node.kubeconfig(double.port, &json!({"token": "t"}));
    let mut migrate = command(env!("CARGO_BIN_EXE_claviger"));
    migrate
        .arg("--config")
        .arg(node.dir.path().join("config.yaml"));
    migrate.args(["migrate", "--endpoints", &node.etcd.url(), "--kubeconfig"]);
    migrate.arg(kubeconfig);
    migrate.args(["--key", "plaintext", "--assume-converged"]);
    let process = Process::start("claviger migrate", migrate);
    double.came(3).await;
    process.signal(Signal::INT);
    let process = blocking(process, |process| {
        process.line("that it waits", |line| {
            line.contains("interrupted: waiting")
        });
    });
    let process = process.await;
    let ended = blocking(process, |process| {
        process.line("what it did", |line| {
            line.contains("3 rewritten, 0 deleted")
        });
        process.line("why it ended", |line| line == "stopped: interrupted");
        process.line("how to go on", |line| {
            line.contains("claviger migrate goes on")
        });
        assert_eq!(process.end().code(), Some(6));
    });
    tokio::select! {
        _ = ended => {}
        () = tell(&told) => {}
    }
}

/// Waits for a process while the double works on.
async fn blocking(
    mut process: Process,
    wait: impl FnOnce(&mut Process) + Send + 'static,
) -> Process {
    let waiting = move || {
        wait(&mut process);
        process
    };
    tokio::task::spawn_blocking(waiting).await.unwrap()
}

#[tokio::test]
async fn values_that_nobody_can_read_are_never_called_clean() {
    let Some(node) = Node::start() else {
        return;
    };
    for name in ["a", "b", "c"] {
        let key = format!("/registry/secrets/test/{name}");
        node.etcd.put(&key, b"k8s:enc:aescbc:v1:key1:encrypted");
    }
    let double = Double::with_timeout(|_, _| Reply::Ok, Duration::from_secs(30)).await;
    let kubeconfig = node.kubeconfig(double.port, &json!({"token": "t"}));
    node.migrate(&kubeconfig).await.exits(0);
    node.etcd.put(
        "/registry/secrets/test/broken",
        b"k8s:enc:kms:v2:x:\xff\xff",
    );
    let gap = node.migrate(&kubeconfig).await.exits(3);
    assert_eq!(gap.answer["exceptions"], 1);
    assert_eq!(double.calls().len(), 0);
}
