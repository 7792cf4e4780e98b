//! TLS to kube-apiserver: who is taken for it, what we show, and which HTTP is spoken. A double
//! answers with what it saw.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use claviger::migrate::api::{CallError, NoAnswer};
use claviger::migrate::kubeconfig::{self, Place};
use data_encoding::BASE64;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for this name, and its key.
fn issue(authority: &Authority, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap(), key)
}

/// A server whose certificate has this name. Returns its port.
async fn serve(authority: &Authority, name: &str, spoken: &[&[u8]]) -> u16 {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build();
    let (certificate, key) = issue(authority, name);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .unwrap()
        .with_client_cert_verifier(clients.unwrap())
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = spoken.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            // A client that does not trust it goes away.
            tokio::spawn(async move { answer(acceptor, tcp).await.ok() });
        }
    });
    port
}

async fn answer(acceptor: TlsAcceptor, tcp: tokio::net::TcpStream) -> Result<(), Infallible> {
    let Ok(tls) = acceptor.accept(tcp).await else {
        return Ok(());
    };
    let session = tls.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let shown = session.peer_certificates().map_or(0, <[_]>::len);
    let asked_for = session.server_name().map(str::to_owned);
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = json!({
            "http": format!("{:?}", request.version()), "certificates": shown,
            "name": asked_for, "path": request.uri().path(),
            "authorized": request.headers().contains_key(header::AUTHORIZATION),
        });
        async move {
            let body = Full::new(Bytes::from(seen.to_string()));
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    let io = TokioIo::new(tls);
    if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service);
        connection.await.ok();
    } else {
        let connection = http1::Builder::new().serve_connection(io, service);
        connection.await.ok();
    }
    Ok(())
}

/// What the server saw of somebody.
async fn seen(dir: &Path, cluster: &Value, user: &Value) -> Result<Value, CallError> {
    let kubeconfig = json!({
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    let file = dir.join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let place = Place {
        files: vec![file],
        by: "the test",
    };
    let cluster = kubeconfig::open(&place, Duration::from_secs(60)).await;
    let body = cluster
        .unwrap()
        .api
        .get("/seen", "application/json")
        .await?;
    Ok(serde_json::from_slice(&body).unwrap())
}

fn cluster(port: u16, authority: &Authority, more: &Value) -> Value {
    let mut cluster = json!({
        "server": format!("https://127.0.0.1:{port}/prefix/"),
        "certificate-authority-data": BASE64.encode(authority.pem().as_bytes()),
    });
    for (name, value) in more.as_object().unwrap() {
        cluster[name] = value.clone();
    }
    cluster
}

#[track_caller]
fn distrusts(seen: Result<Value, CallError>, why: &str) {
    match seen {
        Err(CallError::NoAnswer(NoAnswer::Unreachable(said))) => {
            assert!(said.contains(why), "{said}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_offered_and_http1_where_it_is_not() {
    let (dir, ours) = (tempfile::tempdir().unwrap(), authority());
    let token = json!({"token": "t"});
    for (spoken, http) in [
        (&[&b"h2"[..], b"http/1.1"][..], "HTTP/2.0"),
        (&[b"http/1.1"], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let port = serve(&ours, "127.0.0.1", spoken).await;
        let seen = seen(dir.path(), &cluster(port, &ours, &json!({})), &token).await;
        let expected = json!({
            "http": http, "certificates": 0, "name": null, "path": "/prefix/seen",
            "authorized": true,
        });
        assert_eq!(seen.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_certificate_is_shown() {
    let (dir, ours) = (tempfile::tempdir().unwrap(), authority());
    let (certificate, key) = issue(&ours, "admin");
    let user = json!({
        "client-certificate-data": BASE64.encode(certificate.pem().as_bytes()),
        "client-key-data": BASE64.encode(key.serialize_pem().as_bytes()),
    });
    let port = serve(&ours, "127.0.0.1", &[b"h2"]).await;
    let with = seen(dir.path(), &cluster(port, &ours, &json!({})), &user).await;
    let with = with.unwrap();
    assert_eq!(
        (&with["certificates"], &with["authorized"]),
        (&1.into(), &false.into())
    );
}

#[tokio::test]
async fn a_program_may_give_a_certificate() {
    let (dir, ours) = (tempfile::tempdir().unwrap(), authority());
    let (certificate, key) = issue(&ours, "admin");
    let printed = json!({
        "apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential",
        "status": {
            "clientCertificateData": certificate.pem(), "clientKeyData": key.serialize_pem(),
        },
    });
    std::fs::write(dir.path().join("printed"), printed.to_string()).unwrap();
    let user = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1beta1", "command": "cat",
        "args": [dir.path().join("printed")],
    }});
    let port = serve(&ours, "127.0.0.1", &[b"h2"]).await;
    let with = seen(dir.path(), &cluster(port, &ours, &json!({})), &user).await;
    assert_eq!(with.unwrap()["certificates"], 1);
}

#[tokio::test]
async fn who_is_not_recognised_is_told_nothing() {
    let (dir, ours) = (tempfile::tempdir().unwrap(), authority());
    let token = json!({"token": "t"});
    let port = serve(&ours, "127.0.0.1", &[b"h2"]).await;
    let other = cluster(port, &authority(), &json!({}));
    distrusts(
        seen(dir.path(), &other, &token).await,
        "invalid peer certificate",
    );
    let mut insecure = cluster(port, &ours, &json!({"insecure-skip-tls-verify": true}));
    insecure
        .as_object_mut()
        .unwrap()
        .remove("certificate-authority-data");
    let insecure = seen(dir.path(), &insecure, &token).await;
    assert_eq!(insecure.unwrap()["authorized"], true);
}

#[tokio::test]
async fn a_server_may_have_another_name_than_its_address() {
    let (dir, ours) = (tempfile::tempdir().unwrap(), authority());
    let token = json!({"token": "t"});
    let port = serve(&ours, "kube.test", &[b"h2"]).await;
    let unnamed = cluster(port, &ours, &json!({}));
    let why = "not valid for name";
    distrusts(seen(dir.path(), &unnamed, &token).await, why);
    let named = cluster(port, &ours, &json!({"tls-server-name": "kube.test"}));
    let named = seen(dir.path(), &named, &token).await.unwrap();
    assert_eq!(named["name"], "kube.test");
    let wrong = cluster(port, &ours, &json!({"tls-server-name": "other.test"}));
    distrusts(seen(dir.path(), &wrong, &token).await, why);
}
