//! TLS: the configured certificate, the newest good one, and never plain text instead.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use claviger::config::TlsConfig;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use crate::support::{ANY_PORT, Served, ask, bound, connect, full_metrics, start};

/// A self-signed certificate for 127.0.0.1 and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        Self {
            cert: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }
}

/// Where a configuration looks for them; there is nothing yet.
pub(crate) fn files_in(dir: &Path) -> TlsConfig {
    TlsConfig {
        cert_file: dir.join("tls.crt"),
        key_file: dir.join("tls.key"),
    }
}

/// Replaces a file as tools do: another file under the same name.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(&new, path).unwrap();
}

fn served_with(identity: &Identity) -> (Served, TlsConfig, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let files = files_in(dir.path());
    replace(&files.cert_file, &identity.cert);
    replace(&files.key_file, &identity.key);
    (Served::start(Some(files.clone())), files, dir)
}

/// A client that trusts one certificate alone.
fn client(
    address: SocketAddr,
    trusted: &Identity,
    version: &'static SupportedProtocolVersion,
) -> StreamOwned<ClientConnection, std::net::TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.cert.as_bytes()).unwrap())
        .unwrap();
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    StreamOwned::new(
        ClientConnection::new(Arc::new(config), name).unwrap(),
        connect(address),
    )
}

/// Whether the server shows this very certificate.
fn shows(address: SocketAddr, identity: &Identity) -> bool {
    let mut client = client(address, identity, &TLS13);
    match client.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") {
        Err(error) => {
            assert!(error.to_string().contains("certificate"), "{error}");
            false
        }
        Ok(()) => {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            true
        }
    }
}

#[test]
fn a_scrape_over_each_version() {
    let identity = Identity::new();
    let (served, _, _dir) = served_with(&identity);
    let versions = [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ];
    for (offered, version) in versions {
        let mut client = client(served.address, &identity, offered);
        let answer = ask(&mut client, "GET", "/metrics");
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains("\nclaviger_keyring_open 1\n"));
        assert_eq!(client.conn.protocol_version(), Some(version));
    }
}

#[test]
fn plain_http_gets_nothing() {
    let identity = Identity::new();
    let (served, _, _dir) = served_with(&identity);
    let mut plain = connect(served.address);
    plain
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(
        !String::from_utf8_lossy(&answer).contains("HTTP"),
        "{answer:?}"
    );
    assert!(shows(served.address, &identity));
}

#[test]
fn a_changed_certificate_serves_the_next_connection() {
    let (old, new) = (Identity::new(), Identity::new());
    let (served, files, _dir) = served_with(&old);
    assert!(shows(served.address, &old));

    // One file at a time: between the two they do not fit together, and the old pair stays.
    replace(&files.cert_file, &new.cert);
    assert!(shows(served.address, &old));
    replace(&files.key_file, &new.key);
    assert!(shows(served.address, &new));
    assert!(!shows(served.address, &old));

    for broken in [
        "",
        "not PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        replace(&files.cert_file, broken);
        assert!(shows(served.address, &new), "after {broken:?}");
    }
    fs::remove_file(&files.key_file).unwrap();
    assert!(shows(served.address, &new));
}

#[test]
fn without_a_certificate_nothing_is_served_until_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let files = files_in(dir.path());
    let (server, shutdown) = start(
        ANY_PORT.parse().unwrap(),
        Some(files.clone()),
        Arc::new(full_metrics()),
    );
    let identity = Identity::new();
    replace(&files.cert_file, &identity.cert);
    replace(&files.key_file, &identity.key);
    let address = bound(&server);
    assert!(shows(address, &identity));
    shutdown.cancel();
    server.join();
}
