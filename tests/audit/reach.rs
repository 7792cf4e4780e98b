//! etcd by TLS, and every way in which it cannot be reached.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

use crate::components::component;
use crate::etcds::{audit, file};
use crate::port::Port;
use crate::process::{Process, command, folder};
use crate::web::Http;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes NAME.crt and NAME.key, for 127.0.0.1.
fn certificate(dir: &Path, name: &str, authority: &Authority, expired: bool) {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    if expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    file(dir, &format!("{name}.crt"), &certificate.pem());
    file(dir, &format!("{name}.key"), &key.serialize_pem());
}

/// An etcd that wants client certificates.
struct Guarded {
    port: Port,
    dir: TempDir,
    _process: Process,
}

impl Guarded {
    fn start(expired: bool) -> Option<Self> {
        let program = component("etcd")?;
        let dir = folder();
        let authority = authority();
        file(dir.path(), "ca.crt", &authority.pem());
        certificate(dir.path(), "server", &authority, expired);
        certificate(dir.path(), "client", &authority, false);
        certificate(dir.path(), "expired", &authority, true);
        file(dir.path(), "stranger.crt", &self::authority().pem());
        let (port, peers, health) = (Port::reserve(), Port::reserve(), Port::reserve());
        let url = format!("https://127.0.0.1:{}", port.number());
        let peer_url = format!("http://127.0.0.1:{}", peers.number());
        let health_url = format!("http://127.0.0.1:{}", health.number());
        let mut etcd = command(program);
        etcd.current_dir(dir.path());
        etcd.args([
            "--data-dir",
            "etcd",
            "--client-cert-auth",
            "--socket-reuse-port",
        ]);
        etcd.args(["--trusted-ca-file", "ca.crt", "--cert-file", "server.crt"]);
        etcd.args([
            "--key-file",
            "server.key",
            "--unsafe-no-fsync",
            "--log-level",
            "warn",
        ]);
        etcd.args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ]);
        etcd.args(["--listen-peer-urls", &peer_url]);
        etcd.args(["--initial-advertise-peer-urls", &peer_url]);
        etcd.args(["--initial-cluster", &format!("default={peer_url}")]);
        etcd.args(["--listen-metrics-urls", &health_url]);
        let process = Process::start("etcd", etcd);
        Http::plain(health.number()).wait_for(&process, "/health", 200, "true");
        Some(Self {
            port,
            dir,
            _process: process,
        })
    }

    /// Audits it with these files, and returns the exit code and what was said.
    fn audit(&self, ca: &str, client: Option<&str>) -> (i32, String) {
        let path = |name: String| self.dir.path().join(name).display().to_string();
        let url = format!("https://127.0.0.1:{}", self.port.number());
        let mut arguments = vec!["--endpoints".to_owned(), url, "--cacert".to_owned()];
        arguments.push(path(ca.to_owned()));
        if let Some(name) = client {
            arguments.extend(["--cert".to_owned(), path(format!("{name}.crt"))]);
            arguments.extend(["--cert-key".to_owned(), path(format!("{name}.key"))]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = audit(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    }
}

#[test]
fn etcd_is_reached_by_a_client_certificate_and_by_nothing_less() {
    let Some(etcd) = Guarded::start(false) else {
        return;
    };
    assert_eq!(etcd.audit("ca.crt", Some("client")).0, 0);
    for (ca, client, text) in [
        ("stranger.crt", Some("client"), "invalid peer certificate"),
        ("ca.crt", None, "ertificate"),
        ("ca.crt", Some("expired"), "ertificate"),
    ] {
        let (code, said) = etcd.audit(ca, client);
        assert_eq!(code, 5, "{said}");
        assert!(said.contains(text), "{text} is not in {said}");
        assert!(said.contains("next:"), "{said}");
    }
    let (code, said) = etcd.audit("absent.crt", Some("client"));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("absent.crt"), "{said}");
}

#[test]
fn an_expired_server_is_not_trusted() {
    let Some(etcd) = Guarded::start(true) else {
        return;
    };
    let (code, said) = etcd.audit("ca.crt", Some("client"));
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("expired"), "{said}");
}

#[test]
fn nobody_at_any_end_point_is_said_of_each() {
    let (one, other) = (Port::reserve(), Port::reserve());
    let urls = [&one, &other].map(|port| format!("http://127.0.0.1:{}", port.number()));
    let output = audit(&["--endpoints", &urls.join(",")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    for url in urls {
        assert!(said.contains(&url), "{said}");
    }
    assert!(said.contains("refused"), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_cluster_that_nobody_names_is_a_mistake_of_use() {
    let dir = folder();
    let manifest = file(dir.path(), "kube-apiserver.yaml", "kind: Pod");
    let config = format!(
        "apiVersion: claviger.io/v1alpha1\nkind: ClavigerConfiguration\n\
         storage: {{file: {{path: /nowhere/keyring}}}}\n\
         roots: [{{name: local, keyFile: {{path: /nowhere/root.key}}}}]\n\
         kubernetes: {{apiserverManifest: {manifest}}}\n"
    );
    let config = file(dir.path(), "config.yaml", &config);
    let output = audit(&["--config", &config]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--endpoints"), "{said}");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "it wrote something"
    );
}
